//! The names an operator gives: checked once, at the edge, so that they are safe everywhere after it.
//!
//! A name becomes a directory in the repository, a file below the state directory, a metric label and a part
//! of URLs, so its alphabet is small: letters, digits, `.`, `_`, `-`, and for root names also any other
//! UTF-8 letter, space included, because a root is named after its directory by default.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name in bytes: 200 leaves room for suffixes below the 255 bytes of a path component.
pub const MAX_NAME_BYTES: usize = 200;

/// Why a name was refused, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is left to name anything by.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("a name has at most {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// The character that does not belong.
    #[error("a name must not contain {0:?}")]
    Character(char),
    /// Starts with a dot or a dash, which Git and shells take for something else, or is reserved.
    #[error("the name {0:?} is reserved")]
    Reserved(String),
}

fn check(name: &str, allowed: impl Fn(char) -> bool) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong);
    }
    if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        return Err(NameError::Character(bad));
    }
    let reserved = name.starts_with(['.', '-'])
        || name.ends_with('.')
        || name.ends_with(".lock")
        || name.starts_with(crate::path::ESCAPE_PREFIX_STR)
        || crate::path::needs_escape(name.as_bytes());
    if reserved {
        return Err(NameError::Reserved(name.to_owned()));
    }
    Ok(())
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `name` and wraps it.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check(&name, $allowed)?;
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

name_type!(
    /// A watched directory's name: its directory in the repository.
    RootName,
    |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':' | '\u{7f}')
);
name_type!(
    /// A repository's name: `<state_dir>/repos/<name>.git`, and a metric label.
    RepositoryName,
    |c: char| plain(c) || c == ' ' || (!c.is_ascii() && c.is_alphanumeric())
);
name_type!(
    /// A remote's name within its repository.
    RemoteName,
    plain
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_taken() {
        for name in ["documents", "folder1", "My Files", "Žluťoučký", "a.b_c-d"] {
            assert!(RootName::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_git_or_a_shell_acts_on_are_refused() {
        for name in
            ["", ".", "..", ".git", ".backupbot", "-rf", "a/b", "a\0b", "a\nb", "git~1", "x.lock", "_bb_x"]
        {
            assert!(RootName::new(name).is_err(), "{name:?}");
        }
        assert!(RemoteName::new("my remote").is_err());
        assert!(RootName::new("x".repeat(201)).is_err());
    }
}
