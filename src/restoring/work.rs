//! What a restore over the API does, and where it may write.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use backupbot_core::ignore::IgnoreRules;
use backupbot_core::names::RootName;
use backupbot_core::progress::Progress;
use backupbot_core::restore::{self, Bounds, Destination, Existing, Policies, Report, Request, marker};

use super::{Overwrite, State, Wish};
use crate::commands::restoring::{Source, follow, real_path, selection};
use crate::exit::Failure;
use crate::files::shown;
use crate::http::decoded;
use crate::looking::Looking;
use crate::settings::{Settings, World};

/// How far it came.
pub struct Reached {
    pub state: State,
    pub snapshot: String,
    /// Files and bytes that are to be restored.
    pub totals: Option<(u64, u64)>,
}

/// The paths that are meant, or why the wish makes no sense.
pub fn check(wish: &Wish) -> Result<Vec<PathBuf>, String> {
    if wish.delete && wish.overwrite.is_none() {
        return Err(
            "delete removes what stands in the directory: say with overwrite what is done with the rest"
                .to_owned(),
        );
    }
    // As the description of the API says.
    let is_too_long = |text: &str, most: usize| text.chars().count() > most;
    if wish.at.as_ref().is_some_and(|at| at.is_empty() || is_too_long(at, 200)) {
        return Err("`at` has from 1 to 200 characters".to_owned());
    }
    if is_too_long(&wish.repository, 200) || is_too_long(&wish.to, 4096) {
        return Err("`repository` has at most 200 characters, `to` at most 4096".to_owned());
    }
    if wish.paths.len() > 1000 || wish.paths_b64.len() > 1000 {
        return Err("there are at most 1000 paths; name the directory that they are in".to_owned());
    }
    let mut paths: Vec<PathBuf> = wish.paths.iter().map(PathBuf::from).collect();
    for encoded in &wish.paths_b64 {
        let bytes = decoded(encoded).ok_or("paths_b64 has something in it that is not base64")?;
        paths.push(PathBuf::from(OsString::from_vec(bytes)));
    }
    let is_bad =
        |path: &PathBuf| path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().contains(&0);
    if paths.iter().any(is_bad) {
        return Err("a path is empty or has a NUL in it".to_owned());
    }
    Ok(paths)
}

/// Where to write: without links, as far as it exists, and beneath one of `allowed`, or why not.
pub fn target(to: &str, allowed: &[PathBuf]) -> Result<PathBuf, String> {
    if allowed.is_empty() {
        return Err(
            "restores over HTTP are not allowed: admin.restore_dirs in the configuration is empty".to_owned()
        );
    }
    let path = Path::new(to);
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !is_plain || to.contains('\0') {
        return Err("`to` must be an absolute path without `..`".to_owned());
    }
    let real = real_path(path);
    let is_beneath = allowed.iter().any(|directory| {
        // What is allowed must be there itself: made up to it, it could be somebody else's.
        directory.canonicalize().is_ok_and(|directory| real != directory && real.starts_with(directory))
    });
    match is_beneath {
        true => Ok(real),
        false => Err("`to` is beneath none of the directories in admin.restore_dirs that exist".to_owned()),
    }
}

/// Restores. `tell` hears how far it came.
pub fn work(
    settings: &Arc<Settings>,
    wish: &Wish,
    paths: &[PathBuf],
    target: &Path,
    progress: &Progress,
    tell: &dyn Fn(Reached),
) -> Result<Report, Failure> {
    // Relative paths have no meaning here but `<root>/rel`.
    let world = World { current_dir: PathBuf::from("/"), ..World::default() };
    let looking = Looking::of_daemon(&world, (**settings).clone(), &wish.repository)?;
    let source = Source::of(looking);
    let snapshot = source.looking.snapshot(wish.at.as_deref())?;
    let id = snapshot.id.to_string();
    let reached = |state, totals| tell(Reached { state, snapshot: id.clone(), totals });
    reached(State::Planning, None);
    let selection = selection(&source, &snapshot, paths)?;
    source.refuse_dangerous_target(target, &snapshot)?;
    let policies = Policies { large: Some(source.large()), ..policies(wish, || rules(&source, target)) };
    let identity = marker::Identity {
        repository: wish.repository.clone(),
        snapshot: id.clone(),
        selection: {
            let mut selection: Vec<String> = paths.iter().map(|path| shown(path)).collect();
            selection.sort();
            // As the command names them, so that one goes on where the other ended.
            for (given, flag) in
                [(wish.special, "--special"), (wish.raw, "--raw"), (wish.no_set_id, "--no-set-id")]
            {
                selection.extend(given.then(|| flag.to_owned()));
            }
            selection
        },
    };
    let guarded = policies.existing == Existing::Finish;
    if guarded {
        marker::look(target, &identity)?;
    }
    let destination = Destination::Directory(target.to_path_buf());
    let request = Request {
        repository: source.repository(),
        snapshot: &snapshot,
        selection: &selection,
        destination: &destination,
        policies: &policies,
    };
    let plan = restore::plan(&request, &mut |_| progress.check(), &Progress::new())?;
    let totals = &plan.report.totals;
    let things = totals.files + totals.symlinks + totals.hard_links + totals.specials;
    if wish.dry_run {
        return Ok(finish(plan.report, &id, target));
    }
    reached(State::Restoring, Some((things, totals.bytes)));
    let marker = if guarded { Some(marker::begin(target, &identity)?) } else { None };
    let mut report = restore::apply(&request, &plan, &mut |_| Ok(()), progress)?;
    if wish.verify {
        reached(State::Verifying, None);
        let reading = Progress::new();
        let _following = follow(progress, &reading);
        restore::reread(&request, &mut report, &reading)?;
    }
    if let Some(marker) = marker {
        marker.finish()?;
    }
    Ok(finish(report, &id, target))
}

