//! `backupbot drill`: can what was backed up be restored from the remotes?
//!
//! It needs no daemon and no lock, and one may work meanwhile; the result is remembered where the daemon keeps its own.

use backupbot_core::audit::Event;
use backupbot_core::clock;
use backupbot_core::config::{self, Remote};
use backupbot_core::error::Kind;
use backupbot_core::inspect;
use backupbot_core::inspect::drill::{self as core, Rehearsal};
use backupbot_core::inspect::drills::{self, Drilled, Way};
use backupbot_core::progress::Progress;
use backupbot_core::verify::{Sample, draw_seed};
use backupbot_core::wording::{counted, files};
use bytesize::ByteSize;
use serde_json::{Value, json};
use slog::{Discard, Logger, o};

use super::restore::interrupt;
use super::verify::tell;
use crate::afar::Fetching;
use crate::boot;
use crate::cli::Invocation;
use crate::cli::drill::Drill;
use crate::deeds::Deeds;
use crate::exit::{Exit, Failure};
use crate::looking::keys;
use crate::output;
use crate::settings::{self, Settings, World};

pub fn drill(world: &World, invocation: &Invocation, arguments: &Drill) -> Result<Exit, Failure> {
    let global = &invocation.cli.global;
    boot::keep_files_private();
    let asking = settings::for_asking(world, global)?;
    let state_dir = asking.state_dir.clone();
    let settings = asking.configuration()?.ok_or_else(|| {
        Failure::usage("no configuration was found, so no remote is known: name one with --config")
    })?;
    // In the environment of a container this flag's twin holds the addresses to push to.
    let remote = arguments.remote.as_deref().filter(|_| invocation.is_typed("remote"));
    let chosen = choose(&settings, arguments.repository.as_deref(), remote)?;
    boot::make_state_dir(&state_dir, &Logger::root(Discard, o!()))?;
    let progress = Progress::new();
    interrupt::listen(&progress);
    // If it cannot be done, remembering fails as well, and says so.
    for aside in inspect::mend(&state_dir).unwrap_or_default() {
        output::complain(&aside.words());
    }
    let known = drills::read(&state_dir);
    let deeds = Deeds::of("drill", world, global);
    let failed = |repository: &config::Repository, remote: &Remote, result: &str| {
        let event = Event::new("drill", result).in_repository(repository.name.as_str());
        event.at_remote(remote.name.as_str())
    };
    let (mut answers, mut exit) = (Vec::new(), Exit::Done);
    for (repository, remote) in chosen {
        let (sample, seed) = lot(arguments, repository, remote, &known)?;
        let branch = repository.branch.full_name(&settings.config.instance, clock::now())?;
        let own = backupbot_actors::root::repository_path(&state_dir, repository.name.as_str());
        let keys = keys::given(world, &arguments.unlock)?.and_those_of(&own);
        let request = core::Request {
            repository: &repository.name,
            remote,
            branch: Some(&branch),
            state_dir: &state_dir,
            own: &own,
            keys: &keys,
            sample,
            seed,
        };
        let outcome = {
            let _shown = Fetching::show(&progress);
            core::drill(&request, &mut output::complain, &progress)
        };
        match outcome {
            Ok(rehearsal) => {
                deeds.write(rehearsal.drilled.deed());
                if rehearsal.drilled.problems > 0 {
                    exit = Exit::SomeSkipped;
                }
                if let Err(error) = drills::remember(&state_dir, rehearsal.drilled.clone()) {
                    output::complain(&format!("backupbot: the result is not kept for `status`: {error}"));
                }
                answers.push(told(global.json, &rehearsal)?);
            }
            Err(_) if progress.is_cancelled() => {
                deeds.write(failed(repository, remote, "cancelled"));
                return Err(Failure::failed("interrupted: what was not restored was not proven"));
            }
            Err(error) => {
                deeds.write(failed(repository, remote, "failed").with("message", &error));
                if exit == Exit::Done {
                    exit = match error.kind() {
                        Kind::InUse => Exit::InUse,
                        Kind::EncryptionKey => Exit::Usage,
                        _ => Exit::Failed,
                    };
                }
                output::complain(&format!("{} from {}: no result: {error}", repository.name, remote.name));
                let (repository, remote) = (repository.name.as_str(), remote.name.as_str());
                answers.push(json!({"repository": repository, "remote": remote, "error": error.to_string()}));
            }
        }
    }
    if global.json {
        output::json(&json!({ "drills": answers }))?;
    }
    Ok(exit)
}

