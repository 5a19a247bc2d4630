//! A real LFS server of another make, giftless, on 127.0.0.1 with its storage in a directory of the test; ends with the
//! value. `tests/run` installs it below target/tools. Used by the black-box tests and by core's own.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to start on a loaded machine.
const SOON: Duration = Duration::from_secs(60);
/// Signs the tokens of this server.
const KEY: &str = "a-key-for-this-test-of-32-bytes-or-more";

/// A running server.
pub struct Giftless {
    directory: PathBuf,
    port: u16,
    child: Child,
}

/// A program of its environment.
fn program(name: &str) -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let places: Vec<PathBuf> =
        above.take(2).map(|directory| directory.join("target/tools/giftless/bin").join(name)).collect();
    places.iter().find(|path| path.exists()).unwrap_or(&places[0]).clone()
}

/// Whether it is installed; says so where it is not.
pub fn is_possible() -> bool {
    let is_there = program("waitress-serve").exists();
    if !is_there {
        // Not `eprintln!`: the test runner would swallow it as the output of a test that passes.
        let line = "\nSKIPPED: a real LFS server: giftless is missing (tests/run installs it)\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    is_there
}

impl Giftless {
    /// Starts one with its files in `directory`; it lets in everybody, or who has a token.
    pub fn start(directory: &Path, is_open: bool) -> Option<Self> {
        if !is_possible() {
            return None;
        }
        let directory = directory.join("giftless");
        fs::create_dir_all(directory.join("storage")).unwrap();
        let provider = match is_open {
            true => "  - giftless.auth.allow_anon:read_write\n".to_owned(),
            false => format!(
                "  - factory: giftless.auth.jwt:factory\n    options:\n      algorithm: HS256\n      private_key: {KEY}\n"
            ),
        };
        let settings = format!(
            "LEGACY_ENDPOINTS: false\nAUTH_PROVIDERS:\n{provider}\
             PRE_AUTHORIZED_ACTION_PROVIDER:\n  options:\n    private_key: {KEY}\n\
             TRANSFER_ADAPTERS:\n  basic:\n    options:\n      storage_options:\n        path: {}\n",
            directory.join("storage").display()
        );
        fs::write(directory.join("settings.yaml"), settings).unwrap();
        for attempt in 0.. {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let log = fs::File::create(directory.join("log")).unwrap();
            let mut child = Command::new(program("waitress-serve"))
                .arg(format!("--listen=127.0.0.1:{port}"))
                .arg("--max-request-body-size=20000000000")
                // What nginx before it says of the way to it.
                .args(["--trusted-proxy=127.0.0.1", "--trusted-proxy-headers=x-forwarded-proto"])
                .arg("giftless.wsgi_entrypoint:app")
                .current_dir(&directory)
                .env("GIFTLESS_CONFIG_FILE", directory.join("settings.yaml"))
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            let deadline = Instant::now() + SOON;
            loop {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(Self { directory, port, child });
                }
                if child.try_wait().unwrap().is_some() || Instant::now() > deadline {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
            let said = fs::read_to_string(directory.join("log")).unwrap_or_default();
            assert!(attempt < 3, "giftless does not start: {said}");
        }
        None
    }

    /// Of the repository `org/repo`, as a Git remote would have it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/org/repo.git", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where what has been put lies.
    pub fn storage(&self) -> PathBuf {
        self.directory.join("storage/org/repo")
    }

    /// Somebody empties its storage.
    pub fn wipe(&self) {
        fs::remove_dir_all(self.storage()).unwrap();
    }

    /// A token that may read, and write if asked for, all objects of the repository.
    pub fn token(&self, may_write: bool) -> String {
        let rights = if may_write { "read,write" } else { "read" };
        let script = format!(
            "import jwt,time\nprint(jwt.encode({{'exp': int(time.time())+600, 'scopes': ['obj:org/repo/*:{rights}']}}, '{KEY}', algorithm='HS256'))"
        );
        let output = Command::new(program("python")).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Giftless {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
