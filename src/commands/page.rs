//! The status page: what a tired person has to know first, first.
//!
//! One line says whether everything is protected. Then each repository with its roots and remotes; wherever
//! something is not as it should be, a line says what to do about it. [`large`] has the lines about large files.

pub mod large;

use backupbot_actors::board::{
    ConfigurationStatus, InspectionStatus, Moment, QuarantineStatus, RemoteState, RemoteView,
};
use backupbot_core::inspect::drills::Drilled;
use backupbot_core::keeping::scrubs::Scrubbed;

use crate::alerts::Severity;
use crate::health;
use crate::output::quoted;
use crate::spans;
use crate::status::{RepositoryAnswer, RootAnswer, RootStanding, StatusAnswer, place};

/// Skipped files that the page names of each root; `--json` has more.
const NAMED_SKIPS: usize = 20;
/// A change is at every remote within this, or something is wrong.
const PROMISED_SECONDS: u64 = 60;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Every root is watched and every change of every file is at every remote.
    Protected,
    /// But for changes that are younger than the promise allows.
    OnItsWay,
    /// Something needs time or somebody.
    Not,
}

fn verdict(answer: &StatusAnswer) -> Verdict {
    if !answer.daemon {
        return Verdict::Not;
    }
    answer.repositories.iter().map(verdict_of).max().unwrap_or(Verdict::Not)
}

fn verdict_of(repository: &RepositoryAnswer) -> Verdict {
    let is_watched = |root: &RootAnswer| root.state == RootStanding::Watching && root.skipped == 0;
    let is_served = |remote: &RemoteView| {
        remote.commit.is_some()
            && matches!(remote.state, RemoteState::Idle | RemoteState::Pushing)
            && remote.oldest_unprotected_seconds <= PROMISED_SECONDS
    };
    let needs_somebody = repository.status.paused
        || repository.status.guard.quarantine.is_some()
        || repository.status.trouble.is_some()
        || repository.remotes.is_empty()
        || repository.verified.iter().any(|verified| verified.problems > 0)
        || repository.bad_drills().next().is_some()
        || repository.scrubs.iter().any(Scrubbed::is_bad)
        || !repository.roots.iter().all(is_watched)
        || !repository.remotes.iter().all(is_served);
    let is_at_rest = repository.status.pending == 0
        && repository.states.detected == 0
        && repository.remotes.iter().all(|remote| is_protected_at(repository, remote));
    match (needs_somebody, is_at_rest) {
        (true, _) => Verdict::Not,
        (false, true) => Verdict::Protected,
        (false, false) => Verdict::OnItsWay,
    }
}

