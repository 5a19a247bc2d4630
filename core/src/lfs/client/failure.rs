//! What a server's refusal means: in come a status, or the code of one object, and its words; out comes what is done
//! about it.
//!
//! | said | of a batch | of one object | by the place it is stored at |
//! |---|---|---|---|
//! | 401 | credentials (read again once) | rejected | a new batch, once; then rejected |
//! | 403 | credentials | rejected | the same: tickets end |
//! | 404, 410 | no LFS server there | missing | on upload a new batch, once; on download missing |
//! | 408, 425, 5xx | tried again | tried again | tried again |
//! | 406 | quota, if it speaks of that | the same | rejected |
//! | 409, 412 | rejected | rejected | a new batch, once: somebody else may have brought it |
//! | 413 | halved; quota, if it speaks of that | too large | too large: often a proxy's limit |
//! | 422 | halved | too large, if it speaks of size | the same |
//! | 429, 503 | tried again, when it says | the same | the same |
//! | 501 | LFS is off | rejected | rejected |
//! | 507, 509 | quota | quota | quota |

use std::time::Duration;

use serde_json::Value;

use super::{Reason, Refusal};
use crate::error::{Error, Kind};
use crate::transport::{kind_of, said};

/// A pause that is named and longer than this is the caller's to wait for.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(30);
/// Phrases for a full account, in lower case, beside those that Git's hosts have in common.
const FULL: &[&str] = &[
    "lfs budget",
    "data pack",
    "allocated storage",
    "exceeded its size limit",
    "storage limit",
    "insufficient storage",
];
/// Phrases for one object that is too large.
const LARGE: &[&str] = &["too large", "must be less", "exceed", "maximum", "larger than", "too big"];

/// The outcome of one attempt.
pub(super) type Attempt<T> = Result<T, Failure>;

/// What is done about something that did not go well.
#[derive(Debug)]
pub(super) enum Failure {
    /// It concerns every object, or us.
    Whole(Error),
    /// This object is left out.
    Refused(Reason, Error),
    /// What the server gave us to get in with has ended: it is asked for a new one.
    Expired(Error),
    /// Tried again by the law.
    Passing(Error),
}

impl Failure {
    /// Sorts an error of our own network code, or of our disk.
    pub(super) fn of(error: Error) -> Self {
        match error.kind() {
            Kind::RemoteUnreachable => Failure::Passing(error),
            Kind::Busy => busy(error),
            Kind::RemoteRefused | Kind::Redirected => Failure::Refused(Reason::Rejected, error),
            _ => Failure::Whole(error),
        }
    }

    /// When it is not tried again.
    pub(super) fn into_refusal(self) -> crate::error::Result<Refusal> {
        match self {
            Failure::Whole(error) => Err(error),
            Failure::Refused(reason, error) => Ok(Refusal { reason, error }),
            Failure::Expired(error) => Ok(Refusal { reason: Reason::Rejected, error }),
            Failure::Passing(error) => Ok(Refusal { reason: Reason::Trouble, error }),
        }
    }
}

/// The server names a time. A short one is ours to wait for.
fn busy(error: Error) -> Failure {
    match error.retry_after() {
        Some(pause) if pause > LONGEST_REST => Failure::Whole(error),
        _ => Failure::Passing(error),
    }
}

/// Which way an object was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Upload,
    Download,
}

impl Operation {
    /// The word of the protocol.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Operation::Upload => "upload",
            Operation::Download => "download",
        }
    }
}

/// Whether a status tells of trouble that passes.
pub(super) fn passes(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599) && !matches!(status, 501 | 507 | 509)
}

/// A status of the endpoint that is no success. `doing` is a phrase such as "ask URL for large objects".
pub(super) fn of_endpoint(status: u16, doing: &str, retry_after: Option<Duration>, words: &str) -> Error {
    let (kind, meaning) = match status {
        300..=399 => (Kind::Redirected, "it redirects to another place, where nothing was sent"),
        401 => (Kind::Credentials, "the user name, password or token was not accepted"),
        402 => (Kind::Quota, "the remote asks for a payment"),
        403 => (Kind::Credentials, "these credentials may not do that"),
        404 | 405 | 410 => (
            Kind::RemoteRefused,
            "there is no LFS server for this repository, or these credentials may not see it: is LFS switched on there, \
             or is it somewhere else (the remote's lfs_url)?",
        ),
        406 | 415 | 426 => (Kind::RemoteRefused, "the LFS server does not take the request"),
        407 => (Kind::Credentials, "the proxy asks for credentials"),
        413 => (Kind::TooLarge, "the request is too large for it"),
        422 => (Kind::RemoteRefused, "the LFS server cannot process it"),
        429 | 503 => (Kind::Busy, "it asks to be left alone for a while"),
        501 => (
            Kind::RemoteRefused,
            "LFS is switched off there: switch it on for the server and for this repository, or leave `lfs` out",
        ),
        507 | 509 => (Kind::Quota, "the remote has no room, or no traffic, left for this account"),
        408 | 425 | 500..=599 => {
            (Kind::RemoteUnreachable, "the LFS server, or a proxy before it, has failed")
        }
        _ => (Kind::RemoteRefused, "the LFS server refuses"),
    };
    let kind = match kind {
        Kind::Credentials | Kind::RemoteRefused | Kind::TooLarge if is_full(words) => Kind::Quota,
        Kind::Credentials if kind_of(words.as_bytes()) == Kind::Busy => Kind::Busy,
        kind => kind,
    };
    let error = Error::new(kind, format!("cannot {doing}: HTTP status {status}, {meaning}{}", quoted(words)));
    match retry_after {
        Some(pause) => error.not_before(pause),
        None => error,
    }
}

