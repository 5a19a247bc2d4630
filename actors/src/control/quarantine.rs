//! What an operator decides about a quarantine: approve it, or reject it.

use std::sync::Arc;

use backupbot_core::guard;
use backupbot_core::snapshot;
use backupbot_core::store::guard::Quarantine;
use serde::{Deserialize, Serialize};

use super::flush::{explain, present};
use super::{Control, ControlError};
use crate::committer::Committer;
use crate::messages::{Approve, GuardNote, NoteOfGuard, PauseChanged, Refusal};
use crate::seat::RepositorySeat;
use crate::trail;

/// What was decided about a quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The repository.
    pub name: String,
    /// The protected branch.
    pub branch: String,
    /// Where it stands.
    pub commit: String,
}

impl Control {
    /// Ends quarantines: each protected branch goes forward to what was committed meanwhile.
    pub async fn approve(&self, repository: Option<&str>) -> Result<Vec<Decided>, ControlError> {
        let mut decided = Vec::new();
        for seat in self.decidable(repository)? {
            let answer = present::<Committer>(&seat.committer).await.send(Approve).await;
            let approved = match answer {
                Ok(Ok(approved)) => approved,
                Ok(Err(refusal)) => {
                    return Err(ControlError::Refused(format!(
                        "{}: {}",
                        seat.settings.name,
                        explain(&refusal)
                    )));
                }
                Err(_) => {
                    return Err(ControlError::Refused("the committer was restarted: try again".to_owned()));
                }
            };
            decided.push(Decided {
                name: seat.settings.name.to_string(),
                branch: guard::branch::short(&approved.branch).to_owned(),
                commit: approved.commit.to_string(),
            });
        }
        Ok(decided)
    }

    /// Rejects quarantines: the repository is paused, and both its branches stay as they are.
    pub async fn reject(&self, repository: Option<&str>) -> Result<Vec<Decided>, ControlError> {
        let mut decided = Vec::new();
        for seat in self.decidable(repository)? {
            let Some(quarantine) = seat.quarantine()? else { continue };
            let queue = self.common.queue.address_of("queue").map_err(ControlError::Refused)?;
            let note = NoteOfGuard { repository: seat.settings.name.clone(), note: GuardNote::Reject };
            match queue.send(note).await {
                Ok(answer) => answer?,
                Err(_) => return Err(ControlError::Refused("the queue is not running".to_owned())),
            }
            trail::rejected(&seat, &quarantine);
            if let Some(committer) = seat.committer.address() {
                let _ = committer.send(PauseChanged).await;
            }
            decided.push(Decided {
                name: seat.settings.name.to_string(),
                branch: guard::branch::short(&quarantine.protected_branch).to_owned(),
                commit: snapshot::oid(&quarantine.protected)?.to_string(),
            });
        }
        Ok(decided)
    }

    /// Where there is something to decide.
    fn decidable(&self, repository: Option<&str>) -> Result<Vec<Arc<RepositorySeat>>, ControlError> {
        let mut found = Vec::new();
        for seat in self.chosen(repository)? {
            if seat.quarantine()?.is_some() {
                found.push(seat);
            }
        }
        if found.is_empty() {
            return Err(ControlError::Refused("there is no quarantine: nothing is to be decided".to_owned()));
        }
        Ok(found)
    }
}

/// Refuses where commits go to a quarantine.
pub(super) fn refuse_in_quarantine(seat: &RepositorySeat) -> Result<(), Refusal> {
    match seat.quarantine() {
        Ok(None) => Ok(()),
        Ok(Some(quarantine)) => Err(Refusal::Quarantine(in_quarantine(&quarantine))),
        Err(error) => Err(Refusal::NoCommit(error.to_string())),
    }
}

/// What a quarantine means, and what to do.
pub fn in_quarantine(quarantine: &Quarantine) -> String {
    let seen = &quarantine.seen;
    let (branch, protected) =
        (guard::branch::short(&quarantine.branch), guard::branch::short(&quarantine.protected_branch));
    let next = match quarantine.rejected_ms {
        None => "`backupbot approve` if that was meant, `backupbot reject` if not",
        Some(_) => {
            "it was rejected: put the files back with `backupbot restore --in-place`, then `backupbot resume`, and \
             `backupbot approve` when everything is right again"
        }
    };
    format!(
        "quarantine: in root {} {} of {} files were deleted or rewritten; everything since goes to {branch}, and {protected} \
         stays as it was before; see what changed with `backupbot diff latest {branch}`; {next}",
        seen.root, seen.lost, seen.of
    )
}
