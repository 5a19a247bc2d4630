//! Finding the running daemon: `<state_dir>/daemon.json` says where it listens, the lock says that it lives.
//!
//! The file is written once the API answers and removed at an orderly stop. One that a crash left behind
//! names a process that does not hold the lock, and counts for nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::files::{self, shown};
use crate::lock::{self, Held, Holder};

const FILE_NAME: &str = "daemon.json";
const LIMIT: u64 = 64 * 1024;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Where the API can be reached from this machine.
    pub address: SocketAddr,
    /// The process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Since when, RFC 3339.
    pub started: String,
    /// Where its token is read.
    pub token_file: PathBuf,
    /// Where the metrics are, if they have a listener of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

/// Who works in the state directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Presence {
    /// A daemon with an API.
    Daemon(Daemon),
    /// A process without one: `once`, or a daemon that is starting or stopping.
    Other(Option<Holder>),
    /// Nobody.
    Nobody,
}

/// Tells where this daemon can be asked.
pub fn announce(state_dir: &Path, daemon: &Daemon) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(daemon)
        .map_err(|error| Failure::io("cannot write where to be found", error))?;
    files::write_private(&state_dir.join(FILE_NAME), &text)
}

/// Takes it back.
pub fn withdraw(state_dir: &Path) -> Result<(), Failure> {
    files::remove(&state_dir.join(FILE_NAME))
}

/// Looks who is there.
pub fn find(state_dir: &Path) -> Result<Presence, Failure> {
    let Held::By(holder) = lock::look(state_dir)? else { return Ok(Presence::Nobody) };
    let path = state_dir.join(FILE_NAME);
    let read = files::read_small(&path, LIMIT);
    let text = read.map_err(|error| Failure::io(format!("cannot read {}", shown(&path)), error))?;
    let daemon = text.and_then(|text| serde_json::from_slice::<Daemon>(&text).ok());
    Ok(match (daemon, holder) {
        (Some(daemon), Some(holder)) if daemon.pid == holder.pid => Presence::Daemon(daemon),
        (_, holder) => Presence::Other(holder),
    })
}

/// The address to connect to for an address that is listened on.
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn daemon(pid: u32) -> Daemon {
        Daemon {
            address: "127.0.0.1:7177".parse().unwrap(),
            pid,
            version: "0.1.0".to_owned(),
            started: "2026-11-22T00:00:00Z".to_owned(),
            token_file: "/x/admin.token".into(),
            metrics: None,
        }
    }

    #[test]
    fn a_daemon_is_one_only_while_it_holds_the_lock() {
        let scratch = tempfile::tempdir().unwrap();
        let own = std::process::id();
        announce(scratch.path(), &daemon(own)).unwrap();
        assert_eq!(find(scratch.path()).unwrap(), Presence::Nobody);

        let holder = Holder::this("run", "laptop", "host");
        let lock = lock::take(scratch.path(), &holder, Duration::ZERO).unwrap();
        assert_eq!(find(scratch.path()).unwrap(), Presence::Daemon(daemon(own)));

        announce(scratch.path(), &daemon(own + 1)).unwrap();
        assert_eq!(find(scratch.path()).unwrap(), Presence::Other(Some(holder.clone())));
        withdraw(scratch.path()).unwrap();
        withdraw(scratch.path()).unwrap();
        assert_eq!(find(scratch.path()).unwrap(), Presence::Other(Some(holder)));
        drop(lock);
        assert_eq!(find(scratch.path()).unwrap(), Presence::Nobody);
    }

    #[test]
    fn who_listens_everywhere_is_reached_at_loopback() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:7177"), "127.0.0.1:7177");
        assert_eq!(reached("[::]:7177"), "[::1]:7177");
        assert_eq!(reached("192.0.2.1:80"), "192.0.2.1:80");
    }
}
