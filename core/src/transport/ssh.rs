//! SSH: a wire to a repository through somebody's SSH server.
//!
//! One connection a wire, made when it is first needed and kept for the conversations that follow; each of them is a
//! channel that runs `git-receive-pack` or `git-upload-pack`. The server proves itself by a key in our own file of
//! known hosts before anything else is said; then the configured key logs in, or one of the agent's. Keys and
//! passphrases are read at each connection, and once more when the server refuses them, so that they may change at any
//! time. Nothing of anybody's SSH configuration is read.
//!
//! [`trust`](trust::host_key) looks at a server's key without logging in, and records it.

mod channel;
mod connect;
mod conversation;
mod key;
mod known_hosts;
mod login;
mod meeting;
mod program;
mod site;
mod stream;
pub mod trust;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::time::timeout;

use self::connect::Connection;
use self::conversation::{Parked, SshConversation};
use self::known_hosts::KnownHosts;
pub use self::known_hosts::{Recorded, Standing};
use self::login::{Login, Means, Outcome};
pub(crate) use self::program::Said;
use self::site::Site;
use super::Notes;
use super::pace::Throttle;
use super::runtime::run;
use super::wire::{Conversation, Limits, Service, Wire};
use crate::config::{NetworkUrl, Remote};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// A way to one repository over SSH.
pub struct SshWire {
    site: Site,
    login: Login,
    limits: Limits,
    progress: Progress,
    throttle: Throttle,
    connection: Option<Connection>,
    /// A conversation that waits to be gone on with.
    parked: Option<Parked>,
    /// Where it worked last.
    address: Option<SocketAddr>,
    warnings: Vec<String>,
}

impl SshWire {
    /// Connects to nothing yet. Everything that waits ends soon after `progress` is cancelled; `state_dir` has the
    /// file of known hosts, unless the credentials name another.
    ///
    /// # Errors
    /// [`Kind::Config`] for an address that names no repository.
    pub fn new(
        remote: &Remote,
        url: &NetworkUrl,
        state_dir: &Path,
        limits: Limits,
        progress: &Progress,
    ) -> Result<Self> {
        Ok(Self {
            site: Site::of(remote, url, state_dir)?,
            login: Login::of(remote.credentials.as_ref()),
            throttle: Throttle::new(limits.bandwidth),
            limits,
            progress: progress.clone(),
            connection: None,
            parked: None,
            address: None,
            warnings: Vec::new(),
        })
    }

    /// Connects and logs in.
    fn connect(&mut self) -> Result<Connection> {
        let means = self.login.means(&self.site.remote, &mut self.warnings)?;
        let mut connection = self.meet()?;
        let refusal = match self.log_in(&mut connection, &means)? {
            Outcome::In => return Ok(connection),
            Outcome::Refused(refusal) => refusal,
        };
        // It may have been changed on both sides just now. The same key again would only be held against us.
        let again = self.login.means(&self.site.remote, &mut self.warnings)?;
        if again.is_same_as(&means) {
            return Err(refusal);
        }
        if connection.handle.is_closed() {
            connection = self.meet()?;
        }
        match self.log_in(&mut connection, &again)? {
            Outcome::In => Ok(connection),
            Outcome::Refused(refusal) => Err(refusal),
        }
    }

    /// Finds the server, and makes sure that it is the right one.
    fn meet(&mut self) -> Result<Connection> {
        let (site, patience, last) = (&self.site, self.limits.connect, self.address);
        let known = Arc::new(KnownHosts::read(&site.known_hosts)?);
        let connection = run(&self.progress, async {
            let mut addresses = connect::addresses(site, patience).await?;
            // Where it worked last comes first: a dead address before it would cost its whole limit each time.
            addresses.sort_by_key(|address| Some(*address) != last);
            connect::meet(site, &addresses, &known, patience).await
        })?;
        self.address = Some(connection.address);
        Ok(connection)
    }

    fn log_in(&self, connection: &mut Connection, means: &Means) -> Result<Outcome> {
        let (site, patience) = (&self.site, self.limits.connect);
        run(&self.progress, async {
            timeout(patience, login::log_in(connection, site, means)).await.unwrap_or_else(|_| {
                let text =
                    format!("logging in at {} took longer than {} s", site.shown(), patience.as_secs_f32());
                Err(Error::new(Kind::RemoteUnreachable, text))
            })
        })
    }

    fn with(&mut self, parked: Parked) -> SshConversation<'_> {
        let Self { site, limits, progress, throttle, connection, parked: place, .. } = self;
        SshConversation::new(parked, place, connection, throttle, site, progress, *limits)
    }

    /// Starts a service on the connection there is, if it still works, else on a new one.
    fn start(&mut self, service: Service) -> Result<russh::Channel<russh::client::Msg>> {
        let Self { site, limits, progress, .. } = self;
        if let Some(connection) = self.connection.take().filter(|connection| !connection.handle.is_closed()) {
            match conversation::start(&connection, site, progress, *limits, &site.command(service)) {
                Ok(channel) => {
                    self.connection = Some(connection);
                    return Ok(channel);
                }
                Err(error) if error.kind() == Kind::Cancelled => return Err(error),
                // Some servers take one program a connection; others forget about one that was idle.
                Err(_) => {}
            }
        }
        let connection = self.connect()?;
        let command = self.site.command(service);
        let channel = conversation::start(&connection, &self.site, &self.progress, self.limits, &command)?;
        self.connection = Some(connection);
        Ok(channel)
    }
}

impl Wire for SshWire {
    fn open(&mut self, service: Service) -> Result<Box<dyn Conversation + '_>> {
        if let Some(parked) = self.parked.take() {
            Box::new(self.with(parked)).close();
        }
        let channel = self.start(service)?;
        Ok(Box::new(self.with(Parked::new(service, channel))))
    }

    fn resume(&mut self, service: Service) -> Result<Box<dyn Conversation + '_>> {
        match self.parked.take() {
            Some(parked) if parked.is_good_for(service) => Ok(Box::new(self.with(parked))),
            other => {
                self.parked = other;
                self.open(service)
            }
        }
    }

    fn notes(&mut self) -> Notes {
        Notes { warnings: std::mem::take(&mut self.warnings), ..Notes::default() }
    }
}

#[cfg(test)]
pub(crate) use self::tests::sshd as test_sshd;

#[cfg(test)]
mod tests;
