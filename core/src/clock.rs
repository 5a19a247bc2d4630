//! The wall clock, which anybody may set to anything at any time.
//!
//! Times that are stored are wall-clock times, because they must outlive the process. None of them is believed
//! further than the longest pause that it can stand for: a clock that was set back a year would otherwise stop
//! a retry for a year. What is measured within one run is measured with [`Instant`], which nobody can set.

mod moment;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

pub use moment::Moment;

/// A difference between the two clocks that is too small to be a jump.
const SLACK_MS: i64 = 1_000;

/// Nanoseconds since 1970; 0 before, and the year 2262 after.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    now_ns() / 1_000_000
}

/// The present moment, never before 1970: Git knows no commits from before.
pub fn now() -> Timestamp {
    Timestamp::from_nanosecond(i128::from(now_ns())).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// How long to wait for a stored time. A time further away than `longest`, the longest pause that it can stand
/// for, was stored under another clock and has come already.
pub fn left_until(at_ms: i64, now_ms: i64, longest: Duration) -> Duration {
    let left = Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0));
    if left > longest { Duration::ZERO } else { left }
}

/// Notices when the wall clock is set back while the program runs.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    seen_ms: i64,
    at: Instant,
}

impl Watch {
    /// Begins at this moment.
    pub fn new(wall_ms: i64, now: Instant) -> Self {
        Self { seen_ms: wall_ms, at: now }
    }

    /// The wall clock's time now if it was set back since the last look.
    pub fn went_back(&mut self, wall_ms: i64, now: Instant) -> Option<i64> {
        let passed = now.saturating_duration_since(self.at).as_millis();
        let expected = self.seen_ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        *self = Self::new(wall_ms, now);
        (wall_ms < expected.saturating_sub(SLACK_MS)).then_some(wall_ms)
    }
}

/// Milliseconds of a clock that nobody can set and that goes on while the machine sleeps: unlike [`Instant`], so that a
/// night's sleep is not taken for a clock that was set forward. `None` where the system has none.
pub fn awake_and_asleep_ms() -> Option<i64> {
    #[cfg(target_os = "linux")]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Some(now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// How far the wall clock was set, in milliseconds: forward, or back if negative. Each look is `(wall, steady)`. Less than
/// `slack_ms` is no jump: clocks are corrected all the time.
pub fn jump_between(before: (i64, i64), now: (i64, i64), slack_ms: i64) -> Option<i64> {
    let wall = now.0.saturating_sub(before.0);
    let passed = now.1.saturating_sub(before.1);
    let jump = wall.saturating_sub(passed);
    (jump.saturating_abs() > slack_ms).then_some(jump)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_what_the_wall_clock_went_beyond_the_time_that_passed() {
        let jump = |before, now| jump_between(before, now, 1000);
        assert_eq!(jump((10_000, 0), (25_000, 15_000)), None);
        assert_eq!(jump((10_000, 0), (26_000, 15_000)), None, "a correction");
        assert_eq!(jump((10_000, 0), (3_625_001, 15_000)), Some(3_600_001));
        assert_eq!(jump((10_000, 0), (0, 15_000)), Some(-25_000));
        assert_eq!(jump((i64::MIN, 0), (i64::MAX, 0)), Some(i64::MAX));
        assert_eq!(jump((i64::MAX, i64::MIN), (i64::MIN, i64::MAX)), Some(i64::MIN));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_clock_that_nobody_sets_goes_forward() {
        let (first, second) = (awake_and_asleep_ms().unwrap(), awake_and_asleep_ms().unwrap());
        assert!(0 < first && first <= second);
    }

    const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

    #[test]
    fn a_stored_time_is_never_waited_for_longer_than_its_longest_pause() {
        let longest = Duration::from_secs(300);
        let now = 1_800_000_000_000;
        let left = |at| left_until(at, now, longest);
        assert_eq!(left(now + 1_000), Duration::from_secs(1));
        assert_eq!(left(now + 300_000), longest);
        assert_eq!(left(now + 300_001), Duration::ZERO);
        assert_eq!(left(now + YEAR_MS), Duration::ZERO);
        assert_eq!(left(i64::MAX), Duration::ZERO);
        for past in [now, now - 1, now - YEAR_MS, 0, i64::MIN] {
            assert_eq!(left(past), Duration::ZERO);
        }
        assert_eq!(left_until(i64::MAX, i64::MIN, longest), Duration::ZERO);
    }

    #[test]
    fn only_a_clock_that_goes_back_is_noticed() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(1_000_000_000, start);
        assert_eq!(watch.went_back(1_000_010_000, later(10)), None);
        assert_eq!(watch.went_back(1_000_019_500, later(20)), None, "drift is no jump");
        assert_eq!(watch.went_back(1_000_019_500 + YEAR_MS, later(20)), None, "forward");
        assert_eq!(watch.went_back(1_000_029_500, later(30)), Some(1_000_029_500), "and back");
        assert_eq!(watch.went_back(1_000_029_500, later(33)), Some(1_000_029_500), "it stood still");
        assert_eq!(watch.went_back(i64::MIN, later(34)), Some(i64::MIN));
        assert_eq!(watch.went_back(i64::MAX, later(35)), None);
    }

    #[test]
    fn the_present_is_after_the_beginning() {
        assert!(now() > Timestamp::UNIX_EPOCH);
        assert!((now_ms() - now_ns() / 1_000_000).abs() < 10_000);
    }
}
