//! What `keys check` found, for people.

use backupbot_core::path::lossy;
use backupbot_core::wording::counted;

use super::{Answer, KeyRow, RecipientRow};
use crate::files::shown;

pub(super) fn page(answer: &Answer) -> String {
    let mut lines = vec![format!("{}: {}", answer.repository, method(answer))];
    lines.extend(answer.key.iter().map(|row| format!("  key      {}", key(row))));
    lines.extend(answer.old_keys.iter().map(|row| format!("  old key  {}", key(row))));
    lines.extend(answer.recipients.iter().map(|row| format!("  opens it {}", recipient(row))));
    if let Some(latest) = &answer.latest {
        let how = match (&latest.key, latest.as_configured) {
            (None, _) => "clear text".to_owned(),
            (Some(key), true) => format!("encrypted with {key}, as configured"),
            (Some(key), false) => format!("encrypted with {key}"),
        };
        lines.push(format!("  latest snapshot {:.12}: {how}", latest.commit));
    }
    for row in &answer.needed {
        let standing = if row.in_hand { "which is here" } else { "which is NOT here" };
        lines.push(format!(
            "  {} {}, {standing}",
            counted(row.snapshots, "snapshot needs", "snapshots need"),
            row.key
        ));
    }
    lines.extend(answer.remarks.iter().map(|remark| format!("  note: {remark}")));
    lines.extend(answer.findings.iter().map(|finding| format!("  TO DO: {finding}")));
    if answer.findings.is_empty() && answer.key.is_some() {
        lines.push("  all is well".to_owned());
    }
    lines.join("\n")
}

fn method(answer: &Answer) -> &'static str {
    match answer.method {
        "none" => "not encrypted",
        "gpg" => "contents encrypted by gpg, metadata by the key",
        _ => "encrypted by git-crypt",
    }
}

fn key(row: &KeyRow) -> String {
    let id = row.id.as_ref().map_or("cannot be read", |id| id.as_str());
    let mode = row.mode.as_ref().map_or_else(String::new, |mode| format!(" (mode {mode})"));
    format!("{id} in {}{mode}", shown(&row.file))
}

fn recipient(row: &RecipientRow) -> String {
    let fingerprint = row.fingerprint.as_deref().unwrap_or("cannot be read");
    // A certificate says what its maker liked.
    let user = row.user_id.as_deref().map_or_else(String::new, |user| format!(" {}", lossy(user.as_bytes())));
    let until = match (&row.trouble, row.expires) {
        (Some(_), _) => ", NOT in force".to_owned(),
        (None, Some(at)) => format!(", until {}", day(at)),
        (None, None) => String::new(),
    };
    format!("{fingerprint}{user}{until}, {}", shown(&row.file))
}

/// A day, for people.
pub(super) fn day(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    moment.map_or_else(|| "an unknown day".to_owned(), |moment| moment.strftime("%Y-%m-%d").to_string())
}
