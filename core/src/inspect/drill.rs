//! A restore drill: a part of a remote's newest snapshot is taken from there as a stranger would, restored into a scratch
//! directory by the code that restores for users, read again from the disk, and compared with what the metadata says and
//! with what is here.
//!
//! In: a remote, how much of it, and our own repository. Out: numbers, and the names of what was wrong. Nothing is written
//! but below the scratch directory, which is gone at the end.
//!
//! Where contents are OpenPGP messages and nothing here opens them, nothing can be restored: the same part of the snapshot is
//! verified instead, with its names, records and ciphertexts as the remote gives them.

use std::collections::BTreeSet;
use std::path::Path;

use super::drills::{Drilled, NAMED};
use super::far::{self, Far, Say, Wanted};
use super::scratch::{Purpose, Scratch};
use crate::clock::Moment;
use crate::config::Remote;
use crate::crypt::given::Given;
use crate::crypt::unsealer::Unsealer;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::repository::Repository;
use crate::history::Snapshot;
use crate::names::RepositoryName;
use crate::progress::Progress;
use crate::restore::{self, Destination, Named, Policies, Report, Selection, What, Wish, repository_bytes};
use crate::verify::{self, Sample};
use crate::wording::counted;

/// Names of one drill. Each is held, several times.
const MOST_DRAWN: u32 = 20_000;

/// What is rehearsed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The repository.
    pub repository: &'r RepositoryName,
    /// Its remote.
    pub remote: &'r Remote,
    /// The branch there.
    pub branch: Option<&'r str>,
    /// Where the state is.
    pub state_dir: &'r Path,
    /// Our own bare repository.
    pub own: &'r Path,
    /// What opens the snapshot, if it is encrypted.
    pub keys: &'r Given,
    /// How much is restored.
    pub sample: Sample,
    /// Decides which files a sample has.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// To be remembered.
    pub drilled: Drilled,
    /// What was wrong, by name.
    pub problems: Vec<Named>,
    /// What is worth knowing and not wrong.
    pub remarks: Vec<Named>,
}

/// Makes a drill.
///
/// # Errors
/// When it came to no result: the remote is out of reach, there is no room ([`Kind::DiskFull`]), a stop was asked for. What
/// the remote has and cannot give is a result.
pub fn drill(request: &Request<'_>, say: Say<'_>, progress: &Progress) -> Result<Rehearsal> {
    let scratch = Scratch::take(request.state_dir, Purpose::Drill, request.repository, &request.remote.name)?;
    let place = scratch.path().to_path_buf();
    std::fs::create_dir(&place).map_err(|error| Error::io("make", &place, error))?;
    fault::point("drill:begun");
    let wanted = Wanted {
        remote: request.remote,
        branch: request.branch,
        at: None,
        state_dir: request.state_dir,
        keys: request.keys,
        sample: request.sample,
        seed: request.seed,
        whole_takes: Some(repository_bytes(request.own)),
    };
    let far = far::open(&wanted, &place.join("fetched.git"), say, progress)?;
    fault::point("drill:fetched");
    let mut ciphertexts = None;
    let (report, is_here) = match &far.snapshot {
        Ok(snapshot) if is_closed(&far, snapshot)? => {
            let compared = compare(request, &far, snapshot, progress)?;
            ciphertexts = Some(compared.2);
            (compared.0, compared.1)
        }
        Ok(snapshot) => rehearse(request, &far, snapshot, &place.join("restored"), progress)?,
        Err(why) => {
            let mut report = Report::default();
            report.problem(Named::at(b".", format!("the snapshot could not be had: {why}")));
            (report, false)
        }
    };
    fault::point("drill:restored");
    let named = report.problems.iter().take(NAMED).map(|it| format!("{}: {}", it.path, it.reason));
    let drilled = Drilled {
        repository: request.repository.to_string(),
        remote: request.remote.name.to_string(),
        commit: far.commit.to_string(),
        at: Moment::now(),
        sample: request.sample.to_string(),
        seed: (!request.sample.is_whole()).then_some(request.seed),
        way: far.way,
        is_here,
        files: report.totals.files + report.totals.symlinks + report.totals.hard_links,
        bytes: report.totals.bytes,
        ciphertexts,
        problems: report.problem_count,
        named: named.collect(),
    };
    Ok(Rehearsal { drilled, problems: report.problems, remarks: report.remarks })
}

