//! What all requests to one LFS server have in common: who we are, how patient and how fast we are, how far the server
//! may send us, when a host wants to be left alone; and a question to the endpoint, asked until there
//! is an answer that waiting does not change.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Client, Method, Url};

use super::action::{self, Action};
use super::batch;
use super::endpoint::{Endpoint, Standing};
use super::exchange::{Reply, exchange};
use super::failure::{LONGEST_REST, Operation, of_endpoint, passes, words_of};
use super::law::{Law, Tries};
use crate::config::{Remote, RemoteUrl};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::transport::wire::Limits;
use crate::transport::{
    Login, Notes, OutOfReach, Reach, Throttle, client_of, client_within, limits_of, origin_of, said, wait,
};

/// Some hosts have LFS only for who calls himself so.
const AGENT: &str = concat!("git-lfs/3.6.0 (backupbot/", env!("CARGO_PKG_VERSION"), ")");
/// Redirects of a question that are followed, within its origin.
const REDIRECTS: usize = 3;

/// An LFS server, as one remote's configuration leads to it.
pub(super) struct Server {
    pub remote: Remote,
    pub limits: Limits,
    /// All transfers share it.
    pub throttle: Throttle,
    pub law: Law,
    /// The full name of the reference that objects are for.
    pub reference: Option<String>,
    endpoint: Endpoint,
    login: Mutex<Login>,
    reach: Mutex<Option<Reach>>,
    warnings: Mutex<Vec<String>>,
    /// Hosts that want to be left alone until then.
    rests: Mutex<HashMap<String, Instant>>,
}

