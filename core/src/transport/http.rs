//! Git over HTTP(S): a GET for the advertisement, a POST for the request. See gitprotocol-http(5).
//!
//! What holds here: credentials go to the configured scheme, host and port and nowhere else; a redirect is followed
//! for the advertisement only, within that origin; nothing is read from the environment or from anybody's
//! configuration; a refusal of the credentials makes them be read again and tried once more, not more often.

mod body;
pub(super) mod client;
mod login;
pub(super) mod reach;

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, USER_AGENT};
use reqwest::{Client, Method, Response, Url};

pub(crate) use self::body::{Answer, Upload};
pub(crate) use self::login::Login;
use super::pace::Throttle;
use super::wire::{Body, Conversation, Incoming, Limits, Service, Wire};
use super::{Notes, refusal, runtime};
use crate::config::{self as model, NetworkUrl};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// Redirects within the origin that are followed.
const REDIRECTS: usize = 3;
/// Bytes of a refusal's body that are read, for its words.
const REFUSAL_BYTES: usize = 4096;
/// What it means is known by then; nobody waits long for its words.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(3);
/// A token that ends so soon is warned of.
const EXPIRES_SOON: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
/// The content type of Git LFS, asked for and answered in.
const LFS_TYPE: &str = "application/vnd.git-lfs+json";
/// A batch request that needs no object and changes nothing.
const NO_OBJECTS: &str = r#"{"operation":"download","transfers":["basic"],"objects":[]}"#;
/// Some hosts serve Git's protocol only to who calls itself so.
const AGENT: &str = concat!("git/2.47.0 (backupbot/", env!("CARGO_PKG_VERSION"), ")");

/// A repository behind HTTP.
pub(super) struct HttpWire {
    client: Client,
    /// Of the repository, without a trailing slash. A redirect may move it, within its origin.
    base: Url,
    is_moved: bool,
    login: Login,
    limits: Limits,
    throttle: Throttle,
    progress: Progress,
    notes: Notes,
}

impl HttpWire {
    /// A way to `url` as `remote` says.
    pub(super) fn new(
        url: &NetworkUrl,
        remote: &model::Remote,
        limits: Limits,
        progress: &Progress,
    ) -> Result<Self> {
        let text = url.text.trim_end_matches('/');
        let base = Url::parse(text).map_err(|error| {
            Error::new(Kind::Config, format!("{text} is no address to connect to: {error}"))
        })?;
        let client = client::of(remote, &base, limits)?;
        let login = Login::new(remote);
        Ok(Self {
            client,
            base,
            is_moved: false,
            login,
            limits,
            throttle: Throttle::new(limits.bandwidth),
            progress: progress.clone(),
            notes: Notes::default(),
        })
    }

