//! The config watcher: looks every second whether the configuration's file has changed, and says on the board what stands there.
//!
//! It decides when to read (`core::config::on_disk`); whether what it read is to be obeyed is for whoever waits on the board.
//! Looks and readings are jobs, because the file may be on a file system that hangs. It knows nothing that a restart could
//! lose: a new run reads the file and says the same.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context};
use backupbot_core::config::on_disk::{Looks, Mark, OnDisk};
use backupbot_core::fault;
use slog::{Logger, o, warn};

use crate::board::Board;
use crate::job::JobSlot;
use crate::supervision::ExitHandle;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The actor.
pub struct ConfigWatcher {
    file: PathBuf,
    board: Board,
    log: Logger,
    job: JobSlot,
    looks: Looks,
}

impl ConfigWatcher {
    /// A watcher of `file`.
    pub fn new(file: PathBuf, board: &Board, log: &Logger, exit: &ExitHandle) -> Self {
        let log = log.new(o!("actor" => "config watcher"));
        Self { file, board: board.clone(), log, job: JobSlot::new(exit), looks: Looks::default() }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let file = self.file.clone();
        // Busy with the last one: supervision sees to it if that hangs.
        let _ = self.job.start(
            ctx,
            "look at the configuration",
            move |_| {
                fault::point("actor:config-watcher:job");
                Ok(Mark::of(&file))
            },
            |actor: &mut Self, mark, ctx| {
                let is_worth_reading =
                    mark.is_ok_and(|mark| actor.looks.are_worth_reading(mark, Instant::now()));
                if is_worth_reading {
                    actor.read(ctx);
                }
            },
        );
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        let file = self.file.clone();
        let read = self.job.start(
            ctx,
            "read the configuration",
            move |_| Ok(OnDisk::of(&file)),
            |actor: &mut Self, on_disk, _| {
                if let Ok(on_disk) = on_disk {
                    actor.board.change_configuration(|status| status.says(on_disk));
                }
            },
        );
        if read.is_err() {
            warn!(self.log, "the configuration was not read; it is within half a minute");
        }
    }
}

impl Actor for ConfigWatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        fault::point("actor:config-watcher:started");
        ctx.run_interval(LOOK_EVERY, Self::look);
    }
}
