//! When a place is inspected next: a pure function of what was done, what is wanted, and the time.
//!
//! The first time comes a part of a period after there is something to look at, another part for each place, so that ten
//! repositories do not begin at once; a restart changes nothing about it. What found something wrong is repeated sooner,
//! and as a whole or with the same lot, so that the next good result means something. An attempt that came to no result
//! (a remote out of reach, a disk without room) is made again with growing pauses. Times that were stored under a clock that
//! was wrong are never waited for longer than they can stand for.

use std::time::Duration;

use crate::clock;

/// The longest wait for the first time.
const FIRST_WITHIN: Duration = Duration::from_secs(3600);
/// The longest wait after something was wrong.
const AGAIN_WITHIN: Duration = Duration::from_secs(3600);
/// The first pause after an attempt that came to nothing.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// What was done at a place. Times are Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Since when there is something to look at.
    pub since_ms: i64,
    /// The last result.
    pub last_ms: Option<i64>,
    /// The last result of everything.
    pub last_whole_ms: Option<i64>,
    /// Whether something is wrong there, as far as is known.
    pub is_bad: bool,
    /// Attempts since then that came to no result.
    pub attempts: u32,
    /// When the last of them was made.
    pub attempted_ms: Option<i64>,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// How often.
    pub every: Duration,
    /// How often everything is looked at; `None`: never on schedule.
    pub whole_every: Option<Duration>,
    /// Any number that is the same each time for the same place and different for different ones.
    pub spread: u64,
}

/// When and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// How long to wait; zero: now.
    pub after: Duration,
    /// Whether everything is to be looked at because it was not for so long.
    pub is_whole: bool,
}

/// What is due next.
pub fn next(past: &Past, period: &Period, now_ms: i64) -> Due {
    let until = |from_ms: i64, pause: Duration| {
        let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        clock::left_until(from_ms.saturating_add(pause_ms), now_ms, pause)
    };
    let usual = match past.last_ms {
        None => until(past.since_ms, first_pause(period)),
        Some(last) if past.is_bad => until(last, period.every.min(AGAIN_WITHIN)),
        Some(last) => until(last, period.every),
    };
    let whole = period.whole_every.map(|every| until(past.last_whole_ms.unwrap_or(past.since_ms), every));
    let mut after = whole.map_or(usual, |whole| whole.min(usual));
    if let Some(attempted) = past.attempted_ms.filter(|_| past.attempts > 0) {
        after = after.max(until(attempted, pause_after(past.attempts, period.every)));
    }
    Due { after, is_whole: whole.is_some_and(|whole| whole <= after) }
}

/// Between a sixth and a whole of the period or an hour, whichever is shorter.
fn first_pause(period: &Period) -> Duration {
    let most = period.every.min(FIRST_WITHIN);
    let share = (period.spread % 1000) as f64 / 1000.0;
    most.mul_f64(1.0 / 6.0 + share * 5.0 / 6.0)
}

