//! A change in each receiver's form: JSON for webhooks, Alertmanager's API v2, ntfy's headers, a mail.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ledger::Active;
use super::{Change, ChangeKind, Condition, Severity};

/// Alertmanager takes an alert for ended if it does not hear of it for so long.
const ALERTMANAGER_MS: i64 = 5 * 60 * 1000;

/// One line for a person.
pub fn title(instance: &str, change: &Change) -> String {
    let condition = &change.condition;
    let about = if condition.subject.is_empty() { String::new() } else { format!(" {}", condition.subject) };
    let state = match change.event {
        ChangeKind::Cleared => "over".to_owned(),
        ChangeKind::Fired => condition.severity.as_str().to_uppercase(),
        ChangeKind::Test => "test".to_owned(),
    };
    format!("BackupBot {instance}: {state}: {}{about}", condition.name)
}

/// The body of a webhook.
pub fn webhook(instance: &str, change: &Change) -> Value {
    let condition = &change.condition;
    json!({
        "version": 1,
        "instance": instance,
        "event": change.event,
        "time": time(change.at_ms),
        "alert": {
            "name": condition.name,
            "subject": condition.subject,
            "severity": condition.severity,
            "message": condition.message,
            "since": condition.since_ms.map(time),
        },
    })
}

/// What Alertmanager's `POST /api/v2/alerts` takes: all that is active, and what has just ended.
pub fn alertmanager(instance: &str, active: &[Active], changes: &[Change], now_ms: i64) -> Value {
    let one = |condition: &Condition, starts_ms: i64, ends_ms: i64| {
        json!({
            "labels": {
                "alertname": format!("BackupBot_{}", condition.name),
                "instance": instance,
                "subject": condition.subject,
                "severity": condition.severity,
            },
            "annotations": {"summary": condition.message},
            "startsAt": time(starts_ms),
            "endsAt": time(ends_ms),
        })
    };
    let still =
        active.iter().map(|it| one(&it.condition, it.fired_ms, now_ms.saturating_add(ALERTMANAGER_MS)));
    let told = |event: ChangeKind| changes.iter().filter(move |change| change.event == event);
    let is_active = |condition: &Condition| {
        active
            .iter()
            .any(|it| it.condition.name == condition.name && it.condition.subject == condition.subject)
    };
    let over = told(ChangeKind::Cleared).filter(|change| !is_active(&change.condition));
    let over = over.map(|change| {
        one(
            &change.condition,
            change.condition.since_ms.unwrap_or(change.at_ms).min(change.at_ms),
            change.at_ms,
        )
    });
    let test =
        told(ChangeKind::Test).map(|change| one(&change.condition, change.at_ms, change.at_ms + 60_000));
    Value::Array(still.chain(over).chain(test).collect())
}

/// ntfy's priority and tag.
pub fn ntfy_headers(change: &Change) -> [(&'static str, &'static str); 2] {
    match (change.event, change.condition.severity) {
        (ChangeKind::Cleared, _) => [("Priority", "default"), ("Tags", "white_check_mark")],
        (ChangeKind::Test, _) => [("Priority", "low"), ("Tags", "bell")],
        (ChangeKind::Fired, Severity::Critical) => [("Priority", "urgent"), ("Tags", "rotating_light")],
        (ChangeKind::Fired, Severity::Warning) => [("Priority", "high"), ("Tags", "warning")],
    }
}

/// Subject and text of one mail about several changes.
pub fn mail(instance: &str, changes: &[Change]) -> (String, String) {
    let subject = match changes {
        [change] => title(instance, change),
        _ => format!("BackupBot {instance}: {} changes", changes.len()),
    };
    let mut text = String::new();
    for change in changes {
        let since = change.condition.since_ms.map_or_else(String::new, |at| format!(", since {}", time(at)));
        text.push_str(&format!(
            "{}\n{}\n({}{since})\n\n",
            title(instance, change),
            change.condition.message,
            time(change.at_ms)
        ));
    }
    text.push_str("Ask there: backupbot status\n");
    // A mail's subject is one line, whatever a name holds.
    (subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(), text)
}

fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
