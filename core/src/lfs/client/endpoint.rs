//! Where the LFS server of a remote is: the configured address, the one that belongs to an HTTP address, or what the
//! server says over SSH. Nobody's `.lfsconfig` is read: it could send the backup, and the credentials, anywhere.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::failure::Operation;
use super::grant::{self, Grant};
use crate::config::{Remote, RemoteUrl};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::transport::ssh::SshWire;
use crate::transport::{limits_of, origin_of, said, state_directory_of};

/// The program that says where it is.
const PROGRAM: &str = "git-lfs-authenticate";
/// A grant that ends within this time is asked for anew.
const MARGIN: Duration = Duration::from_secs(10);

/// Where the LFS server is.
pub(super) enum Endpoint {
    /// Known from the configuration; the remote's credentials are for it.
    Fixed(Url),
    /// To be asked for.
    Ssh(Box<Asked>),
}

/// What has been said over SSH.
pub(super) struct Asked {
    wire: Mutex<SshWire>,
    /// For upload and for download: they may differ, and each ends by itself.
    grants: Mutex<[Option<Grant>; 2]>,
    shown: String,
}

/// A way in for one request.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub base: Url,
    /// What the server gave for it over SSH.
    pub headers: HeaderMap,
    /// Whether the configured credentials are for it.
    pub is_configured: bool,
}

impl Endpoint {
    /// That of `remote`.
    pub(super) fn of(remote: &Remote, repository: &Path, progress: &Progress) -> Result<Self> {
        if let Some(configured) = &remote.lfs_url {
            let url = parsed(configured)?;
            let is_open_anyway =
                matches!(&remote.url, RemoteUrl::Http(base) if base.text.starts_with("http://"));
            let is_here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
            let has_secret =
                remote.credentials.as_ref().is_some_and(|all| all.password.is_some() || all.token.is_some());
            if url.scheme() == "http" && has_secret && !is_open_anyway && !is_here {
                let text = format!(
                    "the lfs_url of remote {} is not encrypted, and its credentials would go over it: use https://",
                    remote.name
                );
                return Err(Error::new(Kind::Config, text));
            }
            return Ok(Self::Fixed(url));
        }
        match &remote.url {
            RemoteUrl::Http(url) => beside(&url.text).map(Self::Fixed),
            RemoteUrl::Ssh(url) => {
                let state_directory = state_directory_of(repository);
                let wire = SshWire::new(remote, url, state_directory, limits_of(remote), progress)?;
                let asked = Asked {
                    wire: Mutex::new(wire),
                    grants: Mutex::default(),
                    shown: format!("{PROGRAM} at {}", said(url.host.as_bytes())),
                };
                Ok(Self::Ssh(Box::new(asked)))
            }
            RemoteUrl::Local(_) => Err(Error::new(Kind::Internal, "a directory has no LFS server")),
        }
    }

    /// The way in now, for one kind of operation.
    pub(super) fn standing(
        &self,
        operation: Operation,
        warnings: &Mutex<Vec<String>>,
        progress: &Progress,
    ) -> Result<Standing> {
        match self {
            Self::Fixed(base) => {
                Ok(Standing { base: base.clone(), headers: HeaderMap::new(), is_configured: true })
            }
            Self::Ssh(asked) => {
                let grant = asked.grant(operation, warnings, progress)?;
                Ok(Standing { base: grant.base, headers: grant.headers, is_configured: false })
            }
        }
    }

    /// What was given over SSH does not let us in any more.
    pub(super) fn forget(&self) {
        if let Self::Ssh(asked) = self {
            *asked.grants.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
        }
    }
}

