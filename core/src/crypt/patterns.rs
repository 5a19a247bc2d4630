//! Which paths of a repository are encrypted, said so that Git's attributes say exactly the same.
//!
//! A pattern is one of gitignore syntax, without what Git's attributes lack or read otherwise:
//!
//! ```text
//! secret/        everything in a directory of that name, wherever it is
//! *.key          files of such a name, and everything in directories of such a name
//! /docs/private  that file, or everything in that directory of the root `docs`
//! docs/**/tax    the same at any depth below `docs`
//! ```
//!
//! It is matched with the path as it stands in the repository, the root's name first and escaped names escaped. `*` and `?`
//! match within one name, `**` stands for any number of directories; `!`, `[`, `]`, `\`, `{`, `}`, `"` and a
//! leading `#` are refused. In: such a text. Out: whether it matches a path, and the lines of `.gitattributes`.

/// What stands for any number of directories.
const ANY_DEPTH: &str = "**";

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// As it was given.
    text: String,
    parts: Vec<String>,
    /// It begins at the top of the repository.
    is_anchored: bool,
    /// Only what is in a directory of that name, not a file.
    is_directory: bool,
}

impl Pattern {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(refused) = text.chars().find(|c| "![]\\{}\"".contains(*c) || c.is_control()) {
            return Err(format!(
                "`{}` has no place in a pattern of what is encrypted",
                refused.escape_debug()
            ));
        }
        if text.starts_with('#') || text.trim() != text {
            return Err("a pattern begins with no `#`, and neither begins nor ends with a blank".to_owned());
        }
        let (rest, is_directory) = match text.strip_suffix('/') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let is_anchored = rest.contains('/');
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        let parts: Vec<String> = rest.split('/').map(str::to_owned).collect();
        for part in &parts {
            if part.is_empty() || part == "." || part == ".." {
                return Err("a pattern has no empty part, and neither `.` nor `..`".to_owned());
            }
            if part.contains(ANY_DEPTH) && part != ANY_DEPTH {
                return Err("`**` stands between two `/`, for any number of directories".to_owned());
            }
        }
        if parts.last().is_some_and(|last| last == ANY_DEPTH) {
            return Err("`**` at the end says nothing: name the directory, with `/` at its end".to_owned());
        }
        Ok(Self { text: text.to_owned(), parts, is_anchored, is_directory })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches a file's path in the repository, or a directory above it.
    pub fn matches(&self, path: &[u8]) -> bool {
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let all = if self.is_directory { names.len().saturating_sub(1) } else { names.len() };
        let parts: Vec<&[u8]> = self.parts.iter().map(|part| part.as_bytes()).collect();
        if self.is_anchored {
            return (1..=all).any(|length| matches_names(&parts, &names[..length]));
        }
        names[..all].iter().any(|name| matches_name(parts[0], name))
    }

    /// The patterns of `.gitattributes` that together match the same files.
    fn lines(&self) -> Vec<String> {
        let joined = self.parts.join("/");
        let mut lines = Vec::new();
        if !self.is_directory {
            lines.push(if self.is_anchored { format!("/{joined}") } else { joined.clone() });
        }
        lines.push(if self.is_anchored { format!("/{joined}/**") } else { format!("**/{joined}/**") });
        lines.into_iter().map(|line| if line.contains(' ') { format!("\"{line}\"") } else { line }).collect()
    }
}

/// Several patterns; none stands for everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Reads them.
    ///
    /// # Errors
    /// What is wrong with the first wrong one.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, String> {
        texts.iter().map(|text| Pattern::parse(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether every path is meant.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path is meant.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(path))
    }

    /// As they were given.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(|pattern| pattern.text.clone()).collect()
    }

    /// What stands on the left of a line of `.gitattributes` for each.
    pub fn lines(&self) -> Vec<String> {
        if self.0.is_empty() {
            return vec!["*".to_owned()];
        }
        self.0.iter().flat_map(Pattern::lines).collect()
    }
}

fn matches_names(parts: &[&[u8]], names: &[&[u8]]) -> bool {
    // Whether the first `i` parts match the first `j` names, row by row: no pattern makes this slow.
    let mut row = vec![false; names.len() + 1];
    row[0] = true;
    for part in parts {
        let mut next = vec![false; names.len() + 1];
        for j in 0..=names.len() {
            next[j] = if *part == ANY_DEPTH.as_bytes() {
                row[j] || (j > 0 && next[j - 1])
            } else {
                j > 0 && row[j - 1] && matches_name(part, names[j - 1])
            };
        }
        row = next;
    }
    row[names.len()]
}

/// Whether one name matches a part with `*` and `?`, which match bytes as Git's do.
fn matches_name(part: &[u8], name: &[u8]) -> bool {
    let (mut at, mut on) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while on < name.len() {
        match part.get(at) {
            Some(b'*') => {
                retry = Some((at, on));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[on] => (at, on) = (at + 1, on + 1),
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (at, on) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    part[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn patterns(texts: &[&str]) -> Patterns {
        Patterns::parse(texts).unwrap()
    }

    #[test]
    fn a_pattern_means_what_it_says() {
        let all = patterns(&["secret/", "*.key", "/docs/private", "mail/**/tax"]);
        for path in
            ["a/secret/x", "secret/deep/x", "a/b.key", "a/b.key/c", "docs/private", "docs/private/x/y"]
        {
            assert!(all.matches(path.as_bytes()), "{path}");
        }
        for path in ["mail/tax", "mail/a/b/tax/c"] {
            assert!(all.matches(path.as_bytes()), "{path}");
        }
        for path in ["a/secret", "secrets/x", "a/b.keys", "a/docs/private", "docs/privates", "post/tax"] {
            assert!(!all.matches(path.as_bytes()), "{path}");
        }
        assert!(Patterns::default().matches(b"anything/at/all"));
    }

    #[test]
    fn what_git_reads_otherwise_is_refused() {
        for text in [
            "!a", "#a", "a[b]", "a\\b", "{a,b}", "", "/", "a//b", "a/../b", "a**", "a/**", " a", "a\"", "a\n",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }

    /// Which of the paths have the filter, as git sees it.
    fn as_git_says(patterns: &Patterns, paths: &[String]) -> Vec<bool> {
        let scratch = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.current_dir(scratch.path()).args(arguments);
            command.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", scratch.path());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        git(&["init", "-q"]);
        let lines: String =
            patterns.lines().iter().map(|line| format!("{line} filter=git-crypt\n")).collect();
        std::fs::write(scratch.path().join(".gitattributes"), lines).unwrap();
        let mut arguments = vec!["check-attr", "-z", "filter", "--"];
        arguments.extend(paths.iter().map(String::as_str));
        let said = git(&arguments);
        let words: Vec<&[u8]> = said.split(|byte| *byte == 0).collect();
        words.chunks_exact(3).map(|chunk| chunk[2] == b"git-crypt").collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn git_matches_the_same_paths(
            texts in proptest::collection::vec("/?((a|b|a b|\\*|a\\*|\\?b|é|\\*\\*)/){0,3}(a|b|a b|\\*b|\\?|é)/?", 1..4),
            paths in proptest::collection::vec("(a|b|ab|a b|bb|é)(/(a|b|ab|a b|bb|é)){0,4}", 1..30),
        ) {
            let patterns = Patterns::parse(&texts);
            prop_assume!(patterns.is_ok());
            let patterns = patterns.unwrap();
            for (path, said) in paths.iter().zip(as_git_says(&patterns, &paths)) {
                prop_assert_eq!(patterns.matches(path.as_bytes()), said, "{} with {:?}", path, &texts);
            }
        }
    }
}
