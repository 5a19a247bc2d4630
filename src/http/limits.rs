//! What one client may cost the others: failed log-ins are slowed down, heavy answers come one or two at a time, and
//! a connection on which nothing moves is cut.
//!
//! In: moments and addresses. Out: a permit, or how long to wait. The right token is never slowed down, so nobody can
//! lock the operator out by guessing.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use rustix::net::{Shutdown, shutdown, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Wrong tokens in a row that are answered at once.
const GUESSES: u32 = 20;
/// Another one is answered after this.
const GUESS_PAUSE: Duration = Duration::from_secs(1);
/// Addresses that are remembered; when there are more, the one that guessed least lately is forgotten.
const GUESSERS: usize = 1024;

/// Answers that go through history at a time. The rest of the blocking threads is left to the tokens and to status.
const HEAVY: usize = 2;
/// Who comes when all are taken waits so long.
const HEAVY_PATIENCE: Duration = Duration::from_secs(5);
/// Files that are being sent at a time; each has a thread.
const DOWNLOADS: usize = 4;
/// Clients that listen to events at a time.
const LISTENERS: usize = 16;

#[cfg(target_os = "linux")]
/// What has been sent and not been acknowledged for so long never will be: the system ends the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Slows those down who present wrong tokens.
#[derive(Debug, Default)]
pub struct Guesses(Mutex<BTreeMap<IpAddr, Guesser>>);

#[derive(Debug, Clone, Copy)]
struct Guesser {
    left: u32,
    at: Instant,
}

impl Guesses {
    /// A wrong token came from `address`; how long to wait if that was one too many.
    pub fn wrong(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let mut guessers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guessers.len() >= GUESSERS && !guessers.contains_key(&address) {
            let oldest = guessers.iter().min_by_key(|(_, guesser)| guesser.at).map(|(address, _)| *address);
            oldest.and_then(|oldest| guessers.remove(&oldest));
        }
        let guesser = guessers.entry(address).or_insert(Guesser { left: GUESSES, at: now });
        let regained = now.saturating_duration_since(guesser.at).as_secs() / GUESS_PAUSE.as_secs();
        if regained > 0 {
            let regained = u32::try_from(regained).unwrap_or(GUESSES);
            *guesser = Guesser { left: guesser.left.saturating_add(regained).min(GUESSES), at: now };
        }
        match guesser.left.checked_sub(1) {
            Some(left) => {
                guesser.left = left;
                None
            }
            None => Some(GUESS_PAUSE),
        }
    }
}

/// The turns that there are.
#[derive(Debug)]
pub struct Turns {
    heavy: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    listeners: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let turns = |count| Arc::new(Semaphore::new(count));
        Self { heavy: turns(HEAVY), downloads: turns(DOWNLOADS), listeners: turns(LISTENERS) }
    }
}

/// A turn, until dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is only held")] OwnedSemaphorePermit);

impl Turns {
    /// For an answer that goes through history. Waits a little.
    pub async fn heavy(&self) -> Result<Turn, Problem> {
        let waiting = self.heavy.clone().acquire_owned();
        match actix_web::rt::time::timeout(HEAVY_PATIENCE, waiting).await {
            Ok(Ok(permit)) => Ok(Turn(permit)),
            _ => Err(Problem::busy("too many requests go through history at this moment", HEAVY_PATIENCE)),
        }
    }

    /// For sending a file.
    pub fn download(&self) -> Result<Turn, Problem> {
        at_once(&self.downloads, "too many files are being downloaded at this moment")
    }

    /// For listening to events.
    pub fn listen(&self) -> Result<Turn, Problem> {
        at_once(&self.listeners, "too many clients listen to events already")
    }
}

fn at_once(turns: &Arc<Semaphore>, why: &str) -> Result<Turn, Problem> {
    turns.clone().try_acquire_owned().map(Turn).map_err(|_| Problem::busy(why, HEAVY_PATIENCE))
}

/// So many connections at once, as far as the limit on open files allows, which is raised if it can be: each needs two,
/// and half of them is left to the rest of the program.
pub fn connections(most: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it cannot be raised, fewer have to do.
    let _ = setrlimit(Resource::Nofile, raised);
    let files = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    files.map_or(most, |files| (files / 4).clamp(64, most))
}

/// A connection, to be cut when its client does not take what it asked for.
///
/// The server looks at nothing but the socket while it waits for a client to read, so the socket is shut from outside.
#[derive(Debug, Clone)]
pub struct Wire(Arc<OwnedFd>);

impl Wire {
    /// Takes hold of a new connection.
    pub fn take_hold(connection: &dyn Any, data: &mut Extensions) {
        let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
        #[cfg(target_os = "linux")]
        {
            let limit = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
            let _ = sockopt::set_tcp_user_timeout(stream, limit);
        }
        let _ = sockopt::set_socket_keepalive(stream, true);
        if let Ok(own) = stream.as_fd().try_clone_to_owned() {
            data.insert(Self(Arc::new(own)));
        }
    }

    /// Ends the connection.
    pub fn cut(&self) {
        let _ = shutdown(&*self.0, Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_is_slowed_down_and_regains_with_time() {
        let guesses = Guesses::default();
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 0, 0, 1]));
        let start = Instant::now();
        for _ in 0..GUESSES {
            assert_eq!(guesses.wrong(here, start), None);
        }
        assert_eq!(guesses.wrong(here, start), Some(GUESS_PAUSE));
        assert_eq!(guesses.wrong(there, start), None, "others are not concerned");
        let later = start + 2 * GUESS_PAUSE;
        assert_eq!((guesses.wrong(here, later), guesses.wrong(here, later)), (None, None));
        assert_eq!(guesses.wrong(here, later), Some(GUESS_PAUSE));
    }

    #[test]
    fn no_more_guessers_are_remembered_than_there_is_room_for() {
        let guesses = Guesses::default();
        let start = Instant::now();
        for number in 0..2 * GUESSERS as u32 {
            guesses
                .wrong(IpAddr::from(number.to_be_bytes()), start + Duration::from_millis(u64::from(number)));
        }
        assert_eq!(guesses.0.lock().unwrap().len(), GUESSERS);
    }

    #[actix_web::test]
    async fn turns_come_back_when_they_are_dropped() {
        let turns = Turns::default();
        let taken: Vec<_> = (0..DOWNLOADS).map(|_| turns.download().unwrap()).collect();
        assert!(turns.download().is_err());
        drop(taken);
        assert!(turns.download().is_ok());
        assert!(turns.heavy().await.is_ok() && turns.listen().is_ok());
    }
}
