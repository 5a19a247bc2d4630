//! Asking the running daemon over its own API.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;

use crate::cli::Global;
use crate::daemon::{self, Daemon, Presence};
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::http::auth;
use crate::lock;
use crate::settings::{self, Asking, World};

/// An answer comes within this, beside the time that the daemon was asked to take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A daemon that holds the lock and does not listen yet is starting.
const START_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// More than the largest status answer.
const LARGEST_ANSWER: u64 = 64 << 20;
/// A probe is answered at once, or not at all.
const PROBED_WITHIN: Duration = Duration::from_secs(4);
const LARGEST_PROBLEM: u64 = 64 << 10;

/// Who can answer.
pub enum Reach<'w> {
    /// The daemon.
    Daemon(Client),
    /// Nobody: whoever asks looks for itself.
    Nobody(Box<Asking<'w>>),
}

/// Looks for the daemon of the state directory.
pub fn reach<'w>(world: &'w World, global: &'w Global) -> Result<Reach<'w>, Failure> {
    let asking = settings::for_asking(world, global)?;
    let deadline = Instant::now() + START_WITHIN;
    loop {
        match daemon::find(&asking.state_dir)? {
            Presence::Daemon(daemon) => return Client::new(&daemon).map(Reach::Daemon),
            Presence::Nobody => return Ok(Reach::Nobody(Box::new(asking))),
            Presence::Other(holder) => {
                let starts = holder.as_ref().is_some_and(|holder| holder.command == "run");
                if !starts || Instant::now() >= deadline {
                    return Err(lock::in_use(&asking.state_dir, holder.as_ref()));
                }
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }
}

/// A daemon that can be asked.
pub struct Client {
    agent: Agent,
    base: String,
    token: String,
    pid: u32,
}

/// What it said.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The document.
    pub body: Value,
}

impl Answer {
    /// The document, or the failure that a problem document means.
    pub fn ok(self) -> Result<Value, Failure> {
        if self.status < 300 {
            return Ok(self.body);
        }
        let detail = self.body["detail"].as_str().unwrap_or("the daemon gave no reason");
        let exit = match self.status {
            504 => Exit::TimedOut,
            _ => Exit::Failed,
        };
        Err(Failure::new(exit, detail))
    }
}

/// Asks one of the probes, which need no token; whoever asks is killed when it waits for longer than a few seconds.
pub fn probe(daemon: &Daemon, path: &str) -> Result<(), Failure> {
    let config = Agent::config_builder().proxy(None).http_status_as_error(false).max_redirects(0);
    let agent: Agent = config.timeout_global(Some(PROBED_WITHIN)).build().into();
    let failed = |reason: String| Failure::failed(format!("{path} of process {}: {reason}", daemon.pid));
    let url = format!("http://{}{path}", daemon.address);
    let mut answer = agent.get(url).call().map_err(|error| failed(error.to_string()))?;
    if answer.status().as_u16() == 200 {
        return Ok(());
    }
    let text = answer.body_mut().with_config().limit(LARGEST_PROBLEM).read_to_string().unwrap_or_default();
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    Err(failed(problem["detail"].as_str().unwrap_or("it does not say why").to_owned()))
}

impl Client {
    fn new(daemon: &Daemon) -> Result<Self, Failure> {
        let token = auth::read_token(&daemon.token_file).map_err(|error: io::Error| {
            let remedy = "run as the user that runs the daemon";
            Failure::failed(format!("cannot read the token {}: {error}; {remedy}", shown(&daemon.token_file)))
        })?;
        // A proxy of the environment has no business on the way to our own daemon.
        let config = Agent::config_builder().proxy(None).http_status_as_error(false).max_redirects(0).build();
        Ok(Self {
            agent: config.into(),
            base: format!("http://{}/api/v1", daemon.address),
            token,
            pid: daemon.pid,
        })
    }

    /// `GET`s with a query.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, Failure> {
        let request =
            self.agent.get(format!("{}{path}", self.base)).header("Authorization", self.authorization());
        let request = request.query_pairs(query.iter().copied());
        self.read(request.config().timeout_global(Some(ANSWER_WITHIN)).build().call())
    }

    /// `POST`s a document, to be answered after `patience` at most.
    pub fn post(&self, path: &str, body: &Value, patience: Duration) -> Result<Answer, Failure> {
        let request =
            self.agent.post(format!("{}{path}", self.base)).header("Authorization", self.authorization());
        let timeout = patience + ANSWER_WITHIN;
        self.read(request.config().timeout_global(Some(timeout)).build().send_json(body))
    }

    /// `PUT`s a document.
    pub fn put(&self, path: &str, body: &Value, patience: Duration) -> Result<Answer, Failure> {
        let request =
            self.agent.put(format!("{}{path}", self.base)).header("Authorization", self.authorization());
        let timeout = patience + ANSWER_WITHIN;
        self.read(request.config().timeout_global(Some(timeout)).build().send_json(body))
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn read(
        &self,
        answered: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::failed(format!(
                "the daemon (process {}) does not answer at {}: {error}",
                self.pid, self.base
            ))
        };
        let mut response = answered.map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string();
        let text = text.map_err(|error| failed(&error))?;
        let body = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        Ok(Answer { status, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_problem_has_its_exit_code_and_its_words() {
        let exit = |status| Answer { status, body: json!({"detail": "why"}) }.ok().unwrap_err();
        let codes = [
            (504, Exit::TimedOut),
            (409, Exit::Failed),
            (404, Exit::Failed),
            (401, Exit::Failed),
            (500, Exit::Failed),
        ];
        for (status, code) in codes {
            assert_eq!(exit(status), Failure::new(code, "why"), "{status}");
        }
        assert_eq!(Answer { status: 202, body: json!(1) }.ok(), Ok(json!(1)));
    }
}
