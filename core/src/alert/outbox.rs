//! What a receiver has not been told yet.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Change;
use crate::clock;

/// More than that waits for nobody: the oldest go.
const MOST: usize = 200;
/// The pause after a failed attempt, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// The changes that wait for one receiver, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    waiting: VecDeque<Change>,
    failures: u32,
    next_ms: i64,
    last_error: Option<String>,
    dropped: u64,
}

impl Outbox {
    /// One more.
    pub fn put(&mut self, change: Change) {
        self.waiting.push_back(change);
        while self.waiting.len() > MOST {
            self.waiting.pop_front();
            self.dropped += 1;
        }
    }

    /// What to deliver now; nothing while nothing waits or a pause lasts.
    pub fn due(&self, now_ms: i64) -> Vec<Change> {
        let left = clock::left_until(self.next_ms, now_ms, LONGEST_PAUSE);
        if left.is_zero() { self.waiting.iter().cloned().collect() } else { Vec::new() }
    }

    /// These have arrived. They are known by what they say, not by their place: meanwhile others may have gone before them.
    pub fn arrived(&mut self, changes: &[Change]) {
        for change in changes {
            if let Some(place) = self.waiting.iter().position(|waiting| waiting == change) {
                self.waiting.remove(place);
            }
        }
        (self.failures, self.next_ms, self.last_error) = (0, 0, None);
    }

    /// Nothing more arrived, for this reason.
    pub fn failed(&mut self, reason: &str, now_ms: i64) {
        self.failures = self.failures.saturating_add(1);
        let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(9) - 1));
        self.next_ms = now_ms.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        self.last_error = Some(reason.to_owned());
    }

    /// Why the receiver is not told, and how many changes wait or were dropped; `None` if all is well.
    pub fn trouble(&self) -> Option<String> {
        let error = self.last_error.as_ref()?;
        let dropped =
            if self.dropped == 0 { String::new() } else { format!(", {} were dropped", self.dropped) };
        Some(format!("{error}; waiting messages: {}{dropped}", self.waiting.len()))
    }
}
