//! Cloning from one remote with plain git: its address, what git has to know for it, and what git will ask for.
//!
//! No secret is read here: what is said of one is where BackupBot finds it.

use std::path::Path;

use backupbot_core::config::{Credentials, NetworkUrl, Remote, RemoteUrl, SecretSource};

use super::shell::{quoted, ssh_value};

/// Who logs in over SSH where nothing says otherwise.
const SSH_USER: &str = "git";
/// Lets a repository that belongs to somebody else be read, as on a disk that was carried to another machine.
const ANYBODYS: &str = " --upload-pack \"git -c safe.directory='*' upload-pack\"";

/// How to clone from somewhere.
pub struct Cloning {
    /// What to know, one line each.
    pub text: Vec<String>,
    /// `git` with what stands before the command, and a space.
    pub prefix: String,
    /// Options of `clone`, each with a space before it.
    pub options: String,
    /// The address.
    pub address: String,
}

impl Cloning {
    fn local(path: &Path, text: Vec<String>) -> Self {
        Self {
            text,
            prefix: "git ".to_owned(),
            // Objects that are hard links would share the fate of the remote's.
            options: format!(" --no-local{ANYBODYS}"),
            address: path.to_string_lossy().into_owned(),
        }
    }

    /// The repository in the state directory.
    pub fn of_state(path: &Path) -> Self {
        let text =
            "There is no remote: this is BackupBot's own repository, on the same machine as the files.";
        Self::local(path, vec![text.to_owned()])
    }

    /// The option that `fetch` needs too.
    pub fn upload_pack(&self) -> &'static str {
        if self.options.contains(ANYBODYS) { ANYBODYS } else { "" }
    }
}

/// How to clone from a remote.
pub fn cloning(remote: &Remote, known_hosts: &Path) -> Cloning {
    let name = remote.name.as_str();
    let credentials = remote.credentials.clone().unwrap_or_default();
    match &remote.url {
        RemoteUrl::Local(path) => {
            Cloning::local(path, vec![format!("{name}: a path, which has to be mounted.")])
        }
        RemoteUrl::Http(url) => http(name, remote, url, &credentials),
        RemoteUrl::Ssh(url) => ssh(name, url, &credentials, known_hosts),
    }
}

fn http(name: &str, remote: &Remote, url: &NetworkUrl, credentials: &Credentials) -> Cloning {
    let mut prefix = "git ".to_owned();
    let mut set = |key: &str, value: &str| {
        prefix.push_str(&format!("-c {} ", quoted(&format!("{key}={value}"))));
    };
    let mut text = Vec::new();
    if let Some(file) = remote.ca_file.as_deref().and_then(Path::to_str) {
        set("http.sslCAInfo", file);
        text.push(format!("The authority of {name}'s certificate: {file}"));
    }
    if let Some(proxy) = &remote.proxy {
        set("http.proxy", proxy);
    }
    let secret = match (&credentials.password, &credentials.token) {
        (Some(password), _) => Some((password, "password")),
        (None, Some(token)) => Some((token, "token")),
        (None, None) => None,
    };
    let first = match (secret, &credentials.username) {
        (None, _) => format!("{name}: no user name and no password are configured."),
        (Some((source, what)), Some(user)) => {
            set("credential.username", user);
            format!("{name}: git asks for the password of {user}: the {what} {}.", place(source))
        }
        (Some((source, what)), None) => format!(
            "{name}: git asks for a user name, on most servers any will do, and a password: the {what} {}.",
            place(source)
        ),
    };
    text.insert(0, first);
    Cloning { text, prefix, options: String::new(), address: url.text.clone() }
}

fn ssh(name: &str, url: &NetworkUrl, credentials: &Credentials, known_hosts: &Path) -> Cloning {
    let mut command = String::from("ssh");
    let mut option = |key: &str, path: &Path| {
        let value = path.to_str().and_then(ssh_value);
        let is_possible = value.is_some();
        if let Some(value) = value {
            command.push_str(&format!(" -o {}", quoted(&format!("{key}={value}"))));
        }
        is_possible
    };
    let mut text = Vec::new();
    let mut has_key = false;
    text.push(match &credentials.ssh_key {
        Some(SecretSource::File(path)) => {
            has_key = option("IdentityFile", path);
            let by_hand =
                if has_key { "" } else { ", which has to be copied to a name that ssh can be told" };
            format!("{name}: ssh logs in with the key {}{by_hand}.", path.display())
        }
        Some(source) => format!("{name}: ssh logs in with the key {}; put it into the agent.", place(source)),
        None => format!("{name}: ssh logs in with a key of the agent (SSH_AUTH_SOCK)."),
    });
    if let Some(passphrase) = &credentials.passphrase {
        text.push(format!("It asks for the key's passphrase: the one {}.", place(passphrase)));
    }
    let file = credentials.known_hosts_file.as_deref().unwrap_or(known_hosts);
    if option("UserKnownHostsFile", file) {
        text.push(format!(
            "The server's key is recorded in {}. Without that file ssh asks: compare the fingerprint.",
            file.display()
        ));
    }
    if has_key {
        command.push_str(" -o IdentitiesOnly=yes");
    }
    let user = match (&url.user, &credentials.username) {
        (Some(user), _) => user.clone(),
        (None, Some(user)) => percent_encoded(user),
        (None, None) => SSH_USER.to_owned(),
    };
    let host = url.text.strip_prefix("ssh://").unwrap_or(&url.text);
    Cloning {
        text,
        prefix: format!("GIT_SSH_COMMAND={} git ", quoted(&command)),
        options: String::new(),
        address: format!("ssh://{user}@{host}"),
    }
}

/// Where a secret is. The arguments of a command may be secrets themselves.
fn place(source: &SecretSource) -> String {
    match source {
        SecretSource::File(path) => format!("in {}", path.display()),
        SecretSource::Environment(name) => format!("in the variable {name} of BackupBot's environment"),
        SecretSource::Command(arguments) => {
            format!("that the program {} prints for BackupBot", arguments.first().map_or("", String::as_str))
        }
    }
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.as_bytes().iter().map(encode).collect()
}
