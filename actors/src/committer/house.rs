//! Keeping the repository small between two commits: packs are merged, and what nobody needs any more is removed.
//!
//! The looking goes on beside the commits; only the removal takes the place of one.

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext, Context};
use backupbot_core::error::Kind;
use backupbot_core::git::prune::Prepared;
use backupbot_core::progress::Progress;
use slog::{info, warn};

use super::{Committer, Trouble, run_job};
use crate::housekeeping::{finish_pruning, merge_in_repository, prepare_pruning, search_is_due};
use crate::job::JobOutcome;

impl Committer {
    /// Every commit makes a pack. Nothing waits for their merging, or a first backup would pile up thousands.
    pub(super) fn keep_house(&mut self, ctx: &mut Context<Self>) {
        if self.search_for_unneeded(ctx) {
            return;
        }
        let seat = self.seat.clone();
        let work = move |progress: &Progress| merge_in_repository(&seat, progress);
        self.housekeeper.begin(ctx, |actor: &mut Self| &mut actor.housekeeper, work);
    }

    /// Whether it is time for that, and begun.
    fn search_for_unneeded(&mut self, ctx: &mut Context<Self>) -> bool {
        if self.prunable.is_some() {
            return false;
        }
        let seat = self.seat.clone();
        let Some(slot) = self.housekeeper.slot().filter(|_| search_is_due(&seat)) else { return false };
        let search = move |progress: &Progress| prepare_pruning(&seat, progress);
        let _ = slot.start_catching(ctx, "search", search, |actor: &mut Self, outcome, ctx| match outcome {
            JobOutcome::Finished(Ok(found)) => {
                actor.prunable = found;
                actor.work(ctx);
            }
            JobOutcome::Finished(Err(error)) if error.kind() == Kind::Cancelled => {}
            JobOutcome::Finished(Err(error)) => {
                warn!(actor.log, "what nobody needs is not removed this week"; "error" => %error);
            }
            JobOutcome::Panicked(message) => {
                warn!(actor.log, "what nobody needs is not removed this week"; "panic" => message);
            }
        });
        true
    }

    /// Takes the place of one commit: none may be in the making.
    pub(super) fn prune(&mut self, prepared: Prepared, ctx: &mut Context<Self>) {
        self.at_work = true;
        let (seat, exit) = (self.seat.clone(), self.exit.clone());
        let pruning = async move {
            run_job(&exit, "prune", move |progress| finish_pruning(&seat, prepared, progress)).await
        };
        ctx.spawn(wrap_future::<_, Self>(pruning).map(|pruned, actor, ctx| {
            actor.at_work = false;
            match pruned {
                Ok(Some(pruned)) => {
                    info!(actor.log, "what nobody needed is removed"; "objects" => pruned.objects,
                                          "bytes" => pruned.bytes)
                }
                Ok(None) => {}
                Err(Trouble::Failed(error)) => warn!(actor.log, "what nobody needs stays"; "error" => %error),
                Err(Trouble::Panicked(message)) => {
                    actor.exit.panicked(message);
                    return ctx.stop();
                }
                Err(Trouble::QueueGone) => {}
            }
            actor.work(ctx);
        }));
    }
}
