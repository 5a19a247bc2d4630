//! Which server, which account, which repository there: what an `ssh://` address says, in the forms in which it is
//! needed. In comes the configuration of a remote; out come the name under which the server's host key is kept and
//! the command that starts a service.

use std::path::{Path, PathBuf};

use crate::config::{NetworkUrl, Remote};
use crate::error::{Error, Kind, Result};
use crate::transport::wire::Service;

/// SSH's own port.
const PORT: u16 = 22;
/// Who logs in where nothing says otherwise: the account of nearly every Git host.
const DEFAULT_USER: &str = "git";
/// The file of known hosts in the state directory, where the configuration names no other.
const KNOWN_HOSTS: &str = "known_hosts";

/// A repository behind SSH.
#[derive(Clone)]
pub(super) struct Site {
    /// The remote's name in the configuration, for messages.
    pub remote: String,
    /// A name or an address without brackets.
    pub host: String,
    pub port: u16,
    pub user: String,
    /// As the service at the other end is to take it; never with control characters.
    path: String,
    /// Where the host keys are that this remote trusts.
    pub known_hosts: PathBuf,
}

impl Site {
    /// Takes an address apart as git does: percent-decoded, and `/~user/x` means `~user/x`.
    ///
    /// # Errors
    /// [`Kind::Config`] for an address that names no repository or decodes to what cannot be one.
    pub(super) fn of(remote: &Remote, url: &NetworkUrl, state_dir: &Path) -> Result<Self> {
        let name = remote.name.as_str();
        let fail = |why: &str| Error::new(Kind::Config, format!("the address of remote {name}: {why}"));
        let decode = |text: &str| -> Result<String> {
            let bytes = crate::config::percent_decode(text)
                .ok_or_else(|| fail("a `%` needs two hexadecimal digits after it"))?;
            let text = String::from_utf8(bytes).map_err(|_| fail("it must decode to UTF-8"))?;
            if text.chars().any(char::is_control) {
                return Err(fail("a control character does not belong in it"));
            }
            Ok(text)
        };
        let path = decode(&url.path)?;
        let path = match path.strip_prefix('/') {
            None | Some("") => return Err(fail("it names no repository: write ssh://host/path")),
            Some(below_home) if below_home.starts_with('~') => below_home.to_owned(),
            Some(_) => path,
        };
        let credentials = remote.credentials.as_ref();
        let user = match &url.user {
            Some(user) => decode(user)?,
            None => {
                credentials.and_then(|all| all.username.clone()).unwrap_or_else(|| DEFAULT_USER.to_owned())
            }
        };
        let bare = url.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Ok(Self {
            remote: name.to_owned(),
            host: bare.unwrap_or(&url.host).to_lowercase(),
            port: url.port.unwrap_or(PORT),
            user,
            path,
            known_hosts: credentials
                .and_then(|all| all.known_hosts_file.clone())
                .unwrap_or_else(|| state_dir.join(KNOWN_HOSTS)),
        })
    }

    /// The host in a file of known hosts.
    pub(super) fn known_as(&self) -> String {
        if self.port == PORT { self.host.clone() } else { format!("[{}]:{}", self.host, self.port) }
    }

    /// The host in messages.
    pub(super) fn shown(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// What the server's shell is told to run.
    pub(super) fn command(&self, service: Service) -> String {
        self.command_of(service.as_str())
    }

    /// The same for any program that is given the repository's path.
    pub(super) fn command_of(&self, program: &str) -> String {
        format!("{program} {}", quoted(&self.path))
    }

    /// As the programs there are given it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

/// In single quotes for a shell. `!` is taken out of them too, because a C shell acts on it even there.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        match character {
            '\'' | '!' => {
                quoted.push_str("'\\");
                quoted.push(character);
                quoted.push('\'');
            }
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::ssh::tests::remote_at;

    fn site(url: &str) -> Result<Site> {
        let (remote, url) = remote_at(url);
        Site::of(&remote, &url, Path::new("/state"))
    }

    #[test]
    fn an_address_is_taken_apart_as_git_does() {
        let command = |url: &str| site(url).unwrap().command(Service::ReceivePack);
        assert_eq!(command("ssh://nas/backup.git"), "git-receive-pack '/backup.git'");
        assert_eq!(command("ssh://nas/~/backup.git"), "git-receive-pack '~/backup.git'");
        assert_eq!(command("ssh://nas/~joe/backup.git"), "git-receive-pack '~joe/backup.git'");
        assert_eq!(command("ssh://nas/my%20docs"), "git-receive-pack '/my docs'");
        assert_eq!(command("ssh://nas/a'b!c"), r"git-receive-pack '/a'\''b'\!'c'");
        assert_eq!(command("ssh://nas/$(x)`y`"), "git-receive-pack '/$(x)`y`'");
        assert_eq!(site("ssh://nas/x").unwrap().command(Service::UploadPack), "git-upload-pack '/x'");
        for refused in ["ssh://nas", "ssh://nas/", "ssh://nas/a%0ab", "ssh://nas/a%", "ssh://nas/%ff"] {
            assert_eq!(site(refused).err().unwrap().kind(), Kind::Config, "{refused}");
        }
    }

    #[test]
    fn the_server_has_one_name_for_people_and_one_in_the_file_of_known_hosts() {
        for (url, shown, known) in [
            ("ssh://NAS.Example.org/x", "nas.example.org:22", "nas.example.org"),
            ("ssh://nas:22/x", "nas:22", "nas"),
            ("ssh://nas:2222/x", "nas:2222", "[nas]:2222"),
            ("ssh://[::1]/x", "[::1]:22", "::1"),
            ("ssh://[::1]:2222/x", "[::1]:2222", "[::1]:2222"),
        ] {
            let site = site(url).unwrap();
            assert_eq!((site.shown().as_str(), site.known_as().as_str()), (shown, known), "{url}");
        }
    }

    #[test]
    fn the_address_says_who_logs_in_before_the_credentials_do() {
        assert_eq!(site("ssh://nas/x").unwrap().user, "git");
        assert_eq!(site("ssh://j%40home@nas/x").unwrap().user, "j@home");
        let (mut remote, url) = remote_at("ssh://nas/x");
        remote.credentials =
            Some(crate::config::Credentials { username: Some("bot".to_owned()), ..Default::default() });
        let site = Site::of(&remote, &url, Path::new("/state")).unwrap();
        assert_eq!(
            (site.user.as_str(), site.known_hosts.as_path()),
            ("bot", Path::new("/state/known_hosts"))
        );
    }
}
