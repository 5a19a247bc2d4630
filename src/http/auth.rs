//! Who may use the API: the token, and no web page of somebody else.
//!
//! The token protects against other users; `Host` and `Origin` protect against a page in the operator's own
//! browser, which could otherwise reach a loopback address by DNS rebinding. A foreign host or origin is
//! answered with 403, before the token is looked at; a missing or wrong token with 401, and with 429 when that
//! happens too often. Tokens are read from their files at each use, so that they can be changed without a restart.
//! There are two: one that may do everything, and one that may only look (see [`access`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, ResponseError, web};
use backupbot_core::audit::Event;
use subtle::ConstantTimeEq;

use super::Door;
use super::access::{self, Role};
use super::problem::Problem;
use crate::exit::Failure;
use crate::files;

/// Longer than any token.
const TOKEN_LIMIT: u64 = 4096;
/// Random bytes in a token that we make.
const TOKEN_BYTES: usize = 32;

/// The gate in front of everything below `/api/v1`.
pub async fn gate(
    door: web::Data<Door>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    // Answered, not failed: an error here would pass by whatever else is wrapped around the routes.
    match check(&door, &request).await {
        Ok(role) => {
            request.extensions_mut().insert(role);
            let order = (*request.method() != Method::GET)
                .then(|| (format!("{} {}", request.method(), request.path()), request.peer_addr()));
            let (asked, begun) = (format!("{} {}", request.method(), request.path()), Instant::now());
            let answered = next.call(request).await?;
            slog::debug!(door.log, "answered"; "request" => asked, "status" => answered.status().as_u16(), "role" => ?role,
                         "took_ms" => u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
            if order.is_some() {
                door.remembered.forget_status();
            }
            if let (Some((call, peer)), Ok(inside)) = (order, door.enter()) {
                let who = words(peer);
                let status = answered.status();
                let result = if status.is_success() { "ok" } else { "refused" };
                let event =
                    Event::new("admin", result).by(&who).with("call", &call).with("status", status.as_u16());
                inside.control.audit().record(event);
            }
            Ok(answered.map_into_left_body())
        }
        Err(problem) => Ok(request.into_response(problem.error_response()).map_into_right_body()),
    }
}

/// Who asks, in the words of the audit log: without the port.
pub fn words(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "HTTP".to_owned(), |peer| format!("HTTP from {}", peer.ip()))
}

async fn check(door: &web::Data<Door>, request: &ServiceRequest) -> Result<Role, Problem> {
    check_origin(door, request)?;
    let role = who_asks(door, request).await?;
    let pattern = request.match_pattern().unwrap_or_default();
    match access::needed(&pattern, request.method()) {
        Some(needed) if role >= needed => Ok(role),
        Some(_) => Err(Problem::not_allowed("this")),
        None => match access::allowed(&pattern) {
            methods if methods.is_empty() => Err(Problem::unknown_address()),
            methods => Err(Problem::method(&methods)),
        },
    }
}

fn check_origin(door: &web::Data<Door>, request: &ServiceRequest) -> Result<(), Problem> {
    let allowed_hosts = &door.settings().config.admin.allowed_hosts;
    let forbidden = |detail: &str| Err(Problem::new(StatusCode::FORBIDDEN, detail));
    let mut hosts = request.headers().get_all(header::HOST).filter_map(|value| value.to_str().ok());
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return forbidden("exactly one Host header is needed");
    };
    let addressed = request.uri().authority().map(|authority| authority.as_str());
    if !is_own_host(host, allowed_hosts) || addressed.is_some_and(|name| !is_own_host(name, allowed_hosts)) {
        return forbidden("this Host is neither loopback nor in admin.allowed_hosts");
    }
    for origin in request.headers().get_all(header::ORIGIN) {
        if !origin.to_str().is_ok_and(|origin| is_own_origin(origin, host, allowed_hosts)) {
            return forbidden("requests from web pages of another origin are refused");
        }
    }
    Ok(())
}

/// Both tokens are compared whatever comes out, and each in a time that does not depend on where they differ.
async fn who_asks(door: &web::Data<Door>, request: &ServiceRequest) -> Result<Role, Problem> {
    let presented = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(presented) = presented.and_then(bearer) else {
        return Err(unknown(door, request, "send the header `Authorization: Bearer TOKEN`"));
    };
    let (operate, read) = (door.token_file.clone(), door.settings().config.admin.read_token_file.clone());
    let expected =
        web::block(move || (read_token(&operate), read.map(|path| (read_token(&path), path)))).await;
    let Ok((operate, read)) = expected else { return Err(Problem::stopping()) };
    let may_read = match read {
        Some((Ok(expected), _)) => is_same(presented, &expected),
        Some((Err(error), path)) => {
            slog::error!(door.log, "the token for reading cannot be read, so it lets nobody in";
                         "error" => %error, "file" => files::shown(&path));
            false
        }
        None => false,
    };
    match operate {
        Ok(expected) if is_same(presented, &expected) => Ok(Role::Operate),
        _ if may_read => Ok(Role::Read),
        Ok(_) => Err(unknown(door, request, "this is not a token that is known here")),
        Err(error) => {
            slog::error!(door.log, "the token cannot be read, so nobody is let in"; "error" => %error,
                         "file" => files::shown(&door.token_file));
            Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the daemon cannot read its token; its log says why",
            ))
        }
    }
}

