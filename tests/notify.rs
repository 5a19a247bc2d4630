//! What a service manager hears of us, over a socket of our own, and that systemd takes the units in docs/systemd.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::daemon::{Daemon, Setup};
use crate::support::tree::write;
use crate::support::{SOON, skip};

/// As a service manager listens.
struct Ear {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Ear {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket, heard: Vec::new() }
    }

    fn next(&mut self) -> Option<String> {
        let mut buffer = [0; 8192];
        let count = self.socket.recv(&mut buffer).ok()?;
        let text = String::from_utf8(buffer[..count].to_vec()).unwrap();
        self.heard.push(text.clone());
        Some(text)
    }

    /// Listens until something begins like this.
    fn until(&mut self, wanted: &str, daemon: &Daemon) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(text) = self.next()
                && text.lines().any(|line| line.starts_with(wanted))
            {
                return text;
            }
            let heard = &self.heard;
            assert!(Instant::now() < deadline, "{wanted:?} was not heard: {heard:?}\n{}", daemon.output());
        }
    }
}

fn launch(setup: &Setup, more: &[(&str, &str)]) -> (Daemon, Ear) {
    let path = setup.path("notify");
    let ear = Ear::at(&path);
    let mut environment = vec![("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "2000000")];
    environment.extend(more);
    (setup.launch(&environment), ear)
}

#[test]
fn a_service_manager_is_told_from_the_start_to_the_end() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let (mut daemon, mut ear) = launch(&setup, &[]);
    ear.until("READY=1", &daemon);
    let api = daemon.api();
    assert_eq!(api.raw("GET", "/readyz", &[("Host", "x")], b"").status, 200, "ready means ready");
    ear.until("WATCHDOG=1", &daemon);
    ear.until("STATUS=1 roots watched", &daemon);
    for _ in 0..3 {
        ear.until("WATCHDOG=1", &daemon);
    }
    let is_ready_again = ear.heard.iter().filter(|text| text.contains("READY=1")).count();
    assert_eq!(is_ready_again, 1, "{:?}", ear.heard);

    let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    daemon.signal(Signal::HUP);
    let reloading = ear.until("RELOADING=1", &daemon);
    let told: i64 =
        reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")?.parse().ok()).unwrap();
    assert!((before..before + 60).contains(&(told / 1_000_000)), "{told} is not shortly after {before} s");
    ear.until("READY=1", &daemon);

    daemon.signal(Signal::TERM);
    let stopping = ear.until("STOPPING=1", &daemon);
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=50000000"), "grace and what comes after it: {stopping}");
    assert_eq!(daemon.end(SOON).code(), Some(0));
    let heard = ear.heard.join("\n");
    assert!(!heard.contains("documents") && !heard.contains("usb"), "no names: {heard}");
    setup.assert_all_is_well();
}

#[cfg(feature = "fault-points")]
#[test]
fn a_supervisor_that_hangs_gives_no_sign_of_life() {
    let setup = Setup::new();
    let (daemon, mut ear) = launch(&setup, &[("BACKUPBOT_FAULT", "actor:root:handle=stall@8")]);
    ear.until("WATCHDOG=1", &daemon);
    let mut last = Instant::now();
    let deadline = Instant::now() + SOON;
    while last.elapsed() < Duration::from_secs(6) {
        if ear.next().is_some_and(|text| text.contains("WATCHDOG=1")) {
            last = Instant::now();
        }
        assert!(Instant::now() < deadline, "it went on giving signs of life: {:?}", ear.heard);
    }
    daemon.kill();
}

fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    Command::new("systemd-analyze").args(arguments).arg(unit).output().ok()
}

#[test]
fn systemd_takes_the_units_and_finds_little_exposed() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systemd");
    let setup = Setup::new();
    for (name, exposed) in [("backupbot.service", Some("20")), ("backupbot-user.service", None)] {
        let mut text = fs::read_to_string(units.join(name)).unwrap();
        // The program need not be installed for this.
        for place in ["/usr/local/bin/backupbot", "%h/.local/bin/backupbot"] {
            text = text.replace(place, env!("CARGO_BIN_EXE_backupbot"));
        }
        let unit = setup.path(name);
        fs::write(&unit, text).unwrap();
        let Some(verified) = analyze(&["verify", "--man=no"], &unit) else {
            return skip("the systemd units: systemd-analyze is not installed (apt-get install systemd)");
        };
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success() && !said.contains(name), "{name}: {said}");
        let Some(exposed) = exposed else { continue };
        let threshold = format!("--threshold={exposed}");
        let secure = analyze(&["security", "--offline=true", "--no-pager", &threshold], &unit).unwrap();
        let said = String::from_utf8_lossy(&secure.stdout).into_owned();
        assert!(secure.status.success(), "more exposed than {exposed} of 100:\n{said}");
    }
}
