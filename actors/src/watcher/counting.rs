//! What a watcher counts: comparisons of its root and why, lost events, and how long changes were held.

use std::time::Instant;

use actix::Context;
use backupbot_core::path::RelPath;
use backupbot_core::watch::Hint;

use super::Watcher;
use crate::board::RootState;
use crate::measure::{self, Rescan};

impl Watcher {
    /// A whole root is to be compared.
    pub(super) fn count(&self, reason: Rescan) {
        measure::rescan(self.seat.settings.name.as_str(), self.settings.name.as_str(), reason);
    }

    pub(super) fn count_overflow(&self) {
        measure::overflowed(self.seat.settings.name.as_str(), self.settings.name.as_str());
    }

    /// A whole root that comes out of the debouncer stands for more paths than are held one by one.
    pub(super) fn count_coarsened(&self, due: &[Hint]) {
        if due.contains(&Hint::Deep(RelPath::root())) {
            self.count(Rescan::Coarsened);
        }
    }

    /// Has the whole root compared.
    pub(super) fn compare_all(&mut self, reason: Rescan, ctx: &mut Context<Self>) {
        self.count(reason);
        self.take_due(vec![Hint::Deep(RelPath::root())], ctx);
    }

    /// What was sent is durable. Only now has a root been begun with: until then a crash would leave nothing to do.
    pub(super) fn queued(&mut self, since: Option<Instant>) {
        if let Some(since) = since {
            measure::detected(self.seat.settings.name.as_str(), self.settings.name.as_str(), since.elapsed());
        }
        if self.status.state == RootState::Starting && self.control.is_some() {
            self.set_available(RootState::Scanning);
        }
    }
}
