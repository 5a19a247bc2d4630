//! `--adopt`: what the operator decided about a history on a remote that is not ours, done before anything starts.
//!
//! In: the configuration, the open database, the decision. To go on from such a history, it is fetched and becomes what the
//! next commit is made upon; our own, if one had begun, stays as a branch. To leave it, the repository gets a branch of
//! this instance's own from now on, which is kept in the state directory, so that every command knows it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use backupbot_actors::root::repository_path;
use backupbot_actors::seat::now_ms;
use backupbot_core::adopt::{self, Adoption, Offer};
use backupbot_core::audit::{Audit, Event};
use backupbot_core::config::{self as model, BranchTemplate, Config};
use backupbot_core::error::Result as CoreResult;
use backupbot_core::git::repository::{OWN_ORIGIN, Repository};
use backupbot_core::names::RootName;
use backupbot_core::progress::Progress;
use backupbot_core::store::Store;
use backupbot_core::transport;
use serde::{Deserialize, Serialize};
use slog::{Logger, info, warn};

use crate::exit::Failure;
use crate::files;

/// Which branches take the place of configured ones, in the state directory.
const FILE: &str = "branches.json";
const FILE_LIMIT: u64 = 1 << 20;

/// A branch that takes the place of a configured one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Instead {
    /// As it stood in the configuration then; another one there ends this.
    configured: String,
    /// The template that counts.
    branch: String,
}

type Branches = BTreeMap<String, Instead>;

/// Puts the branches in force that were decided on earlier.
pub fn apply(config: &mut Config) -> Result<(), Failure> {
    let branches = read(&config.state_dir)?;
    for repository in &mut config.repositories {
        let Some(instead) = branches.get(repository.name.as_str()) else { continue };
        if instead.configured == repository.branch.as_str() {
            repository.branch = template(&instead.branch, &config.instance)?;
        }
    }
    Ok(())
}

/// Does what was decided, for every repository that has something to decide.
pub fn decide(
    config: &mut Config,
    adoption: Adoption,
    store: &Store,
    (who, audit): (&str, &Audit),
    log: &Logger,
) -> Result<(), Failure> {
    let (state_dir, instance) = (config.state_dir.clone(), config.instance.clone());
    for repository in &mut config.repositories {
        let name = repository.name.clone();
        if store.reader().staged(&name)?.is_some() {
            return Err(Failure::failed(format!(
                "a commit of {name} was under way when the program ended: start once without --adopt, so that it is \
                 finished, then again with it"
            )));
        }
        let path = repository_path(&state_dir, name.as_str());
        let branch = repository.branch.full_name(&instance, backupbot_core::clock::now())?;
        let (git, _) = Repository::open_or_create(&path, &branch, OWN_ORIGIN, OWN_ORIGIN)?;
        let offers = offers(repository, &path, &branch, &instance, log);
        let undecided = adopt::undecided(&git, &branch, offers)?;
        let Some(offer) = adopt::chosen(&undecided) else {
            info!(log, "no remote has a history that is not ours: --adopt has nothing to do"; "repository" => %name);
            continue;
        };
        match adoption {
            Adoption::Continue => {
                let set_aside = go_on(repository, &git, &branch, &instance, offer, store, log)?;
                let event = decided(name.as_str(), offer, who).with("decision", "continue");
                if let Some((aside, ours)) = set_aside {
                    let event = decided(name.as_str(), offer, who).with("decision", "set aside");
                    audit.reference_stands(event.reference(&aside, Some(&ours)));
                }
                audit.reference_stands(event.reference(&branch, Some(&offer.tip.to_string())));
            }
            Adoption::Branch => {
                let configured = repository.branch.as_str().to_owned();
                repository.branch = template(&format!("{configured}-{{instance}}"), &instance)?;
                let mut branches = read(&state_dir)?;
                let branch = repository.branch.as_str().to_owned();
                branches.insert(name.to_string(), Instead { configured, branch });
                write(&state_dir, &branches)?;
                let event = decided(name.as_str(), offer, who).with("decision", "branch");
                audit.record(event.with("branch", repository.branch.as_str()));
                warn!(log, "a history that is not ours is left alone; from now on there is a branch of our own";
                      "repository" => %name, "theirs" => branch_of(&offer.tip, &offer.remote),
                      "branch" => repository.branch.as_str());
            }
        }
    }
    Ok(())
}

