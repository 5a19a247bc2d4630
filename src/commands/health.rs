//! `backupbot health`: whether the daemon of this state directory lives, asked of its own probes, for images without a shell
//! and for health checks of containers.

use crate::cli::{Global, Health};
use crate::client;
use crate::daemon::{self, Presence};
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::output;
use crate::settings::{self, World};

pub fn health(world: &World, global: &Global, arguments: &Health) -> Result<Exit, Failure> {
    let state_dir = settings::for_asking(world, global)?.state_dir;
    let daemon = match daemon::find(&state_dir)? {
        Presence::Daemon(daemon) => daemon,
        Presence::Other(_) => return Err(Failure::failed("it is starting or stopping: it does not listen")),
        Presence::Nobody => return Err(Failure::failed(format!("no daemon works in {}", shown(&state_dir)))),
    };
    let mut probes = vec!["/livez"];
    probes.extend(arguments.ready.then_some("/readyz"));
    for probe in probes {
        client::probe(&daemon, probe)?;
    }
    let answer = if arguments.ready { "it lives and is ready" } else { "it lives" };
    if global.json {
        output::json(&serde_json::json!({"healthy": true}))?;
    } else {
        output::answer(answer)?;
    }
    Ok(Exit::Done)
}