/// What the endpoint, or the host beside it, is asked.
pub(super) struct Question<'q> {
    pub operation: Operation,
    pub method: Method,
    pub body: Option<&'q [u8]>,
    /// The secret goes as a token, whatever goes to Git.
    pub is_bearer: bool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(super) fn new(remote: &Remote, repository: &Path, progress: &Progress) -> Result<Self> {
        let limits = limits_of(remote);
        Ok(Self {
            endpoint: Endpoint::of(remote, repository, progress)?,
            remote: remote.clone(),
            limits,
            throttle: Throttle::new(limits.bandwidth),
            law: Law::default(),
            reference: None,
            login: Mutex::new(Login::new(remote)),
            reach: Mutex::default(),
            warnings: Mutex::default(),
            rests: Mutex::default(),
        })
    }

    pub(super) fn take_notes(&self) -> Notes {
        Notes { warnings: std::mem::take(&mut *held(&self.warnings)), ..Notes::default() }
    }

    /// The way in now.
    pub(super) fn standing(&self, operation: Operation, progress: &Progress) -> Result<Standing> {
        self.endpoint.standing(operation, &self.warnings, progress)
    }

    /// Headers of a request to the endpoint itself.
    fn headers(&self, standing: &Standing, is_bearer: bool) -> Result<HeaderMap> {
        let mut headers = standing.headers.clone();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if standing.is_configured {
            let mut warnings = Vec::new();
            match is_bearer {
                true => held(&self.login).add_as_token(&mut headers, &mut warnings)?,
                false => held(&self.login).add_to(&mut headers, &mut warnings)?,
            }
            let mut known = held(&self.warnings);
            for warning in warnings {
                if !known.contains(&warning) {
                    known.push(warning);
                }
            }
        }
        Ok(headers)
    }

    /// Headers for a place that the server has named: its own, and what lets us in at the endpoint only where it gave
    /// nothing else and the place is at the endpoint's origin.
    pub(super) fn headers_for(
        &self,
        operation: Operation,
        action: &Action,
        progress: &Progress,
    ) -> Result<HeaderMap> {
        let (given, place) = (&action.headers, &action.href);
        let mut headers = given.clone();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let has_its_own = action.is_authenticated
            || given.contains_key(AUTHORIZATION)
            || place.query().is_some_and(has_signature);
        if !has_its_own {
            let standing = self.standing(operation, progress)?;
            if origin_of(&standing.base) == origin_of(place)
                && let Some(ours) = self.headers(&standing, false)?.remove(AUTHORIZATION)
            {
                headers.insert(AUTHORIZATION, ours);
            }
        }
        Ok(headers)
    }

    /// A client for a place that the server has named.
    ///
    /// # Errors
    /// [`Kind::RemoteRefused`] if it is out of reach; a name out of reach shows when it is resolved.
    pub(super) fn client_to(&self, place: &Url, progress: &Progress) -> Result<Client> {
        let reach = self.reach(progress)?;
        if !action::is_within(place, reach, self.remote.proxy.is_some()) {
            let refused = OutOfReach::new(place.host_str().unwrap_or_default());
            return Err(Error::new(
                Kind::RemoteRefused,
                format!("nothing was sent to a place that was named: {refused}"),
            ));
        }
        client_within(&self.remote, place, self.limits, reach)
    }

    /// How far the server may send us: looked up once.
    fn reach(&self, progress: &Progress) -> Result<Reach> {
        let mut reach = held(&self.reach);
        if let Some(known) = *reach {
            return Ok(known);
        }
        let mut hosts = Vec::new();
        if let RemoteUrl::Http(url) | RemoteUrl::Ssh(url) = &self.remote.url {
            hosts.push(url.host.clone());
        }
        if let Endpoint::Fixed(url) = &self.endpoint {
            hosts.extend(url.host_str().map(str::to_owned));
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for host in hosts {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            match bare.parse() {
                Ok(address) => addresses.push(address),
                // A proxy resolves names, for the remote as for any other place.
                Err(_) if self.remote.proxy.is_some() => {}
                Err(_) => addresses.extend(self.addresses_of(bare, progress)?),
            }
        }
        Ok(*reach.insert(Reach::of(&addresses)))
    }

    /// As if the remote were somewhere else.
    #[cfg(test)]
    pub(super) fn set_reach_for_test(&self, reach: Reach) {
        *held(&self.reach) = Some(reach);
    }

    fn addresses_of(&self, host: &str, progress: &Progress) -> Result<Vec<IpAddr>> {
        let fail = |why: &str| {
            let host = said(host.as_bytes());
            Error::new(Kind::RemoteUnreachable, format!("cannot find the address of the host {host}: {why}"))
        };
        wait(progress, async {
            match tokio::time::timeout(self.limits.connect, tokio::net::lookup_host((host, 0))).await {
                Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
                Ok(Err(error)) => Err(fail(&error.to_string())),
                Err(_) => Err(fail("no answer in time")),
            }
        })
    }

    /// Waits until the host of `place` may be asked again.
    pub(super) fn rest(&self, place: &Url, progress: &Progress) -> Result<()> {
        let until = held(&self.rests).get(&origin_of(place)).copied();
        match until.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(left) => pause(left, progress),
            None => Ok(()),
        }
    }

    /// The host of `place` has named a time: all leave it alone until then.
    pub(super) fn heed(&self, place: &Url, retry_after: Option<Duration>) {
        if let Some(pause) = retry_after.filter(|pause| *pause <= LONGEST_REST) {
            let until = Instant::now() + pause;
            let mut rests = held(&self.rests);
            let known = rests.entry(origin_of(place)).or_insert(until);
            *known = (*known).max(until);
        }
    }

    /// Asks the endpoint something until there is an answer that waiting does not change. A refusal of the credentials
    /// has them read again, once.
    pub(super) fn ask(
        &self,
        question: &Question<'_>,
        place_of: impl Fn(&Url) -> Url,
        progress: &Progress,
    ) -> Result<(Standing, Reply)> {
        let mut tries = Tries::new(self.law);
        let (mut was_refused, mut redirects, mut moved) = (false, 0, None);
        loop {
            progress.check()?;
            let began = Instant::now();
            let standing = self.standing(question.operation, progress)?;
            let place: Url = moved.clone().unwrap_or_else(|| place_of(&standing.base));
            let doing = format!("ask {} for large objects", said(place_shown(&place).as_bytes()));
            self.rest(&place, progress)?;
            let asked = self.ask_once(&standing, question, &place, &doing, progress);
            let error = match asked {
                Err(error) => error,
                Ok(reply) if matches!(reply.status, 301 | 302 | 307 | 308) && redirects < REDIRECTS => {
                    redirects += 1;
                    moved = Some(within_origin(&place, &reply)?);
                    continue;
                }
                // What was given over SSH ends; 403 is said of that, too.
                Ok(reply)
                    if !was_refused
                        && (reply.status == 401 || (reply.status == 403 && !standing.is_configured)) =>
                {
                    was_refused = true;
                    held(&self.login).forget();
                    self.endpoint.forget();
                    continue;
                }
                Ok(reply) if passes(reply.status) => {
                    self.heed(&place, reply.retry_after);
                    of_endpoint(reply.status, &doing, reply.retry_after, &words_of(&reply.body, &[]))
                }
                Ok(reply) => return Ok((standing, reply)),
            };
            if error.retry_after().is_some_and(|pause| pause > LONGEST_REST) {
                return Err(error);
            }
            match tries.failed(&error, began.elapsed()) {
                Some(left) => pause(left, progress)?,
                None => return Err(error),
            }
        }
    }

    fn ask_once(
        &self,
        standing: &Standing,
        question: &Question<'_>,
        place: &Url,
        doing: &str,
        progress: &Progress,
    ) -> Result<Reply> {
        let client = match standing.is_configured {
            true => client_of(&self.remote, place, self.limits)?,
            false => self.client_to(place, progress)?,
        };
        let mut headers = self.headers(standing, question.is_bearer)?;
        let accepted = if question.body.is_some() { batch::TYPE } else { "application/json" };
        headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        let mut request = client.request(question.method.clone(), place.clone());
        if let Some(body) = question.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(batch::TYPE));
            request = request.body(body.to_vec());
        }
        exchange(request.headers(headers), doing, self.limits, progress)
    }

    /// The credentials were accepted.
    pub(super) fn is_good(&self) {
        held(&self.login).is_good();
    }

    /// The words of a refusal as an error, with who we were.
    pub(super) fn refusal(&self, standing: &Standing, reply: &Reply) -> Error {
        let doing = format!("ask {} for large objects", said(place_shown(&standing.base).as_bytes()));
        let error = of_endpoint(reply.status, &doing, reply.retry_after, &words_of(&reply.body, &[]));
        let used = held(&self.login).what_was_used();
        let used = match (standing.is_configured, standing.headers.is_empty()) {
            (true, _) => used,
            (false, false) => Some("with what git-lfs-authenticate gave over SSH".to_owned()),
            (false, true) => Some(
                "without credentials, because git-lfs-authenticate gives none: if the LFS server is somewhere else, \
                 name it under the remote's lfs_url"
                    .to_owned(),
            ),
        };
        match used.filter(|_| matches!(reply.status, 401 | 403 | 404)) {
            Some(used) => error.with_words(&used),
            None => error,
        }
    }
}

/// An address without its query, which may be secret.
pub(super) fn place_shown(url: &Url) -> String {
    format!("{}{}", origin_of(url), url.path())
}

/// Whether a query carries what lets us in, as the storages of the large clouds have it: another authorisation beside it
/// is an error to them.
fn has_signature(query: &str) -> bool {
    let lower = query.to_ascii_lowercase();
    ["x-amz-signature=", "x-goog-signature="].iter().any(|sign| lower.contains(sign))
}

fn within_origin(place: &Url, reply: &Reply) -> Result<Url> {
    let location = reply.location.as_deref().unwrap_or_default();
    let target = place.join(location).ok().filter(|target| origin_of(target) == origin_of(place));
    target.filter(|target| target.username().is_empty() && target.password().is_none()).ok_or_else(|| {
        let text = format!(
            "{} redirects to another place, where nothing was sent: if the LFS server has moved, put its new address \
             into the configuration (the remote's url, or lfs_url)",
            said(place_shown(place).as_bytes())
        );
        Error::new(Kind::Redirected, text)
    })
}

/// Waits, and notices a cancellation.
pub(super) fn pause(left: Duration, progress: &Progress) -> Result<()> {
    wait(progress, async {
        tokio::time::sleep(left).await;
        Ok(())
    })
}
