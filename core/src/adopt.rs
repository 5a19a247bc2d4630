//! A branch that is missing here but has a history on a remote: the state was lost, or this is a new machine.
//!
//! The history is continued only if its latest commit was made by this instance and holds no root but ours;
//! the next commit then is its child and nothing is ever forced. Of several remotes the most advanced one
//! leads. Anything else is somebody else's history: it is reported and left alone, until the operator says by an
//! [`Adoption`] whether to go on from it or to leave it for a branch of our own.

use git2::Oid;

use crate::config::Remote;
use crate::error::Result;
use crate::fault;
use crate::git::refs;
use crate::git::repository::Repository;
use crate::names::{RemoteName, RootName};
use crate::progress::Progress;
use crate::snapshot::message::{self, BATCH_TRAILER, INSTANCE_TRAILER, ROOTS_TRAILER, trailer};
use crate::transport::Transport;

/// The history that a remote offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The remote.
    pub remote: RemoteName,
    /// Where its branch stands.
    pub tip: Oid,
    /// The batch that made it, as its trailer says.
    pub batch: u64,
    /// Whether it is ours to continue.
    pub ours: bool,
}

/// What the operator wants with a history that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// Our next commit is its child.
    Continue,
    /// It stays as it is, and we go on under another name.
    Branch,
}

/// Asks a remote for the history of `branch`; `None` if it has none.
pub fn ask(
    remote: &RemoteName,
    transport: &mut dyn Transport,
    branch: &str,
    instance: &str,
    roots: &[RootName],
) -> Result<Option<Offer>> {
    let Some(tip) = transport.advertise()?.references.get(branch).copied() else { return Ok(None) };
    let text = transport.commit_message(tip)?;
    let same_instance = trailer(&text, INSTANCE_TRAILER) == Some(instance);
    let same_roots = trailer(&text, ROOTS_TRAILER).is_some_and(|listed| {
        listed.split(',').all(|name| roots.iter().any(|root| message::listed(root.as_str()) == name))
    });
    let batch = trailer(&text, BATCH_TRAILER).and_then(|number| number.parse().ok()).unwrap_or(0);
    Ok(Some(Offer { remote: remote.clone(), tip, batch, ours: same_instance && same_roots }))
}

/// Asks every remote at the same time, in the order of `remotes`: one that does not answer holds up none of the others.
pub fn ask_all(
    remotes: &[Remote],
    ask: impl Fn(&Remote) -> Result<Option<Offer>> + Sync,
) -> Vec<(RemoteName, Result<Option<Offer>>)> {
    std::thread::scope(|scope| {
        let ask = &ask;
        let asked: Vec<_> = remotes.iter().map(|remote| (remote, scope.spawn(move || ask(remote)))).collect();
        let answers = asked.into_iter().map(|(remote, asking)| {
            let answer = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (remote.name.clone(), answer)
        });
        answers.collect()
    })
}

/// The offer to continue: ours, and the most advanced.
pub fn leading(offers: &[Offer]) -> Option<&Offer> {
    offers.iter().filter(|offer| offer.ours).max_by_key(|offer| offer.batch)
}

/// The offers that our branch cannot simply go on from or already has: the others are nobody's decision.
pub fn undecided(repository: &Repository, branch: &str, offers: Vec<Offer>) -> Result<Vec<Offer>> {
    let ours = repository.reference(branch)?;
    let mut undecided = Vec::new();
    for offer in offers {
        let is_known = match ours {
            Some(tip) => repository.is_ancestor(offer.tip, tip)?,
            None => offer.ours,
        };
        if !is_known {
            undecided.push(offer);
        }
    }
    Ok(undecided)
}

/// The one to go on from where the operator wants that: the most advanced, ours before others'.
pub fn chosen(offers: &[Offer]) -> Option<&Offer> {
    offers.iter().max_by_key(|offer| (offer.ours, offer.batch))
}

/// Goes on from an offered history although a history of our own has begun: that is kept as the branch
/// `set_aside`. Nothing may be staged. Killed half way, it is done again by the next call.
pub fn replace(
    repository: &Repository,
    branch: &str,
    transport: &mut dyn Transport,
    offer: &Offer,
    set_aside: &str,
    progress: &Progress,
) -> Result<()> {
    let ours = repository.reference(branch)?;
    transport.fetch(repository, offer.tip, progress)?;
    fault::point("adopt:fetched");
    if let Some(ours) = ours {
        refs::move_reference(repository, set_aside, repository.reference(set_aside)?, ours)?;
        fault::point("adopt:set-aside");
    }
    refs::move_reference(repository, branch, ours, offer.tip)
}

/// Fetches the offered history and sets the branch to its tip.
pub fn take_over(
    repository: &Repository,
    branch: &str,
    transport: &mut dyn Transport,
    offer: &Offer,
    progress: &Progress,
) -> Result<()> {
    transport.fetch(repository, offer.tip, progress)?;
    fault::point("adopt:fetched");
    refs::move_reference(repository, branch, None, offer.tip)
}
