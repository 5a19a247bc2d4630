//! What a server gives us to do something with: an address, headers for it, and until when they count.
//!
//! A server is a stranger, and both decide where bytes and secrets go. Addresses are http or https, never less safe
//! than the endpoint, without a name in them, within the remote's reach; headers are ones that a request may have.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::transport::{Reach, origin_of, said};

/// A longer address is none.
const LONGEST_HREF: usize = 16 * 1024;
/// No storage needs more headers, or longer ones.
const MOST_HEADERS: usize = 32;
const LONGEST_HEADER: usize = 16 * 1024;
/// What ends within this time has ended.
const MARGIN: Duration = Duration::from_secs(5);
/// Longer than that is for ever; the sum with the present has to exist.
const LONGEST_EXPIRY: u64 = 10 * 365 * 24 * 3600;
/// Headers that belong to the connection, or say what we know better. Some servers send them (an exact length makes
/// `Transfer-Encoding` needless), so they are left out and not held against anybody.
const NOT_THEIRS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "range",
    "accept-encoding",
    "content-encoding",
];

/// Where to go, and with what.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub href: Url,
    pub headers: HeaderMap,
    pub expires: Option<Instant>,
    /// The server says that nothing of ours is needed there.
    pub is_authenticated: bool,
}

impl Action {
    /// Reads one; the error is a phrase that shows nothing of the address but its origin.
    pub(super) fn of(fields: &Map<String, Value>, endpoint: &Url) -> Result<Self, String> {
        let href = fields.get("href").and_then(Value::as_str).ok_or("it names no address")?;
        let href = place_of(href, endpoint)?;
        let headers = headers_of(fields.get("header"))?;
        Ok(Self { href, headers, expires: expiry_of(fields), is_authenticated: false })
    }

    /// Whether it still counts.
    pub(super) fn is_good(&self) -> bool {
        self.expires.is_none_or(|end| Instant::now() + MARGIN < end)
    }

    /// What may not be shown of it: a server's words may repeat it.
    pub(super) fn secrets(&self) -> Vec<String> {
        let values = self.headers.values().filter_map(|value| value.to_str().ok()).flat_map(|value| {
            let last = value.rsplit(' ').next().unwrap_or_default();
            [value.to_owned(), last.to_owned()]
        });
        let query = self.href.query_pairs().map(|(_, value)| value.into_owned());
        let raw = self.href.query().unwrap_or_default().split(['&', '=']).map(str::to_owned);
        values.chain(query).chain(raw).filter(|secret| secret.len() >= 8).collect()
    }

    /// The place for people: nothing behind the host may be shown.
    pub(super) fn shown(&self) -> String {
        said(origin_of(&self.href).as_bytes())
    }
}

/// Reads an address that a server gave; `before` is where it came from.
pub(super) fn place_of(text: &str, before: &Url) -> Result<Url, String> {
    if text.len() > LONGEST_HREF || text.chars().any(char::is_control) {
        return Err("its address is too long, or has control characters".to_owned());
    }
    let url = Url::parse(text).map_err(|_| "its address is none".to_owned())?;
    check(&url, before).map(|()| url)
}

