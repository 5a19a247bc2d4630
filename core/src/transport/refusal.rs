//! What a remote's words and numbers mean: which kind of trouble it is, and so what is done about it.
//!
//! Hosts agree on HTTP's status codes and on hardly any wording. Only phrases that programs emit, not people, are
//! looked for; what is not recognised is a refusal of its own kind, shown with the remote's own words.

use crate::error::{Error, Kind};
use std::time::Duration;

/// A remote that names no time, or a longer one, is asked again after this.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Phrases of Git, and of hosts in Git's place, in lower case. The first that fits counts.
const PHRASES: &[(&str, Kind)] = &[
    ("no space left on device", Kind::Quota),
    ("disk quota exceeded", Kind::Quota),
    ("quota", Kind::Quota),
    ("repository size", Kind::Quota),
    ("pack exceeds maximum allowed size", Kind::TooLarge),
    ("exceeds github's file size limit", Kind::TooLarge),
    ("exceeds the maximum", Kind::TooLarge),
    ("file size limit", Kind::TooLarge),
    ("permission denied", Kind::Credentials),
    ("access denied", Kind::Credentials),
    ("authentication failed", Kind::Credentials),
    ("write access to repository not granted", Kind::Credentials),
    ("not allowed to push", Kind::Credentials),
    ("could not read username", Kind::Credentials),
    ("rate limit", Kind::Busy),
    ("too many requests", Kind::Busy),
    ("temporarily unavailable", Kind::Busy),
    ("unable to create temporary", Kind::RemoteUnreachable),
    ("resource temporarily", Kind::RemoteUnreachable),
];

/// What kind of trouble a message of a server tells of.
pub(crate) fn kind_of(message: &[u8]) -> Kind {
    let text = String::from_utf8_lossy(message).to_lowercase();
    PHRASES.iter().find(|(phrase, _)| text.contains(phrase)).map_or(Kind::RemoteRefused, |(_, kind)| *kind)
}

/// What kind of trouble it is when one reference was not moved. Git's own words for "it stands elsewhere by now" mean
/// that a second look sorts it out.
pub(super) fn kind_of_reference(reason: &str, messages: &str) -> Kind {
    let reason = reason.to_lowercase();
    const MOVED: &[&str] = &[
        "non-fast-forward",
        "fetch first",
        "stale info",
        "already exists",
        "failed to update ref",
        "failed to lock",
        "cannot lock ref",
        "reference already exists",
    ];
    // Another reference stands where a directory would have to be, or the reverse; the message says so.
    let in_the_way = messages.contains("there are still")
        || messages.contains("cannot create 'refs/")
        || messages.contains("exists; cannot create");
    if MOVED.iter().any(|phrase| reason.contains(phrase)) && !in_the_way {
        return Kind::RefMoved;
    }
    match kind_of(reason.as_bytes()) {
        Kind::RemoteRefused => match kind_of(messages.as_bytes()) {
            // A hook may talk of anything; that it refused is certain.
            Kind::Quota => Kind::Quota,
            Kind::TooLarge => Kind::TooLarge,
            _ => Kind::RemoteRefused,
        },
        kind => kind,
    }
}

/// An HTTP status that is no success. `doing` is a phrase such as "list the references of URL".
pub(super) fn of_status(status: u16, doing: &str, retry_after: Option<Duration>, body: &[u8]) -> Error {
    let said = {
        let text = super::said(body);
        if text.is_empty()
            || text.contains("<html")
            || text.contains("<!DOCTYPE")
            || text.contains("<!doctype")
        {
            String::new()
        } else {
            format!(": \"{text}\"")
        }
    };
    let (kind, meaning) = match status {
        401 => (Kind::Credentials, "the user name, password or token was not accepted"),
        402 => (Kind::Quota, "the remote asks for a payment"),
        403 => (Kind::Credentials, "these credentials may not do that"),
        404 | 410 => {
            (Kind::RemoteRefused, "there is no such repository, or these credentials may not see it")
        }
        405 | 406 | 415 | 426 => {
            (Kind::RemoteRefused, "what answers there is no Git server that takes pushes over HTTP")
        }
        407 => (Kind::Credentials, "the proxy asks for credentials"),
        408 | 425 => (Kind::RemoteUnreachable, "the remote asks to try again"),
        413 => (Kind::TooLarge, "the request is too large for the remote"),
        422 => (Kind::RemoteRefused, "the remote cannot process it"),
        423 => (Kind::RemoteRefused, "the repository is locked, archived or read-only"),
        429 => (Kind::Busy, "the remote asks to be left alone for a while"),
        503 => (Kind::Busy, "the remote is not available now"),
        507 | 509 => (Kind::Quota, "the remote has no room left for this account"),
        500..=599 => (Kind::RemoteUnreachable, "the remote, or a proxy before it, has failed"),
        _ => (Kind::RemoteRefused, "the remote refuses"),
    };
    let kind = match (kind, kind_of(body)) {
        (Kind::Credentials | Kind::RemoteRefused, Kind::Quota) if !said.is_empty() => Kind::Quota,
        (Kind::Credentials, Kind::Busy) if !said.is_empty() => Kind::Busy,
        (kind, _) => kind,
    };
    let error = Error::new(kind, format!("cannot {doing}: HTTP status {status}, {meaning}{said}"));
    match retry_after {
        Some(pause) => error.not_before(pause.min(LONGEST_RETRY_AFTER)),
        None => error,
    }
}

