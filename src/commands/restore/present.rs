//! What stands there before a restore in place: shown to the operator, and committed, so that nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use backupbot_actors::control::{Flushed, FlushedRepository};
use backupbot_core::history::Oid;
use backupbot_core::names::RootName;
use backupbot_core::path::RelPath;
use backupbot_core::restore::Selection;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::place::Source;
use crate::cli::Global;
use crate::client::{self, Reach};
use crate::commands::once;
use crate::exit::Failure;
use crate::settings::World;

/// A first backup of what is there may take long; an operator who has no patience presses Ctrl-C.
const WITHIN: Duration = Duration::from_secs(60 * 60);
/// Answers list so many skipped paths at most.
const MOST_LISTED: usize = 1000;

/// The state before the restore.
pub struct Present {
    /// The commit that has it.
    pub commit: Oid,
    /// What it does not have, because it could not be read.
    pub unsaved: BTreeMap<RootName, BTreeSet<RelPath>>,
}

/// Asks on a terminal; elsewhere `yes` has to be given.
pub fn confirm(yes: bool) -> Result<bool, Failure> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(
            "a restore in place changes files: say --yes (or see it first with --dry-run)",
        ));
    }
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "Restore this? What is there now is committed first. [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::io("cannot read the answer", error))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Has everything that is there now committed here, by the daemon or by this process.
pub fn commit(
    world: &World,
    global: &Global,
    source: &Source<'_>,
    selection: &Selection,
) -> Result<Present, Failure> {
    if nothing_is_there(source, selection) {
        // An empty new disk holds nothing that could be lost, and would not be taken for the root either.
        return Ok(Present { commit: source.looking.tip, unsaved: BTreeMap::new() });
    }
    let flushed: Flushed = match client::reach(world, global)? {
        Reach::Daemon(client) => {
            let wish = json!({
                "repository": source.name().as_str(),
                "wait": true,
                "commit_only": true,
                "timeout": format!("{}s", WITHIN.as_secs()),
            });
            let answer = client.post("/flush", &wish, WITHIN)?.ok().map_err(|failure| refused(&failure))?;
            serde_json::from_value(answer).map_err(|error| {
                Failure::io("the daemon's answer is not understood; is it another version?", error)
            })?
        }
        Reach::Nobody(asking) => {
            let settings = asking
                .configuration()?
                .ok_or_else(|| Failure::usage("no configuration was found: name one with --config"))?;
            once::commit_here(world, &settings, "restore", WITHIN).map_err(|failure| refused(&failure))?
        }
    };
    let found = flushed.repositories.into_iter().find(|found| found.name == source.name().as_str());
    let found = found.ok_or_else(|| Failure::failed(format!("{} was not committed", source.name())))?;
    let commit = found.commit.as_deref().and_then(|commit| commit.parse().ok());
    let commit = commit.ok_or_else(|| Failure::failed(format!("{} was not committed", source.name())))?;
    Ok(Present { commit, unsaved: unsaved(&found)? })
}

fn refused(failure: &Failure) -> Failure {
    let why = failure.lines.join("; ");
    let text = format!(
        "what is there now cannot be committed, so nothing was restored in place: {why}; restore somewhere else with --to"
    );
    Failure::new(failure.exit, text)
}

fn unsaved(found: &FlushedRepository) -> Result<BTreeMap<RootName, BTreeSet<RelPath>>, Failure> {
    if found.skipped.len() >= MOST_LISTED {
        return Err(Failure::failed(format!(
            "{} files or more that are there now could not be read, so they are in no backup, and nothing was restored in \
             place; `backupbot status` names them; restore somewhere else with --to",
            found.skipped.len()
        )));
    }
    let mut unsaved: BTreeMap<RootName, BTreeSet<RelPath>> = BTreeMap::new();
    for skip in &found.skipped {
        let exact = skip.path_b64.as_ref().and_then(|text| STANDARD.decode(text).ok());
        let bytes = exact.unwrap_or_else(|| skip.path.clone().into_bytes());
        if let (Ok(root), Ok(path)) = (RootName::new(skip.root.clone()), RelPath::new(bytes)) {
            unsaved.entry(root).or_default().insert(path);
        }
    }
    Ok(unsaved)
}

/// Whether every root that is concerned is missing or empty.
fn nothing_is_there(source: &Source<'_>, selection: &Selection) -> bool {
    let concerned = |name: &RootName| match selection {
        Selection::Everything => true,
        Selection::Some(wishes) => wishes.iter().any(|wish| wish.root == *name),
        Selection::Exactly(paths) => paths.contains_key(name),
    };
    source.roots().filter(|root| concerned(&root.name)).all(|root| match std::fs::read_dir(&root.path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    })
}
