//! The restart law as a pure function: how a child ended and when go in, what to do about it comes out.
//!
//! Nothing here reads a clock, draws a random number or knows an actor; [`decide`] is given all three. The
//! words are OTP's: at most `intensity` restarts within `window`, one more and the limit is exceeded. Each
//! restart waits longer than the one before, and a child that ran for a whole `window` starts over with the
//! first delay. A parked child comes back on probation: its next exit parks it again at once, unless it ran
//! for a `window` in between.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Larger intensities count as this one, so that a [`History`] stays small.
pub const MAX_INTENSITY: u32 = 100;

/// How a child came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to, or it said that its work is finished.
    Stopped,
    /// It gave up, for the reason it gave.
    Failed(String),
    /// It panicked: the message, and the place where it is known.
    Panicked(String),
    /// It was busy without progress; what with.
    Hung(String),
}

impl ExitReason {
    /// The word used in logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            ExitReason::Stopped => "stopped",
            ExitReason::Failed(_) => "failed",
            ExitReason::Panicked(_) => "panicked",
            ExitReason::Hung(_) => "hung",
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Stopped => f.write_str("stopped"),
            ExitReason::Failed(why) | ExitReason::Panicked(why) | ExitReason::Hung(why) => {
                write!(f, "{}: {why}", self.as_str())
            }
        }
    }
}

/// How long to wait before a restart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The delay after the first failure.
    pub first: Duration,
    /// Each further failure multiplies the delay by this; below 1 counts as 1.
    pub factor: f64,
    /// No delay is longer.
    pub max: Duration,
    /// The share of the delay, 0 to 1, that chance may take off, so that children that failed together do
    /// not come back together.
    pub jitter: f64,
}

impl Backoff {
    /// The delay after `failures` failures before this one; `random` is in 0 to 1.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let exponent = i32::try_from(failures).unwrap_or(i32::MAX);
        let grown = self.first.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        let capped = grown.min(self.max.as_secs_f64());
        let kept_share = 1.0 - share(self.jitter) * share(random);
        Duration::try_from_secs_f64(capped * kept_share).unwrap_or(self.max).min(self.max)
    }
}

/// A number that is no share at all counts as none.
fn share(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}

/// What happens to a child that fails more often than its policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExceeded {
    /// It stays down for this long while its siblings go on, then it is tried again.
    Park {
        /// How long it stays down.
        cool_off: Duration,
    },
    /// Its supervisor fails in its place.
    Escalate,
}

/// When a child is started again, and when no more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RestartPolicy {
    /// So many restarts are allowed within `window`; above [`MAX_INTENSITY`] counts as that.
    pub intensity: u32,
    /// The time over which restarts are counted, and the time after which a run counts as steady.
    pub window: Duration,
    /// The delay before each restart.
    pub backoff: Backoff,
    /// What one restart too many leads to.
    pub on_exceeded: OnExceeded,
}

impl RestartPolicy {
    /// Six failures within ten minutes park the child for ten minutes.
    pub fn parking() -> Self {
        let cool_off = Duration::from_secs(600);
        Self { on_exceeded: OnExceeded::Park { cool_off }, ..Self::escalating() }
    }

    /// Six failures within ten minutes are the supervisor's.
    pub fn escalating() -> Self {
        Self {
            intensity: 5,
            window: Duration::from_secs(600),
            backoff: Backoff {
                first: Duration::from_secs(1),
                factor: 2.0,
                max: Duration::from_secs(60),
                jitter: 0.2,
            },
            on_exceeded: OnExceeded::Escalate,
        }
    }

    fn allowed_restarts(&self) -> usize {
        self.intensity.min(MAX_INTENSITY) as usize
    }
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self::parking()
    }
}

/// What the law must remember of one child; holds at most [`MAX_INTENSITY`] moments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    restarts: VecDeque<Instant>,
    started_at: Option<Instant>,
    failures_since_steady: u32,
    on_probation: bool,
}

impl History {
    /// To be told each time the child is started.
    pub fn started(&mut self, now: Instant) {
        self.started_at = Some(now);
    }
}