/// The remotes that are meant, each with its repository.
fn choose<'s>(
    settings: &'s Settings,
    repository: Option<&str>,
    remote: Option<&str>,
) -> Result<Vec<(&'s config::Repository, &'s Remote)>, Failure> {
    let repositories = settings.config.repositories.iter();
    let repositories = repositories.filter(|it| repository.is_none_or(|wanted| it.name.as_str() == wanted));
    let all: Vec<_> = repositories.flat_map(|it| it.remotes.iter().map(move |remote| (it, remote))).collect();
    let is_wanted =
        |it: &&(&config::Repository, &Remote)| remote.is_none_or(|name| it.1.name.as_str() == name);
    let chosen: Vec<_> = all.iter().filter(is_wanted).copied().collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let mut names: Vec<&str> = all.iter().map(|(_, remote)| remote.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let what = match (repository, remote) {
        (_, Some(remote)) => format!("no remote is called {remote:?}"),
        (Some(repository), None) => {
            format!("repository {repository:?} has no remotes, or there is none of that name")
        }
        (None, None) => "there is no remote to restore from".to_owned(),
    };
    Err(Failure::usage(format!("{what}; configured are: {names}")))
}

/// What is restored. What could not be the last time is tried again, or it would prove nothing.
fn lot(
    arguments: &Drill,
    repository: &config::Repository,
    remote: &Remote,
    known: &[Drilled],
) -> Result<(Sample, u64), Failure> {
    if arguments.whole {
        return Ok((Sample::Whole, 0));
    }
    if let Some(sample) = arguments.sample {
        return Ok((sample, draw_seed()?));
    }
    let standing = drills::standing(known, repository.name.as_str(), remote.name.as_str());
    if let Some(bad) = standing.bad
        && let Some(sample) = Sample::shown_as(&bad.sample)
    {
        return Ok((sample, bad.seed.unwrap_or_default()));
    }
    Ok((repository.drill.clone().unwrap_or_default().sample, draw_seed()?))
}

/// Tells the result; for programs it is returned.
fn told(as_json: bool, rehearsal: &Rehearsal) -> Result<Value, Failure> {
    let Rehearsal { drilled, problems, remarks } = rehearsal;
    if as_json {
        return Ok(json!({ "drill": drilled, "problems": problems, "remarks": remarks }));
    }
    output::answer(&summary(drilled))?;
    tell::named("note", remarks, remarks.len() as u64);
    tell::named("wrong", problems, drilled.problems);
    Ok(Value::Null)
}

fn summary(drilled: &Drilled) -> String {
    let way = match drilled.way {
        Way::InPlace => "read where it is",
        Way::Parts => "only what was needed was fetched",
        Way::Whole => "all of it was fetched",
    };
    let verdict = match drilled.problems {
        0 => "all is as it was".to_owned(),
        1 => "1 thing is WRONG".to_owned(),
        many => format!("{many} things are WRONG"),
    };
    let compared = match (drilled.ciphertexts, drilled.is_here) {
        (None, true) => "restored and compared with its metadata and with what is here".to_owned(),
        (None, false) => "restored and compared with its metadata; the same snapshot is not here".to_owned(),
        (Some(many), is_here) => {
            let many = counted(many, "content", "contents");
            let here = if is_here { "it is the very snapshot that is here" } else { "it is not here" };
            format!("verified, {many} of it as ciphertexts, and nothing restored; {here}")
        }
    };
    format!(
        "{} from {}: {verdict}\nsnapshot {} ({way}): {} ({}; {}) {compared}",
        drilled.repository,
        drilled.remote,
        &drilled.commit[..12],
        files(drilled.files),
        ByteSize(drilled.bytes).display().iec(),
        drilled.sample
    )
}
