//! Reading what a client sends: a small JSON body in reasonable time, and the query of an address.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::{StatusCode, header};
use actix_web::web::Payload;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Larger than any request needs to be.
pub const LIMIT: usize = 64 * 1024;
/// A client that is slower is no client.
const WITHIN: Duration = Duration::from_secs(10);

/// Reads a JSON body; nothing at all counts as `{}`.
pub async fn json<T: DeserializeOwned>(request: &HttpRequest, payload: Payload) -> Result<T, Problem> {
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > LIMIT) {
        return Err(too_large());
    }
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| !value.to_str().is_ok_and(is_json)) {
        return Err(not_json());
    }
    let read = actix_web::rt::time::timeout(WITHIN, payload.to_bytes_limited(LIMIT)).await;
    let body = match read {
        Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        Ok(Err(_)) => return Err(too_large()),
        Ok(Ok(Err(error))) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")));
        }
        Ok(Ok(Ok(body))) => body,
    };
    if !body.is_empty() && content_type.is_none() {
        return Err(not_json());
    }
    parse(if body.is_empty() { b"{}" } else { &body })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let wrong =
        |why: String| Problem::new(StatusCode::BAD_REQUEST, format!("the body cannot be obeyed: {why}"));
    // serde would take a list of the members' values, too.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong("it is no JSON object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {LIMIT} bytes"))
}

fn not_json() -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "send JSON with the header `Content-Type: application/json`",
    )
}

fn is_json(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The query of an address, decoded. Names that nobody asks for do not count.
pub struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Reads it.
    pub fn of(request: &HttpRequest) -> Result<Self, Problem> {
        Self::read(request.query_string())
    }

    fn read(query: &str) -> Result<Self, Problem> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decoded(name)?, percent_decoded(value)?))
        });
        let pairs: Option<Vec<_>> = pairs.collect();
        pairs.map(Self).ok_or_else(|| Problem::bad("the query is not percent-encoded soundly"))
    }

    fn only(&self, name: &str) -> Result<Option<&[u8]>, Problem> {
        let mut found = self.0.iter().filter(|(key, _)| key == name.as_bytes());
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Problem::bad(format!("{name} was given more than once"))),
            (first, None) => Ok(first.map(|(_, value)| value.as_slice())),
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        let text = self.only(name)?.map(|value| String::from_utf8(value.to_vec()));
        text.transpose().map_err(|_| Problem::bad(format!("{name} is not UTF-8")))
    }

    /// A number within bounds.
    pub fn number(&self, name: &str, default: usize, least: usize, most: usize) -> Result<usize, Problem> {
        let Some(text) = self.text(name)? else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| Problem::bad(format!("{name} must be a whole number from {least} to {most}")))
    }

    /// A path, as `path` or as `path_b64`.
    pub fn path(&self) -> Result<Option<Vec<u8>>, Problem> {
        match (self.only("path")?, self.only("path_b64")?) {
            (Some(_), Some(_)) => Err(Problem::bad("give the path once, as path or as path_b64")),
            (Some(path), None) => Ok(Some(path.to_vec())),
            (None, Some(encoded)) => {
                from_base64(encoded).map(Some).ok_or_else(|| Problem::bad("path_b64 is not base64"))
            }
            (None, None) => Ok(None),
        }
    }
}

/// The bytes that base64 of either alphabet stands for.
pub fn decoded(text: &str) -> Option<Vec<u8>> {
    from_base64(text.as_bytes())
}

/// The path that `?path=` (percent-encoded bytes, `+` for a space) or `?path_b64=` (base64) means.
pub fn path_of_query(query: &str) -> Result<Vec<u8>, Problem> {
    let wrong = |detail: &str| Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    let mut found = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(value) = percent_decoded(value) else {
            return wrong("the query is not percent-encoded soundly");
        };
        match name {
            "path" => found.push(value),
            "path_b64" => match from_base64(&value) {
                Some(path) => found.push(path),
                None => return wrong("path_b64 is not base64"),
            },
            _ => {}
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(path), true) if !path.is_empty() => Ok(path),
        _ => wrong("give one path, as ?path= or as ?path_b64="),
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => decoded.push(b' '),
            b'%' => {
                let (digits, tail) = tail.split_at_checked(2)?;
                // from_str_radix would also take a sign.
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                decoded.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = tail;
            }
            other => decoded.push(*other),
        }
    }
    Some(decoded)
}

/// Both alphabets, and a `+` that arrived as a space.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }).collect();
    let unpadded = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(&text);
    STANDARD.decode(&text).or_else(|_| URL_SAFE_NO_PAD.decode(unpadded)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::ResponseError;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        #[serde(default)]
        wait: bool,
    }

    #[test]
    fn what_cannot_be_obeyed_is_a_bad_request() {
        assert!(parse::<Wish>(b"{\"wait\": true}").unwrap().wait);
        assert!(!parse::<Wish>(b"{}").unwrap().wait);
        for wrong in ["{\"wait\": ", "wait=true", "{\"wait\": \"yes\"}", "{\"wiat\": true}", "[]", "{} {}"] {
            assert_eq!(parse::<Wish>(wrong.as_bytes()).unwrap_err().status_code().as_u16(), 400, "{wrong}");
        }
    }

    #[test]
    fn json_is_json_with_any_parameters() {
        assert!(is_json("application/json") && is_json("Application/JSON; charset=utf-8"));
        assert!(!is_json("text/plain") && !is_json("application/x-www-form-urlencoded") && !is_json(""));
    }

    #[test]
    fn a_query_says_each_thing_once_and_within_its_bounds() {
        let query = Query::read("limit=7&path=r%2Fa+b&x&before=%C3%BC").unwrap();
        assert_eq!(query.number("limit", 1, 1, 10).unwrap(), 7);
        assert_eq!(query.number("offset", 3, 1, 10).unwrap(), 3);
        assert_eq!(query.path().unwrap().unwrap(), b"r/a b");
        assert_eq!(query.text("before").unwrap().unwrap(), "ü");
        assert!(query.number("limit", 1, 1, 6).is_err() && query.number("before", 1, 1, 6).is_err());
        assert!(Query::read("a=%zz").is_err() && Query::read("path=%ff").unwrap().text("path").is_err());
        assert!(Query::read("path=a&path_b64=YQ").unwrap().path().is_err());
        assert!(Query::read("limit=1&limit=1").unwrap().number("limit", 1, 1, 6).is_err());
        assert_eq!(Query::read("").unwrap().path().unwrap(), None);
    }

    #[test]
    fn a_path_arrives_byte_for_byte() {
        let path = |query: &str| path_of_query(query).ok();
        assert_eq!(path("path=/a%20b%ff%2B+c").unwrap(), b"/a b\xff+ c");
        assert_eq!(path("x=1&path=r/a").unwrap(), b"r/a");
        assert_eq!(path("path_b64=L2H/").unwrap(), b"/a\xff");
        assert_eq!(path("path_b64=L2H_").unwrap(), b"/a\xff");
        assert_eq!(path("path_b64=YQ%3D%3D").unwrap(), b"a");
        for wrong in ["", "path=", "path=%f", "path=%+f", "path=a&path=b", "path_b64=*", "paths=a"] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }
}
