//! The moment at which a server proves who it is: the key it shows is held against the file of known hosts, before
//! anything is said that only the right one may hear. What the server tells beside (its key, its banner, its
//! farewell) is kept for messages, bounded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::Channel;
use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};

use super::known_hosts::{KnownHosts, Standing};

/// So much of a banner or farewell is kept.
const LONGEST: usize = 1024;

/// What a server has told of itself.
#[derive(Default)]
pub(super) struct Told {
    /// The key it has proven to have, and what is on file about that.
    pub shown: Option<(PublicKey, Standing)>,
    pub banner: String,
    pub farewell: String,
}

/// Shared by a session that runs by itself and those who use it.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Told>>);

impl Notes {
    pub(super) fn look(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our side of a session.
pub(super) struct Greeter {
    pub notes: Notes,
    pub known: Arc<KnownHosts>,
    pub known_as: String,
    /// Whether to go on with a host that is known; otherwise its key is all that is wanted.
    pub stays: bool,
}

impl Handler for Greeter {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        // A certificate is never asked for, and none is taken.
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let standing = self.known.standing(&self.known_as, &key.to_bytes()?);
        let is_known = standing == Standing::Known;
        self.notes.look().shown = Some((key.clone(), standing));
        Ok(is_known && self.stays)
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), russh::Error> {
        self.notes.look().banner = banner.chars().take(LONGEST).collect();
        Ok(())
    }

    // A server has nothing to open here, whatever the library would let it: a reply that is dropped says no.

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.notes.look().farewell = info.message.chars().take(LONGEST).collect();
                Ok(())
            }
            DisconnectReason::Error(error) => {
                if !matches!(error, russh::Error::Disconnect) {
                    self.notes.look().farewell = error.to_string();
                }
                Err(error)
            }
        }
    }
}
