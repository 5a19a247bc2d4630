//! Alerts: what somebody has to look at, told once when it begins and once when it ends.
//!
//! In go the conditions that hold at a moment (whoever knows them finds them: the status, a health check). The [`ledger`]
//! makes alerts of them, with a delay at either end, so that what flickers is told once. Each change goes into an
//! [`outbox`] for every receiver and stays there until it was delivered. [`message`] says it in each receiver's form, [`send`]
//! delivers it. Ledger and outboxes are plain data that survive a restart; all times are passed in.

pub mod ledger;
pub mod message;
pub mod outbox;
pub mod send;

use serde::{Deserialize, Serialize};

/// How urgent an alert is; the order is that of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something is not protected, or will not be.
    Critical,
    /// It may become so.
    Warning,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
        }
    }
}

/// Something that is wrong at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The kind, the same word each time: `remote_stale`.
    pub name: String,
    /// What it is about: `documents/usb`. Empty for the whole installation. One alert for each name and subject.
    pub subject: String,
    /// How urgent.
    pub severity: Severity,
    /// What is wrong and what to do.
    pub message: String,
    /// Since when, Unix milliseconds, where that is known.
    pub since_ms: Option<i64>,
}

/// An alert began or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub event: ChangeKind,
    /// What it is about, as it was last seen.
    pub condition: Condition,
    /// When it was noticed, Unix milliseconds.
    pub at_ms: i64,
}

/// Which end of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It began, or became more urgent.
    Fired,
    /// It is over.
    Cleared,
    /// Nothing happened: somebody tries whether messages arrive.
    Test,
}

#[cfg(test)]
mod tests;
