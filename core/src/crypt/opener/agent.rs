//! `gpg` of the user who runs this program, with the agent that has or asks for the keys.
//!
//! In: a message that was found to be encrypted with a proof. Out: its plaintext; the exit code of `gpg` and its own word for
//! the proof decide whether it counts. `gpg` gets the environment as it is, so that its home is the user's and its pinentry
//! finds the terminal.
//!
//! ```text
//! message ─ thread ─▶ stdin │ gpg │ stdout ─ here, 64 KiB at a time ─▶ plaintext
//!                                 │ stderr ─ thread ─▶ what it said, the first lines
//! ```

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::Builder;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zeroize::Zeroizing;

use crate::crypt::{error_of, openpgp};
use crate::error::{Error, Kind, Result, kind_of_io};
use crate::progress::Progress;

const PIECE_BYTES: usize = 64 * 1024;
/// How long a stop that was asked for may take to be noticed.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Of a longer line the rest is thrown away.
const LONGEST_LINE: u64 = 4096;
/// Lines that are kept for a message.
const MOST_SAID: usize = 4;

/// `gpg`, as the user has it.
#[derive(Debug, Default)]
pub(super) struct Agent {
    /// Why nobody is asked any more: somebody declined, who would be asked for every file again, or there is nobody to ask.
    gave_up: OnceLock<String>,
    /// Its home, if it is not that of the environment.
    home: Option<PathBuf>,
}

impl Agent {
    #[cfg(test)]
    pub(super) fn at_home(home: &std::path::Path) -> Self {
        Self { gave_up: OnceLock::new(), home: Some(home.to_path_buf()) }
    }

    /// Decrypts a message; gives the number of bytes written, which are at most `limit`.
    pub(super) fn decrypt(
        &self,
        message: impl Read + Send,
        out: impl Write,
        limit: u64,
        progress: &Progress,
    ) -> Result<u64> {
        if let Some(why) = self.gave_up.get() {
            return Err(Error::new(Kind::EncryptionKey, why.clone()));
        }
        let mut child = self.start()?;
        let ends = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(mut stdout), Some(stderr)) = ends else {
            end(&mut child);
            return Err(Error::new(Kind::Internal, "gpg was started without its pipes"));
        };
        let run = std::thread::scope(|scope| {
            let feeding = Builder::new().name("gpg-in".to_owned());
            let feeding = feeding.spawn_scoped(scope, || feed(message, stdin, progress));
            let hearing = Builder::new().name("gpg-said".to_owned());
            let hearing = hearing.spawn_scoped(scope, || hear(stderr));
            let (Ok(feeding), Ok(hearing)) = (feeding, hearing) else {
                end(&mut child);
                return Err(Error::new(Kind::Limit, "cannot start the threads that talk to gpg"));
            };
            let taken = take(&mut stdout, out, limit, progress);
            drop(stdout);
            if taken.is_err() {
                end(&mut child);
            }
            let panicked = |_| Error::new(Kind::Internal, "a thread that talks to gpg panicked");
            let (fed, said) = (feeding.join().map_err(panicked)?, hearing.join().map_err(panicked)?);
            Ok((taken, fed, said))
        });
        let status = child.wait();
        let (taken, fed, said) = run?;
        // Neither end's trouble is a finding about the message.
        let size = taken?;
        let is_all = fed.map_err(|error| error_of(error, "read what is to be decrypted"))?;
        let status = status.map_err(|error| error_of(error, "wait for gpg"))?;
        self.judge(status, &said)?;
        if !is_all {
            return Err(openpgp::damaged("has something behind its end"));
        }
        Ok(size)
    }

    fn start(&self) -> Result<Child> {
        let mut command = Command::new("gpg");
        if let Some(home) = &self.home {
            command.env("GNUPGHOME", home);
        }
        let child = command
            .args(["--batch", "--quiet", "--status-fd", "2", "--decrypt"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        child.map_err(|error| match error.kind() {
            ErrorKind::NotFound => self.give_up(
                "gpg is not installed here, or not where PATH leads: install GnuPG, or name the file of the private key with \
                 --key-file"
                    .to_owned(),
            ),
            _ => Error::with_source(kind_of_io(&error), "cannot start gpg", error),
        })
    }

    fn give_up(&self, why: String) -> Error {
        let why = self.gave_up.get_or_init(|| why);
        Error::new(Kind::EncryptionKey, why.clone())
    }

    /// Whether the plaintext counts, and why not.
    fn judge(&self, status: ExitStatus, said: &Said) -> Result<()> {
        if status.success() && said.is_proven && said.plaintexts == 1 {
            return Ok(());
        }
        let words = said.words();
        if said.has_session_key {
            return Err(openpgp::damaged(&format!("is not decrypted by gpg{words}")));
        }
        if said.has_asked {
            return Err(self.give_up(
                "gpg asked for the passphrase of the private key and was not given the right one: try again, or name the file \
                 of the private key with --key-file"
                    .to_owned(),
            ));
        }
        let text = format!(
            "gpg has no private key that decrypts a file encrypted with OpenPGP, or cannot ask for its passphrase here{words}: \
             `gpg --list-secret-keys` shows the keys that it has; run this as their owner or with GNUPGHOME set, on a terminal \
             with GPG_TTY=$(tty), or name the file of the private key with --key-file"
        );
        Err(Error::new(Kind::EncryptionKey, text))
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Gives gpg the message; whether it took all of it.
fn feed(mut message: impl Read, mut stdin: ChildStdin, progress: &Progress) -> io::Result<bool> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        progress.check().map_err(io::Error::other)?;
        let length = match message.read(&mut piece) {
            Ok(0) => return Ok(true),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // What it did not want, it says itself.
        if stdin.write_all(&piece[..length]).is_err() {
            return Ok(false);
        }
    }
}

/// Passes on what gpg gives.
fn take(stdout: &mut ChildStdout, mut out: impl Write, limit: u64, progress: &Progress) -> Result<u64> {
    let mut piece = Zeroizing::new(vec![0; PIECE_BYTES]);
    let mut size = 0u64;
    loop {
        progress.check()?;
        let waited = poll(&mut [PollFd::new(&*stdout, PollFlags::IN)], Some(&LOOK_AGAIN));
        match waited {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error_of(error.into(), "wait for gpg")),
        }
        let length = match stdout.read(&mut piece) {
            Ok(0) => return Ok(size),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error_of(error, "read what gpg decrypts")),
        };
        size += length as u64;
        if size > limit {
            return Err(openpgp::damaged("holds more than it should"));
        }
        out.write_all(&piece[..length]).map_err(|error| error_of(error, "write what is decrypted"))?;
    }
}

