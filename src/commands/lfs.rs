//! `backupbot lfs usage`, `prune` and `scrub`: what the large files take at the remotes, and whether they are still there.
//!
//! With a daemon it is asked, or asked to do it: it holds the database, and knows what the remotes' hosts said. Without one
//! the same is done here.

use std::time::{Duration, Instant};

use backupbot_actors::board::{Moment, ScrubTrouble};
use backupbot_core::keeping::keeper::Order;
use backupbot_core::keeping::scrubs::{self, Scrubbed};
use backupbot_core::names::RepositoryName;
use backupbot_core::progress::Progress;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::page::large::{amount, fullness, scrubbed};
use crate::cli::Global;
use crate::cli::lfs::{Lfs, LfsCommand, Prune, Scrub, Usage};
use crate::client::{self, Client, Reach};
use crate::deeds::Deeds;
use crate::exit::{Exit, Failure};
use crate::large::{PruneAnswer, RemoteUsage, UsageAnswer};
use crate::offline::{self, Offline};
use crate::output;
use crate::settings::World;
use crate::spans;

/// A prune asks every remote about every content.
const PRUNE_WITHIN: Duration = Duration::from_secs(3600);
/// Between two looks whether a scrub is over.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub fn lfs(world: &World, global: &Global, arguments: &Lfs) -> Result<Exit, Failure> {
    match &arguments.command {
        LfsCommand::Usage(usage) => self::usage(world, global, usage),
        LfsCommand::Prune(prune) => self::prune(world, global, prune),
        LfsCommand::Scrub(scrub) => self::scrub(world, global, scrub),
    }
}

fn understood<T: DeserializeOwned>(body: Value) -> Result<T, Failure> {
    serde_json::from_value(body)
        .map_err(|error| Failure::io("the daemon's answer is not understood; is it another version?", error))
}

/// The repositories of a daemon that have large contents, or the one that is meant.
fn of_daemon(client: &Client, wanted: Option<&str>) -> Result<Vec<String>, Failure> {
    if let Some(wanted) = wanted {
        return Ok(vec![wanted.to_owned()]);
    }
    let status = client.get("/status", &[])?.ok()?;
    let has_some = |repository: &&Value| {
        let remotes = repository["remotes"].as_array();
        remotes.is_some_and(|remotes| remotes.iter().any(|remote| !remote["lfs"].is_null()))
    };
    let repositories = status["repositories"].as_array().into_iter().flatten().filter(has_some);
    Ok(repositories.filter_map(|repository| repository["name"].as_str().map(str::to_owned)).collect())
}

/// The same without a daemon.
fn of_offline(offline: &Offline, wanted: Option<&str>) -> Result<Vec<RepositoryName>, Failure> {
    let mut names = offline.chosen(wanted)?;
    if wanted.is_none() {
        names.retain(|name| offline.has_large_contents(name));
    }
    Ok(names)
}

fn none_of(is_empty: bool) -> Result<(), Failure> {
    match is_empty {
        true => Err(Failure::failed("no repository has large files: `lfs` is not configured")),
        false => Ok(()),
    }
}

fn usage(world: &World, global: &Global, usage: &Usage) -> Result<Exit, Failure> {
    let (wanted, remote) = (usage.repository.as_deref(), usage.remote.as_deref());
    let mut answers: Vec<UsageAnswer> = Vec::new();
    let runs = match client::reach(world, global)? {
        Reach::Daemon(client) => {
            let top = usage.top.to_string();
            let mut query = vec![("top", top.as_str())];
            query.extend(remote.map(|remote| ("remote", remote)));
            for name in of_daemon(&client, wanted)? {
                answers.push(understood(client.get(&format!("/repositories/{name}/lfs"), &query)?.ok()?)?);
            }
            true
        }
        Reach::Nobody(asking) => {
            let offline = offline::open(world, *asking, "lfs usage", false)?;
            for name in of_offline(&offline, wanted)? {
                let answer = offline.keep(&name, |keeper| {
                    let only = remote.map(|remote| keeper.remote(remote)).transpose()?;
                    let contents = keeper.contents(only, usize::from(usage.top), &Progress::new())?;
                    let mut statuses = Vec::new();
                    for remote in &keeper.settings.remotes {
                        // What its host says is asked by whoever runs all the time.
                        let known = keeper.fullness(remote, false, &Progress::new())?;
                        statuses.push((remote.name.to_string(), Some(known.into())));
                    }
                    let scrubs = scrubs::read(offline.state_dir(), name.as_str());
                    Ok(UsageAnswer::new(name.as_str(), statuses, contents, scrubs, remote))
                })?;
                answers.push(answer);
            }
            false
        }
    };
    if global.json {
        output::json(&json!({"repositories": answers}))?;
        return Ok(Exit::Done);
    }
    none_of(answers.is_empty())?;
    for answer in &answers {
        output::answer(&usage_page(answer, runs, Moment::now()))?;
    }
    Ok(Exit::Done)
}