/// Whose history it was about.
fn decided(repository: &str, offer: &Offer, who: &str) -> Event {
    let event = Event::new("adopt", "ok").by(who).in_repository(repository);
    event.with("theirs", branch_of(&offer.tip, &offer.remote))
}

fn branch_of(tip: &impl std::fmt::Display, remote: &impl std::fmt::Display) -> String {
    format!("{tip} at {remote}")
}

fn offers(
    repository: &model::Repository,
    path: &Path,
    branch: &str,
    instance: &str,
    log: &Logger,
) -> Vec<Offer> {
    let roots: Vec<RootName> = repository.roots.iter().map(|root| root.name.clone()).collect();
    let asked = adopt::ask_all(&repository.remotes, |remote| -> CoreResult<Option<Offer>> {
        match transport::connect_to_read(remote, path, &Progress::new())? {
            Some(mut transport) => adopt::ask(&remote.name, transport.as_mut(), branch, instance, &roots),
            None => Ok(None),
        }
    });
    let mut offers = Vec::new();
    for (name, answer) in asked {
        match answer {
            Ok(offer) => offers.extend(offer),
            Err(error) => {
                warn!(log, "a remote cannot be asked for its history, so nothing is decided about it";
                      "remote" => %name, "error" => %error);
            }
        }
    }
    offers
}

/// Returns the branch under which our own history stays, if one had begun, and where it stands.
fn go_on(
    repository: &model::Repository,
    git: &Repository,
    branch: &str,
    instance: &str,
    offer: &Offer,
    store: &Store,
    log: &Logger,
) -> Result<Option<(String, String)>, Failure> {
    let remote = repository.remotes.iter().find(|remote| remote.name == offer.remote);
    let connected = match remote {
        Some(remote) => transport::connect_to_fetch(remote, git.path(), &Progress::new())?,
        None => None,
    };
    let Some(mut transport) = connected else {
        return Err(Failure::failed(format!("the remote {} has gone while it was asked", offer.remote)));
    };
    let at = backupbot_core::clock::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let set_aside = format!("refs/heads/backupbot/set-aside/{instance}/{at}");
    adopt::replace(git, branch, transport.as_mut(), offer, &set_aside, &Progress::new())?;
    for remote in &repository.remotes {
        // Each of them is looked at anew, at once.
        let remembered = store.remote(&repository.name, &remote.name);
        let mut record = remembered.load()?;
        (record.halted, record.confirmed, record.retry_at_ms) = (None, None, now_ms());
        remembered.record(&record, None)?;
    }
    warn!(log, "going on from a history that is not ours; what we had here stays as a branch";
          "repository" => %repository.name, "from" => branch_of(&offer.tip, &offer.remote), "ours" => &set_aside);
    Ok(git.reference(&set_aside)?.map(|ours| (set_aside, ours.to_string())))
}

fn template(text: &str, instance: &str) -> Result<BranchTemplate, Failure> {
    BranchTemplate::parse(text, instance).map_err(|why| {
        Failure::failed(format!(
            "{text} cannot be a branch: {why}; set `branch` in the configuration instead"
        ))
    })
}

fn read(state_dir: &Path) -> Result<Branches, Failure> {
    let path = state_dir.join(FILE);
    let unreadable = |error: &dyn std::fmt::Display| {
        let remedy = "it says which branches are used instead of the configured ones: set these in the configuration and remove it";
        Failure::failed(format!("cannot read {}: {error}; {remedy}", files::shown(&path)))
    };
    let text = match files::read_small(&path, FILE_LIMIT) {
        // Who may not look into the state directory checks a configuration, and does no more.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotADirectory) => None,
        found => found.map_err(|error| unreadable(&error))?,
    };
    match text {
        Some(text) => serde_json::from_slice(&text).map_err(|error| unreadable(&error)),
        None => Ok(Branches::new()),
    }
}

fn write(state_dir: &Path, branches: &Branches) -> Result<(), Failure> {
    let text =
        serde_json::to_vec(branches).map_err(|error| Failure::io("cannot write the branches", error))?;
    files::write_private(&state_dir.join(FILE), &text)
}
