//! A program of the server's that answers and ends, such as `git-lfs-authenticate`: its output whole, its stderr, and
//! how it ended. No Git service, so nothing is written to it.

use bytes::Bytes;
use tokio::time::timeout;

use super::SshWire;
use super::channel::{Channel, Exit, Got};
use super::connect::Connection;
use super::conversation::start;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::transport::pace::Pace;
use crate::transport::runtime::run;

/// More than that is no answer.
const MOST_OUTPUT: usize = 64 * 1024;

/// What a program has said, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub output: Vec<u8>,
    /// The last part of it, not clean in any way.
    pub stderr: Vec<u8>,
    /// `None`: it did not end in an orderly way.
    pub code: Option<u32>,
}

impl SshWire {
    /// Runs `program`, given the repository's path and `last`, and takes in what it says.
    pub(crate) fn ask_program(&mut self, program: &str, last: &str, progress: &Progress) -> Result<Said> {
        self.progress = progress.clone();
        let command = format!("{} {last}", self.site.command_of(program));
        let said = match self.connection.take().filter(|connection| !connection.handle.is_closed()) {
            Some(connection) => match self.ask_on(connection, program, &command) {
                Err(error) if error.kind() == Kind::Cancelled => return Err(error),
                // Some servers take one program a connection; others forget about one that was idle.
                other => other.ok(),
            },
            None => None,
        };
        match said {
            Some(said) => Ok(said),
            None => {
                let connection = self.connect()?;
                self.ask_on(connection, program, &command)
            }
        }
    }

    /// Asks on a connection, and keeps it if all went well.
    fn ask_on(&mut self, connection: Connection, program: &str, command: &str) -> Result<Said> {
        let channel = start(&connection, &self.site, &self.progress, self.limits, command)?;
        let (incoming, outgoing) = channel.split();
        let mut channel = Channel { incoming, outgoing, got: Got::default() };
        let mut pace = Pace::waiting(self.limits);
        let what = format!("{program} at {}", self.site.shown());
        let too_long = || Error::new(Kind::RemoteRefused, format!("{what} says more than makes sense"));
        run(&self.progress, async {
            let _ = channel.outgoing.eof().await;
            while !(channel.got.is_over() || channel.got.is_at_end && channel.got.exit.is_some()) {
                match timeout(pace.patience(), channel.incoming.wait()).await {
                    Ok(message) => {
                        channel.got.take(message);
                    }
                    Err(_) => pace.judge()?,
                }
                if channel.got.unread_bytes > MOST_OUTPUT {
                    return Err(too_long());
                }
                pace.moved(0)?;
            }
            Ok(())
        })?;
        let got = std::mem::take(&mut channel.got);
        if got.is_refused {
            let text = format!("{} runs no programs for {}", self.site.shown(), self.site.user);
            return Err(Error::new(Kind::RemoteRefused, text));
        }
        if got.is_broken && got.exit.is_none() {
            return Err(connection.broken(&self.site, &russh::Error::Disconnect));
        }
        self.connection = Some(connection);
        let pieces: Vec<Bytes> = got.unread.into();
        let code = match got.exit {
            Some(Exit::Code(code)) => Some(code),
            Some(Exit::Signal(_)) | None => None,
        };
        Ok(Said { output: pieces.concat(), stderr: got.stderr, code })
    }

    /// The host as the address names it, without brackets, and the path of the repository there.
    pub(crate) fn host_and_path(&self) -> (&str, &str) {
        (&self.site.host, self.site.path())
    }

    /// What was noticed since the last call.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}
