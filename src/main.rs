//! BackupBot, the program: reads the command line, does what it asks, and ends with the contract's exit code.
//!
//! ```text
//! main ─ cli ─ settings ─┬─ commands/{run,once} ─ boot ─ press, shutdown ─ http ─▶ the tree of actors
//!                        ├─ commands/{status,control,why} ─ client ─▶ the daemon, or offline ─▶ the store
//!                        ├─ commands/{snapshots,ls,cat,diff} ─ looking ─▶ the bare repository
//!                        └─ commands/recipe ─ recipe ─▶ a script for those who have no BackupBot
//! ```

mod adoption;
mod afar;
mod alerts;
mod beside;
mod boot;
mod cli;
mod client;
mod commands;
mod daemon;
mod deeds;
mod exit;
mod files;
mod health;
mod http;
mod large;
mod lock;
mod logging;
mod looking;
mod meter;
mod metrics;
mod notify;
mod offline;
mod output;
mod press;
mod race;
mod recipe;
mod reload;
mod restoring;
mod settings;
mod shutdown;
mod spans;
mod status;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use exit::Exit;

/// Time for the last words.
const COMPLAIN_WITHIN: Duration = Duration::from_secs(3);

/// A reader of stderr who takes nothing must not keep the process from ending, and from being started again.
fn complain_in_time(lines: Vec<String>) {
    let (tell, told) = mpsc::channel();
    let complaining = std::thread::Builder::new().spawn(move || {
        for line in &lines {
            output::complain(&format!("backupbot: {line}"));
        }
        let _ = tell.send(());
    });
    if complaining.is_ok() {
        let _ = told.recv_timeout(COMPLAIN_WITHIN);
    }
}

fn main() -> ExitCode {
    backupbot_core::privacy::keep();
    backupbot_core::memory::be_frugal();
    let world = settings::World::real();
    let invocation = match cli::read(std::env::args_os(), &world.environment) {
        Ok(invocation) => invocation,
        Err(error) => {
            // Help goes to stdout and mistakes to stderr; a reader that went away is no reason to fail.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    match commands::obey(&world, &invocation) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            complain_in_time(failure.lines);
            failure.exit.into()
        }
    }
}