    fn headers(&mut self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, reqwest::header::HeaderValue::from_static(AGENT));
        self.login.add_to(&mut headers, &mut self.notes.warnings)?;
        Ok(headers)
    }

    /// Of the repository; one at the root of its host has a slash at the end that is none of the name.
    fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Asks for the advertisement.
    fn get(&mut self, service: Service) -> Result<Response> {
        let mut redirects = 0;
        loop {
            let address = format!("{}/info/refs?service={}", self.address(), service.as_str());
            let doing = format!("list the references of {}", self.base);
            let headers = self.headers()?;
            let request =
                self.client.request(Method::GET, &address).headers(headers).header(ACCEPT, "*/*").send();
            let response = self.waited(&doing, self.limits.answer, request)?;
            self.heed(response.headers());
            let status = response.status();
            if status.is_redirection() {
                redirects += 1;
                self.follow(&response, service, redirects)?;
                continue;
            }
            if status.as_u16() == 401 && self.login.try_again() {
                continue;
            }
            if !status.is_success() {
                return Err(self.refused(&doing, response));
            }
            self.login.is_good();
            return self.checked(response, service);
        }
    }

    /// What a web page, a captive portal or a server without Git's protocol answers is none of ours to read.
    fn checked(&self, response: Response, service: Service) -> Result<Response> {
        let expected = format!("application/x-{}-advertisement", service.as_str());
        let found =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
        if found.split(';').next().is_some_and(|kind| kind.trim() == expected) {
            return Ok(response);
        }
        let text = format!(
            "{} does not answer as a Git server does (content type {}, not {expected}): is the address right, and does the \
             server speak Git's \"smart\" protocol?",
            self.base,
            super::said(found.as_bytes())
        );
        Err(Error::new(Kind::RemoteUnreachable, text))
    }

    fn follow(&mut self, response: &Response, service: Service, redirects: usize) -> Result<()> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("");
        let target = response.url().join(location).map_err(|_| {
            let text = format!("{} redirects to \"{}\"", self.base, super::said(location.as_bytes()));
            Error::new(Kind::Redirected, text)
        })?;
        if origin_of(&target) != origin_of(&self.base) {
            let text = format!(
                "{} redirects to {}, another origin: nothing was sent there. If that is right, put the new address into \
                 the configuration",
                self.base,
                super::said(origin_of(&target).as_bytes())
            );
            return Err(Error::new(Kind::Redirected, text));
        }
        let suffix = "/info/refs";
        let moved = target.path().strip_suffix(suffix).map(str::to_owned);
        let is_same_question = target.query() == Some(&format!("service={}", service.as_str()));
        match moved.filter(|_| is_same_question && redirects <= REDIRECTS) {
            Some(path) => {
                self.base.set_path(&path);
                self.is_moved = true;
                Ok(())
            }
            None => {
                let text = format!(
                    "{} redirects to \"{}\", which is no repository's address: is a login page in the way?",
                    self.base,
                    super::said(target.path().as_bytes())
                );
                Err(Error::new(Kind::Redirected, text))
            }
        }
    }

    fn post(&mut self, service: Service, length: Option<u64>, body: Body<'_>) -> Result<Response> {
        let doing = format!("send to {}", self.base);
        loop {
            let address = format!("{}/{}", self.address(), service.as_str());
            let mut headers = self.headers()?;
            let kind = |what: &str| {
                let text = format!("application/x-{}-{what}", service.as_str());
                reqwest::header::HeaderValue::from_str(&text)
                    .map_err(|_| Error::new(Kind::Internal, "a content type that is no header"))
            };
            headers.insert(CONTENT_TYPE, kind("request")?);
            headers.insert(ACCEPT, kind("result")?);
            let request = self.client.request(Method::POST, &address).headers(headers);
            let mut upload = Upload::start(request, length, self.limits, &self.throttle, &self.progress)?;
            let written = body(&mut upload);
            let is_cut_off = upload.is_cut_off();
            let response = match written {
                // Whoever refuses a request need not read it to its end.
                Err(error) if !is_cut_off => return Err(error),
                written => match upload.answer() {
                    Ok(response) => response,
                    Err(error) => return Err(written.err().filter(|_| !is_cut_off).unwrap_or(error)),
                },
            };
            self.heed(response.headers());
            let status = response.status();
            if status.is_redirection() {
                let text = format!("{} redirects a push: nothing was sent elsewhere", self.base);
                return Err(Error::new(Kind::Redirected, text));
            }
            if status.as_u16() == 401 && self.login.try_again() {
                continue;
            }
            if !status.is_success() {
                return Err(self.refused(&doing, response));
            }
            if is_cut_off {
                let text = format!("{} stopped taking what was sent, and says it was a success", self.base);
                return Err(Error::new(Kind::RemoteUnreachable, text));
            }
            return Ok(response);
        }
    }

    fn waited(
        &self,
        doing: &str,
        patience: Duration,
        request: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response> {
        runtime::run(&self.progress, async {
            match tokio::time::timeout(patience, request).await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(error)) => Err(client::error_of(&format!("cannot {doing}"), &error)),
                Err(_) => {
                    let text = format!("cannot {doing}: no answer within {:.0} s", patience.as_secs_f64());
                    Err(Error::new(Kind::RemoteUnreachable, text))
                }
            }
        })
    }

    /// The words of a refusal.
    fn refused(&self, doing: &str, response: Response) -> Error {
        let status = response.status().as_u16();
        let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let pause = pause.and_then(|value| refusal::retry_after(value, jiff::Timestamp::now()));
        let limits = Limits { answer: self.limits.answer.min(REFUSAL_PATIENCE), ..self.limits };
        let mut answer = Answer::new(response, limits, &self.throttle, &self.progress);
        let mut words = vec![0; REFUSAL_BYTES];
        let mut filled = 0;
        while filled < words.len() {
            match answer.read(&mut words[filled..]) {
                Ok(read) if read > 0 => filled += read,
                _ => break,
            }
        }
        let error = refusal::of_status(status, doing, pause, &words[..filled]);
        match self.login.what_was_used().filter(|_| matches!(status, 401 | 403 | 404)) {
            Some(used) => error.with_words(&used),
            None => error,
        }
    }

    /// GitHub says in each answer when the token in use ends.
    fn heed(&mut self, headers: &HeaderMap) {
        let Some(value) = headers.get("github-authentication-token-expiration") else { return };
        let Some(text) = value.to_str().ok().and_then(|text| text.strip_suffix(" UTC")) else { return };
        let parsed = text.replace(' ', "T").parse::<jiff::civil::DateTime>();
        let at = parsed.ok().and_then(|at| at.to_zoned(jiff::tz::TimeZone::UTC).ok());
        let Some(at) = at else { return };
        self.notes.token_expires_ms = Some(at.timestamp().as_millisecond());
        let left = at.timestamp().duration_since(jiff::Timestamp::now());
        if left < EXPIRES_SOON {
            // The same words all day, so that the log has them once.
            let warning =
                format!("the token ends at {text} UTC: make a new one, and put it where this one is");
            if !self.notes.warnings.contains(&warning) {
                self.notes.warnings.push(warning);
            }
        }
    }
}

