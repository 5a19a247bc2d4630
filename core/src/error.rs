//! Errors carry a kind, the place, and a fate: what the caller is to do about it.
//!
//! Rules: context is added once, where the place is known, and says what was attempted on what; an error is
//! never re-wrapped on its way up; a kind decides the fate, so no caller guesses; a limit of the operating
//! system has a kind of its own and a remedy in its text. Secrets never enter an error.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Trouble that passes by itself: try again by the retry law.
    Retry,
    /// Not now and not by retrying soon: keep the work, go on with the rest, look again later.
    Defer,
    /// Somebody has to decide or repair something: stop this line of work and say so.
    Halt,
}

/// What went wrong, as a program needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An operating system call failed for a reason without a kind of its own.
    Io,
    /// No space, inodes or quota left where we write.
    DiskFull,
    /// Too many open files, watches or instances; the text names the limit and the remedy.
    Limit,
    /// A watched root is missing, empty where it was not, or another file system.
    RootUnavailable,
    /// A repository or object that is not what Git's format says.
    Git,
    /// The state database cannot be read or written.
    Store,
    /// Somebody else moved a reference that only we should move.
    RefMoved,
    /// A remote cannot be reached at all.
    RemoteUnreachable,
    /// A remote's branch is not an ancestor of ours.
    Diverged,
    /// A remote refused, permanently as far as it says.
    RemoteRefused,
    /// A remote does not let us in, or what should let us in cannot be read.
    Credentials,
    /// A remote's SSH host key is not known, or is another one than before.
    HostKey,
    /// A key that encrypts or decrypts is missing, unreadable, wrong, expired or revoked, or what is stored and what the
    /// configuration says of encryption do not go together; nothing was written in clear.
    EncryptionKey,
    /// What should be encrypted stands in clear text in what was to be sent; nothing was.
    ClearText,
    /// A remote has no room left for us.
    Quota,
    /// A remote takes no request so large.
    TooLarge,
    /// A remote asks to be left alone for a while.
    Busy,
    /// A remote sent us to another host; nothing was sent there.
    Redirected,
    /// The state directory is in use by another process.
    InUse,
    /// A configuration or an argument that cannot be obeyed.
    Config,
    /// Asked to stop.
    Cancelled,
    /// A state that this program's own invariants rule out; a bug.
    Internal,
}

impl Kind {
    /// What to do about an error of this kind.
    pub fn fate(self) -> Fate {
        match self {
            Kind::Io
            | Kind::Git
            | Kind::Store
            | Kind::RefMoved
            | Kind::RemoteUnreachable
            | Kind::Busy
            | Kind::Internal => Fate::Retry,
            Kind::DiskFull | Kind::Limit | Kind::RootUnavailable | Kind::Cancelled => Fate::Defer,
            Kind::Diverged
            | Kind::RemoteRefused
            | Kind::Credentials
            | Kind::HostKey
            | Kind::EncryptionKey
            | Kind::ClearText
            | Kind::Quota
            | Kind::TooLarge
            | Kind::Redirected
            | Kind::InUse
            | Kind::Config => Fate::Halt,
        }
    }

    /// The word used in metrics, logs and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Io => "io",
            Kind::DiskFull => "disk_full",
            Kind::Limit => "limit",
            Kind::RootUnavailable => "root_unavailable",
            Kind::Git => "git",
            Kind::Store => "store",
            Kind::RefMoved => "ref_moved",
            Kind::RemoteUnreachable => "remote_unreachable",
            Kind::Diverged => "diverged",
            Kind::RemoteRefused => "remote_refused",
            Kind::Credentials => "credentials",
            Kind::HostKey => "host_key",
            Kind::EncryptionKey => "encryption_key",
            Kind::ClearText => "clear_text",
            Kind::Quota => "quota",
            Kind::TooLarge => "too_large",
            Kind::Busy => "busy",
            Kind::Redirected => "redirected",
            Kind::InUse => "in_use",
            Kind::Config => "config",
            Kind::Cancelled => "cancelled",
            Kind::Internal => "internal",
        }
    }
}

/// An error with its kind and the place.
pub struct Error {
    kind: Kind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// What ends a limit of the system; said after the source.
    remedy: Option<&'static str>,
    /// How long a remote asked to be left alone.
    retry_after: Option<Duration>,
    /// What the other end said about it.
    words: Option<String>,
}

impl Error {
    /// An error of our own finding.
    pub fn new(kind: Kind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None, remedy: None, retry_after: None, words: None }
    }

    /// An error somebody else reported, with what we were doing.
    pub fn with_source(
        kind: Kind,
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            context: context.into(),
            source: Some(source.into()),
            remedy: None,
            retry_after: None,
            words: None,
        }
    }

    /// A failed system call on `path`; `doing` is a verb phrase such as "read".
    pub fn io(doing: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let context = format!("cannot {doing} {}", crate::path::lossy(path.as_os_str().as_encoded_bytes()));
        let kind = kind_of_io(&source);
        Self { remedy: remedy_of(kind), ..Self::with_source(kind, context, source) }
    }

    /// The asked-for stop.
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "cancelled")
    }

    /// The same, not to be tried again before `pause` is over.
    #[must_use]
    pub fn not_before(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// The same, with what somebody said about it at the end.
    #[must_use]
    pub fn with_words(mut self, words: &str) -> Self {
        self.words = Some(words.to_owned());
        self
    }

    /// How long a remote asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What went wrong, for a program.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What to do about it.
    pub fn fate(&self) -> Fate {
        self.kind.fate()
    }
}

/// What a person does about a limit of the operating system, whatever was being done.
fn remedy_of(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::DiskFull => Some("make room there, or raise the quota; it goes on by itself then"),
        Kind::Limit => Some("allow this process more open files (ulimit -n, LimitNOFILE=)"),
        _ => None,
    }
}

/// Sorts the operating system's errors into kinds.
pub fn kind_of_io(error: &io::Error) -> Kind {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Kind::DiskFull,
        Some(Errno::MFILE | Errno::NFILE) => Kind::Limit,
        _ => Kind::Io,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if let Some(words) = &self.words {
            write!(f, " ({words})")?;
        }
        if let Some(remedy) = self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.kind.as_str())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_the_system_tells_its_remedy_after_the_place_and_the_cause() {
        use rustix::io::Errno;
        let said = |errno: Errno| Error::io("write", Path::new("/x/y"), io::Error::from(errno));
        for (errno, kind, word) in [
            (Errno::NOSPC, Kind::DiskFull, "make room"),
            (Errno::DQUOT, Kind::DiskFull, "quota"),
            (Errno::MFILE, Kind::Limit, "ulimit -n"),
            (Errno::NFILE, Kind::Limit, "ulimit -n"),
        ] {
            let error = said(errno);
            assert_eq!(error.kind(), kind);
            let text = error.to_string();
            assert!(text.starts_with("cannot write /x/y: ") && text.contains(word), "{text}");
        }
        assert_eq!(said(Errno::IO).to_string(), "cannot write /x/y: Input/output error (os error 5)");
    }
}
