//! What a restore did, or would do: numbers, and names of what could not be done.
//!
//! One [`Report`] for people ([`Report::summary`]) and for programs (serde). Numbers are exact; of names at most
//! [`MOST_NAMED`] are kept, so that a hostile repository cannot fill the memory with complaints.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::names::RootName;
use crate::path::RelPath;
use crate::wording::{counted, files};

use super::step::{Action, Step};

/// Problems, and remarks, that are named; all are counted.
pub const MOST_NAMED: usize = 10_000;

/// A path and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// `<root>/path`, lossy.
    pub path: String,
    /// The exact bytes, base64, if the path had to be changed to be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// What is to be said.
    pub reason: String,
}

impl Named {
    /// Something about a path of a root.
    pub fn new(root: &RootName, path: &RelPath, reason: impl Into<String>) -> Self {
        let mut bytes = root.as_str().as_bytes().to_vec();
        if !path.is_root() {
            bytes.push(b'/');
            bytes.extend_from_slice(path.as_bytes());
        }
        Self::at(&bytes, reason)
    }

    /// Something about any path.
    pub fn at(path: &[u8], reason: impl Into<String>) -> Self {
        let shown = crate::path::lossy(path);
        let path_b64 = (shown.as_bytes() != path).then(|| STANDARD.encode(path));
        Self { path: shown, path_b64, reason: reason.into() }
    }
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Regular files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories made.
    pub directories: u64,
    /// Symbolic links written.
    pub symlinks: u64,
    /// Files that became further names of others.
    pub hard_links: u64,
    /// Named pipes, sockets and devices made.
    pub specials: u64,
    /// Of these, how many took the place of something else.
    pub replaced: u64,
    /// Things whose content was right and whose metadata was not.
    pub adjusted: u64,
    /// What was as it should be already.
    pub equal: u64,
    /// What is different and was left as it is because of the policy.
    pub left: u64,
    /// What was removed because the snapshot does not have it.
    pub deleted: u64,
    /// Special files that were not asked for.
    pub specials_skipped: u64,
    /// What is not in the snapshot and was left out of a deletion because it is excluded from the backup.
    pub excluded_kept: u64,
    /// Owners or groups that could not be set.
    pub owners_refused: u64,
    /// Extended attributes that could not be set.
    pub attributes_refused: u64,
    /// Set-id bits that were set.
    pub set_id: u64,
    /// Set-id bits that were left out.
    pub set_id_dropped: u64,
}

impl Totals {
    /// Things that are (or would be) made, changed or removed.
    pub fn changes(&self) -> u64 {
        self.files
            + self.directories
            + self.symlinks
            + self.hard_links
            + self.specials
            + self.adjusted
            + self.deleted
    }
}

/// What a second reading from the disk found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reread {
    /// Things compared.
    pub compared: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Things that are not what the snapshot says; each is a problem too.
    pub different: u64,
}

/// What happened, or would happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The commit.
    pub snapshot: String,
    /// Where to.
    pub target: String,
    /// Nothing was done: this is what would be.
    pub dry_run: bool,
    /// It came to its end; else it was stopped, and the same command goes on.
    pub finished: bool,
    /// How many of each.
    pub totals: Totals,
    /// What could not be restored.
    pub problem_count: u64,
    /// By name, up to [`MOST_NAMED`].
    pub problems: Vec<Named>,
    /// What was restored and is to be known: metadata that does not fit, a hard link that became a copy.
    pub remark_count: u64,
    /// By name, up to [`MOST_NAMED`].
    pub remarks: Vec<Named>,
    /// What `--verify` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Reread>,
}

