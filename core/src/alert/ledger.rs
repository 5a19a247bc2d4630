//! Which alerts are active: conditions with a delay at either end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Change, ChangeKind, Condition};

/// Kept whatever happens; more conditions than that at a time say nothing more.
const MOST: usize = 1000;

/// The delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// A warning that is gone before this was none. What is critical is told at once.
    pub warning: Duration,
    /// An alert whose condition comes back before this has not ended.
    pub clear: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self { warning: Duration::from_secs(60), clear: Duration::from_secs(120) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    condition: Condition,
    seen_ms: i64,
    fired_ms: Option<i64>,
    gone_ms: Option<i64>,
}

/// An alert that has fired and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Active {
    /// What is wrong.
    pub condition: Condition,
    /// When it fired, Unix milliseconds.
    pub fired_ms: i64,
}

/// All conditions that hold or held a moment ago.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    entries: Vec<Entry>,
}

impl Ledger {
    /// Takes in what holds now; returns what began and what ended.
    pub fn update(&mut self, conditions: Vec<Condition>, now_ms: i64, delays: Delays) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut holding: BTreeMap<(String, String), Condition> = BTreeMap::new();
        for condition in conditions.into_iter().take(MOST) {
            let key = (condition.name.clone(), condition.subject.clone());
            // Of two with one name the more urgent counts.
            let stays = holding.get(&key).is_some_and(|other| other.severity <= condition.severity);
            if !stays {
                holding.insert(key, condition);
            }
        }
        let change =
            |event, condition: &Condition| Change { event, condition: condition.clone(), at_ms: now_ms };
        self.entries.retain_mut(|entry| {
            entry.believe_no_future(now_ms);
            let key = (entry.condition.name.clone(), entry.condition.subject.clone());
            let Some(condition) = holding.remove(&key) else {
                if entry.fired_ms.is_none() {
                    return false;
                }
                let gone_ms = *entry.gone_ms.get_or_insert(now_ms);
                if !is_over(gone_ms, delays.clear, now_ms) {
                    return true;
                }
                changes.push(change(ChangeKind::Cleared, &entry.condition));
                return false;
            };
            let is_worse = condition.severity < entry.condition.severity;
            entry.condition = condition;
            entry.gone_ms = None;
            if entry.fired_ms.is_none() && entry.is_due(delays, now_ms)
                || entry.fired_ms.is_some() && is_worse
            {
                entry.fired_ms.get_or_insert(now_ms);
                changes.push(change(ChangeKind::Fired, &entry.condition));
            }
            true
        });
        for condition in holding.into_values() {
            let mut entry = Entry { condition, seen_ms: now_ms, fired_ms: None, gone_ms: None };
            if entry.is_due(delays, now_ms) {
                entry.fired_ms = Some(now_ms);
                changes.push(change(ChangeKind::Fired, &entry.condition));
            }
            self.entries.push(entry);
        }
        changes
    }

    /// What has fired and not ended, critical first.
    pub fn active(&self) -> Vec<Active> {
        let fired =
            |entry: &Entry| Some(Active { condition: entry.condition.clone(), fired_ms: entry.fired_ms? });
        let mut active: Vec<Active> = self.entries.iter().filter_map(fired).collect();
        active.sort_by(|one, other| {
            let key = |it: &Active| (it.condition.severity, it.fired_ms);
            key(one).cmp(&key(other))
        });
        active
    }
}

impl Entry {
    fn is_due(&self, delays: Delays, now_ms: i64) -> bool {
        self.condition.severity == super::Severity::Critical || is_over(self.seen_ms, delays.warning, now_ms)
    }

    /// The clock may have been set back since: then the delays begin now.
    fn believe_no_future(&mut self, now_ms: i64) {
        self.seen_ms = self.seen_ms.min(now_ms);
        self.gone_ms = self.gone_ms.map(|at| at.min(now_ms));
    }
}

fn is_over(since_ms: i64, delay: Duration, now_ms: i64) -> bool {
    now_ms.saturating_sub(since_ms) >= i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)
}
