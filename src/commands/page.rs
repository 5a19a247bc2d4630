//! The status page: what a tired person has to know first, first.
//!
//! One line says whether everything is protected. Then each repository with its roots and remotes; wherever
//! something is not as it should be, a line says what to do about it. [`large`] has the lines about large files.

pub mod large;
mod verdict;

use backupbot_actors::board::{
    ConfigurationStatus, InspectionStatus, Moment, QuarantineStatus, RemoteState, RemoteView,
};
use backupbot_core::inspect::drills::Drilled;
use backupbot_core::wording::files;

use crate::alerts::Severity;
use crate::health;
use crate::output::quoted;
use crate::spans;
use crate::status::{RepositoryAnswer, RootAnswer, RootStanding, StatusAnswer, place};
use verdict::{Verdict, has_all_readable, is_protected_at, skipped, verdict};

/// Skipped files that the page names of each root; `--json` has more.
const NAMED_SKIPS: usize = 20;

/// Draws the page as of `now`.
pub fn render(answer: &StatusAnswer, now: Moment) -> String {
    let mut page = Page::default();
    let verdict = match verdict(answer) {
        Verdict::Protected => "everything is protected",
        Verdict::OnItsWay => "everything is protected but the latest changes, which are on their way",
        Verdict::Not => "NOT everything is protected",
    };
    page.line(0, format!("{verdict} (backupbot {}, instance {})", answer.version, answer.instance));
    if !answer.daemon {
        page.line(0, "No daemon is running: changes are not noticed.");
        page.advice(0, "start it with `backupbot run`, or back up once with `backupbot once`");
    }
    for alert in &answer.alerts {
        let severity = match alert.severity {
            Severity::Critical => "CRITICAL",
            Severity::Warning => "warning",
        };
        let since = alert.since.map_or(String::new(), |since| format!(" (since {})", ago(since, now)));
        page.line(0, format!("{severity}: {}{since}", alert.message));
    }
    for (line, remedy) in health::lines(&answer.health, now) {
        page.line(0, line);
        if let Some(remedy) = remedy {
            page.advice(0, remedy);
        }
    }
    if let Some(configuration) = &answer.configuration {
        page.line(0, checksums(configuration));
    }
    if answer.repositories.is_empty() {
        page.line(0, "There is no repository yet.");
    }
    for repository in &answer.repositories {
        page.repository(repository, now);
    }
    page.0
}

/// Which configuration is in force, and whether it is the one on the disk.
fn checksums(status: &ConfigurationStatus) -> String {
    let in_force = short(Some(&status.in_force));
    let Some(file) = &status.file else {
        return format!("configuration: {in_force}, of the command line");
    };
    match (&status.on_disk, &status.unreadable) {
        (Some(on_disk), _) if *on_disk == status.in_force => {
            format!("configuration: {in_force}, as in {file}")
        }
        (Some(on_disk), _) => {
            let standing =
                if status.refused.is_some() { "which is refused" } else { "which is about to be tried" };
            format!("configuration: {in_force} is in force; {file} has {}, {standing}", short(Some(on_disk)))
        }
        (None, reason) => {
            let reason = reason.as_deref().unwrap_or("nobody has looked yet");
            format!("configuration: {in_force} is in force; {file} cannot be read: {reason}")
        }
    }
}

fn ago(moment: Moment, now: Moment) -> String {
    format!("{moment}, {} ago", spans::in_words(now.seconds_since(moment)))
}

