//! The keys that somebody names with `--key-file`, or has gpg use with `--gpg`, and what they open.

use backupbot_core::crypt::given::Given;
use backupbot_core::crypt::places::Lent;
use backupbot_core::history::Snapshot;

use super::Looking;
use crate::cli::unlock::Unlock;
use crate::exit::Failure;
use crate::settings::World;

/// Reads the keys that were named.
pub fn given(world: &World, unlock: &Unlock) -> Result<Given, Failure> {
    let files: Vec<_> = unlock.key_file.iter().map(|path| world.absolute(path)).collect();
    let passphrase = unlock.key_passphrase_file.as_ref().map(|path| world.absolute(path));
    Ok(Given::read(&files, passphrase.as_deref())?.and_gpg(unlock.gpg))
}

impl Looking<'_> {
    /// Makes sure that the snapshots can be read: with the configured keys, and those that were named. They count as long as
    /// what comes back is kept.
    pub fn unlock(&self, unlock: &Unlock, snapshots: &[&Snapshot]) -> Result<Option<Lent>, Failure> {
        let given = given(self.world, unlock)?.and_those_of(&self.keys_of);
        let trees: Vec<_> = snapshots.iter().map(|snapshot| snapshot.tree).collect();
        Ok(given.unlock(&self.repository, &trees)?)
    }

    /// The same for who is going to read contents.
    pub fn unlock_contents(&self, unlock: &Unlock, snapshots: &[&Snapshot]) -> Result<Option<Lent>, Failure> {
        let given = given(self.world, unlock)?.and_those_of(&self.keys_of);
        let trees: Vec<_> = snapshots.iter().map(|snapshot| snapshot.tree).collect();
        Ok(given.unlock_contents(&self.repository, &trees)?)
    }
}