/// What gpg said on its way.
#[derive(Debug, Default)]
struct Said {
    /// One of its keys opened the session key.
    has_session_key: bool,
    /// The proof at the end of the message was looked at, and is right.
    is_proven: bool,
    plaintexts: u32,
    /// Somebody was asked for a passphrase.
    has_asked: bool,
    lines: Vec<String>,
}

impl Said {
    fn note(&mut self, line: &str) {
        let Some(status) = line.strip_prefix("[GNUPG:] ") else {
            if self.lines.len() < MOST_SAID && !line.is_empty() {
                let clean = line.strip_prefix("gpg: ").unwrap_or(line);
                self.lines.push(clean.chars().map(|c| if c.is_control() { '?' } else { c }).collect());
            }
            return;
        };
        match status.split(' ').next() {
            Some("DECRYPTION_KEY") => self.has_session_key = true,
            Some("GOODMDC") => self.is_proven = true,
            Some("BADMDC" | "DECRYPTION_FAILED") => self.is_proven = false,
            Some("PLAINTEXT") => self.plaintexts += 1,
            Some("PINENTRY_LAUNCHED") => self.has_asked = true,
            _ => {}
        }
    }

    fn words(&self) -> String {
        if self.lines.is_empty() { String::new() } else { format!(" (it says: {})", self.lines.join("; ")) }
    }
}

/// Listens to the end, and keeps little of it.
fn hear(stderr: ChildStderr) -> Said {
    let (mut said, mut stderr) = (Said::default(), BufReader::new(stderr));
    let mut line = Vec::new();
    loop {
        line.clear();
        match stderr.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return said,
            Ok(_) => said.note(String::from_utf8_lossy(&line).trim_end()),
        }
    }
}
