//! The end of a quarantine: the protected branch goes forward to it, between two commits, and then the record says so.

use std::sync::Arc;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Addr, AsyncContext, Context, Handler, ResponseFuture};
use backupbot_core::git::repository::Repository;
use backupbot_core::guard;
use slog::{Logger, info};
use tokio::sync::oneshot;

use super::{Committer, Trouble, run_job};
use crate::messages::{Approve, Approved, GuardNote, NoteOfGuard, Refusal};
use crate::queue::Queue;
use crate::seat::RepositorySeat;
use crate::supervision::ExitHandle;
use crate::trail;

/// Who wants to hear of it.
pub(super) type Wish = oneshot::Sender<Result<Approved, Refusal>>;

impl Committer {
    /// Takes the place of one commit: none may be in the making.
    pub(super) fn approve(&mut self, wish: Wish, ctx: &mut Context<Self>) {
        self.at_work = true;
        let approval = approve(self.seat.clone(), self.exit.clone(), self.queue.clone(), self.log.clone());
        ctx.spawn(wrap_future::<_, Self>(approval).map(|approved, actor, ctx| {
            actor.at_work = false;
            let answer = match approved {
                Ok(answer) => answer,
                Err(Trouble::Failed(error)) => Err(Refusal::Quarantine(error.to_string())),
                Err(Trouble::Panicked(message)) => Err(Refusal::NotRunning(message)),
                Err(Trouble::QueueGone) => Err(Refusal::NotRunning("the queue is not running".to_owned())),
            };
            if answer.is_ok() {
                actor.seat.guard.forget();
                actor.seat.nudge_pushers();
            }
            let _ = wish.send(answer);
            actor.work(ctx);
        }));
    }
}

async fn approve(
    seat: Arc<RepositorySeat>,
    exit: ExitHandle,
    queue: Addr<Queue>,
    log: Logger,
) -> Result<Result<Approved, Refusal>, Trouble> {
    let Some(quarantine) = seat.quarantine()? else {
        return Ok(Err(Refusal::Quarantine("there is no quarantine: nothing is to be approved".to_owned())));
    };
    if seat.common.store.reader().staged(&seat.settings.name)?.is_some() {
        let text = "a commit was left half made and is finished first: try again in a minute";
        return Ok(Err(Refusal::Quarantine(text.to_owned())));
    }
    let branch = seat.protected_branch()?;
    let (protected, its_seat) = (branch.clone(), seat.clone());
    let moved = run_job(&exit, "approve", move |_| {
        let commit = guard::approve(&Repository::open(&its_seat.path)?, &quarantine, &protected)?;
        trail::approved(&its_seat, &protected, commit);
        Ok(commit)
    });
    let commit = moved.await?;
    let note = GuardNote::End(commit);
    queue.send(NoteOfGuard { repository: seat.settings.name.clone(), note }).await??;
    info!(log, "the quarantine is approved and over"; "branch" => &branch, "commit" => %commit);
    Ok(Ok(Approved { branch, commit }))
}

impl Handler<Approve> for Committer {
    type Result = ResponseFuture<Result<Approved, Refusal>>;

    fn handle(&mut self, _: Approve, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        self.approvals.push(answer);
        self.work(ctx);
        Box::pin(async move {
            answered
                .await
                .unwrap_or_else(|_| Err(Refusal::NotRunning("the committer was restarted".to_owned())))
        })
    }
}
