//! What is left out unless `system_excludes: false`: only names that no person gave and that hold nothing a
//! person could miss. What a program writes to save somebody's work stays in: `*~`, Emacs' `#name#`, macOS'
//! `._name` (which carries tags and resource forks on foreign file systems), `desktop.ini` (chosen icons).
//! A rule for files never hides a directory of that name, nor the reverse. Any rule can be taken back with a
//! negated pattern, e.g. `!Thumbs.db`, in the configuration or in an ignore file.

use super::pattern::{Entries, Line, Pattern};

/// One built-in rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemExclude {
    /// In gitignore syntax; a trailing slash: directories only, otherwise: everything but directories.
    pub pattern: &'static str,
    /// Why it is no loss, for `why` and the documentation.
    pub reason: &'static str,
}

/// The built-in list; as everywhere, the last rule that matches decides.
pub const SYSTEM_EXCLUDES: &[SystemExclude] = &[
    SystemExclude { pattern: ".DS_Store", reason: "window positions of macOS' Finder" },
    SystemExclude { pattern: ".Spotlight-V100/", reason: "search index of macOS, made again by itself" },
    SystemExclude { pattern: ".fseventsd/", reason: "event log of macOS, of no use elsewhere" },
    SystemExclude { pattern: ".Trashes/", reason: "macOS' wastebasket of a volume" },
    SystemExclude { pattern: "Thumbs.db", reason: "preview pictures of Windows, made again by themselves" },
    SystemExclude { pattern: "ehthumbs.db", reason: "preview pictures of Windows Media Center" },
    SystemExclude { pattern: "$RECYCLE.BIN/", reason: "Windows' wastebasket of a volume" },
    SystemExclude { pattern: "System Volume Information/", reason: "restore points and indexes of Windows" },
    // Vim counts down from .swp; it stops here above .swf, which is a Flash film.
    SystemExclude { pattern: ".*.sw[g-p]", reason: "swap file of Vim while a file is open" },
    SystemExclude { pattern: ".#*", reason: "lock of Emacs while a buffer is unsaved" },
    SystemExclude { pattern: "!.#*.[0-9]*", reason: "CVS keeps replaced working files so: they are data" },
    SystemExclude { pattern: "~$*", reason: "owner file of Microsoft Office while a document is open" },
    SystemExclude { pattern: ".~lock.*#", reason: "lock of LibreOffice while a document is open" },
    SystemExclude {
        pattern: ".nfs[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]\
                  [0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]\
                  [0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]",
        reason: "file deleted while open, as an NFS client keeps it until it is closed",
    },
    SystemExclude {
        pattern: ".fuse_hidden[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]\
                  [0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]",
        reason: "file deleted while open, as FUSE keeps it until it is closed",
    },
    SystemExclude {
        pattern: ".Trash-[0-9]*/",
        reason: "a user's wastebasket on this volume (freedesktop.org)",
    },
    SystemExclude {
        pattern: ".backupbot-restoring-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]\
                  [0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[0-9]*",
        reason: "file of a restore that is being written, or that died; the next one removes it",
    },
    SystemExclude { pattern: "/lost+found/", reason: "what fsck puts aside, at the top of a file system" },
];

/// The built-in list, compiled.
pub(super) fn patterns() -> impl Iterator<Item = Pattern> {
    SYSTEM_EXCLUDES.iter().zip(1..).filter_map(|(exclude, number)| {
        match Pattern::parse(exclude.pattern.as_bytes(), number) {
            Line::Pattern(mut pattern) => {
                if pattern.entries == Entries::All {
                    pattern.entries = Entries::Files;
                }
                Some(pattern)
            }
            Line::Blank | Line::Void(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_rule_compiles_and_has_a_reason() {
        assert_eq!(patterns().count(), SYSTEM_EXCLUDES.len());
        assert!(SYSTEM_EXCLUDES.iter().all(|exclude| !exclude.reason.is_empty()));
    }
}
