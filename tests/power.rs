//! Power cuts: state and remote are on a file system that is shut down by force at a random moment, as a pulled plug
//! leaves it, and mounted again. What was acknowledged before is there, and the rest is made good.
//!
//! The disk is a file with ext4 in it. `EXT4_IOC_SHUTDOWN` stops all writing at once: what was not synced is lost.
//! Needs root, loop devices and Python for the one call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::support::api::Api;
use crate::support::daemon::{Setup, is_root};
use crate::support::git::try_git;
use crate::support::tree::{Churn, corpus, fingerprint};
use crate::support::{Random, SOON, eventually, is_long, seed, skip};

const SHUT_DOWN: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', int(sys.argv[2])))";
/// The journal is written out first, without the data; or nothing is.
const WAYS: [&str; 3] = ["2", "1", "2"];

fn run(program: &str, arguments: &[&str]) -> Result<Output, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A disk in a file, mounted for as long as this lives.
struct Disk {
    image: PathBuf,
    place: PathBuf,
}

impl Disk {
    fn make(setup: &Setup) -> Result<Self, String> {
        let disk = Self { image: setup.path("disk.img"), place: setup.path("disk") };
        fs::create_dir(&disk.place).unwrap();
        fs::File::create(&disk.image).unwrap().set_len(512 * 1024 * 1024).unwrap();
        run("mkfs.ext4", &["-q", "-F", disk.image()])?;
        disk.mount()?;
        for name in ["state", "remote"] {
            fs::create_dir(disk.place.join(name)).unwrap();
            std::os::unix::fs::symlink(disk.place.join(name), setup.path(name)).unwrap();
        }
        run("sync", &["-f", disk.place()])?;
        Ok(disk)
    }

    fn image(&self) -> &str {
        self.image.to_str().unwrap()
    }

    fn place(&self) -> &str {
        self.place.to_str().unwrap()
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", self.image(), self.place()]).map(|_| ())
    }

    /// From this moment on nothing reaches the disk.
    fn cut(&self, way: &str) -> Result<(), String> {
        run("python3", &["-c", SHUT_DOWN, self.place(), way]).map(|_| ())
    }

    fn plug_in_again(&self) {
        eventually("the dead file system is let go", SOON, || run("umount", &[self.place()]).ok());
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if run("umount", &[self.place()]).is_err() {
            let _ = run("umount", &["-l", self.place()]);
        }
    }
}

/// Flushes again and again; what was acknowledged last is kept.
struct Acknowledged {
    stop: Arc<AtomicBool>,
    commit: Arc<Mutex<Option<String>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Acknowledged {
    fn ask(api: Api) -> Self {
        let (stop, commit) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (stopped, last) = (stop.clone(), commit.clone());
        let thread = std::thread::spawn(move || {
            let body = json!({"wait": true, "timeout": "10s"}).to_string();
            let bearer = api.bearer();
            let headers = [
                ("Host", api.address.as_str()),
                ("Authorization", bearer.as_str()),
                ("Content-Type", "application/json"),
            ];
            while !stopped.load(Ordering::SeqCst) {
                let Ok(answer) = api.try_raw("POST", "/api/v1/flush", &headers, body.as_bytes()) else {
                    return;
                };
                // An answer that comes after the cut was given by somebody without a disk.
                if answer.status == 200
                    && !stopped.load(Ordering::SeqCst)
                    && let Some(commit) = answer.json()["repositories"][0]["commit"].as_str()
                {
                    *last.lock().unwrap() = Some(commit.to_owned());
                }
            }
        });
        Self { stop, commit, thread }
    }
}

/// Everything that may tell why a commit is not there.
fn evidence(repository: &Path, commit: &str, said: &str) -> String {
    let shown = |arguments: &[&str]| {
        let output = try_git(repository, arguments);
        format!(
            "git {arguments:?}: {}{}\n",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let mut text = shown(&["for-each-ref"]);
    text += &shown(&["cat-file", "-t", commit]);
    text += &shown(&["log", "--format=%H %cd", "-3", "refs/heads/main"]);
    text += &shown(&["log", "--format=%H %cd", "-3", commit]);
    text += &shown(&["fsck", "--full"]);
    for place in ["refs/heads", "objects", "objects/pack"] {
        let names = fs::read_dir(repository.join(place)).into_iter().flatten().flatten();
        let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        text += &format!("{place}: {names:?}\n");
    }
    text + said
}

fn has(repository: &Path, commit: &str) -> bool {
    try_git(repository, &["merge-base", "--is-ancestor", commit, "refs/heads/main"]).status.success()
}

#[test]
fn a_power_cut_loses_no_acknowledged_commit() {
    if !is_root() {
        return skip("power cuts (mounting needs root)");
    }
    let setup = Setup::new();
    let disk = match Disk::make(&setup) {
        Ok(disk) => disk,
        Err(why) => return skip(&format!("power cuts ({why})")),
    };
    if let Err(why) = disk.cut("2") {
        return skip(&format!("power cuts ({why})"));
    }
    disk.plug_in_again();

    let seed = seed("a_power_cut_loses_no_acknowledged_commit");
    let mut random = Random::new(seed);
    corpus(&setup.root(), 200, &mut random);
    let mut last: Option<String> = None;
    for round in 0..if is_long() { 100 } else { 6 } {
        let churn = Churn::start(&setup.root(), seed.wrapping_add(round), Duration::from_millis(8));
        // Packs are merged all the time in every other round.
        let most_packs = if round % 2 == 0 { "50" } else { "3" };
        let daemon = setup.launch(&[("BACKUPBOT_FAULT_MOST_PACKS", most_packs)]);
        let mut asking = None;
        if round % 3 == 0 {
            // Somewhere in the first moments.
            std::thread::sleep(Duration::from_millis(random.below(400) as u64));
        } else {
            let asked = Acknowledged::ask(daemon.serving());
            std::thread::sleep(Duration::from_millis(200 + random.below(1500) as u64));
            asked.stop.store(true, Ordering::SeqCst);
            last = asked.commit.lock().unwrap().clone().or(last);
            asking = Some(asked);
        }
        disk.cut(WAYS[random.below(WAYS.len())]).unwrap();
        let said = daemon.output();
        daemon.kill();
        if let Some(asked) = asking {
            let _ = asked.thread.join();
        }
        churn.stop();
        disk.plug_in_again();
        if let Some(commit) = &last {
            assert!(
                has(&setup.remote().path, commit),
                "round {round}: {commit} was acknowledged; the remote lost it: {}",
                evidence(&setup.remote().path, commit, &said)
            );
            assert!(
                has(&setup.local().path, commit),
                "round {round}: {commit} was acknowledged and is lost here: {}",
                evidence(&setup.local().path, commit, &said)
            );
        }

        let untouched = fingerprint(&setup.root());
        let daemon = setup.start();
        let flushed = daemon.api().flush();
        let said = daemon.output();
        assert!(!said.contains("damaged"), "round {round}: an ordinary power cut damages nothing: {said}");
        daemon.stop();
        setup.assert_all_is_well();
        assert_eq!(fingerprint(&setup.root()), untouched, "round {round}");
        if let Some(commit) = &last {
            assert!(has(&setup.remote().path, commit), "round {round}");
        }
        last = flushed["repositories"][0]["commit"].as_str().map(str::to_owned);
    }
}
