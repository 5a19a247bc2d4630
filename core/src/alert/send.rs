//! Delivering to one receiver.
//!
//! Each waits for its answer, at most half a minute in all, and says in words what went wrong, without the address: a
//! webhook's address is its secret.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials as Login;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport};
use reqwest::{RequestBuilder, Url};

use super::ledger::Active;
use super::{Change, ChangeKind, Severity, message};
use crate::config::{Notification, Receiver, ReceiverUrl, Smtp};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::secret;
use crate::transport::{self, said};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Read of an answer that refuses.
const WORDS: usize = 300;

/// What is to be told.
#[derive(Debug, Clone, Copy)]
pub struct News<'n> {
    /// Who backs up.
    pub instance: &'n str,
    /// What changed and was not told yet, oldest first.
    pub changes: &'n [Change],
    /// What is wrong now.
    pub active: &'n [Active],
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// Tells one receiver. Returns how many of the changes arrived, and what then went wrong.
pub fn deliver(receiver: &Notification, news: News<'_>, progress: &Progress) -> (usize, Result<()>) {
    let all = news.changes.len();
    match receiver {
        Notification::Webhook(to) => one_by_one(news, |change| {
            let request = json(post(to, None)?, &message::webhook(news.instance, change));
            answer("the webhook", request, progress)
        }),
        Notification::Ntfy(to) => one_by_one(news, |change| {
            let title = message::title(news.instance, change);
            let mut request = post(to, None)?.body(change.condition.message.clone());
            // Headers are ASCII; ntfy reads what is encoded as in mails.
            request = request.header("Title", encoded_word(&title));
            for (name, value) in message::ntfy_headers(change) {
                request = request.header(name, value);
            }
            answer("ntfy", request, progress)
        }),
        Notification::Alertmanager(to) => {
            let body = message::alertmanager(news.instance, news.active, news.changes, news.now_ms);
            let told = post(to, Some("/api/v2/alerts"))
                .and_then(|request| answer("Alertmanager", json(request, &body), progress));
            (if told.is_ok() { all } else { 0 }, told)
        }
        Notification::Healthchecks(to) => {
            let told = ping(to, news, progress);
            (if told.is_ok() { all } else { 0 }, told)
        }
        Notification::Smtp(smtp) if all > 0 => {
            let told = mail(smtp, news);
            (if told.is_ok() { all } else { 0 }, told)
        }
        Notification::Smtp(_) => (0, Ok(())),
    }
}

fn one_by_one(news: News<'_>, mut tell: impl FnMut(&Change) -> Result<()>) -> (usize, Result<()>) {
    for (number, change) in news.changes.iter().enumerate() {
        if let Err(error) = tell(change) {
            return (number, Err(error));
        }
    }
    (news.changes.len(), Ok(()))
}

/// A sign of life; where something is critical, the sign that something is wrong.
fn ping(to: &Receiver, news: News<'_>, progress: &Progress) -> Result<()> {
    let critical: Vec<&Active> =
        news.active.iter().filter(|it| it.condition.severity == Severity::Critical).collect();
    let is_test = news.changes.iter().any(|change| change.event == ChangeKind::Test);
    let (suffix, text) = match critical.first() {
        None => (None, String::new()),
        Some(_) if is_test => (None, String::new()),
        Some(first) => (Some("/fail"), format!("{} critical: {}", critical.len(), first.condition.message)),
    };
    answer("the ping", post(to, suffix)?.body(text), progress)
}

