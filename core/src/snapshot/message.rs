//! The commit object and the tags: text that plain Git shows and that a later start can trust.

use git2::Oid;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::switch::Again;
use super::{Batch, FORMAT, Summary};
use crate::config::TagPeriod;
use crate::error::{Error, Kind, Result};

/// The trailer that names who made a commit.
pub const INSTANCE_TRAILER: &str = "BackupBot-Instance";
/// The trailer with the batch's number.
pub const BATCH_TRAILER: &str = "BackupBot-Batch";
/// The trailer with the roots' names, comma-separated.
pub const ROOTS_TRAILER: &str = "BackupBot-Roots";
/// The trailer with the bytes of the files that the subject counts as added or changed.
pub const BYTES_TRAILER: &str = "BackupBot-Bytes";
/// The trailer of a commit that brings everything into another form: what it was, and what it is.
pub const SWITCH_TRAILER: &str = "BackupBot-Switch";
/// The trailer with the layout's version.
pub const FORMAT_TRAILER: &str = "BackupBot-Format";

/// Numbers of files in one commit against its parent, as its subject says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Files and links that were not there before.
    pub added: u64,
    /// Files and links whose content or metadata is new.
    pub changed: u64,
    /// Entries that are gone; a directory counts once.
    pub deleted: u64,
}

/// A commit object's bytes.
pub(super) fn commit_object(
    batch: &Batch<'_>,
    tree: Oid,
    parent: Option<Oid>,
    at: Timestamp,
    summary: &Summary,
) -> Result<String> {
    let (name, email) = batch.identity;
    for part in [name, email, batch.instance] {
        if part.contains(['<', '>', '\n', '\0']) {
            return Err(Error::new(Kind::Config, format!("{part:?} cannot stand in a commit")));
        }
    }
    let seconds = at.as_second();
    let parent = parent.map(|parent| format!("parent {parent}\n")).unwrap_or_default();
    let roots: Vec<String> = batch.roots.iter().map(|root| listed(root.name.as_str())).collect();
    let (told, switched) = match &summary.switched {
        None => (String::new(), String::new()),
        Some(switched) => {
            let (from, to) = (&switched.from, &switched.to);
            let told = match switched.again {
                None => format!(
                    "Everything is stored in another form: from {from} to {to}. No file changed, came or went.\n\n"
                ),
                Some(Again::Afresh) => format!(
                    "A new beginning: from {from} to {to}. Nothing is here yet; the next commits bring what is in the \
                     watched directories.\n\n"
                ),
                Some(again) => format!(
                    "Everything is encrypted anew ({}): from {from} to {to}. No file changed, came or went; the next \
                     commits bring each as it is read again.\n\n",
                    again.as_str()
                ),
            };
            (told, format!("{SWITCH_TRAILER}: {from} -> {to}\n"))
        }
    };
    Ok(format!(
        "tree {tree}\n{parent}author {name} <{email}> {seconds} +0000\ncommitter {name} <{email}> {seconds} +0000\n\n\
         backup {}: {} added, {} changed, {} deleted\n\n\
         {told}{INSTANCE_TRAILER}: {}\n{BATCH_TRAILER}: {}\n{ROOTS_TRAILER}: {}\n{BYTES_TRAILER}: {}\n{switched}\
         {FORMAT_TRAILER}: {FORMAT}\n",
        at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        summary.added,
        summary.changed,
        summary.deleted,
        batch.instance,
        batch.number,
        roots.join(","),
        summary.bytes,
    ))
}

/// A root's name in the list: a comma or percent sign in it is percent-encoded.
pub fn listed(root: &str) -> String {
    root.replace('%', "%25").replace(',', "%2C")
}

/// The inverse of [`listed`].
pub fn unlisted(name: &str) -> String {
    name.replace("%2C", ",").replace("%25", "%")
}

/// The numbers in a subject of ours: added, changed, deleted.
pub fn counts_in_subject(message: &str) -> Option<Counts> {
    let numbers = message.lines().next()?.strip_prefix("backup ")?.split_once(": ")?.1;
    let mut parts = numbers.split(", ");
    let mut next = |word: &str| parts.next()?.strip_suffix(word)?.strip_suffix(' ')?.parse().ok();
    Some(Counts { added: next("added")?, changed: next("changed")?, deleted: next("deleted")? })
}

/// A trailer's value in a commit message.
pub fn trailer<'m>(message: &'m str, key: &str) -> Option<&'m str> {
    let last_paragraph = message.trim_end().rsplit("\n\n").next()?;
    last_paragraph.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim)
}

/// The tags to set with this commit, in full.
pub(super) fn tags(batch: &Batch<'_>, at: Timestamp) -> Result<Vec<String>> {
    if batch.tags.every == TagPeriod::None {
        return Ok(Vec::new());
    }
    let rendered = at.to_zoned(TimeZone::UTC).strftime(&batch.tags.name).to_string();
    let mut name = format!("refs/tags/{rendered}");
    if batch.repository.reference(&name)?.is_some() {
        if batch.tags.every != TagPeriod::Commit {
            return Ok(Vec::new());
        }
        name = format!("{name}.{}", batch.number);
    }
    if !git2::Reference::is_valid_name(&name) {
        return Err(Error::new(
            Kind::Config,
            format!("tags.name gives {rendered:?}, which is no name for a tag"),
        ));
    }
    Ok(vec![name])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_is_found_only_in_the_last_paragraph() {
        let message =
            "backup\n\nBackupBot-Instance: forged\n\nBackupBot-Instance: laptop\nBackupBot-Batch: 7\n";
        assert_eq!(trailer(message, INSTANCE_TRAILER), Some("laptop"));
        assert_eq!(trailer(message, BATCH_TRAILER), Some("7"));
        assert_eq!(trailer(message, ROOTS_TRAILER), None);
        assert_eq!(trailer("", INSTANCE_TRAILER), None);
    }

    #[test]
    fn the_numbers_in_a_subject_are_read_and_nothing_that_only_looks_like_them() {
        let numbers = Some(Counts { added: 3, changed: 1, deleted: 0 });
        assert_eq!(
            counts_in_subject("backup 2026-11-22T13:05:00Z: 3 added, 1 changed, 0 deleted\n\nx"),
            numbers
        );
        for other in [
            "",
            "backup x",
            "backup x: 3 added",
            "backup x: -3 added, 1 changed, 0 deleted",
            "x: 3 added, 1 changed, 0 deleted",
        ] {
            assert_eq!(counts_in_subject(other), None, "{other}");
        }
    }

    #[test]
    fn a_roots_name_in_the_list_comes_back() {
        for name in ["plain", "a,b", "100%", "%2C", "%252C,"] {
            assert_eq!(unlisted(&listed(name)), name);
        }
    }
}
