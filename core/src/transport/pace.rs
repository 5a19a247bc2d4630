//! How long to wait for bytes, and how fast to send them.
//!
//! A fixed deadline would fail large transfers over slow lines; no deadline would wait for ever. So while bytes are
//! under way, what counts is whether enough of them came over the last stretch; while the other end works on an answer,
//! how long it has said nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::wire::{LOWEST_RATE, Limits};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// A waited-for answer may take so many times [`Limits::answer`] altogether, however often there is a sign of life.
const LONGEST_ANSWER: u32 = 6;
/// A limited transfer sleeps no longer than this at a time, to notice a cancellation.
const NAP: Duration = Duration::from_millis(50);

/// Whether bytes come as they should.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    limits: Limits,
    /// Whether bytes are under way; otherwise the other end works.
    flowing: bool,
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// The other end has been asked something.
    pub(super) fn waiting(limits: Limits) -> Self {
        Self { limits, flowing: false, since: Instant::now(), bytes: 0 }
    }

    /// Bytes are under way.
    pub(super) fn flowing(limits: Limits) -> Self {
        Self { flowing: true, ..Self::waiting(limits) }
    }

    /// From here on bytes have to come.
    pub(super) fn flow(&mut self) {
        if !self.flowing {
            *self = Self::flowing(self.limits);
        }
    }

    /// So long we have kept the other end waiting, which is not held against it.
    pub(super) fn excuse(&mut self, ours: Duration) {
        self.since += ours;
    }

    /// How long the next wait may take.
    pub(super) fn patience(&self) -> Duration {
        if self.flowing {
            // Whoever is asked right at the end of a stretch gets a moment.
            self.limits.stall.saturating_sub(self.since.elapsed()).max(NAP)
        } else {
            self.limits.answer.min(self.longest_answer().saturating_sub(self.since.elapsed()))
        }
    }

    /// Bytes have moved.
    pub(super) fn moved(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let most = if self.flowing { self.limits.stall } else { self.longest_answer() };
        if self.since.elapsed() < most {
            return Ok(());
        }
        self.judge()
    }

    fn longest_answer(&self) -> Duration {
        self.limits.answer.saturating_mul(LONGEST_ANSWER)
    }

    /// Patience has run out: an error, unless enough has moved over the stretch that is at its end.
    pub(super) fn judge(&mut self) -> Result<()> {
        if !self.flowing {
            let (waited, longest) = (self.since.elapsed(), self.longest_answer());
            let text = if waited >= longest {
                format!(
                    "the remote has not come to an end of its answer in {:.0} s; given up",
                    waited.as_secs_f64()
                )
            } else {
                format!("the remote has not answered for {:.0} s; given up", self.limits.answer.as_secs_f64())
            };
            return Err(Error::new(Kind::RemoteUnreachable, text));
        }
        let stretch = self.since.elapsed();
        if (self.bytes as f64) < LOWEST_RATE as f64 * stretch.as_secs_f64() {
            let text = format!(
                "the transfer has stalled: {} bytes in the last {:.0} s; given up",
                self.bytes,
                stretch.as_secs_f64()
            );
            return Err(Error::new(Kind::RemoteUnreachable, text));
        }
        (self.since, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}

/// Holds transfers down to a number of bytes a second; those with clones of one share it.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    rate: Option<u64>,
    /// When what was let through so far will have been sent at that rate.
    paid_until: Arc<Mutex<Instant>>,
}

impl Throttle {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        let paid_until = Arc::new(Mutex::new(Instant::now()));
        Self { rate: rate.filter(|rate| *rate > 0), paid_until }
    }

    /// Bytes that may go at once: small enough that a slow rate stays even.
    pub(super) fn piece(&self, most: usize) -> usize {
        let tenth = self.rate.map_or(u64::MAX, |rate| (rate / 10).max(1024));
        most.min(usize::try_from(tenth).unwrap_or(usize::MAX))
    }

    /// Waits until `bytes` more may go.
    pub(super) fn pass(&self, bytes: usize, progress: &Progress) -> Result<()> {
        let Some(rate) = self.rate else { return Ok(()) };
        let turn = {
            let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*paid_until).max(Instant::now());
            *paid_until = turn + Duration::from_secs_f64(bytes as f64 / rate as f64);
            turn
        };
        while let Some(left) = turn.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            progress.check()?;
            std::thread::sleep(left.min(NAP));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(stall_ms: u64, answer_ms: u64) -> Limits {
        Limits {
            connect: Duration::from_secs(1),
            stall: Duration::from_millis(stall_ms),
            answer: Duration::from_millis(answer_ms),
            bandwidth: None,
        }
    }

    #[test]
    fn silence_is_an_error_and_a_trickle_below_the_lowest_rate_is_too() {
        let mut waiting = Pace::waiting(limits(60_000, 1000));
        assert!(waiting.patience() <= Duration::from_secs(1));
        assert_eq!(waiting.judge().unwrap_err().kind(), Kind::RemoteUnreachable);

        let mut trickle = Pace::flowing(limits(0, 1000));
        std::thread::sleep(Duration::from_millis(20));
        assert!(trickle.moved(1).unwrap_err().to_string().contains("stalled"));

        let mut enough = Pace::flowing(limits(0, 1000));
        enough.moved(1_000_000).unwrap();
    }

    #[test]
    fn an_answer_that_never_ends_is_given_up_however_much_it_says() {
        let mut chatter = Pace::waiting(limits(60_000, 5));
        chatter.moved(1000).unwrap();
        std::thread::sleep(Duration::from_millis(40));
        assert!(chatter.moved(1000).unwrap_err().to_string().contains("end of its answer"));
    }

    #[test]
    fn what_this_side_takes_its_time_for_is_no_stall() {
        let mut slow_disk = Pace::flowing(limits(20, 1000));
        std::thread::sleep(Duration::from_millis(30));
        slow_disk.excuse(Duration::from_millis(30));
        slow_disk.moved(1).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert!(slow_disk.moved(1).is_err());
    }

    #[test]
    fn an_answer_may_be_slow_until_its_bytes_have_to_flow() {
        let mut pace = Pace::waiting(limits(0, 60_000));
        pace.moved(1).unwrap();
        pace.flow();
        std::thread::sleep(Duration::from_millis(20));
        assert!(pace.moved(1).is_err());
    }

    #[test]
    fn a_limited_transfer_takes_its_time_and_can_be_cancelled() {
        let progress = Progress::new();
        let throttle = Throttle::new(Some(100_000));
        assert_eq!(throttle.piece(1 << 20), 10_000);
        let began = Instant::now();
        for _ in 0..4 {
            throttle.pass(10_000, &progress).unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(300));
        throttle.pass(100_000_000, &progress).unwrap();
        progress.cancel();
        assert_eq!(throttle.pass(1, &progress).unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(Throttle::new(None).piece(1 << 20), 1 << 20);
    }

    #[test]
    fn transfers_that_share_a_limit_are_together_no_faster_than_one() {
        let throttle = Throttle::new(Some(100_000));
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let mine = throttle.clone();
                scope.spawn(move || (0..3).for_each(|_| mine.pass(10_000, &Progress::new()).unwrap()));
            }
        });
        assert!(began.elapsed() >= Duration::from_millis(500));
    }
}
