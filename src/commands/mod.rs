//! The commands, one a file; this only leads the way to them.

mod alerts;
mod audit;
mod cat;
mod check;
mod completions;
mod control;
mod diff;
mod drill;
mod health;
mod keys;
mod lfs;
mod log;
mod ls;
mod man;
mod once;
mod page;
mod recipe;
mod remote;
mod report;
mod restore;
mod run;
mod snapshots;
mod status;
mod verify;
mod why;

/// What a restore over the API shares with the command.
pub mod restoring {
    pub use super::restore::{Source, follow, real_path, selection};
}

use crate::cli::{Command, Invocation};
use crate::exit::{Exit, Failure};
use crate::settings::World;

/// Does what the command line asks for.
pub fn obey(world: &World, invocation: &Invocation) -> Result<Exit, Failure> {
    let global = &invocation.cli.global;
    match &invocation.cli.command {
        Command::Run(target) => run::run(world, invocation, target),
        Command::Once(once) => once::once(world, invocation, once),
        Command::Check(arguments) => check::check(world, global, arguments),
        Command::Status(scope) => status::status(world, global, scope),
        Command::Pause(pause) => control::pause(world, global, pause),
        Command::Resume(scope) => control::resume(world, global, scope),
        Command::Reload => control::reload(world, global),
        Command::Log(wish) => log::log(world, global, wish),
        Command::Approve(scope) => control::decide(world, global, scope, control::Decision::Approve),
        Command::Reject(scope) => control::decide(world, global, scope, control::Decision::Reject),
        Command::Flush(flush) => control::flush(world, global, flush),
        Command::Why(why) => why::why(world, global, why),
        Command::Restore(restore) => restore::restore(world, global, restore),
        Command::Verify(verify) => verify::verify(world, invocation, verify),
        Command::Drill(drill) => drill::drill(world, invocation, drill),
        Command::Snapshots(snapshots) => snapshots::snapshots(world, global, snapshots),
        Command::Ls(ls) => ls::ls(world, global, ls),
        Command::Cat(cat) => cat::cat(world, global, cat),
        Command::Diff(diff) => diff::diff(world, global, diff),
        Command::Keys(arguments) => keys::keys(world, global, arguments),
        Command::Lfs(arguments) => lfs::lfs(world, global, arguments),
        Command::Remote(remote) => remote::remote(world, global, remote),
        Command::Recipe(arguments) => recipe::recipe(world, invocation, arguments),
        Command::Report(scope) => report::report(world, global, scope),
        Command::Alerts(arguments) => alerts::alerts(world, global, arguments),
        Command::Audit(arguments) => audit::audit(world, global, arguments),
        Command::Health(arguments) => health::health(world, global, arguments),
        Command::Completions(completions) => completions::completions(completions),
        Command::Man(arguments) => man::man(arguments),
    }
}