impl Report {
    /// Counts a step as done.
    pub fn count(&mut self, step: &Step) {
        use crate::beneath::EntryKind;
        let totals = &mut self.totals;
        match &step.action {
            Action::Write | Action::Replace => {
                match step.kind {
                    EntryKind::File => {
                        totals.files += 1;
                        totals.bytes += step.bytes;
                    }
                    EntryKind::Directory => totals.directories += 1,
                    EntryKind::Symlink => totals.symlinks += 1,
                    _ => totals.specials += 1,
                }
                totals.replaced += u64::from(step.action == Action::Replace);
            }
            Action::Link(_) => totals.hard_links += 1,
            Action::Adjust => totals.adjusted += 1,
            Action::Equal => totals.equal += 1,
            Action::Leave => totals.left += 1,
            Action::Delete => totals.deleted += 1,
            Action::KeepExcluded => totals.excluded_kept += 1,
            Action::SkipSpecial => totals.specials_skipped += 1,
            Action::Conflict(why) => self.problem(Named::new(&step.root, &step.path, why.clone())),
        }
    }

    /// Adds what could not be restored.
    pub fn problem(&mut self, problem: Named) {
        self.problem_count += 1;
        if self.problems.len() < MOST_NAMED {
            self.problems.push(problem);
        }
    }

    /// Adds something to be known.
    pub fn remark(&mut self, remark: Named) {
        self.remark_count += 1;
        if self.remarks.len() < MOST_NAMED {
            self.remarks.push(remark);
        }
    }

    /// Threads finish in any order; reports are read in that of the names.
    pub fn sort(&mut self) {
        self.problems.sort();
        self.remarks.sort();
    }

    /// The numbers for people, one line each.
    pub fn summary(&self) -> String {
        let totals = &self.totals;
        let (was, were) = if self.dry_run { ("would be", "would be") } else { ("was", "were") };
        let kinds = [
            format!("{} ({})", files(totals.files), ByteSize(totals.bytes).display().iec()),
            counted(totals.directories, "directory", "directories"),
            counted(totals.symlinks, "symbolic link", "symbolic links"),
            counted(totals.hard_links, "hard link", "hard links"),
        ];
        let specials = counted(totals.specials, "special file", "special files");
        let mut lines = vec![format!("{} and {specials} {were} restored", kinds.join(", "))];
        let mut say = |count: u64, one: &str, many: &str| {
            if count > 0 {
                lines.push(counted(count, one, many));
            }
        };
        let in_place_of = "put in the place of something else";
        say(
            totals.replaced,
            &format!("of them {was} {in_place_of}"),
            &format!("of them {were} {in_place_of}"),
        );
        say(
            totals.adjusted,
            "had the right content and got its metadata back",
            "had the right content and got their metadata back",
        );
        say(
            totals.equal,
            "stood there already, and is as it should be",
            "stood there already, and are as they should be",
        );
        say(
            totals.left,
            "stood there already, differs, and was left as it is",
            "stood there already, differ, and were left as they are",
        );
        say(
            totals.deleted,
            &format!("is not in the snapshot and {was} removed"),
            &format!("are not in the snapshot and {were} removed"),
        );
        say(
            totals.excluded_kept,
            "is not in the snapshot and excluded from the backup: left as it is",
            "are not in the snapshot and excluded from the backup: left as they are",
        );
        say(
            totals.specials_skipped,
            "special file was not asked for (--special)",
            "special files were not asked for (--special)",
        );
        say(
            totals.owners_refused,
            "has another owner or group than recorded, for want of the right to give things away",
            "have another owner or group than recorded, for want of the right to give things away",
        );
        say(
            totals.attributes_refused,
            "extended attribute was refused by the system",
            "extended attributes were refused by the system",
        );
        say(
            totals.set_id,
            "runs with the rights of its owner or group (set-id), as recorded",
            "run with the rights of their owner or group (set-id), as recorded",
        );
        say(
            totals.set_id_dropped,
            "was recorded with set-id bits, which were left out",
            "were recorded with set-id bits, which were left out",
        );
        if let Some(verified) = &self.verified {
            lines.push(format!(
                "read again from the disk: {}, {}, {} of them not as recorded",
                counted(verified.compared, "thing", "things"),
                ByteSize(verified.bytes).display().iec(),
                verified.different
            ));
        }
        if self.problem_count > 0 {
            lines.push(format!("{} could NOT be restored", self.problem_count));
        }
        lines.join("\n")
    }
}