fn finish(report: Report, snapshot: &str, target: &Path) -> Report {
    Report { snapshot: snapshot.to_owned(), target: shown(target), ..report }
}

fn policies(wish: &Wish, rules: impl FnOnce() -> BTreeMap<RootName, Arc<IgnoreRules>>) -> Policies {
    let existing = match wish.overwrite {
        None => Existing::Finish,
        Some(Overwrite::Never) => Existing::Never,
        Some(Overwrite::Changed) => Existing::Changed,
        Some(Overwrite::Always) => Existing::Always,
    };
    Policies {
        existing,
        replace_kinds: wish.overwrite == Some(Overwrite::Always),
        delete: wish.delete,
        excluded: if wish.delete { rules() } else { BTreeMap::new() },
        specials: wish.special,
        raw: wish.raw,
        set_id: !wish.no_set_id,
        bounds: Bounds::default(),
        ..Policies::default()
    }
}

/// What is left out of the backup of a root is not removed where the root is restored to.
fn rules(source: &Source<'_>, target: &Path) -> BTreeMap<RootName, Arc<IgnoreRules>> {
    let rules = source.roots().map(|root| {
        let place = target.join(root.name.as_str());
        let (rules, _) = IgnoreRules::new(&place, &root.ignore, &root.ignore_files, root.system_excludes);
        (root.name.clone(), Arc::new(rules))
    });
    rules.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_beneath_what_is_allowed_whatever_links_say() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().canonicalize().unwrap();
        let (allowed, other) = (base.join("allowed"), base.join("allowed-not"));
        std::fs::create_dir(&allowed).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, allowed.join("out")).unwrap();
        std::os::unix::fs::symlink(&allowed, base.join("in")).unwrap();
        let dirs = [allowed.clone(), base.join("missing")];
        let ask = |path: &str| target(base.join(path).to_str().unwrap(), &dirs);
        assert_eq!(ask("allowed/new/deep").unwrap(), allowed.join("new/deep"));
        assert_eq!(ask("in/new").unwrap(), allowed.join("new"), "links that lead in are followed");
        for path in [
            "allowed",
            "allowed-not/x",
            "allowed/out",
            "allowed/out/x",
            "missing/x",
            "elsewhere",
            "allowed/../x",
        ] {
            assert!(ask(path).is_err(), "{path}");
        }
        assert!(target("allowed/x", &dirs).is_err() && target("", &dirs).is_err());
        assert!(target("/x", &[]).unwrap_err().contains("admin.restore_dirs"));
    }

    #[test]
    fn paths_can_be_told_and_senseless_wishes_are_refused() {
        let wish = Wish { paths: vec!["r/a".into()], paths_b64: vec!["ci//".into()], ..Wish::default() };
        assert_eq!(
            check(&wish).unwrap(),
            [PathBuf::from("r/a"), PathBuf::from(OsString::from_vec(b"r/\xff".to_vec()))]
        );
        assert!(check(&Wish { delete: true, ..Wish::default() }).is_err());
        assert!(check(&Wish { at: Some(String::new()), ..Wish::default() }).is_err());
        assert!(check(&Wish { to: "x".repeat(4097), ..Wish::default() }).is_err());
        assert!(check(&Wish { paths: vec![String::new()], ..Wish::default() }).is_err());
        assert!(check(&Wish { paths_b64: vec!["*".into()], ..Wish::default() }).is_err());
    }
}