/// 401, or 429 for who was told so too often.
fn unknown(door: &web::Data<Door>, request: &ServiceRequest, detail: &str) -> Problem {
    let address = request.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip());
    match door.guesses.wrong(address, Instant::now()) {
        Some(pause) => Problem::busy("too many requests without a known token", pause),
        None => Problem::new(StatusCode::UNAUTHORIZED, detail),
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Takes the same time wherever they differ.
fn is_same(presented: &str, expected: &str) -> bool {
    presented.as_bytes().ct_eq(expected.as_bytes()).into()
}

/// A host without its port, brackets and the dot that ends a full name, in small letters.
fn bare_host(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

fn is_own_host(host: &str, allowed: &[String]) -> bool {
    let Some(name) = bare_host(host) else { return false };
    let is_loopback = match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => name == "localhost",
    };
    is_loopback
        || allowed.iter().any(|entry| {
            // An entry with a port means that port only.
            entry.eq_ignore_ascii_case(host)
                || entry.parse::<IpAddr>().is_ok_and(|ip| name.parse() == Ok(ip))
                || entry.eq_ignore_ascii_case(&name)
        })
}

/// The page came from this very address, or from a host that is allowed by name.
fn is_own_origin(origin: &str, host: &str, allowed: &[String]) -> bool {
    let Some(("http" | "https", authority)) = origin.split_once("://") else { return false };
    if authority.eq_ignore_ascii_case(host) {
        return true;
    }
    bare_host(authority).is_some_and(|name| allowed.iter().any(|entry| entry.eq_ignore_ascii_case(&name)))
}

/// Reads a token file; white space around the token does not count.
pub fn read_token(path: &Path) -> io::Result<String> {
    let bytes = files::read_small(path, TOKEN_LIMIT)?;
    let bytes = bytes.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the file is missing"))?;
    let text =
        String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
    }
    Ok(token.to_owned())
}

/// Makes a token, unless there is one.
pub fn make_token(path: &Path) -> Result<(), Failure> {
    match read_token(path) {
        Ok(_) => return Ok(()),
        // What a crash may have left is made again; anything else is somebody's mistake to look at.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
        Err(error) => return Err(Failure::io(format!("cannot read {}", files::shown(path)), error)),
    }
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::io("cannot get random numbers for the token", error))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    files::write_private(path, format!("{token}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn loopback_is_home_by_every_name_and_nothing_else_is() {
        for host in [
            "localhost",
            "LOCALHOST:7177",
            "localhost.",
            "127.0.0.1:7177",
            "127.8.9.1",
            "[::1]",
            "[::1]:7177",
        ] {
            assert!(is_own_host(host, &[]), "{host}");
        }
        let foreign = [
            "",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "10.0.0.1",
            "[::2]:80",
            "localhost:x",
            "[::1",
            "[localhost]",
            "evil@localhost",
            "127.0.0.1:7177:7177",
            "localhost:",
        ];
        for host in foreign {
            assert!(!is_own_host(host, &[]), "{host}");
        }
    }

    #[test]
    fn allowed_hosts_are_home_with_any_port_unless_they_name_one() {
        let allowed = ["backup.example.org".to_owned(), "10.0.0.7".to_owned(), "other:8443".to_owned()];
        for host in ["backup.example.org", "Backup.Example.Org:443", "10.0.0.7:80", "other:8443"] {
            assert!(is_own_host(host, &allowed), "{host}");
        }
        for host in ["example.org", "x.backup.example.org", "other", "other:80", "10.0.0.8"] {
            assert!(!is_own_host(host, &allowed), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_foreign_even_on_the_same_machine() {
        let host = "127.0.0.1:7177";
        assert!(is_own_origin("http://127.0.0.1:7177", host, &[]));
        for origin in
            ["http://localhost:3000", "http://127.0.0.1", "null", "https://example.org", "file://", ""]
        {
            assert!(!is_own_origin(origin, host, &[]), "{origin}");
        }
        assert!(is_own_origin("https://backup.example.org", host, &["backup.example.org".to_owned()]));
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        assert!(is_same("secret", "secret"));
        for wrong in ["", "secre", "secret2", "Secret"] {
            assert!(!is_same(wrong, "secret"), "{wrong}");
        }
        assert_eq!(bearer("bearer  secret "), Some("secret"));
        assert_eq!(bearer("Basic secret"), None);
        assert_eq!(bearer("secret"), None);
    }

    #[test]
    fn a_token_is_made_once_is_private_and_an_empty_one_is_made_again() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("admin.token");
        std::fs::write(&path, "\n").unwrap();
        make_token(&path).unwrap();
        let token = read_token(&path).unwrap();
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        make_token(&path).unwrap();
        assert_eq!(read_token(&path).unwrap(), token);
    }
}
