//! Looking at a remote without changing it: can it be reached, are we let in, where does its branch stand?

use std::path::Path;
use std::time::{Duration, Instant};

use git2::Oid;

use super::check_name;
use crate::config as model;
use crate::error::Result;
use crate::git::repository::Repository;
use crate::progress::Progress;
use crate::transport::{self, Description, Notes};

/// Where the remote's branch stands, seen from ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is none: the first push makes it.
    Absent,
    /// It is ours.
    Equal,
    /// It lacks commits that are here.
    Behind,
    /// It has what is not in our history: a push would halt, and go to a rescue branch.
    Elsewhere,
    /// Nothing is committed here yet, so it cannot be compared.
    Unknown,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// `None`: a local path where nothing is yet.
    pub remote: Option<Found>,
    /// What was noticed on the way.
    pub notes: Notes,
    /// How long it took.
    pub took: Duration,
}

/// A remote that answered a connection for a push.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub description: Description,
    /// How many references it has.
    pub references: usize,
    /// Its branch.
    pub tip: Option<Oid>,
    /// Where that is.
    pub standing: Standing,
    /// Why a push could not make the branch, if so.
    pub in_the_way: Option<String>,
}

/// Connects as a push does, up to the point where one would begin.
///
/// # Errors
/// What a push would fail with so far. What a hook or a protected branch says is only known after a push.
pub fn probe(remote: &model::Remote, branch: &str, repository: &Path, progress: &Progress) -> Result<Report> {
    let began = Instant::now();
    let Some(mut transport) = transport::connect_to_test(remote, repository, progress)? else {
        return Ok(Report { remote: None, notes: Notes::default(), took: began.elapsed() });
    };
    let advertised = transport.advertise()?;
    let tip = advertised.references.get(branch).copied();
    let in_the_way = check_name(&advertised.references, branch).err().map(|error| error.to_string());
    let standing = standing(repository, branch, tip)?;
    let description = transport.describe()?;
    let found = Found { description, references: advertised.references.len(), tip, standing, in_the_way };
    Ok(Report { remote: Some(found), notes: transport.notes(), took: began.elapsed() })
}

fn standing(repository: &Path, branch: &str, tip: Option<Oid>) -> Result<Standing> {
    let Some(tip) = tip else { return Ok(Standing::Absent) };
    if !repository.exists() {
        return Ok(Standing::Unknown);
    }
    let repository = Repository::open(repository)?;
    let Some(ours) = repository.reference(branch)? else { return Ok(Standing::Unknown) };
    if tip == ours {
        return Ok(Standing::Equal);
    }
    Ok(if repository.is_ancestor(tip, ours)? { Standing::Behind } else { Standing::Elsewhere })
}