/// A code that the server gives for one object in its answer to a batch.
pub(super) fn of_object(code: u64, operation: Operation, doing: &str, words: &str) -> Failure {
    let fail =
        |kind, why: &str| Error::new(kind, format!("cannot {doing}: {why} (code {code}){}", quoted(words)));
    match code {
        507 | 509 | 402 => Failure::Refused(Reason::Quota, fail(Kind::Quota, "the remote has no room left")),
        404 | 410 if operation == Operation::Download => {
            Failure::Refused(Reason::Missing, fail(Kind::RemoteRefused, "the remote does not have it"))
        }
        429 | 503 => Failure::Passing(fail(Kind::Busy, "the remote asks to be left alone for a while")),
        code if u16::try_from(code).is_ok_and(passes) => {
            Failure::Passing(fail(Kind::RemoteUnreachable, "the remote has failed"))
        }
        _ if is_full(words) => {
            Failure::Refused(Reason::Quota, fail(Kind::Quota, "the remote has no room left"))
        }
        413 => Failure::Refused(Reason::TooLarge, fail(Kind::TooLarge, "it is too large for the remote")),
        422 if is_large(words) => {
            Failure::Refused(Reason::TooLarge, fail(Kind::TooLarge, "it is too large for the remote"))
        }
        _ => Failure::Refused(Reason::Rejected, fail(Kind::RemoteRefused, "the remote refuses it")),
    }
}

/// A status of the place where an object is stored.
pub(super) fn of_storage(
    status: u16,
    operation: Operation,
    doing: &str,
    retry_after: Option<Duration>,
    words: &str,
) -> Failure {
    let fail = |kind, why: &str| {
        let error = Error::new(kind, format!("cannot {doing}: HTTP status {status}, {why}{}", quoted(words)));
        match retry_after {
            Some(pause) => error.not_before(pause),
            None => error,
        }
    };
    let refused = |reason, kind, why: &str| Failure::Refused(reason, fail(kind, why));
    match status {
        401 | 403 if is_full(words) => refused(Reason::Quota, Kind::Quota, "the remote has no room left"),
        401 | 403 => Failure::Expired(fail(Kind::Credentials, "what the server gave us does not let us in")),
        404 | 410 if operation == Operation::Download => refused(
            Reason::Missing,
            Kind::RemoteRefused,
            "the object is not there although the server said so",
        ),
        404 | 409 | 412 if operation == Operation::Upload => {
            Failure::Expired(fail(Kind::RemoteRefused, "it is not taken there any more"))
        }
        429 | 503 => busy(fail(Kind::Busy, "it asks to be left alone for a while")),
        status if passes(status) => Failure::Passing(fail(Kind::RemoteUnreachable, "the storage has failed")),
        507 | 509 | 402 => refused(Reason::Quota, Kind::Quota, "there is no room left"),
        413 if is_full(words) => refused(Reason::Quota, Kind::Quota, "there is no room left"),
        413 => {
            let why = "a body so large is not taken: the limit is often that of a proxy before the server (nginx: \
                       client_max_body_size)";
            refused(Reason::TooLarge, Kind::TooLarge, why)
        }
        422 if is_large(words) => refused(Reason::TooLarge, Kind::TooLarge, "it is too large for the remote"),
        _ if is_full(words) => refused(Reason::Quota, Kind::Quota, "there is no room left"),
        _ => refused(Reason::Rejected, Kind::RemoteRefused, "it is refused"),
    }
}

/// Whether words tell of an account without room.
pub(super) fn is_full(words: &str) -> bool {
    let lower = words.to_lowercase();
    kind_of(words.as_bytes()) == Kind::Quota || FULL.iter().any(|phrase| lower.contains(phrase))
}

fn is_large(words: &str) -> bool {
    let lower = words.to_lowercase();
    LARGE.iter().any(|phrase| lower.contains(phrase))
}

fn quoted(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": \"{words}\"") }
}

