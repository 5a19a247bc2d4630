//! What the service manager is told, by the protocol of `sd_notify`: ready, a line of status, alive, reloading, stopping.
//!
//! In: `NOTIFY_SOCKET` and `WATCHDOG_USEC` of the environment; without the first nothing is ever sent. Out: datagrams, which
//! are lost rather than waited for. The protocol is a few lines of text to a Unix socket, of the file system or abstract,
//! so it stands here by itself. The manager shows the status line to every user of the machine: there are numbers and our
//! own words in it, and no names.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use slog::{Logger, warn};

use crate::spans;
use crate::status::{RootStanding, StatusAnswer};

/// A start that is at work asks for so much more time, again and again.
const MORE_TO_START: Duration = Duration::from_secs(60);
/// What comes before the first comparison: an examination of the whole database, after a crash.
const TO_OPEN: Duration = Duration::from_secs(15 * 60);
/// Beside the grace that is configured: servers, log and database are closed.
const TO_CLOSE: Duration = Duration::from_secs(30);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    is_ready: AtomicBool,
    last_alive: Mutex<Option<Instant>>,
    last_status: Mutex<String>,
}

impl Manager {
    /// The one that started this process.
    pub fn of(environment: &BTreeMap<String, String>, log: &Logger) -> Self {
        let Some(name) = environment.get("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        let socket = match connected(name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!(log, "the service manager is told nothing"; "NOTIFY_SOCKET" => name, "error" => %error);
                None
            }
        };
        // It may be meant for another process, of which this one is a child.
        let is_ours =
            environment.get("WATCHDOG_PID").is_none_or(|pid| *pid == std::process::id().to_string());
        let watchdog = environment.get("WATCHDOG_USEC").filter(|_| is_ours);
        let watchdog = watchdog.and_then(|text| text.parse().ok()).filter(|micros| *micros > 0);
        Self { socket, watchdog: watchdog.map(Duration::from_micros), ..Self::default() }
    }

    /// Whether anybody listens.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Signs of life have to come much more often than this.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.is_there())
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // A manager that does not listen now is told again: everything but the end is repeated.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }

    /// The start has begun.
    pub fn starting(&self) {
        self.tell(&format!("STATUS=opening the state\nEXTEND_TIMEOUT_USEC={}\n", TO_OPEN.as_micros()));
    }

    /// The first comparisons are still at work.
    pub fn still_starting(&self) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}\n", MORE_TO_START.as_micros()));
    }

    /// Everything was looked at once.
    pub fn ready(&self) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            self.tell("READY=1\n");
        }
    }

    /// How things stand, if that has changed.
    pub fn status(&self, words: &str) {
        let mut last = self.last_status.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != words {
            words.clone_into(&mut last);
            let line: String = words.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
            self.tell(&format!("STATUS={line}\n"));
        }
    }

    /// The main loop and the supervisor have come round. Told four times as often as the manager demands.
    pub fn alive(&self, now: Instant) {
        let Some(watchdog) = self.watchdog() else { return };
        let mut last = self.last_alive.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.saturating_duration_since(last) >= watchdog / 4) {
            *last = Some(now);
            self.tell("WATCHDOG=1\n");
        }
    }

    /// A reload begins.
    pub fn reloading(&self) {
        if self.is_ready.load(Ordering::Relaxed) {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
        }
    }

    /// The reload is over, whatever came of it: there is no word for one that was refused.
    pub fn reloaded(&self) {
        if self.is_ready.load(Ordering::Relaxed) {
            self.tell("READY=1\n");
        }
    }

    /// The end begins, and takes `grace` at most, whatever the unit says.
    pub fn stopping(&self, why: &str, grace: Duration) {
        let within = grace.saturating_add(TO_CLOSE).as_micros();
        self.tell(&format!("STOPPING=1\nSTATUS={why}\nEXTEND_TIMEOUT_USEC={within}\n"));
    }
}

fn connected(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(rest) => abstract_address(rest)?,
        None if name.starts_with('/') => SocketAddr::from_pathname(name)?,
        None => return Err(io::Error::other("it is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &str) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &str) -> io::Result<SocketAddr> {
    Err(io::Error::other("there are no abstract sockets on this system"))
}

/// The status in a line, without names.
pub fn words(status: &StatusAnswer) -> String {
    let mut parts = Vec::new();
    let roots = || status.repositories.iter().flat_map(|repository| &repository.roots);
    let watched = roots().filter(|root| root.state == RootStanding::Watching).count();
    parts.push(match (watched, roots().count()) {
        (watched, all) if watched == all => format!("{all} roots watched"),
        (watched, all) => format!("{watched} of {all} roots watched"),
    });
    let paused = status.repositories.iter().filter(|repository| repository.status.paused).count();
    if paused > 0 {
        parts.push(format!("{paused} of {} repositories paused", status.repositories.len()));
    }
    let remotes = status.repositories.iter().flat_map(|repository| &repository.remotes);
    let oldest = remotes.map(|remote| remote.oldest_unprotected_seconds).max();
    parts.push(match oldest {
        None => "no remote".to_owned(),
        Some(0) => "everything is at every remote".to_owned(),
        // A line that changes every second would be sent every time.
        Some(seconds) if seconds < 60 => "changes are on their way".to_owned(),
        Some(seconds) => format!("unprotected for {}", spans::in_words(seconds / 60 * 60)),
    });
    let mut names: Vec<&str> = status.alerts.iter().map(|alert| alert.name.as_str()).collect();
    names.dedup();
    parts.push(match names.len() {
        0 => "no alert".to_owned(),
        1..=4 => format!("alerts: {}", names.join(", ")),
        _ => format!("{} alerts", status.alerts.len()),
    });
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(socket: &str, watchdog: Option<&str>) -> Manager {
        let mut environment = BTreeMap::from([("NOTIFY_SOCKET".to_owned(), socket.to_owned())]);
        environment.extend(watchdog.map(|micros| ("WATCHDOG_USEC".to_owned(), micros.to_owned())));
        Manager::of(&environment, &Logger::root(slog::Discard, slog::o!()))
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count) = socket.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
        all
    }

    #[test]
    fn everything_is_told_once_and_signs_of_life_in_time() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = manager(path.to_str().unwrap(), Some("40000000"));
        manager.reloading();
        manager.ready();
        manager.ready();
        manager.status("all is\nwell");
        manager.status("all is\nwell");
        assert_eq!(heard(&socket), ["READY=1\n", "STATUS=all is well\n"]);
        let begun = Instant::now();
        for second in [0, 5, 10, 15] {
            manager.alive(begun + Duration::from_secs(second));
        }
        assert_eq!(heard(&socket), ["WATCHDOG=1\n"; 2]);
        manager.reloading();
        manager.reloaded();
        manager.stopping("by SIGTERM", Duration::from_secs(5));
        let heard = heard(&socket);
        assert!(heard[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{heard:?}");
        assert_eq!(heard[1], "READY=1\n");
        assert_eq!(heard[2], "STOPPING=1\nSTATUS=by SIGTERM\nEXTEND_TIMEOUT_USEC=35000000\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_reached_too() {
        let name = format!("backupbot-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&abstract_address(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        manager(&format!("@{name}"), None).ready();
        assert_eq!(heard(&socket), ["READY=1\n"]);
    }

    #[test]
    fn without_a_manager_or_with_one_that_is_gone_nothing_happens() {
        for manager in
            [Manager::default(), manager("/nowhere/notify", None), manager("vsock:2:1234", Some("1"))]
        {
            manager.ready();
            manager.alive(Instant::now());
            manager.stopping("", Duration::MAX);
        }
    }
}
