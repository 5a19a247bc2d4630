//! Which remotes have a snapshot: the commit that was last read back at each, and everything behind it.
//!
//! The daemon is asked, or with no daemon alive the store. If neither can say, that is no reason not to show snapshots.

use std::collections::BTreeMap;

use backupbot_core::history::{Oid, Snapshot};
use backupbot_core::names::RepositoryName;

use super::Looking;
use crate::cli::Global;
use crate::client::{self, Reach};
use crate::exit::Failure;
use crate::offline;
use crate::settings::World;
use crate::status::StatusAnswer;

/// The commit confirmed at each remote, by the remote's name.
type Confirmed = BTreeMap<String, Option<Oid>>;

/// What is known of the remotes, against snapshots that come newest first.
pub struct Holders {
    /// The newest snapshot that each remote has, for those that did not have any of the snapshots so far.
    lacking: Vec<(String, Oid)>,
    having: Vec<String>,
}

impl Holders {
    /// Asks, for snapshots from `first` back.
    pub fn ask(
        world: &World,
        global: &Global,
        looking: &Looking<'_>,
        first: &Snapshot,
    ) -> Result<Self, Failure> {
        let confirmed = match client::reach(world, global)? {
            Reach::Daemon(client) => told(client.get("/status", &[])?.ok()?, &looking.name)?,
            Reach::Nobody(asking) => {
                offline::open(world, *asking, "snapshots", false)?.confirmed(&looking.name)?
            }
        };
        let mut lacking = Vec::new();
        for (remote, commit) in confirmed {
            // Of a remote that is ahead, or was led elsewhere, what it shares with these snapshots counts.
            let shared =
                commit.map(|commit| looking.repository.common_ancestor(commit, first.id)).transpose()?;
            lacking.extend(shared.flatten().map(|shared| (remote, shared)));
        }
        Ok(Self { lacking, having: Vec::new() })
    }

    /// The remotes that have `snapshot`, which comes after all that were asked for before: what has one has all
    /// behind it.
    pub fn of(&mut self, snapshot: &Snapshot) -> &[String] {
        let found = self.lacking.extract_if(.., |(_, newest)| *newest == snapshot.id);
        self.having.extend(found.map(|(remote, _)| remote));
        self.having.sort_unstable();
        &self.having
    }
}

fn told(status: serde_json::Value, name: &RepositoryName) -> Result<Confirmed, Failure> {
    let status: StatusAnswer = serde_json::from_value(status).map_err(|error| {
        Failure::io("the daemon's answer is not understood; is it another version?", error)
    })?;
    let repository = status.repositories.into_iter().find(|repository| repository.status.name == *name);
    let remotes = repository.into_iter().flat_map(|repository| repository.remotes);
    let id = |commit: Option<String>| commit.and_then(|commit| Oid::from_str(&commit).ok());
    Ok(remotes.map(|remote| (remote.name.to_string(), id(remote.commit))).collect())
}