fn pause_after(attempts: u32, every: Duration) -> Duration {
    let doubled = FIRST_PAUSE.min(every).saturating_mul(1u32 << attempts.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE).min(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: i64 = 1_800_000_000_000;

    fn ago(pause: Duration) -> i64 {
        NOW - i64::try_from(pause.as_millis()).unwrap()
    }

    fn fresh() -> Past {
        Past {
            since_ms: NOW,
            last_ms: None,
            last_whole_ms: None,
            is_bad: false,
            attempts: 0,
            attempted_ms: None,
        }
    }

    fn daily() -> Period {
        Period { every: DAY, whole_every: Some(30 * DAY), spread: 0 }
    }

    fn after(past: Past) -> Duration {
        next(&past, &daily(), NOW).after
    }

    #[test]
    fn the_first_time_is_within_an_hour_and_another_for_each_place() {
        assert_eq!(after(fresh()), 10 * MINUTE);
        let all: Vec<Duration> =
            (0..10).map(|at| next(&fresh(), &Period { spread: at * 99, ..daily() }, NOW).after).collect();
        assert!(all.windows(2).all(|pair| pair[0] + MINUTE < pair[1]), "{all:?}");
        assert!(all.iter().all(|after| *after <= HOUR));
        // A restart in between does not begin anew.
        assert_eq!(after(Past { since_ms: ago(9 * MINUTE), ..fresh() }), MINUTE);
        assert_eq!(after(Past { since_ms: ago(DAY), ..fresh() }), Duration::ZERO);
        let short = Period { every: Duration::from_secs(6), ..daily() };
        assert_eq!(next(&fresh(), &short, NOW).after, Duration::from_secs(1));
    }

    #[test]
    fn a_sample_comes_every_day_and_everything_every_month() {
        let past = Past { since_ms: ago(20 * DAY), last_ms: Some(ago(HOUR)), ..fresh() };
        assert_eq!(next(&past, &daily(), NOW), Due { after: 23 * HOUR, is_whole: false });
        let past = Past { since_ms: ago(30 * DAY - HOUR), ..past };
        assert_eq!(next(&past, &daily(), NOW), Due { after: HOUR, is_whole: true }, "none was whole yet");
        let past = Past { since_ms: ago(300 * DAY), last_whole_ms: Some(ago(2 * DAY)), ..past };
        assert_eq!(next(&past, &daily(), NOW), Due { after: 23 * HOUR, is_whole: false });
        let never_whole = Period { whole_every: None, ..daily() };
        let past = Past { last_whole_ms: None, ..past };
        assert_eq!(next(&past, &never_whole, NOW), Due { after: 23 * HOUR, is_whole: false });
    }

    #[test]
    fn what_was_wrong_is_looked_at_again_within_an_hour() {
        let past = Past { last_ms: Some(ago(MINUTE)), is_bad: true, ..fresh() };
        assert_eq!(after(past), 59 * MINUTE);
        let often = Period { every: MINUTE, whole_every: None, spread: 0 };
        assert_eq!(next(&past, &often, NOW).after, Duration::ZERO);
    }

    #[test]
    fn attempts_that_came_to_nothing_are_made_again_with_growing_pauses() {
        let tried = |attempts| Past { since_ms: ago(9 * DAY), attempts, attempted_ms: Some(NOW), ..fresh() };
        let pauses: Vec<Duration> = [1, 2, 3, 7, 8, 40].map(|attempts| after(tried(attempts))).into();
        assert_eq!(
            pauses,
            [5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 320 * MINUTE, 6 * HOUR, 6 * HOUR],
            "{pauses:?}"
        );
        let often = Period { every: Duration::from_secs(1), whole_every: None, spread: 0 };
        assert_eq!(next(&tried(9), &often, NOW).after, Duration::from_secs(1));
        // It hastens nothing either.
        let past = Past { attempted_ms: Some(ago(6 * MINUTE)), last_ms: Some(ago(HOUR)), ..tried(1) };
        assert_eq!(after(Past { last_whole_ms: Some(ago(HOUR)), ..past }), 23 * HOUR);
    }

    #[test]
    fn a_clock_that_was_wrong_neither_stops_nor_floods() {
        let year = 365 * DAY;
        let ahead = i64::try_from(year.as_millis()).unwrap() + NOW;
        for past in [
            Past { since_ms: ahead, ..fresh() },
            Past { last_ms: Some(ahead), last_whole_ms: Some(ahead), ..fresh() },
            Past { last_ms: Some(i64::MAX), attempts: u32::MAX, attempted_ms: Some(i64::MAX), ..fresh() },
            Past { since_ms: i64::MIN, last_ms: Some(i64::MIN), ..fresh() },
        ] {
            assert_eq!(after(past), Duration::ZERO, "{past:?}");
        }
        assert!(next(&fresh(), &daily(), i64::MIN).after <= HOUR);
    }
}