/// Whether a place that was named at `before` may be gone to, as far as the address alone tells.
pub(super) fn check(url: &Url, before: &Url) -> Result<(), String> {
    let shown = said(origin_of(url).as_bytes());
    match (before.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => {
            return Err(format!(
                "its address, at {shown}, is not encrypted although the server's is: is its own address (root or external URL) set right there?"
            ));
        }
        _ => return Err("its address is not http or https".to_owned()),
    }
    if url.host().is_none() || url.port() == Some(0) {
        return Err("its address names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("its address, at {shown}, has a name or password in it"));
    }
    Ok(())
}

/// Whether a place is within reach, as far as the address alone tells: an address in numbers is never resolved.
pub(super) fn is_within(url: &Url, reach: Reach, has_proxy: bool) -> bool {
    match host_address(url) {
        Some(address) => reach.has(address),
        None => !has_proxy || reach.has_name(url.host_str().unwrap_or_default()),
    }
}

/// The host, where it is an address in numbers.
pub(super) fn host_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Headers as an answer has them.
pub(super) fn headers_of(value: Option<&Value>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let fields = match value {
        None | Some(Value::Null) => return Ok(headers),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err("its headers are none".to_owned()),
    };
    if fields.len() > MOST_HEADERS {
        return Err("it has more headers than makes sense".to_owned());
    }
    for (name, value) in fields {
        let bad = || format!("its header {} cannot be sent", said(name.as_bytes()));
        let name_read = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
        if NOT_THEIRS.contains(&name_read.as_str()) {
            continue;
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(bad()),
        };
        if text.len() > LONGEST_HEADER {
            return Err(bad());
        }
        let mut value = HeaderValue::from_str(&text).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(name_read, value);
    }
    Ok(headers)
}

/// Until when it counts: seconds from now, or a date, which this machine's clock may not understand. One that has
/// ended before it came tells of a wrong clock, and counts as none.
pub(super) fn expiry_of(fields: &Map<String, Value>) -> Option<Instant> {
    let left = match fields.get("expires_in").and_then(Value::as_f64).filter(|seconds| *seconds >= 1.0) {
        Some(seconds) => Duration::from_secs(seconds.min(LONGEST_EXPIRY as f64) as u64),
        None => {
            let date: jiff::Timestamp = fields.get("expires_at")?.as_str()?.parse().ok()?;
            let left = date.duration_since(jiff::Timestamp::now());
            Duration::try_from(left).ok().filter(|left| *left > MARGIN)?
        }
    };
    Instant::now().checked_add(left.min(Duration::from_secs(LONGEST_EXPIRY)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Action, String> {
        Action::of(value.as_object().unwrap(), &Url::parse("https://git.example.org/x").unwrap())
    }

    #[test]
    fn an_address_is_encrypted_as_the_server_is_and_has_nobody_in_it() {
        let plain = Url::parse("http://git.example.org/").unwrap();
        assert!(place_of("http://store.example.org/a?sig=b", &plain).is_ok());
        assert!(place_of("https://store.example.org/a", &plain).is_ok());
        for bad in [
            "http://store.example.org/a",
            "file:///etc/passwd",
            "ftp://store.example.org/a",
            "gopher://127.0.0.1:25/",
            "/relative",
            "",
            "https://",
            "https://user@store.example.org/",
            "https://user:hunter2@store.example.org/",
            "https://store.example.org/a\r\nHost: b",
            "https://store.example.org:0/",
        ] {
            let error = read(&json!({"href": bad})).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(read(&json!({})).is_err() && read(&json!({"href": 7})).is_err());
        assert!(read(&json!({"href": format!("https://x.org/{}", "a".repeat(LONGEST_HREF))})).is_err());
    }

    #[test]
    fn an_address_in_numbers_is_judged_however_it_is_written() {
        for text in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
        ] {
            let url = Url::parse(text).unwrap();
            assert!(!is_within(&url, Reach::default(), false), "{text}");
            assert!(is_within(&url, Reach::of(&["127.0.0.1".parse().unwrap()]), false), "{text}");
        }
        let name = Url::parse("http://localhost/").unwrap();
        assert!(!is_within(&name, Reach::default(), true));
    }

    #[test]
    fn headers_are_ones_that_a_request_may_have_and_never_the_connections_own() {
        let headers = |header: Value| read(&json!({"href": "https://s.org/", "header": header}));
        let good = headers(json!({
            "Authorization": "RemoteAuth x", "X-Amz-Date": "1", "Transfer-Encoding": "chunked", "HOST": "evil",
            "content-length": "7", "Connection": "close", "x-number": 7
        }))
        .unwrap()
        .headers;
        let mut names: Vec<&str> = good.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "x-amz-date", "x-number"]);
        assert!(headers(Value::Null).unwrap().headers.is_empty());
        for bad in
            [json!({"X": "a\r\nB: c"}), json!({"a b": "c"}), json!({"a": {}}), json!([]), json!({"": "x"})]
        {
            assert!(headers(bad.clone()).is_err(), "{bad}");
        }
        let many: Map<String, Value> = (0..100).map(|n| (format!("x-{n}"), json!("y"))).collect();
        assert!(headers(Value::Object(many)).is_err());
    }

    #[test]
    fn what_ends_has_ended_a_little_earlier_and_a_clock_that_is_wrong_ends_nothing() {
        let action = |field: &str, value: Value| {
            let mut fields = Map::new();
            fields.insert("href".to_owned(), json!("https://s.org/?sig=abcdefgh123"));
            fields.insert(field.to_owned(), value);
            read(&Value::Object(fields)).unwrap()
        };
        assert!(!action("expires_in", json!(1)).is_good());
        assert!(action("expires_in", json!(3600)).is_good());
        for endless in [json!(0), json!(-5), json!(1e300), json!(u64::MAX)] {
            assert!(action("expires_in", endless).is_good());
        }
        for date in ["0001-01-01T00:00:00Z", "2016-11-10T15:29:07Z", "9999-12-31T00:00:00Z", "tomorrow"] {
            assert!(action("expires_at", json!(date)).is_good(), "{date}");
        }
        let secrets = action("x", json!(1)).secrets();
        assert!(secrets.contains(&"abcdefgh123".to_owned()), "{secrets:?}");
    }
}