fn is_protected_at(repository: &RepositoryAnswer, remote: &RemoteView) -> bool {
    remote.state != RemoteState::Halted
        && remote.oldest_unprotected_seconds == 0
        && repository.status.commit.is_some()
        && remote.commit == repository.status.commit
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
            self.line(1, format!("{place}: verified {ago} ago ({sample} of {commit}): {found}"));
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
            let restored = files(drilled.files);
            let found = match drilled.problems {
                0 => "all as it was".to_owned(),
                1 => "1 thing was WRONG".to_owned(),
                many => format!("{many} things were WRONG"),
            };
            self.line(
                1,
                format!(
                    "remote {remote}: drill {ago} ago ({sample} of {commit}): {restored} restored, {found}"
                ),
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
        self.line(1, format!("root {}: {standing}, {}{}", root.name, files(root.files), left_out(root)));
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

fn files(count: u64) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// Files that cannot be stored; they are pending, too.
fn skipped(repository: &RepositoryAnswer) -> u64 {
    repository.roots.iter().map(|root| root.skipped).sum()
}

/// What is missing there is only what could not be read here.
fn has_all_readable(repository: &RepositoryAnswer, remote: &RemoteView) -> bool {
    let skipped = skipped(repository);
    remote.state == RemoteState::Idle
        && skipped > 0
        && repository.status.pending <= skipped
        && remote.commit.is_some()
        && remote.commit == repository.status.commit
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
mod tests {
    use super::*;
    use crate::alerts::Alert;
    use crate::status::tests::{drilled, healthy, large as lfs, scrubbed, verified};
    use backupbot_actors::board::SkippedFile;
    use backupbot_core::config::on_disk::OnDisk;

    fn page_of(repository: RepositoryAnswer) -> String {
        let answer = StatusAnswer {
            instance: "laptop".to_owned(),
            version: "0.1.0".to_owned(),
            daemon: true,
            repositories: vec![repository],
            alerts: Vec::new(),
            configuration: None,
            health: Vec::new(),
        };
        render(&answer, Moment::from_unix_seconds(1_000_300).unwrap())
    }

    #[test]
    fn a_healthy_page_says_so_in_its_first_line_and_asks_for_nothing() {
        let page = page_of(healthy());
        let expected = "\
everything is protected (backupbot 0.1.0, instance laptop)

documents: commit c0ffee00c0, nothing waits to be committed
  root folder1: watched (inotify), 1234 files (left out: 3 by your rules)
  remote usb: has everything, last read back 1970-01-12T13:46:40Z, 5 min ago
";
        assert_eq!(page, expected);
    }

    #[test]
    fn what_was_verified_is_told_beneath_the_remotes() {
        let page = page_of(RepositoryAnswer { verified: vec![verified(0)], ..healthy() });
        assert!(page.starts_with("everything is protected ("), "{page}");
        let expected = "  remote usb: verified 5 min ago (1% of c0ffee00c0): nothing was wrong\n";
        assert!(page.ends_with(expected), "{page}");
    }

    #[test]
    fn drills_and_what_comes_next_are_told_in_words() {
        let waits = InspectionStatus {
            remote: Some("usb".to_owned()),
            next: Moment::from_unix_seconds(1_000_300 + 7200),
            ..InspectionStatus::default()
        };
        let tried = InspectionStatus {
            attempts: 3,
            reason: Some("unplugged".to_owned()),
            next: Moment::from_unix_seconds(1_000_300),
            ..InspectionStatus::default()
        };
        let inspections = vec![waits, tried];
        let page =
            page_of(RepositoryAnswer { drills: vec![drilled(1_000_000, 0)], inspections, ..healthy() });
        assert!(page.starts_with("everything is protected ("), "{page}");
        let expected = "  remote usb: drill 5 min ago (1% of c0ffee00c0): 120 files restored, all as it was
  remote usb: next drill in 2 h
  what is here: next verification now
    tried several times in vain (3): unplugged
";
        assert!(page.ends_with(expected), "{page}");
    }

    #[test]
    fn large_files_are_told_with_the_room_that_they_take() {
        let mut repository = RepositoryAnswer { scrubs: vec![scrubbed(0, 0)], ..healthy() };
        repository.remotes[0].lfs = Some(lfs(40, None, false));
        let page = page_of(repository);
        assert!(page.starts_with("everything is protected ("), "{page}");
        let expected =
            "  remote usb: 12 large files, 40.0 MiB; 40.0 MiB of 100.0 MiB used (40 %, full on 1970-02-01)
  remote usb: large files looked at 5 min ago: 12 large files, 12.0 MiB asked for, 1 read: nothing was wrong
";
        assert!(page.ends_with(expected), "{page}");
    }

    #[test]
    fn whatever_is_wrong_shows_in_the_first_line_and_in_words() {
        type Spoil = fn(&mut RepositoryAnswer);
        let cases: &[(Spoil, &[&str])] = &[
            (|it| it.status.trouble = Some("disk full".into()), &["NO COMMIT", "disk full", "tried again"]),
            (|it| it.status.paused = true, &["PAUSED", "-> `backupbot resume --repository documents`"]),
            (
                |it| {
                    it.roots[0].state = RootStanding::Unavailable;
                    it.roots[0].reason = Some("it is empty".to_owned());
                },
                &["root folder1: UNAVAILABLE: it is empty", "-> mount or restore"],
            ),
            (|it| it.roots[0].state = RootStanding::Scanning, &["being compared"]),
            (
                |it| {
                    it.roots[0].skipped = 25;
                    it.status.pending = 25;
                    it.remotes[0].oldest_unprotected_seconds = 100_000;
                    it.roots[0].skipped_files = vec![SkippedFile {
                        path: "a\\nb".to_owned(),
                        path_b64: None,
                        reason: "unreadable: no".to_owned(),
                    }];
                },
                &[
                    "25 files NOT protected",
                    "a\\nb: unreadable: no",
                    "and 24 more",
                    "nothing waits to be committed",
                    "has everything that could be read",
                    "-> make them readable",
                ],
            ),
            (
                |it| {
                    it.remotes[0].state = RemoteState::Backoff;
                    it.remotes[0].reason = Some("cannot open /mnt".to_owned());
                    it.remotes[0].commit = None;
                    it.remotes[0].last_success = None;
                    it.remotes[0].oldest_unprotected_seconds = 11_100;
                },
                &[
                    "remote usb: NOT up to date for 3 h 5 min: the last push failed: cannot open /mnt",
                    "it has nothing yet, never reached",
                    "-> see that it can be reached",
                ],
            ),
            (
                |it| it.remotes[0].state = RemoteState::Halted,
                &[
                    "HALTED",
                    "-> look at the remote; when its state is right, `backupbot resume --repository documents`",
                ],
            ),
            (
                |it| it.remotes[0].oldest_unprotected_seconds = 65,
                &["NOT up to date for 1 min: waiting for the next commit"],
            ),
            (|it| it.remotes.clear(), &["no remote is known"]),
            (|it| it.scrubs = vec![scrubbed(2, 1)], &["2 LOST, 1 DAMAGED\n", "    folder1/film: it is gone"]),
            (|it| it.verified = vec![verified(2)], &["of c0ffee00c0): 2 things were WRONG"]),
            (
                |it| it.drills = vec![drilled(1_000_000, 1)],
                &["restored, 1 thing was WRONG\n", "    folder1/x: gone"],
            ),
            (
                |it| {
                    it.status.commit = None;
                    it.remotes[0].commit = None;
                },
                &["commit nothing yet"],
            ),
        ];
        for (spoil, expected) in cases {
            let mut repository = healthy();
            spoil(&mut repository);
            let page = page_of(repository);
            assert!(page.starts_with("NOT everything is protected"), "{page}");
            for text in *expected {
                assert!(page.contains(text), "{text:?} is missing in:\n{page}");
            }
        }
    }

    #[test]
    fn changes_of_the_last_minute_are_on_their_way() {
        let spoils: [fn(&mut RepositoryAnswer); 3] = [
            |it| it.states.detected = 1,
            |it| it.status.pending = 1,
            |it| {
                it.remotes[0].state = RemoteState::Pushing;
                it.remotes[0].commit = Some("0dd".to_owned());
                it.remotes[0].oldest_unprotected_seconds = 5;
            },
        ];
        for spoil in spoils {
            let mut repository = healthy();
            spoil(&mut repository);
            let page = page_of(repository);
            assert!(page.starts_with("everything is protected but the latest changes"), "{page}");
        }
    }

    #[test]
    fn both_configurations_are_named_where_they_differ() {
        let file = Some("/etc/backupbot/config.yaml".to_owned());
        let mut status = ConfigurationStatus::obeyed(file, &"a".repeat(64));
        assert_eq!(checksums(&status), "configuration: aaaaaaaaaa, as in /etc/backupbot/config.yaml");
        status.was_tried(OnDisk::Text("b".repeat(64)));
        status.was_refused("line 3".to_owned(), Moment::from_unix_seconds(7).unwrap());
        let line = checksums(&status);
        assert!(
            line.contains("aaaaaaaaaa is in force") && line.contains("bbbbbbbbbb, which is refused"),
            "{line}"
        );
        status.says(OnDisk::Unreadable("it is gone".to_owned()));
        assert!(checksums(&status).ends_with("cannot be read: it is gone"));
        let flags = ConfigurationStatus::obeyed(None, &"a".repeat(64));
        assert_eq!(checksums(&flags), "configuration: aaaaaaaaaa, of the command line");
    }

    #[test]
    fn without_a_daemon_nothing_is_called_protected() {
        let answer = StatusAnswer {
            instance: "laptop".to_owned(),
            version: "0.1.0".to_owned(),
            daemon: false,
            repositories: vec![healthy()],
            configuration: None,
            health: Vec::new(),
            alerts: vec![Alert::state_recovered(&backupbot_actors::board::Recovered {
                kind: "database",
                at: Moment::from_unix_seconds(1_000_000).unwrap(),
                words: "it was damaged".to_owned(),
            })],
        };
        let page = render(&answer, Moment::from_unix_seconds(1_000_300).unwrap());
        assert!(page.starts_with("NOT everything") && page.contains("No daemon is running"), "{page}");
        assert!(page.contains("warning: it was damaged"), "{page}");
    }
}
