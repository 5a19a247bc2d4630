//! The part of the model that is about the program itself and who looks after it: its log, its interface, metrics and alerts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{GIB, HOUR, SecretSource};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warning,
    Info,
    Debug,
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// JSON unless stderr is a terminal.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How much.
    pub level: LogLevel,
    /// How it looks.
    pub format: LogFormat,
    /// A file instead of stderr.
    pub file: Option<PathBuf>,
    /// The audit log, if not `<state_dir>/audit.jsonl`.
    pub audit_file: Option<PathBuf>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Auto, file: None, audit_file: None }
    }
}

/// The HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Holds the token; `None`: made in `<state_dir>/admin.token`.
    pub token_file: Option<PathBuf>,
    /// Holds a token that may only read.
    pub read_token_file: Option<PathBuf>,
    /// `Host` values accepted beside loopback.
    pub allowed_hosts: Vec<String>,
    /// Directories that a restore over HTTP may write into.
    pub restore_dirs: Vec<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7177)),
            token_file: None,
            read_token_file: None,
            allowed_hosts: Vec::new(),
            restore_dirs: Vec::new(),
        }
    }
}

/// The metrics listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// `None`: on the admin listener.
    pub listen: Option<SocketAddr>,
}

/// When to raise the alarm, and where to.
#[derive(Debug, Clone, PartialEq)]
pub struct Alerts {
    /// A change unprotected for longer than this is critical.
    pub stale_after: Duration,
    /// Share of failed pushes in the last hour that is a warning.
    pub failure_rate: f64,
    /// Pending paths that are a warning.
    pub backlog: u64,
    /// Free bytes below which a warning is raised.
    pub disk_free: u64,
    /// Whom to tell.
    pub notify: Vec<Notification>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self { stale_after: 6 * HOUR, failure_rate: 0.5, backlog: 10_000, disk_free: GIB, notify: Vec::new() }
    }
}

/// A receiver of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Notification {
    Webhook(Receiver),
    Alertmanager(Receiver),
    Ntfy(Receiver),
    Healthchecks(Receiver),
    Smtp(Smtp),
}

impl Notification {
    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Notification::Webhook(_) => "webhook",
            Notification::Alertmanager(_) => "alertmanager",
            Notification::Ntfy(_) => "ntfy",
            Notification::Healthchecks(_) => "healthchecks",
            Notification::Smtp(_) => "smtp",
        }
    }
}

/// A receiver over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Where it is.
    pub url: ReceiverUrl,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<SecretSource>,
}

/// An address of a receiver, which may be all that protects it.
#[derive(Clone, PartialEq, Eq)]
pub enum ReceiverUrl {
    /// As it stands in the configuration: http or https, without a password.
    Plain(String),
    /// Kept elsewhere.
    Kept(SecretSource),
}

impl std::fmt::Debug for ReceiverUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReceiverUrl::Plain(_) => formatter.write_str("Plain(…)"),
            ReceiverUrl::Kept(source) => formatter.debug_tuple("Kept").field(source).finish(),
        }
    }
}

/// A mail server and an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub from: String,
    pub to: Vec<String>,
    pub username: Option<String>,
    pub password: Option<SecretSource>,
}