fn usage_page(answer: &UsageAnswer, runs: bool, now: Moment) -> String {
    let mut lines = vec![format!("{}:", answer.repository)];
    let part = |it: &backupbot_core::keeping::prune::Amount| amount(it.objects, it.bytes);
    lines.push(format!("  in the latest snapshot: {}", part(&answer.latest)));
    lines.push(format!("  only in earlier ones:   {}", part(&answer.only_earlier)));
    lines.push(format!("  kept on this machine:   {}", part(&answer.here)));
    if answer.unneeded_here.objects > 0 {
        lines.push(format!("    of these in no snapshot: {}", part(&answer.unneeded_here)));
    }
    for remote in &answer.remotes {
        lines.extend(of_remote(remote, runs, now));
    }
    for it in &answer.scrubs {
        let ago = spans::in_words(now.seconds_since(it.at));
        lines.push(format!("  {}: looked at {ago} ago: {}", it.place(), scrubbed(it)));
    }
    if !answer.largest.is_empty() {
        lines.push("  the largest:".to_owned());
    }
    for file in &answer.largest {
        let standing = if file.is_current { "" } else { "  (only in earlier snapshots)" };
        lines.push(format!("    {:>10}  {}{standing}", size(file.bytes), file.path));
    }
    if !answer.directories.is_empty() {
        lines.push("  by directory:".to_owned());
    }
    for directory in &answer.directories {
        let of = directory.amount;
        lines.push(format!("    {:>10}  {:>6}  {}", size(of.bytes), of.objects, directory.path));
    }
    lines.join("\n")
}