impl Asked {
    fn grant(
        &self,
        operation: Operation,
        warnings: &Mutex<Vec<String>>,
        progress: &Progress,
    ) -> Result<Grant> {
        // One asks at a time: the others find what it was told.
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        let place = operation as usize;
        let known = self.grants.lock().unwrap_or_else(PoisonError::into_inner)[place].clone();
        let is_good = |grant: &Grant| grant.expires.is_none_or(|end| Instant::now() + MARGIN < end);
        if let Some(grant) = known.filter(is_good) {
            return Ok(grant);
        }
        let answer = wire.ask_program(PROGRAM, operation.as_str(), progress)?;
        let mut noticed = wire.take_warnings();
        let grant = match grant::read(&answer, &self.shown)? {
            Some(grant) => {
                if grant.base.scheme() == "http" {
                    noticed.push(format!(
                        "{} sends to {}, which is not encrypted: large files and what lets us in go over it in the clear",
                        self.shown,
                        said(origin_of(&grant.base).as_bytes())
                    ));
                }
                grant
            }
            None => {
                let (host, path) = wire.host_and_path();
                let base = fallback(host, path)?;
                noticed.push(format!(
                    "{} is not there: {base} is asked instead, without credentials; name the LFS server under the remote's \
                     lfs_url if it is somewhere else",
                    self.shown
                ));
                Grant { base, headers: HeaderMap::new(), expires: None }
            }
        };
        let mut warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in noticed {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(grant.clone());
        Ok(grant)
    }
}

fn parsed(text: &str) -> Result<Url> {
    Url::parse(text).map_err(|error| {
        Error::new(Kind::Config, format!("{} is no address to connect to: {error}", said(text.as_bytes())))
    })
}

/// The LFS server that belongs to a repository at an HTTP address.
fn beside(text: &str) -> Result<Url> {
    let text = text.trim_end_matches('/');
    let suffix = if text.ends_with(".git") { "" } else { ".git" };
    parsed(&format!("{text}{suffix}/info/lfs"))
}

/// Where it would be, had the repository at an SSH address an HTTP address as well.
fn fallback(host: &str, path: &str) -> Result<Url> {
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut base = parsed(&format!("https://{bracketed}/"))?;
    let path = path.trim_matches('/');
    let suffix = if path.ends_with(".git") { "" } else { ".git" };
    base.set_path(&format!("/{path}{suffix}/info/lfs"));
    Ok(base)
}

/// An address below the endpoint: a query that it may have stays.
pub(super) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RemoteName;

    #[test]
    fn the_server_is_beside_the_repository_or_where_the_configuration_says() {
        let at = |url: &str, lfs_url: Option<&str>| {
            let mut remote = Remote::at(RemoteName::new("r").unwrap(), RemoteUrl::parse(url).unwrap());
            remote.lfs_url = lfs_url.map(str::to_owned);
            match Endpoint::of(&remote, Path::new("/s/repositories/r.git"), &Progress::new()) {
                Ok(Endpoint::Fixed(url)) => below(&url, "objects/batch").to_string(),
                Ok(Endpoint::Ssh(_)) => "ssh".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        for (url, lfs_url, expected) in [
            ("https://h.org/me/x", None, "https://h.org/me/x.git/info/lfs/objects/batch"),
            ("https://h.org/me/x.git/", None, "https://h.org/me/x.git/info/lfs/objects/batch"),
            ("https://h.org/me/x", Some("http://l.org/y/?a=b"), "http://l.org/y/objects/batch?a=b"),
            ("/mnt/x", Some("https://l.org"), "https://l.org/objects/batch"),
            ("ssh://h.org/me/x.git", Some("https://l.org"), "https://l.org/objects/batch"),
            ("ssh://h.org/me/x.git", None, "ssh"),
        ] {
            assert_eq!(at(url, lfs_url), expected, "{url}");
        }
        assert_eq!(fallback("h.org", "/a b/x").unwrap().as_str(), "https://h.org/a%20b/x.git/info/lfs");
        assert_eq!(fallback("::1", "~/x.git").unwrap().as_str(), "https://[::1]/~/x.git/info/lfs");
    }

    #[test]
    fn credentials_of_an_encrypted_remote_do_not_go_to_a_server_that_is_not() {
        let url = RemoteUrl::parse("https://h.org/x").unwrap();
        let mut remote = Remote::at(RemoteName::new("r").unwrap(), url);
        remote.lfs_url = Some("http://l.org/".to_owned());
        let token = Some(crate::config::SecretSource::Environment("X".to_owned()));
        remote.credentials = Some(crate::config::Credentials { token, ..Default::default() });
        let error = Endpoint::of(&remote, Path::new("/s/r/x"), &Progress::new()).err().unwrap();
        assert_eq!(error.kind(), Kind::Config);
    }
}