/// Restores what was drawn and reads it again; whether it could be compared with what is here.
fn rehearse(
    request: &Request<'_>,
    far: &Far,
    snapshot: &Snapshot,
    target: &Path,
    progress: &Progress,
) -> Result<(Report, bool)> {
    let (selection, looked) = selection(request, far, snapshot, progress)?;
    let destination = Destination::Directory(target.to_path_buf());
    // Whoever restores in earnest may give set-id bits; nobody runs what a drill restores.
    let policies = Policies { set_id: false, large: Some(far.large.clone()), ..Policies::default() };
    let restoring = restore::Request {
        repository: &far.repository,
        snapshot,
        selection: &selection,
        destination: &destination,
        policies: &policies,
    };
    let silent = &mut |_: &restore::Step| Ok(());
    let plan = restore::plan(&restoring, silent, progress)?;
    let mut report = restore::apply(&restoring, &plan, silent, progress)?;
    restore::reread(&restoring, &mut report, progress)?;
    add(&mut report, looked);
    let Some((own, same)) = own(request.own, far) else { return Ok((report, false)) };
    // Without them the comparison says that it cannot be made.
    let _keys = request.keys.unlock(&own, &[same.tree]);
    let mut second = Report::default();
    let comparing = restore::Request { repository: &own, snapshot: &same, ..restoring };
    match restore::reread(&comparing, &mut second, progress) {
        Ok(()) => {}
        Err(error) if error.kind() == Kind::Cancelled => return Err(error),
        // What is here is verified by itself; the drill is about the remote.
        Err(error) => {
            report.remark(Named::at(b".", format!("it cannot be compared with what is here: {error}")));
            return Ok((report, false));
        }
    }
    let differs = |problem: Named| {
        let reason = format!("it is not what is here: {}", problem.reason);
        Named { reason, ..problem }
    };
    add(&mut report, second.problems.into_iter().map(differs).collect());
    Ok((report, true))
}

/// Whether nothing here opens the contents.
fn is_closed(far: &Far, snapshot: &Snapshot) -> Result<bool> {
    let unsealer = Unsealer::of(&far.repository, snapshot.tree)?;
    Ok(unsealer.is_some_and(|unsealer| !unsealer.reads_contents()))
}

/// Verifies what was drawn as the remote gives it, without restoring it; whether the same snapshot is here, and how many
/// contents were compared as ciphertexts.
fn compare(
    request: &Request<'_>,
    far: &Far,
    snapshot: &Snapshot,
    progress: &Progress,
) -> Result<(Report, bool, u64)> {
    let verifying = verify::Request {
        repository: &far.repository,
        snapshot,
        sample: request.sample,
        seed: request.seed,
        large: Some(&far.large),
    };
    let looked = verify::verify(&verifying, &mut |_| {}, progress)?;
    let mut report = Report::default();
    report.totals.files = looked.verified_files;
    report.totals.bytes = looked.verified_bytes;
    report.problem_count = looked.problem_count.saturating_sub(looked.problems.len() as u64);
    looked.problems.into_iter().for_each(|problem| report.problem(problem));
    looked.remarks.into_iter().for_each(|remark| report.remark(remark));
    let why = format!(
        "nothing was restored, because no private key that opens the contents is here: names, records and {} were read and \
         compared instead",
        counted(looked.ciphertexts, "ciphertext", "ciphertexts")
    );
    report.remark(Named::at(b".", why));
    let Some((_, same)) = own(request.own, far) else { return Ok((report, false, looked.ciphertexts)) };
    if same.tree != snapshot.tree {
        report.problem(Named::at(b".", "the same snapshot here has another tree"));
    }
    Ok((report, true, looked.ciphertexts))
}

/// Adds what was not told already, with another reason.
fn add(report: &mut Report, problems: Vec<Named>) {
    let known: BTreeSet<String> = report.problems.iter().map(|problem| problem.path.clone()).collect();
    for problem in problems.into_iter().filter(|problem| !known.contains(&problem.path)) {
        report.problem(problem);
    }
}

/// Our own copy of the snapshot, if it is here.
fn own(path: &Path, far: &Far) -> Option<(Repository, Snapshot)> {
    let own = Repository::open(path).ok()?;
    let snapshot = Snapshot::read(&own, far.commit).ok()?;
    Some((own, snapshot))
}

/// What is restored, and what is wrong with the names from which it was drawn.
fn selection(
    request: &Request<'_>,
    far: &Far,
    snapshot: &Snapshot,
    progress: &Progress,
) -> Result<(Selection, Vec<Named>)> {
    if request.sample.is_whole() {
        return Ok((Selection::Everything, Vec::new()));
    }
    let (sample, seed) = (request.sample, request.seed);
    let drawing = verify::Request { repository: &far.repository, snapshot, sample, seed, large: None };
    let (names, looked) = verify::drawn(&drawing, MOST_DRAWN, progress)?;
    let wishes = names.into_iter().map(|(root, path)| Wish { root, what: What::Path(path) });
    Ok((Selection::Some(wishes.collect()), looked.problems))
}
