//! The report for people: Markdown in which nothing that was configured can be more than text.

use backupbot_core::wording::files;

use super::{Held, Place, Proof, Report};
use crate::spans;

/// The whole text.
pub fn text(report: &Report) -> String {
    let mut lines = vec![
        format!("# Backups of {}", plain(&report.instance)),
        String::new(),
        format!("Made at {} by BackupBot {}.", moment(report.made), report.version),
        String::new(),
    ];
    for held in &report.repositories {
        repository(&mut lines, held);
    }
    lines.push("## Open questions".to_owned());
    lines.push(String::new());
    if report.open.is_empty() {
        lines.push("None.".to_owned());
    }
    // Of the names in them none can hold a character that means something.
    lines.extend(report.open.iter().map(|question| format!("- {question}")));
    lines.push(String::new());
    lines.join("\n")
}

fn repository(lines: &mut Vec<String>, held: &Held) {
    let commit = held.commit.as_deref().unwrap_or("none yet");
    let roots: Vec<String> = held.roots.iter().map(|root| plain(root)).collect();
    let encryption = match held.encryption.method {
        "none" => "none: whoever runs a remote can read the contents".to_owned(),
        method if held.encryption.paths.is_empty() => {
            format!("{method}, all contents; names and sizes stay visible")
        }
        method => {
            format!(
                "{method}, only {}; names and sizes stay visible",
                plain(&held.encryption.paths.join(", "))
            )
        }
    };
    lines.push(format!("## Repository {}", plain(&held.name)));
    lines.push(String::new());
    lines.push("| | |".to_owned());
    lines.push("|---|---|".to_owned());
    let mut row = |what: &str, value: String| lines.push(format!("| {what} | {value} |"));
    row("Directories", roots.join(", "));
    row("Branch", plain(&held.branch));
    row("Newest state", commit.to_owned());
    row("Encryption", encryption);
    let keys: Vec<String> = held.encryption.keys.iter().map(|key| plain(key)).collect();
    row("Keys", if keys.is_empty() { "none".to_owned() } else { keys.join(", ") });
    row("Verified here", proof(held.verified_here.as_ref()));
    lines.push(String::new());
    if held.places.is_empty() {
        return;
    }
    lines.push("| Remote | Address | Provider | Region | Way | Credentials | Last read back | Verified | Restore rehearsed |".to_owned());
    lines.push("|---|---|---|---|---|---|---|---|---|".to_owned());
    lines.extend(held.places.iter().map(place));
    lines.push(String::new());
}

fn place(place: &Place) -> String {
    let success = place.last_success.map_or("never".to_owned(), moment);
    let waiting = match place.oldest_unprotected_seconds {
        0 => String::new(),
        seconds => format!("; a change has waited for {}", spans::in_words(seconds)),
    };
    let credentials: Vec<String> = place.credentials.iter().map(|source| plain(source)).collect();
    let cells = [
        plain(&place.remote),
        plain(&place.address),
        place.provider.to_owned(),
        place.region.as_deref().map_or_else(|| "not said".to_owned(), plain),
        place.transport.to_owned(),
        if credentials.is_empty() { "none".to_owned() } else { credentials.join(", ") },
        format!("{success} ({}){waiting}", place.state),
        proof(place.verified.as_ref()),
        proof(place.drill.as_ref()),
    ];
    format!("| {} |", cells.join(" | "))
}

fn proof(proof: Option<&Proof>) -> String {
    let Some(proof) = proof else { return "never".to_owned() };
    let found = match proof.problems {
        0 => "all well".to_owned(),
        1 => "1 thing wrong".to_owned(),
        number => format!("{number} things wrong"),
    };
    format!("{}, {} ({}): {found}", moment(proof.at), files(proof.files), proof.sample)
}

fn moment(at: backupbot_actors::board::Moment) -> String {
    serde_json::to_value(at).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Text that stays text in a table of Markdown, on one line.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        if c.is_control() {
            plain.extend(c.escape_default().flat_map(|c| if c == '\\' { vec!['\\', c] } else { vec![c] }));
            continue;
        }
        if matches!(c, '|' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '#' | '\\') {
            plain.push('\\');
        }
        plain.push(c);
    }
    plain
}
