//! When something is tried again, and after how long: for what can pass by itself, eight tries, a quarter of a second
//! apart and then twice as long each time, up to ten seconds, none of it to the dot.

use std::time::Duration;

use crate::error::{Error, Kind};

/// A try that took longer than this has cost as much as several: nobody waits eight times for ten minutes.
const SLOW: Duration = Duration::from_secs(60);
/// So many.
const COST_OF_SLOW: u32 = 3;

/// The numbers of the law.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Law {
    pub first: Duration,
    pub most: Duration,
    pub tries: u32,
}

impl Default for Law {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), most: Duration::from_secs(10), tries: 8 }
    }
}

impl Law {
    /// How long to wait after the `failures`-th failure. `lot` makes it between half and all of its length, so
    /// that transfers which failed together do not come back together.
    pub(super) fn pause(&self, failures: u32, lot: u16) -> Duration {
        let whole = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.most);
        whole / 2 + whole.mul_f64(f64::from(lot) / f64::from(u16::MAX) / 2.0)
    }
}

/// The tries of one thing.
#[derive(Debug)]
pub(super) struct Tries {
    law: Law,
    failures: u32,
    cost: u32,
}

impl Tries {
    pub(super) fn new(law: Law) -> Self {
        Self { law, failures: 0, cost: 0 }
    }

    /// A try has failed after `took`: how long to wait for the next one, or `None` if that was the last.
    pub(super) fn failed(&mut self, error: &Error, took: Duration) -> Option<Duration> {
        if !can_pass(error.kind()) {
            return None;
        }
        self.failures += 1;
        self.cost += if took > SLOW { COST_OF_SLOW } else { 1 };
        let mut lot = [0; 2];
        // Without a lot they come back together; that is all.
        let _ = getrandom::fill(&mut lot);
        (self.cost < self.law.tries).then(|| self.law.pause(self.failures, u16::from_ne_bytes(lot)))
    }
}

/// Whether waiting may help.
pub(super) fn can_pass(kind: Kind) -> bool {
    matches!(kind, Kind::RemoteUnreachable | Kind::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_ten_seconds_and_eight_tries_are_all() {
        let law = Law::default();
        let longest: Vec<u128> = (1..9).map(|n| law.pause(n, u16::MAX).as_millis()).collect();
        assert_eq!(longest, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(law.pause(1, 0).as_millis(), 125);
        assert_eq!(law.pause(u32::MAX, u16::MAX).as_millis(), 10_000);
        let passing = Error::new(Kind::RemoteUnreachable, "x");
        let mut tries = Tries::new(law);
        let pauses = (0..20).take_while(|_| tries.failed(&passing, Duration::ZERO).is_some()).count();
        assert_eq!(pauses, 7, "eight tries have seven pauses");
        let mut tries = Tries::new(law);
        let pauses = (0..20).take_while(|_| tries.failed(&passing, 2 * SLOW).is_some()).count();
        assert_eq!(pauses, 2);
        assert!(Tries::new(law).failed(&Error::new(Kind::Quota, "x"), Duration::ZERO).is_none());
    }
}