pub(crate) fn origin_of(url: &Url) -> String {
    let port = url.port_or_known_default().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or(""))
}

impl Wire for HttpWire {
    fn open(&mut self, service: Service) -> Result<Box<dyn Conversation + '_>> {
        Ok(Box::new(HttpConversation { wire: self, service, advertisement: None }))
    }

    /// A push is not redirected: where a question is, it has to be asked.
    fn may_push_unasked(&self) -> bool {
        !self.is_moved
    }

    /// Asks for a batch of nothing. Servers that know LFS answer in its own content type, whatever they answer.
    fn has_lfs(&mut self) -> Result<Option<bool>> {
        let base = self.base.as_str().trim_end_matches('/');
        let suffix = if base.ends_with(".git") { "" } else { ".git" };
        let address = format!("{base}{suffix}/info/lfs/objects/batch");
        let headers = self.headers()?;
        let request = self.client.request(Method::POST, &address).headers(headers).header(ACCEPT, LFS_TYPE);
        let request = request.header(CONTENT_TYPE, LFS_TYPE).body(NO_OBJECTS).send();
        let response = self.waited(&format!("ask {} for LFS", self.base), self.limits.answer, request)?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_lfs = kind.starts_with(LFS_TYPE);
        Ok(match response.status().as_u16() {
            200..=299 | 400..=499 if is_lfs => Some(true),
            404 | 405 | 410 | 501 => Some(false),
            _ => None,
        })
    }

    fn notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }
}

struct HttpConversation<'w> {
    wire: &'w mut HttpWire,
    service: Service,
    advertisement: Option<Answer>,
}

impl Incoming for HttpConversation<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.advertisement.is_none() {
            let response = self.wire.get(self.service)?;
            let mut answer =
                Answer::new(response, self.wire.limits, &self.wire.throttle, &self.wire.progress);
            answer.flow();
            self.advertisement = Some(answer);
        }
        self.advertisement.as_mut().map_or(Ok(0), |answer| answer.read(buffer))
    }
}

impl Conversation for HttpConversation<'_> {
    fn advertisement(&mut self) -> &mut dyn Incoming {
        self
    }

    fn ask(&mut self, length: Option<u64>, body: Body<'_>) -> Result<Box<dyn Incoming + '_>> {
        // A connection is used again only when what came before was read to its end.
        self.advertisement = None;
        let response = self.wire.post(self.service, length, body)?;
        let expected = format!("application/x-{}-result", self.service.as_str());
        let found =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
        if found.split(';').next().is_none_or(|kind| kind.trim() != expected) {
            let text = format!(
                "{} answers a request with {}, not {expected}",
                self.wire.base,
                super::said(found.as_bytes())
            );
            return Err(Error::new(Kind::RemoteUnreachable, text));
        }
        Ok(Box::new(Answer::new(response, self.wire.limits, &self.wire.throttle, &self.wire.progress)))
    }

    fn has_to_be_read_first(&self) -> bool {
        false
    }

    fn close(self: Box<Self>) {}
}

#[cfg(test)]
mod tests;
