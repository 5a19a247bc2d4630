//! How often changed configurations are obeyed: a few at once, then at intervals, so that a storm of them leaves commits the time
//! that they need. Times go in, a pause comes out.

use std::time::{Duration, Instant};

/// So many are obeyed at once after a quiet time.
const AT_ONCE: u32 = 4;
/// Then one in this time: a repository that is replaced needs a moment to look at itself and to commit what is due.
const EVERY: Duration = Duration::from_secs(3);

/// What was obeyed lately.
#[derive(Debug, Default)]
pub struct Pace {
    /// When it will be as if nothing had been obeyed.
    quiet_from: Option<Instant>,
}

impl Pace {
    /// How long the next one has to wait.
    pub fn pause(&self, now: Instant) -> Duration {
        let owed = self.quiet_from.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        owed.saturating_sub(EVERY * (AT_ONCE - 1))
    }

    /// One was obeyed, and changed something.
    pub fn obeyed(&mut self, now: Instant) {
        self.quiet_from = Some(self.quiet_from.map_or(now, |at| at.max(now)) + EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_obeyed_at_once_and_a_storm_at_intervals() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        for _ in 0..AT_ONCE {
            assert_eq!(pace.pause(start), Duration::ZERO);
            pace.obeyed(start);
        }
        assert_eq!(pace.pause(start), EVERY);
        let mut now = start;
        for _ in 0..50 {
            now += pace.pause(now);
            pace.obeyed(now);
        }
        assert_eq!(now - start, EVERY * 50);
        // After a quiet time as at the beginning.
        now += EVERY * AT_ONCE;
        assert_eq!(pace.pause(now), Duration::ZERO);
        pace.obeyed(now);
        assert_eq!(pace.pause(now), Duration::ZERO);
    }
}
