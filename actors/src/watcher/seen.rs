//! What a commit saw of the root, taken into its status.

use actix::Handler;
use backupbot_core::scan::Counts;

use super::Watcher;
use crate::board::RootState;
use crate::messages::RootSeen;

impl Handler<RootSeen> for Watcher {
    type Result = ();

    fn handle(&mut self, seen: RootSeen, _: &mut Self::Context) {
        if let Some(skipped) = seen.skipped {
            self.status.skipped = skipped.count;
            self.status.skipped_by_reason = skipped.by_reason;
            self.status.skipped_files = skipped.listed;
        }
        if let Some((counts, is_complete)) = seen.walk {
            self.counted.add(&counts);
            if is_complete {
                self.status.files = self.counted.files;
                self.status.excluded_by_rules = self.counted.excluded_by_rules;
                self.status.excluded_by_system = self.counted.excluded_by_system;
                self.status.excluded_by_file_system = self.counted.excluded_by_file_system;
                self.counted = Counts::default();
            }
            if is_complete && self.control.is_some() {
                self.ignore_problem = self.look_for_ignore_problems();
                self.set_available(RootState::Watching);
            }
        }
        match seen.unavailable {
            Some(reason) => self.set_state(RootState::Unavailable, Some(reason)),
            None if self.status.state == RootState::Unavailable && self.control.is_some() => {
                self.set_available(RootState::Watching);
            }
            None => self.publish(),
        }
    }
}
