//! Environment variables that stand for global settings: `BACKUPBOT_` and the path in capitals.
//!
//! They are laid over the tree before anything reads it, so the same checks apply and a problem names the
//! variable instead of a line. The variables come in as a map: nothing here asks the operating system.

use super::Context;
use super::model::{Config, Notification, ReceiverUrl, SecretSource};
use super::reader::{At, Problems, nearest};
use super::tree::{Entry, Node, Place, Value};

const PREFIX: &str = "BACKUPBOT_";

/// Every global setting that is a single value.
const SETTINGS: &[&str] = &[
    "state_dir",
    "instance",
    "identity.name",
    "identity.email",
    "limits.max_roots",
    "limits.repository_size",
    "shutdown_grace",
    "log.level",
    "log.format",
    "log.file",
    "log.audit_file",
    "admin.listen",
    "admin.token_file",
    "admin.read_token_file",
    "metrics.listen",
    "alerts.stale_after",
    "alerts.failure_rate",
    "alerts.backlog",
    "alerts.disk_free",
];

fn variable_of(setting: &str) -> String {
    format!("{PREFIX}{}", setting.replace('.', "_").to_uppercase())
}

/// Lays the variables over `tree`; they win. An empty variable counts as not set.
pub(super) fn overlay(tree: &mut Node, context: &Context) {
    for setting in SETTINGS {
        let variable = variable_of(setting);
        if let Some(value) = context.environment.get(&variable).filter(|value| !value.is_empty()) {
            let place = Place::Environment(variable);
            put(tree, setting, Node::plain(place, value));
        }
    }
}

/// Puts `node` at `path`, making mappings where there is nothing. Where something else stands than a
/// mapping, nothing is done: that mistake is reported when it is read.
fn put(tree: &mut Node, path: &str, node: Node) {
    if tree.value == Value::Null {
        tree.value = Value::Map(Vec::new());
    }
    let Value::Map(entries) = &mut tree.value else { return };
    let (key, rest) = path.split_once('.').unwrap_or((path, ""));
    let existing = entries.iter_mut().find(|entry| entry.key == key);
    match (existing, rest.is_empty()) {
        (Some(entry), true) => {
            entry.key_place = node.place.clone();
            entry.node = node;
        }
        (Some(entry), false) => put(&mut entry.node, rest, node),
        (None, _) => {
            let place = node.place.clone();
            let mut child = Node { place: place.clone(), value: Value::Null };
            if rest.is_empty() {
                child = node;
            } else {
                put(&mut child, rest, node);
            }
            entries.push(Entry { key: key.to_owned(), key_place: place, node: child });
        }
    }
}

/// Warns of variables with our prefix that mean nothing to anybody.
pub(super) fn report_unknown(context: &Context, config: &Config, problems: &Problems) {
    let settings: Vec<String> = SETTINGS.iter().map(|setting| variable_of(setting)).collect();
    let secrets = secret_variables(config);
    for variable in context.environment.keys().filter(|variable| variable.starts_with(PREFIX)) {
        let known = settings.contains(variable)
            || context.known_variables.contains(&variable.as_str())
            || secrets.contains(&variable.as_str());
        if known {
            continue;
        }
        let candidates = settings.iter().map(String::as_str).chain(context.known_variables.iter().copied());
        // All share the prefix, so likeness is judged without it.
        let bare = |name: &'_ str| name.strip_prefix(PREFIX).unwrap_or_default().to_owned();
        let bare_candidates: Vec<String> = candidates.map(bare).collect();
        let hint = match nearest(&bare(variable), bare_candidates.iter().map(String::as_str)) {
            Some(name) => format!(", did you mean {PREFIX}{name}?"),
            None => String::new(),
        };
        let at = At::new(Place::Environment(crate::path::lossy(variable.as_bytes())), "");
        problems.warn(&at, format!("this variable means nothing and is ignored{hint}"));
    }
}

/// Variables that hold secrets by the operator's own choice of name.
fn secret_variables(config: &Config) -> Vec<&str> {
    let of_remotes =
        config.repositories.iter().flat_map(|repository| &repository.remotes).flat_map(|remote| {
            let credentials = remote.credentials.iter();
            credentials.flat_map(|c| [&c.password, &c.token, &c.ssh_key, &c.passphrase].into_iter().flatten())
        });
    let of_receivers = config.alerts.notify.iter().flat_map(|notification| match notification {
        Notification::Smtp(smtp) => [smtp.password.as_ref(), None],
        Notification::Webhook(to)
        | Notification::Alertmanager(to)
        | Notification::Ntfy(to)
        | Notification::Healthchecks(to) => {
            let address = match &to.url {
                ReceiverUrl::Kept(source) => Some(source),
                ReceiverUrl::Plain(_) => None,
            };
            [address, to.token.as_ref()]
        }
    });
    let sources = of_remotes.chain(of_receivers.flatten());
    sources
        .filter_map(|source| match source {
            SecretSource::Environment(name) => Some(name.as_str()),
            _ => None,
        })
        .collect()
}
