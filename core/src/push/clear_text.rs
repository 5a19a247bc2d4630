//! The last look before anything is sent: nothing that a commit says is encrypted may stand there in clear text.
//!
//! In: the commits that the remote lacks. For each, every file that is new in it and that its own policy covers has to have
//! git-crypt's header, or be an OpenPGP message, or be a pointer to a large content that has it, or be empty. Out: nothing, or an error that names what
//! stands there in clear text; then nothing at all is sent. What is looked at is what changed, and of each file only
//! how it begins.

use std::collections::HashSet;
use std::io::Read;

use git2::{Oid, Sort};

use crate::crypt::gitcrypt::cipher::{self, OVERHEAD};
use crate::crypt::openpgp::header;
use crate::crypt::policy::{self, Policy};
use crate::error::{Error, Kind, Result};
use crate::git::contents::{ContentReader, Contents, may_point};
use crate::git::repository::{Repository, git_error};
use crate::lfs::{Objects, Pointer};
use crate::path::lossy;
use crate::progress::Progress;
use crate::tree::{self, MODE_COMMIT, MODE_SYMLINK};

/// Of so many the message has the names.
const NAMED: usize = 5;

/// Looks at what `commit` has beyond `have`. With `refuses_clear_history` a commit without any policy is a violation too.
///
/// # Errors
/// [`Kind::ClearText`]; what cannot be read; cancellation.
pub(super) fn check(
    source: &Repository,
    commit: Oid,
    have: &[Oid],
    refuses_clear_history: bool,
    progress: &Progress,
) -> Result<()> {
    let fail = |error| git_error("walk the history of", source.path(), error);
    let objects = source.objects()?;
    let mut commits = source.git().revwalk().map_err(fail)?;
    commits.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE).map_err(fail)?;
    commits.push(commit).map_err(fail)?;
    for tip in have {
        commits.hide(*tip).map_err(fail)?;
    }
    let contents = Contents::open(source.path())?;
    let mut judge = Judge {
        reader: contents.reader(),
        large: Objects::of(source.path()),
        judged: HashSet::new(),
        progress,
        clear: 0,
        named: Vec::new(),
    };
    let mut in_clear_text = 0;
    let mut read: Option<(Oid, Policy)> = None;
    for id in commits {
        progress.check()?;
        let id = id.map_err(fail)?;
        let tree = source.tree_of(id)?;
        let Some(said) = tree::lookup(&objects, tree, policy::PATH.as_bytes())? else {
            in_clear_text += 1;
            continue;
        };
        if read.as_ref().is_none_or(|(oid, _)| *oid != said.oid) {
            let policy = Policy::of_tree(&objects, tree)?;
            read = policy.map(|policy| (said.oid, policy));
        }
        let Some((_, policy)) = &read else { continue };
        let parent = source.git().find_commit(id).map_err(fail)?.parent_ids().next();
        let before = match parent {
            Some(parent) => Some(source.tree_of(parent)?),
            None => None,
        };
        // Under another policy everything there is new.
        let before = match before {
            Some(before) => tree::lookup(&objects, before, policy::PATH.as_bytes())?
                .filter(|entry| entry.oid == said.oid)
                .map(|_| before),
            None => None,
        };
        tree::diff_paths(&objects, before, Some(tree), &mut |change| match change.new {
            Some(new) if !matches!(new.mode, MODE_SYMLINK | MODE_COMMIT) => {
                match policy.cipher_of(change.path) {
                    Some(cipher) => judge.look(change.path, new.oid, cipher.is_open_pgp()),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        })?;
    }
    judge.verdict(source, commit)?;
    if refuses_clear_history && in_clear_text > 0 {
        let text = format!(
            "encryption is configured, and {in_clear_text} commits that the remote lacks are clear text: nothing is sent. \
             Say `clear_history: accept` under `encryption` to send them as they are, or name another `branch`, whose \
             history begins encrypted"
        );
        return Err(Error::new(Kind::ClearText, text));
    }
    Ok(())
}

/// Bytes by which a ciphertext is known.
fn beginning(is_message: bool) -> u64 {
    if is_message { header::ENOUGH_BYTES as u64 } else { OVERHEAD }
}

/// Whether something that begins so is an OpenPGP message, or what git-crypt makes. Of nothing git-crypt makes nothing.
fn is_ciphertext(first: &[u8], is_message: bool) -> bool {
    match is_message {
        true => header::look(first).is_some(),
        false => first.is_empty() || cipher::has_header(first),
    }
}

struct Judge<'j> {
    reader: ContentReader<'j>,
    large: Objects,
    /// A content that was found good at one path is good at another.
    judged: HashSet<(Oid, bool)>,
    progress: &'j Progress,
    clear: u64,
    named: Vec<String>,
}

impl Judge<'_> {
    fn look(&mut self, path: &[u8], blob: Oid, is_message: bool) -> Result<()> {
        self.progress.check()?;
        if self.judged.contains(&(blob, is_message)) {
            return Ok(());
        }
        if self.is_encrypted(blob, is_message)? {
            self.judged.insert((blob, is_message));
            return Ok(());
        }
        self.clear += 1;
        if self.named.len() < NAMED {
            self.named.push(lossy(path));
        }
        Ok(())
    }

    fn is_encrypted(&mut self, blob: Oid, is_message: bool) -> Result<bool> {
        let found = self.reader.find(blob)?;
        let enough = beginning(is_message).min(found.size);
        let first = self.reader.first_bytes(&found, enough as usize, self.progress)?;
        if is_ciphertext(&first, is_message) {
            return Ok(true);
        }
        if !may_point(found.size) {
            return Ok(false);
        }
        let text = self.reader.first_bytes(&found, found.size as usize, self.progress)?;
        let Some(pointer) = Pointer::parse(&text) else { return Ok(false) };
        // What is not here any more was let go of after remotes had it, and was looked at before they did.
        let Some(mut file) = self.large.open(&pointer.id)? else { return Ok(true) };
        let mut first = Vec::new();
        Read::take(&mut file, beginning(is_message))
            .read_to_end(&mut first)
            .map_err(|error| Error::io("read", &self.large.path_of(&pointer.id), error))?;
        Ok(is_ciphertext(&first, is_message))
    }

    fn verdict(self, source: &Repository, commit: Oid) -> Result<()> {
        if self.clear == 0 {
            return Ok(());
        }
        let more = match self.clear - self.named.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text = format!(
            "{} of the files that are new up to {commit} should be encrypted and stand in clear text in {}: {}{more}. \
             Nothing is sent. Find out who committed that (`git log` there), set the branch back to the commit before it \
             (`git update-ref`) and restart: what is in the watched directories is stored again then, encrypted",
            self.clear,
            lossy(source.path().as_os_str().as_encoded_bytes()),
            self.named.join(", ")
        );
        Err(Error::new(Kind::ClearText, text))
    }
}