fn of_remote(remote: &RemoteUsage, runs: bool, now: Moment) -> Vec<String> {
    let mut lines = Vec::new();
    let name = &remote.name;
    match &remote.lfs {
        None => lines.push(format!("  remote {name}: not looked at yet")),
        Some(lfs) => {
            let asked = lfs.checked.filter(|_| runs).map_or_else(String::new, |at| {
                format!(", counted {} ago", spans::in_words(now.seconds_since(at)))
            });
            lines.push(format!("  remote {name}: {}{asked}", fullness(lfs)));
            if let Some(refused) = &lfs.refused {
                lines.push(format!("    it REFUSES more for want of room: {}", refused.message));
            }
            if let Some(trouble) = &lfs.trouble {
                lines.push(format!("    its host could not be asked how much is used: {trouble}"));
            }
        }
    }
    if remote.lacks.objects > 0 {
        let lacks = amount(remote.lacks.objects, remote.lacks.bytes);
        lines.push(format!("    not known to be there: {lacks}"));
    }
    if remote.unneeded.objects > 0 {
        let unneeded = amount(remote.unneeded.objects, remote.unneeded.bytes);
        lines.push(format!("    there, and in no snapshot: {unneeded}"));
    }
    lines
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

fn prune(world: &World, global: &Global, prune: &Prune) -> Result<Exit, Failure> {
    let wanted = prune.repository.as_deref();
    let mut answers: Vec<PruneAnswer> = Vec::new();
    match client::reach(world, global)? {
        Reach::Daemon(client) => {
            for name in of_daemon(&client, wanted)? {
                let (path, wish) =
                    (format!("/repositories/{name}/lfs/prune"), json!({"dry_run": prune.dry_run}));
                answers.push(understood(client.post(&path, &wish, PRUNE_WITHIN)?.ok()?)?);
            }
        }
        Reach::Nobody(asking) => {
            let deeds = Deeds::of("lfs prune", world, global);
            let offline = offline::open(world, *asking, "lfs prune", false)?;
            for name in of_offline(&offline, wanted)? {
                let pruned = offline.keep(&name, |keeper| keeper.prune(prune.dry_run, &Progress::new()))?;
                if !pruned.dry_run && pruned.removed.objects > 0 {
                    deeds.write(pruned.deed(name.as_str()));
                }
                answers.push(PruneAnswer::new(name.as_str(), pruned));
            }
        }
    }
    if global.json {
        output::json(&json!({"repositories": answers}))?;
        return Ok(Exit::Done);
    }
    none_of(answers.is_empty())?;
    for answer in &answers {
        output::answer(&prune_page(answer))?;
    }
    Ok(Exit::Done)
}

fn prune_page(answer: &PruneAnswer) -> String {
    let done = if answer.dry_run { "would be removed" } else { "removed" };
    let removed = amount(answer.removed.objects, answer.removed.bytes);
    let mut lines = vec![format!("{}: {removed} {done} here", answer.repository)];
    for kept in &answer.kept {
        lines.push(format!("  {} stay: {}", amount(kept.amount.objects, kept.amount.bytes), kept.why));
    }
    lines.push(
        "  the remotes keep everything that a snapshot needs: room there is only to be had by a larger quota"
            .to_owned(),
    );
    lines.join("\n")
}

fn scrub(world: &World, global: &Global, scrub: &Scrub) -> Result<Exit, Failure> {
    let wanted = scrub.repository.as_deref();
    let (mut results, mut failed): (Vec<Scrubbed>, Vec<String>) = Default::default();
    let mut is_any = false;
    match client::reach(world, global)? {
        Reach::Daemon(client) => {
            let deadline = Instant::now() + scrub.timeout;
            let names = of_daemon(&client, wanted)?;
            is_any = !names.is_empty();
            for name in names {
                let (done, trouble) = by_daemon(&client, &name, scrub, deadline)?;
                results.extend(done);
                failed.extend(trouble);
            }
        }
        Reach::Nobody(asking) => {
            let deeds = Deeds::of("lfs scrub", world, global);
            let offline = offline::open(world, *asking, "lfs scrub", false)?;
            for name in of_offline(&offline, wanted)? {
                is_any = true;
                let outcomes = offline.keep(&name, |keeper| {
                    let meant = scrub.remote.as_deref().map(|remote| keeper.remote(remote)).transpose()?;
                    let places: Vec<_> = match meant {
                        Some(remote) => vec![Some(remote)],
                        None => {
                            std::iter::once(None).chain(keeper.settings.remotes.iter().map(Some)).collect()
                        }
                    };
                    let order = Order { read: scrub.read, number: None };
                    let look = |place| keeper.scrub(place, order, &Progress::new());
                    Ok(places.into_iter().map(look).collect::<Vec<_>>())
                })?;
                for outcome in outcomes {
                    match outcome {
                        Ok(scrubbed) => {
                            deeds.write(scrubbed.deed());
                            results.push(scrubbed);
                        }
                        Err(error) => failed.push(format!("{name}: {error}")),
                    }
                }
            }
        }
    }
    if global.json {
        output::json(&json!({"scrubs": results, "failed": failed}))?;
    } else {
        none_of(!is_any)?;
        for result in &results {
            output::answer(&format!("{}: {}: {}", result.repository, result.place(), scrubbed(result)))?;
            for named in &result.named {
                output::answer(&format!("  {named}"))?;
            }
        }
    }
    if !failed.is_empty() {
        return Err(Failure { exit: Exit::Failed, lines: failed });
    }
    Ok(if results.iter().any(Scrubbed::is_bad) { Exit::SomeSkipped } else { Exit::Done })
}

/// Asks for it and waits: what came of it, and what came to no result.
fn by_daemon(
    client: &Client,
    name: &str,
    scrub: &Scrub,
    deadline: Instant,
) -> Result<(Vec<Scrubbed>, Vec<String>), Failure> {
    let read = scrub.read.map(|read| match read.is_whole() {
        true => "whole".to_owned(),
        false => read.to_string().trim_end_matches(" files").trim_end_matches(" file").to_owned(),
    });
    let wish = json!({"remote": scrub.remote, "read": read});
    let begun = client.post(&format!("/repositories/{name}/lfs/scrub"), &wish, Duration::ZERO)?.ok()?;
    let order: u64 = understood(begun["order"].clone())?;
    loop {
        let answer = client.get(&format!("/repositories/{name}/lfs"), &[("top", "0")])?.ok()?;
        let answer: UsageAnswer = understood(answer)?;
        let remotes = answer.remotes.iter().map(|remote| Some(remote.name.as_str()));
        let places: Vec<Option<&str>> = match scrub.remote.as_deref() {
            Some(remote) => vec![Some(remote)],
            None => std::iter::once(None).chain(remotes).collect(),
        };
        let result_of = |place: Option<&str>| {
            let is_it = |it: &&Scrubbed| it.remote.as_deref() == place && it.order == Some(order);
            answer.scrubs.iter().find(is_it)
        };
        let trouble_of = |place: Option<&str>| {
            let is_it = |it: &&ScrubTrouble| it.remote.as_deref() == place && it.order == Some(order);
            let trouble = answer.scrub_troubles.iter().find(is_it)?;
            let place = place.map_or_else(|| "what is here".to_owned(), |remote| format!("remote {remote}"));
            Some(format!("{name}: {place}: {}", trouble.message))
        };
        if places.iter().all(|place| result_of(*place).is_some() || trouble_of(*place).is_some()) {
            let results = places.iter().filter_map(|place| result_of(*place).cloned()).collect();
            let failed = places.iter().filter(|place| result_of(**place).is_none());
            return Ok((results, failed.filter_map(|place| trouble_of(*place)).collect()));
        }
        if Instant::now() >= deadline {
            let text = "the daemon has not come to an end of it, and goes on; `backupbot status` says what came of it";
            return Err(Failure::new(Exit::TimedOut, text));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backupbot_core::keeping::prune::{Amount, Kept};
    use backupbot_core::keeping::report::{Contents, KnownThere, LargeDirectory, LargeFile};

    #[test]
    fn the_page_says_how_full_it_is_and_what_fills_it() {
        let amount = |objects, bytes| Amount { objects, bytes };
        let contents = Contents {
            here: amount(2, 3 << 20),
            unneeded_here: amount(1, 1 << 20),
            latest: amount(10, 30 << 20),
            only_earlier: amount(2, 10 << 20),
            known: vec![KnownThere { remote: "usb".into(), lacks: amount(1, 5), unneeded: amount(0, 0) }],
            largest: vec![LargeFile {
                path: "folder1/film".into(),
                path_b64: None,
                object: "ab".into(),
                bytes: 9 << 20,
                is_current: false,
                remotes: vec!["usb".into()],
            }],
            directories: vec![LargeDirectory {
                path: "folder1".into(),
                path_b64: None,
                amount: amount(12, 40 << 20),
            }],
            ..Contents::default()
        };
        let status = crate::status::tests::large(81, Some(80), true);
        let scrubs = vec![crate::status::tests::scrubbed(0, 0)];
        let statuses = vec![("usb".to_owned(), Some(status))];
        let answer = UsageAnswer::new("documents", statuses, contents, scrubs, None);
        let expected = "\
documents:
  in the latest snapshot: 10 large files, 30.0 MiB
  only in earlier ones:   2 large files, 10.0 MiB
  kept on this machine:   2 large files, 3.0 MiB
    of these in no snapshot: 1 large file, 1.0 MiB
  remote usb: 12 large files, 81.0 MiB; 81.0 MiB of 100.0 MiB used (81 %, full on 1970-02-01), counted 5 min ago
    it REFUSES more for want of room: its plan is used up
    not known to be there: 1 large file, 5 B
  remote usb: looked at 5 min ago: 12 large files, 12.0 MiB asked for, 1 read: nothing was wrong
  the largest:
       9.0 MiB  folder1/film  (only in earlier snapshots)
  by directory:
      40.0 MiB      12  folder1";
        assert_eq!(usage_page(&answer, true, Moment::from_unix_seconds(1_000_300).unwrap()), expected);
    }

    #[test]
    fn a_prune_says_what_went_what_stays_and_that_servers_keep_theirs() {
        let amount = Amount { objects: 1, bytes: 7 };
        let kept = vec![Kept { why: "remote usb does not have them".into(), amount }];
        let answer = PruneAnswer { repository: "documents".into(), dry_run: true, removed: amount, kept };
        let page = prune_page(&answer);
        for words in ["1 large file, 7 B would be removed here", "stay: remote usb does not", "larger quota"]
        {
            assert!(page.contains(words), "{words}: {page}");
        }
    }
}
