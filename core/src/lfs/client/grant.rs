//! What `git-lfs-authenticate` says over SSH: where the LFS server is, what lets us in, and until when.

use std::time::Instant;

use reqwest::Url;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::action::{expiry_of, headers_of, place_of};
use super::failure::words_of;
use crate::error::{Error, Kind, Result};
use crate::secret;
use crate::transport::ssh::Said;

/// The exit code with which a shell says that there is no such program.
const NOT_FOUND: u32 = 127;
/// How servers that run no shell say that, in lower case.
const UNKNOWN: &[&str] = &[
    "command not found",
    "not found",
    "unknown command",
    "unrecognized command",
    "invalid command",
    "unknown git command",
    "not a valid",
    "disallowed command",
];

/// A way into the LFS server, for one kind of operation.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub base: Url,
    pub headers: HeaderMap,
    pub expires: Option<Instant>,
}

/// Reads what the program has said; `None` if there is no such program. `shown` names host and program.
pub(super) fn read(said: &Said, shown: &str) -> Result<Option<Grant>> {
    let words = words_of(&said.stderr, &[]);
    if said.output.trim_ascii().is_empty() || said.code != Some(0) {
        let lower = words.to_lowercase();
        if said.code == Some(NOT_FOUND) || UNKNOWN.iter().any(|phrase| lower.contains(phrase)) {
            return Ok(None);
        }
        let code = said.code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
        let error = Error::new(
            Kind::Credentials,
            format!(
                "{shown} gives no way into the LFS server ({code}): is LFS switched on there, and may this key use it?"
            ),
        );
        return Err(if words.is_empty() {
            error
        } else {
            error.with_words(&format!("the remote says: {words}"))
        });
    }
    let unreadable = |why: String| {
        Error::new(Kind::RemoteRefused, format!("{shown} gives no usable way into the LFS server: {why}"))
    };
    let fields = match serde_json::Deserializer::from_slice(&said.output).into_iter::<Value>().next() {
        Some(Ok(Value::Object(fields))) => fields,
        _ => return Err(unreadable("its answer is no object of JSON".to_owned())),
    };
    let href = fields.get("href").and_then(Value::as_str).filter(|href| !href.is_empty());
    let href = href.ok_or_else(|| unreadable("it names no address".to_owned()))?;
    // Nothing encrypted came before it but SSH itself, so that either kind may follow.
    let anything = Url::parse("http://localhost/")
        .map_err(|error| Error::new(Kind::Internal, format!("an address that is none: {error}")))?;
    let base = place_of(href, &anything).map_err(unreadable)?;
    let headers = headers_of(fields.get("header")).map_err(unreadable)?;
    for value in headers.values().filter_map(|value| value.to_str().ok()) {
        secret::remember_form(value.rsplit(' ').next().unwrap_or_default());
    }
    Ok(Some(Grant { base, headers, expires: expiry_of(&fields) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(output: &str, stderr: &str, code: Option<u32>) -> Said {
        Said { output: output.as_bytes().to_vec(), stderr: stderr.as_bytes().to_vec(), code }
    }

    #[test]
    fn a_way_in_is_an_address_with_headers_and_an_end() {
        let answer = r#"{"href":"https://lfs.example.org/me/x","header":{"Authorization":"RemoteAuth t"},"expires_in":600}"#;
        let grant = read(&said(answer, "", Some(0)), "x").unwrap().unwrap();
        assert_eq!(grant.base.as_str(), "https://lfs.example.org/me/x");
        assert_eq!(grant.headers.get("authorization").unwrap(), "RemoteAuth t");
        assert!(grant.expires.is_some());
    }

    #[test]
    fn a_server_without_the_program_is_told_from_one_that_refuses() {
        for (stderr, code) in [
            ("sh: 1: git-lfs-authenticate: not found", Some(127)),
            ("", Some(127)),
            ("fatal: unrecognized command 'git-lfs-authenticate'", Some(128)),
            ("Unknown command", Some(1)),
        ] {
            assert!(read(&said("", stderr, code), "x").unwrap().is_none(), "{stderr}");
        }
        for (output, stderr, code, kind) in [
            ("", "You may not", Some(1), Kind::Credentials),
            ("", "", None, Kind::Credentials),
            ("hello", "", Some(0), Kind::RemoteRefused),
            ("{}", "", Some(0), Kind::RemoteRefused),
            (r#"{"href":"file:///x"}"#, "", Some(0), Kind::RemoteRefused),
            (r#"{"href":"https://u:p@x.org/"}"#, "", Some(0), Kind::RemoteRefused),
            (r#"{"href":"https://x.org/","header":{"A":"b\nc"}}"#, "", Some(0), Kind::RemoteRefused),
        ] {
            assert_eq!(read(&said(output, stderr, code), "x").unwrap_err().kind(), kind, "{output}{stderr}");
        }
    }
}
