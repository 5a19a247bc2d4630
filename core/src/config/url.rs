//! Where a remote is: a local path, http(s) or ssh, with nothing secret in anything that can be shown.

use std::fmt;
use std::path::PathBuf;

use super::values;

/// The address of a remote. `Display` and `Debug` never show who logs in.
#[derive(Clone, PartialEq, Eq)]
pub enum RemoteUrl {
    /// A bare repository on a mounted file system; absolute.
    Local(PathBuf),
    /// `http://` or `https://`.
    Http(NetworkUrl),
    /// `ssh://`.
    Ssh(NetworkUrl),
}

/// An address on the network, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkUrl {
    /// The address without the user.
    pub text: String,
    /// The user in front of `@`, for SSH only.
    pub user: Option<String>,
    /// The host, an IPv6 address in brackets.
    pub host: String,
    /// The port, if it is not the scheme's own.
    pub port: Option<u16>,
    /// What follows the host, with its leading slash.
    pub path: String,
}

impl RemoteUrl {
    /// Reads an address; the error is a sentence for the operator that does not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected a path or an address, found nothing".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("a control character does not belong in an address".to_owned());
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Self::local(text) };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => file_url(rest).map(Self::Local),
            scheme @ ("http" | "https") => NetworkUrl::parse(scheme, rest).map(Self::Http),
            scheme @ "ssh" => NetworkUrl::parse(scheme, rest).map(Self::Ssh),
            _ => Err("expected an absolute path or an address with file://, https://, http:// or ssh://"
                .to_owned()),
        }
    }

    fn local(text: &str) -> Result<Self, String> {
        let before_slash = text.split('/').next().unwrap_or_default();
        if before_slash.contains(':') {
            return Err("write the short form `user@host:path` as ssh://user@host/path".to_owned());
        }
        values::check_absolute(text.as_ref()).map(Self::Local)
    }

    /// The address without the user, for people, logs and labels.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Local(path) => path.to_str().unwrap_or("a local path that is not UTF-8"),
            Self::Http(url) | Self::Ssh(url) => &url.text,
        }
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Debug for NetworkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl NetworkUrl {
    fn parse(scheme: &str, rest: &str) -> Result<Self, String> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            let remedy = "put it in a file and name that under credentials.password_file";
            return Err(format!("a password never stands in an address: {remedy}"));
        }
        // For some hosts a name in front of the host is the token itself.
        if user.is_some() && scheme != "ssh" {
            let remedy =
                "put a name under credentials.username, a token in a file named by credentials.token_file";
            return Err(format!("nobody's name stands in an http address: {remedy}"));
        }
        if path.contains(['?', '#']) {
            return Err("an address of a repository has no `?` or `#` part".to_owned());
        }
        let (host, port) = split_port(address)?;
        Ok(Self {
            text: format!("{scheme}://{address}{path}"),
            user: user.filter(|user| !user.is_empty()).map(str::to_owned),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

fn split_port(address: &str) -> Result<(&str, Option<u16>), String> {
    let host_end = address.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match address[host_end..].find(':') {
        Some(colon) => (&address[..host_end + colon], Some(&address[host_end + colon + 1..])),
        None => (address, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let sound = match bare {
        Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_')),
    };
    if !sound || host.starts_with('-') {
        return Err("the address has no usable host name".to_owned());
    }
    let port = match port {
        None => None,
        Some(text) => {
            let port = text.parse::<u16>().ok().filter(|port| *port != 0);
            Some(port.ok_or("the port of the address is not a number from 1 to 65535")?)
        }
    };
    Ok((host, port))
}

fn file_url(rest: &str) -> Result<PathBuf, String> {
    let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    if !path.starts_with('/') {
        return Err("a file:// address has no host: write file:///path".to_owned());
    }
    let bytes =
        percent_decode(path).ok_or("a `%` in a file:// address needs two hexadecimal digits after it")?;
    let decoded =
        String::from_utf8(bytes).map_err(|_| "a file:// address must decode to UTF-8".to_owned())?;
    if decoded.chars().any(char::is_control) {
        return Err("a control character does not belong in an address".to_owned());
    }
    values::check_absolute(decoded.as_ref())
}

/// The bytes that `%` and two hexadecimal digits stand for; `None` where the digits are missing.
pub(crate) fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = &tail[2..];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str) -> PathBuf {
        match RemoteUrl::parse(text).unwrap() {
            RemoteUrl::Local(path) => path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_path_and_a_file_url_are_the_same_place() {
        assert_eq!(local("/mnt/usb/my docs.git/"), PathBuf::from("/mnt/usb/my docs.git"));
        assert_eq!(local("file:///mnt/usb/my%20docs.git"), PathBuf::from("/mnt/usb/my docs.git"));
        assert_eq!(local("FILE://localhost/mnt/%C5%BE"), PathBuf::from("/mnt/ž"));
        assert_eq!(local("/mnt/100%25"), PathBuf::from("/mnt/100%25"), "a plain path is not decoded");
    }

    #[test]
    fn the_user_is_kept_but_never_shown() {
        let url = RemoteUrl::parse("ssh://somename@git.example.org:8443/me/documents.git").unwrap();
        for shown in [format!("{url}"), format!("{url:?}"), url.as_str().to_owned()] {
            assert!(!shown.contains("somename"), "{shown}");
            assert!(shown.contains("ssh://git.example.org:8443/me/documents.git"), "{shown}");
        }
        let RemoteUrl::Ssh(parts) = url else { panic!() };
        assert_eq!(parts.user.as_deref(), Some("somename"));
        assert_eq!(
            (parts.host.as_str(), parts.port, parts.path.as_str()),
            ("git.example.org", Some(8443), "/me/documents.git")
        );
        assert!(!format!("{parts:?}").contains("somename"));
    }

    #[test]
    fn a_password_is_refused_with_the_remedy_and_not_repeated() {
        let message = RemoteUrl::parse("https://bot:hunter2@git.example.org/x").unwrap_err();
        assert!(message.contains("credentials.password_file"), "{message}");
        assert!(!message.contains("hunter2"));
        assert!(RemoteUrl::parse("ssh://bot:hunter2@nas/x").is_err());
        let message = RemoteUrl::parse("https://some-token@git.example.org/x").unwrap_err();
        assert!(message.contains("credentials.token_file") && !message.contains("some-token"), "{message}");
    }

    #[test]
    fn addresses_that_mean_nothing_are_refused() {
        for text in [
            "",
            "relative/path",
            "~/x",
            "nas:backup.git",
            "git@nas:backup.git",
            "ftp://nas/x",
            "https://",
            "https:///x",
            "https://nas:0/x",
            "https://nas:http/x",
            "https://[::1/x",
            "https://n as/x",
            "ssh://-oProxyCommand=x/y",
            "file://nas/x",
            "file:///a%2",
            "file:///a%zz",
            "file:///a%00",
            "file:///%ff",
            "/mnt/a\nb",
            "https://nas/a\u{7}",
            "https://nas/x?token=1",
            "ssh://@/x",
        ] {
            assert!(RemoteUrl::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ipv6_hosts_keep_their_brackets() {
        let RemoteUrl::Ssh(url) = RemoteUrl::parse("ssh://git@[::1]:2222/backup.git").unwrap() else {
            panic!()
        };
        assert_eq!((url.host.as_str(), url.port, url.user.as_deref()), ("[::1]", Some(2222), Some("git")));
    }
}