/// A request to the receiver; `suffix` is appended to its path unless that ends so already.
fn post(to: &Receiver, suffix: Option<&str>) -> Result<RequestBuilder> {
    let text = address(to)?;
    let mut url = Url::parse(&text).map_err(|error| {
        Error::new(Kind::Config, format!("the receiver's address cannot be used: {error}"))
    })?;
    if let Some(suffix) = suffix
        && !url.path().ends_with(suffix)
    {
        let path = format!("{}{suffix}", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    let client = transport::plain_client(url.scheme(), CONNECT_WITHIN)?;
    let mut request = client.post(url).timeout(ANSWER_WITHIN);
    if let Some(token) = &to.token {
        let found = secret::read(token, "the receiver's token", false)?;
        request = request.bearer_auth(found.secret.text()?.trim());
    }
    Ok(request)
}

fn json(request: RequestBuilder, body: &serde_json::Value) -> RequestBuilder {
    request.header("Content-Type", "application/json").body(body.to_string())
}

fn address(to: &Receiver) -> Result<String> {
    match &to.url {
        ReceiverUrl::Plain(url) => Ok(url.clone()),
        ReceiverUrl::Kept(source) => {
            let found = secret::read(source, "the receiver's address", false)?;
            let text = found.secret.text()?.trim().to_owned();
            if !(text.starts_with("https://") || text.starts_with("http://")) {
                let text = "the receiver's address, as it is kept, is no http:// or https:// address";
                return Err(Error::new(Kind::Config, text));
            }
            Ok(text)
        }
    }
}

fn answer(who: &str, request: RequestBuilder, progress: &Progress) -> Result<()> {
    transport::wait(progress, async {
        let sent = request.send().await;
        let mut response = sent.map_err(|error| {
            // Its own words name the address.
            transport::client_error(&format!("{who} cannot be reached"), &error.without_url())
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let mut words = Vec::new();
        while words.len() < WORDS
            && let Ok(Some(chunk)) = response.chunk().await
        {
            words.extend_from_slice(&chunk);
        }
        words.truncate(WORDS);
        let text = format!("{who} answered {status}: {}", said(&words));
        let kind = if status.is_client_error() { Kind::RemoteRefused } else { Kind::RemoteUnreachable };
        Err(Error::new(kind, text))
    })
}

fn mail(smtp: &Smtp, news: News<'_>) -> Result<()> {
    let fail = |doing: &str, error: &dyn std::fmt::Display| {
        Error::new(
            Kind::RemoteUnreachable,
            format!("the mail cannot be {doing}: {}", said(error.to_string().as_bytes())),
        )
    };
    let mailbox = |text: &str| {
        text.parse::<Mailbox>()
            .map_err(|error| Error::new(Kind::Config, format!("{text:?} is no mail address: {error}")))
    };
    let (subject, text) = message::mail(news.instance, news.changes);
    let mut builder = Message::builder().from(mailbox(&smtp.from)?).subject(subject);
    for to in &smtp.to {
        builder = builder.to(mailbox(to)?);
    }
    let letter = builder.body(text).map_err(|error| fail("written", &error))?;
    let tls = || TlsParameters::new(smtp.host.clone()).map_err(|error| fail("encrypted", &error));
    let is_here = matches!(smtp.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    let tls = match smtp.port {
        465 => Tls::Wrapper(tls()?),
        _ if is_here => Tls::Opportunistic(tls()?),
        _ => Tls::Required(tls()?),
    };
    let mut transport =
        SmtpTransport::builder_dangerous(&smtp.host).port(smtp.port).timeout(Some(CONNECT_WITHIN)).tls(tls);
    if let Some(source) = &smtp.password {
        let found = secret::read(source, "the mail server's password", false)?;
        let username = smtp.username.clone().unwrap_or_else(|| smtp.from.clone());
        transport = transport.credentials(Login::new(username, found.secret.text()?.trim().to_owned()));
    }
    transport.build().send(&letter).map(|_| ()).map_err(|error| fail("sent", &error))
}

/// As RFC 2047 has it, if it is not plain ASCII.
fn encoded_word(text: &str) -> String {
    use base64::Engine as _;
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return text.to_owned();
    }
    format!("=?UTF-8?B?{}?=", base64::engine::general_purpose::STANDARD.encode(text))
}
