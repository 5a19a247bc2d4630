//! Whether a switch has to be made, and where it must not be.
//!
//! In: what the configuration wants, and the tip. Out: the switch, or nothing, or a refusal that says what somebody has to
//! decide: without the key of what is there, where nothing says that clear text is meant, where older commits would stay readable
//! and nobody has accepted that, and where nobody here can read what would have to be stored in another way.

use git2::Oid;

use super::super::Batch;
use super::{Old, Switch, Way, named};
use crate::config::{Encryption, EncryptionMethod};
use crate::crypt::places;
use crate::crypt::policy::Policy;
use crate::error::{Error, Kind, Result};
use crate::git::objects::ObjectDatabase;
use crate::git::repository::Repository;

/// The switch that the configuration asks for; `None` if the tip is as it wants it, or there is none.
///
/// # Errors
/// [`Kind::EncryptionKey`] where it must not be made, with the remedy.
pub(in crate::snapshot) fn find(
    batch: &Batch<'_>,
    objects: &ObjectDatabase<'_>,
    present_tip: Option<Oid>,
    parent: Option<(Oid, Oid)>,
) -> Result<Option<Switch>> {
    if batch.encryption.is_some_and(Encryption::encrypts) != batch.sealer.is_some() {
        let text = "what encrypts is not what the configuration wants: nothing is stored";
        return Err(Error::new(Kind::Internal, text));
    }
    let Some((commit, tree)) = parent else { return Ok(None) };
    let is = Policy::of_tree(objects, tree)?;
    if is.as_ref() == batch.sealer.map(|sealer| sealer.policy()) {
        return Ok(None);
    }
    let old = match is {
        Some(is) => {
            if batch.encryption.is_none() {
                return Err(refusal(format!(
                    "the latest snapshot is encrypted with the key {}, and the configuration says nothing of encryption: \
                     nothing is stored. Say `encryption: {{method: none}}` to store in clear text from now on, or put \
                     `encryption` back",
                    is.key
                )));
            }
            if is.cipher.is_open_pgp() && !stays_open_pgp(batch, &is) {
                if present_tip.is_none() {
                    return Ok(Some(Switch { tree, parent: None, old: None, way: Way::Afresh }));
                }
                return Err(refusal(format!(
                    "the contents of the latest snapshot are OpenPGP messages, which cannot be read here to store them in \
                     another way ({} now): nothing is stored. Name another `branch`, which begins with what is in the watched \
                     directories, or put `encryption` back as it was",
                    named(batch.sealer.map(|sealer| sealer.policy()))
                )));
            }
            let key = places::keys_of(batch.repository.path())?.find(&is.key).cloned();
            // What git-crypt encrypted has to be decrypted; messages stay until their files are read again.
            if key.is_none() && !(is.cipher.is_open_pgp() && can_lose_key(batch)) {
                return Err(is_missing(batch, &is));
            }
            Some(Old { policy: is, key })
        }
        None => None,
    };
    let accepts = batch.encryption.is_some_and(|encryption| encryption.accepts_clear_history);
    let parent = match (&old, accepts) {
        // A branch without commits begins a history that has nothing in clear text.
        (None, false) if present_tip.is_none() => None,
        (None, false) => {
            return Err(refusal(format!(
                "encryption is configured, and {} has commits in clear text, which anybody who reads it goes on \
                 reading: nothing is stored or pushed. Say `clear_history: accept` under `encryption` to encrypt from \
                 now on and leave the older commits readable, or name another `branch`, whose history begins encrypted",
                batch.branch
            )));
        }
        _ => Some(commit),
    };
    Ok(Some(Switch { tree, parent, old, way: Way::Over }))
}

/// Whether all that is an OpenPGP message in a tree with this policy is to be one from now on too.
fn stays_open_pgp(batch: &Batch<'_>, is: &Policy) -> bool {
    let wanted = batch.sealer.map(|sealer| sealer.policy());
    wanted.is_some_and(|wanted| {
        wanted.cipher.is_open_pgp() && (wanted.paths.texts().is_empty() || wanted.paths == is.paths)
    })
}

/// Whether the key of the metadata is one that we made ourselves, and make anew if it is lost.
fn can_lose_key(batch: &Batch<'_>) -> bool {
    let method = batch.encryption.map(|encryption| &encryption.method);
    matches!(method, Some(EncryptionMethod::Gpg(gpg)) if gpg.makes_key)
}

/// Whether a branch that has no commits yet may begin at `commit`: not where that would bring clear text into a history
/// that is to have none. Then the next batch begins it, with what is there in the other form.
///
/// # Errors
/// When the commit cannot be read.
pub fn may_begin_at(repository: &Repository, commit: Oid, encryption: Option<&Encryption>) -> Result<bool> {
    let objects = repository.objects()?;
    let policy = Policy::of_tree(&objects, repository.tree_of(commit)?)?;
    if let Some(policy) = &policy
        && policy.cipher.is_open_pgp()
    {
        // What cannot be read cannot be stored in another way either.
        return Ok(encryption.is_none_or(|encryption| {
            matches!(encryption.method, EncryptionMethod::Gpg(_))
                && (encryption.paths.is_empty() || encryption.paths == policy.paths.texts())
        }));
    }
    Ok(policy.is_some() || !encryption.is_some_and(Encryption::refuses_clear_history))
}

/// The key of what is there is not.
fn is_missing(batch: &Batch<'_>, is: &Policy) -> Error {
    let wanted = batch
        .sealer
        .map_or_else(String::new, |sealer| format!(" (the configured one is {})", sealer.policy().key));
    refusal(format!(
        "the latest snapshot is encrypted with the key {}, which is not here{wanted}: nothing is stored. Put its file \
         back, or, if it was replaced on purpose, put the old one into the directory `old_keys` as {}.key",
        is.key, is.key
    ))
}

fn refusal(text: String) -> Error {
    Error::new(Kind::EncryptionKey, text)
}
