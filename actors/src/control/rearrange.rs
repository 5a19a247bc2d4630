//! A changed configuration becomes a changed tree: what is gone stops, what is new starts, the rest runs on untouched.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use backupbot_core::config::Config;
use backupbot_core::config::diff::Diff;
use backupbot_core::error::Error;
use backupbot_core::names::RepositoryName;

use super::{Control, ControlError};
use crate::board::Board;
use crate::repository::{Alter, COMMITTER, pusher_name, watcher_name};
use crate::root::{self, Rearrange, WatchConfiguration};
use crate::supervision::ChildId;

/// Parts that are replaced have this long to stop; then they are left to themselves.
const REARRANGED_WITHIN: Duration = Duration::from_secs(60);

impl Control {
    /// Makes the tree what `config` asks for; `diff` says what that changes. Answers when what is gone has stopped and
    /// what changed has been stopped and started; what is neither runs on untouched. One call at a time.
    ///
    /// Returns words if something of the old did not stop in time; the new is in force all the same.
    pub async fn rearrange(&self, config: &Config, diff: &Diff) -> Result<Option<String>, ControlError> {
        let root = self.root.address_of("supervisor").map_err(ControlError::Refused)?;
        let limits = config.alerts.clone();
        let (common, config, change, present) =
            (self.common.clone(), config.clone(), diff.clone(), self.seats());
        // Reads ignore files.
        let built =
            actix_rt::task::spawn_blocking(move || root::seats_of(&common, &config, &change, &present));
        let seats = built.await.map_err(|error| ControlError::Refused(error.to_string()))?;
        let (mut anew, mut altered) = (Vec::new(), Vec::new());
        for seat in &seats {
            match diff.of(&seat.settings.name) {
                Some(change) if !change.is_whole() => {
                    altered.push(Alter { seat: seat.clone(), diff: change.clone() });
                }
                Some(_) => anew.push(seat.clone()),
                None if diff.added.contains(&seat.settings.name) => anew.push(seat.clone()),
                None => {}
            }
        }
        let id = |name: &RepositoryName| ChildId(root::child_name(name));
        let board = &self.common.board;
        let before: BTreeMap<_, _> =
            board.children().into_iter().map(|child| (child.id, child.generation)).collect();
        self.seats.put(seats);
        if diff.is_empty() {
            return Ok(None);
        }
        let message = Rearrange { removed: diff.removed.clone(), anew, altered, limits };
        root.send(message).await.map_err(|_| ControlError::Refused("the tree is stopping".to_owned()))?;
        // What a run that is about to end publishes last must not stay.
        let is_gone = |board: &Board, id: &ChildId| board.child(id).is_none();
        let is_new = |board: &Board, id: &ChildId| {
            board.child(id).is_some_and(|child| Some(&child.generation) != before.get(&child.id))
        };
        let (mut goes, mut comes): (Vec<_>, Vec<_>) = (diff.removed.iter().map(&id).collect(), Vec::new());
        for change in &diff.changed {
            let supervisor = id(&change.name);
            if change.is_whole() {
                comes.push(supervisor);
                continue;
            }
            goes.extend(change.roots.removed.iter().map(|name| supervisor.child(&watcher_name(name))));
            goes.extend(change.remotes.removed.iter().map(|name| supervisor.child(&pusher_name(name))));
            comes.extend(change.roots.changed.iter().map(|name| supervisor.child(&watcher_name(name))));
            comes.extend(change.remotes.changed.iter().map(|name| supervisor.child(&pusher_name(name))));
            comes.push(supervisor.child(COMMITTER));
        }
        let all = board.wait_for(|board| {
            let is_done =
                goes.iter().all(|id| is_gone(board, id)) && comes.iter().all(|id| is_new(board, id));
            is_done.then_some(())
        });
        let in_time = actix_rt::time::timeout(REARRANGED_WITHIN, all).await;
        for name in &diff.removed {
            board.forget_repository(name);
        }
        for changed in &diff.changed {
            changed.roots.removed.iter().for_each(|root| board.forget_root(&changed.name, root));
            changed.remotes.removed.iter().for_each(|remote| board.forget_remote(&changed.name, remote));
        }
        let late = "something of the former configuration has not stopped yet; the children tell what";
        Ok(in_time.is_err().then(|| late.to_owned()))
    }

    /// Has the configuration's file watched; what stands there is on the board from then on.
    pub fn watch_configuration(&self, file: PathBuf) {
        if let Some(root) = self.root.address() {
            root.do_send(WatchConfiguration(file));
        }
    }

    /// Notes which configuration is in force; the checksum of the one before.
    pub fn remember_configuration(&self, checksum: &str) -> Result<Option<String>, Error> {
        self.common.store.swap_config_checksum(checksum)
    }
}