fn short(commit: Option<&str>) -> String {
    commit.map_or("nothing yet".to_owned(), |commit| commit.chars().take(10).collect())
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, depth: usize, text: impl AsRef<str>) {
        self.0.push_str(&"  ".repeat(depth));
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    fn advice(&mut self, depth: usize, text: impl AsRef<str>) {
        self.line(depth + 1, format!("-> {}", text.as_ref()));
    }

    fn repository(&mut self, repository: &RepositoryAnswer, now: Moment) {
        let name = &repository.status.name;
        self.line(0, "");
        let readable = repository.status.pending.saturating_sub(skipped(repository));
        let waits = match readable.saturating_add(repository.states.detected) {
            0 => "nothing waits to be committed".to_owned(),
            1 => "1 path waits to be committed".to_owned(),
            many => format!("{many} paths wait to be committed"),
        };
        self.line(0, format!("{name}: commit {}, {waits}", short(repository.status.commit.as_deref())));
        if repository.status.paused {
            let until =
                repository.status.paused_until.map_or_else(String::new, |until| format!(" until {until}"));
            self.line(1, format!("PAUSED{until}: changes are queued, nothing is committed or pushed"));
            self.advice(
                1,
                format!("`backupbot resume --repository {}` when you are ready", quoted(name.as_str())),
            );
        }
        if let Some(quarantine) = &repository.status.guard.quarantine {
            self.quarantine(name.as_str(), quarantine, now);
        }
        if let Some(trouble) = &repository.status.trouble {
            self.line(1, format!("NO COMMIT can be made: {trouble}"));
            self.advice(1, "the changes are queued; it is tried again by itself when the cause is gone");
        }
        if let Some(clear) = repository.status.clear_history {
            self.line(
                1,
                format!("{clear} older commits are clear text for everybody who can read the repository (clear_history: accept)"),
            );
        }
        for root in &repository.roots {
            self.root(root);
        }
        for remote in &repository.remotes {
            self.remote(repository, remote, now);
        }
        if repository.remotes.is_empty() {
            self.line(1, "no remote is known");
        }
        for verified in &repository.verified {
            let found = match verified.problems {
                0 => "nothing was wrong".to_owned(),
                1 => "1 thing was WRONG".to_owned(),
                many => format!("{many} things were WRONG"),
            };
            let (place, sample, commit) = (place(verified), &verified.sample, short(Some(&verified.commit)));
            let ago = spans::in_words(now.seconds_since(verified.at));
            let how = if verified.ciphertexts.is_some() { ", contents as ciphertexts" } else { "" };
            self.line(1, format!("{place}: verified {ago} ago ({sample} of {commit}{how}): {found}"));
        }
        self.drills(&repository.drills, now);
        repository.remotes.iter().for_each(|remote| self.room(remote));
        self.scrubs(&repository.scrubs, now);
        for inspection in &repository.inspections {
            self.inspection(inspection, now);
        }
    }

    fn drills(&mut self, drills: &[Drilled], now: Moment) {
        for drilled in drills {
            let (remote, ago) = (&drilled.remote, spans::in_words(now.seconds_since(drilled.at)));
            let (sample, commit) = (&drilled.sample, short(Some(&drilled.commit)));
            let how =
                if drilled.ciphertexts.is_some() { "verified without being restored" } else { "restored" };
            let restored = files(drilled.files);
            let found = match drilled.problems {
                0 => "all as it was".to_owned(),
                1 => "1 thing was WRONG".to_owned(),
                many => format!("{many} things were WRONG"),
            };
            self.line(
                1,
                format!("remote {remote}: drill {ago} ago ({sample} of {commit}): {restored} {how}, {found}"),
            );
            for named in &drilled.named {
                self.line(2, named);
            }
        }
    }

    fn inspection(&mut self, inspection: &InspectionStatus, now: Moment) {
        let (place, what) = match &inspection.remote {
            Some(remote) => (format!("remote {remote}"), "drill"),
            None => ("what is here".to_owned(), "verification"),
        };
        if inspection.running {
            self.line(1, format!("{place}: a {what} is going on"));
            return;
        }
        let next = inspection.next.map_or(0, |next| next.seconds_since(now));
        let next = if next == 0 { "now".to_owned() } else { format!("in {}", spans::in_words(next)) };
        self.line(1, format!("{place}: next {what} {next}"));
        if let (Some(reason), 1..) = (&inspection.reason, inspection.attempts) {
            let tries = if inspection.attempts == 1 { "once" } else { "several times" };
            self.line(2, format!("tried {tries} in vain ({}): {reason}", inspection.attempts));
        }
    }

    fn quarantine(&mut self, name: &str, quarantine: &QuarantineStatus, now: Moment) {
        let found = &quarantine.found;
        let since = found.since.map_or(String::new(), |since| format!(" since {}", ago(since, now)));
        self.line(1, format!("IN QUARANTINE{since}: many files were deleted or rewritten"));
        self.line(
            2,
            format!("root {}: {} of {} files ({} %)", found.root, found.lost, found.of, found.percent),
        );
        let (branch, protected) = (&quarantine.branch, &quarantine.protected_branch);
        self.line(2, format!("everything since then is committed and pushed to {branch}"));
        let commit = short(Some(&quarantine.protected_commit));
        self.line(2, format!("{protected} stays at {commit}, as it was before; restore takes it from there"));
        let of = format!("--repository {}", quoted(name));
        self.advice(1, format!("see what changed: `backupbot diff latest {branch} {of}`"));
        if quarantine.rejected {
            self.advice(
                1,
                format!(
                    "it was rejected: `backupbot restore --in-place {of}`, then `backupbot resume {of}`,"
                ),
            );
            self.line(3, format!("and `backupbot approve {of}` when everything is right again"));
        } else {
            self.advice(1, format!("that was you: `backupbot approve {of}`"));
            self.advice(1, format!("that was NOT you: `backupbot reject {of}`"));
        }
    }

    fn root(&mut self, root: &RootAnswer) {
        let reason = root.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
        let standing = match root.state {
            RootStanding::Starting => format!("not looked at yet{reason}"),
            RootStanding::Scanning => format!("being compared with the last backup{reason}"),
            RootStanding::Watching => format!("watched ({}){reason}", root.backend),
            RootStanding::Unavailable => format!("UNAVAILABLE{reason}"),
            RootStanding::NotWatched => format!("NOT watched{reason}"),
        };
        self.line(
            1,
            format!(
                "root {}: {standing}, {} when last compared{}",
                root.name,
                files(root.files),
                left_out(root)
            ),
        );
        if root.state == RootStanding::Unavailable {
            self.advice(1, "mount or restore the directory; until then its last version is kept, nothing counts as deleted");
        }
        if root.skipped == 0 {
            return;
        }
        self.line(2, format!("{} NOT protected in the present version:", files(root.skipped)));
        for skip in root.skipped_files.iter().take(NAMED_SKIPS) {
            self.line(3, format!("{}: {}", skip.path, skip.reason));
        }
        let named = root.skipped_files.len().min(NAMED_SKIPS) as u64;
        if root.skipped > named {
            self.line(3, format!("and {} more", root.skipped - named));
        }
        self.advice(
            2,
            "make them readable for the user that BackupBot runs as, or leave them out with `ignore`",
        );
    }

    fn remote(&mut self, repository: &RepositoryAnswer, remote: &RemoteView, now: Moment) {
        let confirmed = match remote.last_success {
            Some(at) => format!("last read back {}", ago(at, now)),
            None => "never reached".to_owned(),
        };
        if is_protected_at(repository, remote) {
            self.line(1, format!("remote {}: has everything, {confirmed}", remote.name));
            return;
        }
        if has_all_readable(repository, remote) {
            self.line(1, format!("remote {}: has everything that could be read, {confirmed}", remote.name));
            return;
        }
        let waiting = match remote.oldest_unprotected_seconds {
            0 => String::new(),
            seconds => format!(" for {}", spans::in_words(seconds)),
        };
        let doing = match remote.state {
            RemoteState::Idle => "waiting for the next commit",
            RemoteState::Pushing => "pushing now",
            RemoteState::Backoff => "the last push failed",
            RemoteState::Halted => "HALTED",
        };
        let reason = remote.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
        let has = short(remote.commit.as_deref());
        self.line(1, format!("remote {}: NOT up to date{waiting}: {doing}{reason}", remote.name));
        self.line(2, format!("it has {has}, {confirmed}"));
        match remote.state {
            RemoteState::Halted => {
                let name = quoted(repository.status.name.as_str());
                self.advice(
                    1,
                    format!(
                        "look at the remote; when its state is right, `backupbot resume --repository {name}`"
                    ),
                );
            }
            RemoteState::Backoff => self.advice(
                1,
                "see that it can be reached; it is tried again by itself, \
                                                    `backupbot flush --wait` tries at once",
            ),
            RemoteState::Idle | RemoteState::Pushing => {}
        }
    }
}

fn left_out(root: &RootAnswer) -> String {
    let parts = [
        (root.excluded_by_rules, "by your rules"),
        (root.excluded_by_system, "by the built-in list"),
        (root.excluded_by_file_system, "on other file systems"),
    ];
    let told: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} {why}")).collect();
    if told.is_empty() { String::new() } else { format!(" (left out: {})", told.join(", ")) }
}

#[cfg(test)]
mod tests;