/// What to do about an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this delay.
    Restart {
        /// How long to wait.
        after: Duration,
    },
    /// Leave it down; try again after this long pause.
    Park {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Fail in its place.
    Escalate,
    /// It ended as it should; nothing is to be done.
    Done,
}

/// Judges one exit at `now`; `random` is in 0 to 1 and only shortens the delay.
pub fn decide(
    policy: &RestartPolicy,
    history: &mut History,
    exit: &ExitReason,
    now: Instant,
    random: f64,
) -> Verdict {
    if *exit == ExitReason::Stopped {
        return Verdict::Done;
    }
    let ran_for = history.started_at.take().map(|start| now.saturating_duration_since(start));
    let was_steady = ran_for.is_some_and(|ran_for| ran_for >= policy.window);
    if was_steady {
        history.failures_since_steady = 0;
        history.on_probation = false;
    }
    history.restarts.retain(|restart| now.saturating_duration_since(*restart) < policy.window);

    let exceeded = history.on_probation || history.restarts.len() >= policy.allowed_restarts();
    if !exceeded {
        let after = policy.backoff.delay(history.failures_since_steady, random);
        history.failures_since_steady = history.failures_since_steady.saturating_add(1);
        history.restarts.push_back(now);
        return Verdict::Restart { after };
    }
    match policy.on_exceeded {
        OnExceeded::Park { cool_off } => {
            history.on_probation = true;
            history.restarts.clear();
            Verdict::Park { retry_after: cool_off }
        }
        OnExceeded::Escalate => Verdict::Escalate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(intensity: u32, on_exceeded: OnExceeded) -> RestartPolicy {
        RestartPolicy {
            intensity,
            window: 60 * SECOND,
            backoff: Backoff { first: SECOND, factor: 2.0, max: 10 * SECOND, jitter: 0.0 },
            on_exceeded,
        }
    }

    fn failed() -> ExitReason {
        ExitReason::Failed("disk on fire".into())
    }

    /// A linear congruential sequence: enough to vary the inputs, the same in every run.
    fn numbers(seed: u64) -> impl Iterator<Item = u64> {
        let step =
            |n: &u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        std::iter::successors(Some(seed), step).skip(1).map(|n| n >> 33)
    }

    #[test]
    fn an_asked_for_stop_is_never_followed_by_a_restart() {
        let mut history = History::default();
        let verdict =
            decide(&policy(0, OnExceeded::Escalate), &mut history, &ExitReason::Stopped, Instant::now(), 0.0);
        assert_eq!(verdict, Verdict::Done);
        assert_eq!(history, History::default());
    }

    #[test]
    fn every_unasked_end_is_judged_alike() {
        for exit in [failed(), ExitReason::Panicked("x".into()), ExitReason::Hung("x".into())] {
            let verdict =
                decide(&policy(1, OnExceeded::Escalate), &mut History::default(), &exit, Instant::now(), 0.0);
            assert_eq!(verdict, Verdict::Restart { after: SECOND }, "{exit}");
        }
    }

    #[test]
    fn delays_grow_to_the_maximum_and_jitter_only_shortens_them() {
        let backoff = Backoff { first: SECOND, factor: 2.0, max: 10 * SECOND, jitter: 0.5 };
        let table = [
            (0, 0.0, 1.0),
            (1, 0.0, 2.0),
            (3, 0.0, 8.0),
            (4, 0.0, 10.0),
            (u32::MAX, 0.0, 10.0),
            (2, 1.0, 2.0),
        ];
        for (failures, random, seconds) in table {
            assert_eq!(
                backoff.delay(failures, random),
                Duration::from_secs_f64(seconds),
                "{failures} {random}"
            );
        }
    }

    #[test]
    fn senseless_numbers_make_a_sensible_delay() {
        for factor in [f64::NAN, f64::INFINITY, -3.0, 0.0] {
            for jitter in [f64::NAN, f64::INFINITY, -1.0, 7.0] {
                for random in [f64::NAN, -1.0, 2.0] {
                    let backoff = Backoff { first: SECOND, factor, max: 10 * SECOND, jitter };
                    assert!(backoff.delay(3, random) <= 10 * SECOND, "{factor} {jitter} {random}");
                }
            }
        }
        let backoff = Backoff { first: Duration::MAX, factor: 2.0, max: Duration::MAX, jitter: 0.0 };
        assert!(backoff.delay(5, 0.0) > SECOND);
    }

    #[test]
    fn one_restart_more_than_the_intensity_allows_within_the_window_escalates() {
        let policy = policy(3, OnExceeded::Escalate);
        let mut history = History::default();
        let start = Instant::now();
        for (at, after) in [(0, 1), (5, 2), (10, 4)] {
            history.started(start + at * SECOND);
            let verdict = decide(&policy, &mut history, &failed(), start + at * SECOND, 0.0);
            assert_eq!(verdict, Verdict::Restart { after: after * SECOND });
        }
        assert_eq!(decide(&policy, &mut history, &failed(), start + 59 * SECOND, 0.0), Verdict::Escalate);
        let later = start + 60 * SECOND;
        assert!(matches!(decide(&policy, &mut history, &failed(), later, 0.0), Verdict::Restart { .. }));
    }

    #[test]
    fn a_steady_run_resets_the_backoff() {
        let policy = policy(5, OnExceeded::Escalate);
        let mut history = History::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            history.started(now);
            decide(&policy, &mut history, &failed(), now, 0.0);
        }
        history.started(now);
        now += 60 * SECOND;
        assert_eq!(decide(&policy, &mut history, &failed(), now, 0.0), Verdict::Restart { after: SECOND });
    }

    #[test]
    fn an_intensity_of_nought_allows_no_restart() {
        let exit = failed();
        let verdict =
            decide(&policy(0, OnExceeded::Escalate), &mut History::default(), &exit, Instant::now(), 0.0);
        assert_eq!(verdict, Verdict::Escalate);
    }

    #[test]
    fn a_parked_child_is_on_probation_until_it_ran_for_a_window() {
        let policy = policy(1, OnExceeded::Park { cool_off: 300 * SECOND });
        let parked = Verdict::Park { retry_after: 300 * SECOND };
        let mut history = History::default();
        let mut now = Instant::now();
        decide(&policy, &mut history, &failed(), now, 0.0);
        assert_eq!(decide(&policy, &mut history, &failed(), now, 0.0), parked);

        now += 300 * SECOND;
        history.started(now);
        now += 59 * SECOND;
        assert_eq!(decide(&policy, &mut history, &failed(), now, 0.0), parked, "one failure on probation");

        now += 300 * SECOND;
        history.started(now);
        now += 60 * SECOND;
        assert_eq!(decide(&policy, &mut history, &failed(), now, 0.0), Verdict::Restart { after: SECOND });
    }

    #[test]
    fn no_window_ever_holds_more_restarts_than_the_intensity_and_the_history_stays_bounded() {
        for (seed, intensity) in [(1, 0), (2, 1), (3, 4), (4, 17), (5, u32::MAX)] {
            let policy = policy(intensity, OnExceeded::Escalate);
            let mut history = History::default();
            let mut now = Instant::now();
            let mut restarts = Vec::new();
            for number in numbers(seed).take(2000) {
                now += Duration::from_millis(number % 8000);
                history.started(now);
                if let Verdict::Restart { after } = decide(&policy, &mut history, &failed(), now, 0.3) {
                    assert!(after <= policy.backoff.max);
                    restarts.push(now);
                }
                assert!(history.restarts.len() <= MAX_INTENSITY as usize);
            }
            let most = restarts
                .iter()
                .map(|from| {
                    restarts.iter().filter(|at| **at >= *from && **at < *from + policy.window).count()
                })
                .max();
            assert!(most.unwrap_or(0) <= intensity as usize);
        }
    }

    #[test]
    fn a_child_that_fails_at_once_each_time_exceeds_the_default_policies() {
        for policy in [RestartPolicy::parking(), RestartPolicy::escalating()] {
            let mut history = History::default();
            let mut now = Instant::now();
            let mut restarts = 0;
            loop {
                history.started(now);
                match decide(&policy, &mut history, &failed(), now, 0.0) {
                    Verdict::Restart { after } => now += after,
                    _ => break,
                }
                restarts += 1;
                assert!(restarts < 100);
            }
            assert_eq!(restarts, policy.intensity);
        }
    }
}
