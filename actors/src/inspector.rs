//! The inspector: verifies what is here and rehearses restoring from the remotes, each when it is due.
//!
//! One for all repositories, so that there is never more than one such job in the process; the job has the lowest priority.
//! Each turn looks at everything anew (results and attempts are in small files, which commands change too), does at most
//! one thing, and says when to look again. Nothing waits for it, and it stops with the tree.

mod rounds;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler};
use backupbot_core::error::Kind;
use backupbot_core::priority;
use slog::{Logger, error, o, warn};

use crate::job::{JobOutcome, JobSlot};
use crate::messages::Wake;
use crate::seat::{Common, RepositorySeat};
use crate::supervision::ExitHandle;

/// After trouble with our own files, or a panic.
const PAUSE_AFTER_TROUBLE: Duration = Duration::from_secs(60);

/// The actor.
pub struct Inspector {
    common: Common,
    seats: Vec<Arc<RepositorySeat>>,
    log: Logger,
    job: JobSlot,
    /// Whether what killed processes left was removed.
    has_swept: bool,
}

impl Inspector {
    /// An inspector of these repositories.
    pub fn new(common: Common, seats: Vec<Arc<RepositorySeat>>, exit: &ExitHandle) -> Self {
        let log = common.log.new(o!("actor" => "inspector"));
        Self { common, seats, log, job: JobSlot::new(exit), has_swept: false }
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        let (common, seats, log) = (self.common.clone(), self.seats.clone(), self.log.clone());
        let sweep = !std::mem::replace(&mut self.has_swept, true);
        // Busy cannot be: the next turn is asked for when this one is over.
        let _ = self.job.start_catching(
            ctx,
            "inspect",
            move |progress| {
                priority::lowest("inspect", || {
                    if sweep {
                        rounds::sweep(&common, &log);
                    }
                    rounds::turn(&common, &seats, &log, progress)
                })
            },
            |actor, outcome, ctx| actor.ended(outcome, ctx),
        );
    }

    fn ended(&mut self, outcome: JobOutcome<Duration>, ctx: &mut Context<Self>) {
        let pause = match outcome {
            JobOutcome::Finished(Ok(pause)) => pause,
            JobOutcome::Finished(Err(error)) if error.kind() == Kind::Cancelled => PAUSE_AFTER_TROUBLE,
            JobOutcome::Finished(Err(error)) => {
                warn!(self.log, "nothing can be verified now; it is tried again"; "error" => %error);
                PAUSE_AFTER_TROUBLE
            }
            JobOutcome::Panicked(message) => {
                error!(self.log, "a verification panicked; it is tried again"; "message" => message);
                PAUSE_AFTER_TROUBLE
            }
        };
        ctx.run_later(pause, Self::turn);
    }
}

impl Actor for Inspector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(Wake);
    }
}

impl Handler<Wake> for Inspector {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        self.turn(ctx);
    }
}