/// What a body says to people: the message of an answer in JSON (whatever comes after its first value, however its
/// fields are capitalised), code and message of one in XML as storages give it, a plain text as it is; nothing of a web
/// page. Without `secrets`, and on one bounded line.
pub(super) fn words_of(body: &[u8], secrets: &[String]) -> String {
    let text = match serde_json::Deserializer::from_slice(body).into_iter::<Value>().next() {
        Some(Ok(Value::Object(fields))) => field(&fields, "message").unwrap_or_default(),
        Some(Ok(Value::String(text))) => text,
        Some(Ok(_)) => String::new(),
        _ => {
            let text = String::from_utf8_lossy(body);
            let lower = text.to_ascii_lowercase();
            match (element(&text, "Code"), element(&text, "Message")) {
                (code, Some(message)) => format!("{} {message}", code.unwrap_or_default()),
                _ if lower.contains("<html") || lower.contains("<!doctype") => String::new(),
                _ => text.into_owned(),
            }
        }
    };
    let mut clean = text;
    for secret in secrets.iter().filter(|secret| secret.len() >= 4) {
        clean = clean.replace(secret.as_str(), "[redacted]");
    }
    said(clean.as_bytes())
}

/// A text field whatever the case of its name; a message may be in another object of that name.
fn field(fields: &serde_json::Map<String, Value>, name: &str) -> Option<String> {
    let found = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    match found
        .or_else(|| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case("error")).map(|(_, v)| v))?
    {
        Value::String(text) => Some(text.clone()),
        Value::Object(inner) => inner
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case("message"))
            .and_then(|(_, value)| value.as_str().map(str::to_owned)),
        _ => None,
    }
}

fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_the_endpoint_says_what_is_to_be_done() {
        for (status, words, kind) in [
            (401, "", Kind::Credentials),
            (403, "", Kind::Credentials),
            (403, "This repository exceeded its LFS budget. The account responsible", Kind::Quota),
            (403, "This repository is over its data quota", Kind::Quota),
            (403, "API rate limit exceeded", Kind::Busy),
            (404, "Repository not found", Kind::RemoteRefused),
            (406, "repository has exceeded its size limit of 10 GiB by 1 GiB", Kind::Quota),
            (406, "", Kind::RemoteRefused),
            (413, "quota exceeded", Kind::Quota),
            (413, "", Kind::TooLarge),
            (429, "", Kind::Busy),
            (500, "", Kind::RemoteUnreachable),
            (501, "", Kind::RemoteRefused),
            (507, "", Kind::Quota),
            (509, "", Kind::Quota),
        ] {
            assert_eq!(of_endpoint(status, "ask", None, words).kind(), kind, "{status} {words}");
        }
        let remedy = of_endpoint(501, "ask", None, "").to_string();
        assert!(remedy.contains("switch it on"), "{remedy}");
        let long = of_endpoint(429, "ask", Some(Duration::from_secs(90)), "");
        assert!(matches!(Failure::of(long), Failure::Whole(error) if error.retry_after().is_some()));
        let short = of_endpoint(429, "ask", Some(Duration::from_secs(2)), "");
        assert!(matches!(Failure::of(short), Failure::Passing(_)));
    }

    #[test]
    fn an_object_is_refused_by_itself_with_its_reason() {
        use Operation::{Download, Upload};
        for (code, operation, words, expected) in [
            (404, Download, "", Some(Reason::Missing)),
            (410, Download, "", Some(Reason::Missing)),
            (404, Upload, "", Some(Reason::Rejected)),
            (413, Upload, "", Some(Reason::TooLarge)),
            (422, Upload, "Size must be less than or equal to 2147483648", Some(Reason::TooLarge)),
            (422, Upload, "object is locked", Some(Reason::Rejected)),
            (507, Upload, "", Some(Reason::Quota)),
            (403, Upload, "quota exceeded", Some(Reason::Quota)),
            (500, Upload, "", None),
            (429, Upload, "", None),
            (u64::MAX, Upload, "", Some(Reason::Rejected)),
        ] {
            match (of_object(code, operation, "send", words), expected) {
                (Failure::Refused(reason, _), Some(expected)) => assert_eq!(reason, expected, "{code}"),
                (Failure::Passing(_), None) => {}
                other => panic!("{code}: {other:?}"),
            }
        }
    }

    #[test]
    fn words_are_found_in_every_form_and_stay_without_secrets() {
        let none: &[String] = &[];
        for (body, expected) in [
            (r#"{"message":"quota"}"#, "quota"),
            (r#"{"Message":"quota","x":1}{"objects":[]}"#, "quota"),
            (r#"{"error":{"code":1,"Message":"quota"}}"#, "quota"),
            (r#"{"error":"quota"}"#, "quota"),
            ("<Error><Code>AccessDenied</Code><Message>no</Message></Error>", "AccessDenied no"),
            ("<!DOCTYPE html><p>x", ""),
            ("[1,2]", ""),
            ("plain\x1b[0m", "plain\\u{1b}[0m"),
            ("", ""),
        ] {
            assert_eq!(words_of(body.as_bytes(), none), expected, "{body}");
        }
        let words = words_of(br#"{"message":"signature abcdef0 is bad"}"#, &["abcdef0".to_owned()]);
        assert_eq!(words, "signature [redacted] is bad");
    }
}