/// A `Retry-After` header: seconds, or a date of RFC 9110.
pub(crate) fn retry_after(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    let pause = date.duration_since(now);
    Some(Duration::try_from(pause).unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_servers_are_sorted_into_kinds() {
        for (message, kind) in [
            ("fatal: write error: No space left on device", Kind::Quota),
            ("remote: Quota exceeded for this repository", Kind::Quota),
            (
                "remote: error: File big.iso is 120.00 MB; this exceeds GitHub's file size limit of 100.00 MB",
                Kind::TooLarge,
            ),
            ("fatal: pack exceeds maximum allowed size", Kind::TooLarge),
            ("ERROR: Permission denied to deploy key", Kind::Credentials),
            ("GitLab: You are not allowed to push code", Kind::Credentials),
            ("policy: commit messages need a ticket", Kind::RemoteRefused),
        ] {
            assert_eq!(kind_of(message.as_bytes()), kind, "{message}");
        }
    }

    #[test]
    fn a_reference_that_moved_is_looked_at_again_and_a_hooks_refusal_is_one() {
        for (reason, messages, kind) in [
            ("non-fast-forward", "", Kind::RefMoved),
            ("failed to update ref", "", Kind::RefMoved),
            (
                "failed to update ref",
                "error: cannot lock ref 'refs/heads/main': 'refs/heads/main/x' exists; cannot create 'refs/heads/main'",
                Kind::RemoteRefused,
            ),
            ("pre-receive hook declined", "repository quota of 1 GB exceeded", Kind::Quota),
            ("pre-receive hook declined", "permission denied by policy", Kind::RemoteRefused),
            ("protected branch hook declined", "", Kind::RemoteRefused),
        ] {
            assert_eq!(kind_of_reference(reason, messages), kind, "{reason} {messages}");
        }
    }

    #[test]
    fn a_status_says_what_it_means_and_when_to_come_back() {
        for (status, kind) in [
            (401, Kind::Credentials),
            (403, Kind::Credentials),
            (404, Kind::RemoteRefused),
            (413, Kind::TooLarge),
            (429, Kind::Busy),
            (500, Kind::RemoteUnreachable),
            (502, Kind::RemoteUnreachable),
            (503, Kind::Busy),
            (507, Kind::Quota),
            (418, Kind::RemoteRefused),
        ] {
            let error = of_status(status, "list the references", None, b"");
            assert_eq!(error.kind(), kind, "{status}");
            assert!(error.to_string().contains(&status.to_string()));
        }
        let error = of_status(403, "push", None, b"API rate limit exceeded\x1b[0m");
        assert_eq!(error.kind(), Kind::Busy);
        assert!(!error.to_string().contains('\x1b'), "{error}");
        let long = of_status(503, "push", Some(Duration::from_secs(1_000_000)), b"");
        assert_eq!(long.retry_after(), Some(LONGEST_RETRY_AFTER));
        assert!(!of_status(502, "push", None, b"<html>Bad Gateway</html>").to_string().contains("html"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_capped() {
        let now: jiff::Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("999999999999", now), Some(LONGEST_RETRY_AFTER));
        assert_eq!(retry_after("Sun, 22 Nov 2026 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 22 Nov 2026 11:00:30 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
