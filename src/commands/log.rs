//! `backupbot log`: which records the running daemon writes to its log.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::Global;
use crate::cli::log::Log;
use crate::client::{self, Reach};
use crate::exit::{Exit, Failure};
use crate::offline;
use crate::output;
use crate::settings::World;

pub fn log(world: &World, global: &Global, wish: &Log) -> Result<Exit, Failure> {
    if wish.level.is_none() && (!wish.module.is_empty() || wish.lasting.is_some()) {
        return Err(Failure::usage("--level says which records to write, such as `--level debug`"));
    }
    if wish.level.is_some() && wish.reset {
        return Err(Failure::usage(
            "--reset goes back to what is configured, so --level has no place beside it",
        ));
    }
    let client = match client::reach(world, global)? {
        Reach::Daemon(client) => client,
        Reach::Nobody(asking) => {
            let remedy = "the next start obeys `log.level` of the configuration, or BACKUPBOT_LOG_LEVEL";
            return Err(offline::no_daemon(&asking.state_dir, remedy));
        }
    };
    let now = || client.get("/log", &[])?.ok();
    let levels = match wish.level {
        _ if wish.reset => client.put("/log", &json!({}), Duration::ZERO)?.ok()?,
        None => now()?,
        Some(level) => {
            let mut wanted = json!({"level": level, "modules": {}});
            if !wish.module.is_empty() {
                let now = now()?;
                wanted = json!({"level": now["level"], "modules": now["modules"]});
                for module in &wish.module {
                    wanted["modules"][module] = json!(level);
                }
            }
            if let Some(lasting) = wish.lasting {
                wanted["for"] = json!(format!("{}ms", lasting.as_millis()));
            }
            client.put("/log", &wanted, Duration::ZERO)?.ok()?
        }
    };
    if global.json {
        output::json(&levels)?;
    } else {
        output::answer(&page(&levels, wish.level.is_none() && !wish.reset))?;
    }
    Ok(Exit::Done)
}

fn page(levels: &Value, with_modules: bool) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines =
        vec![format!("level {} (configured: {})", text(&levels["level"]), text(&levels["configured"]))];
    for (module, level) in levels["modules"].as_object().into_iter().flatten() {
        lines.push(format!("  {module}: {}", text(level)));
    }
    if levels["until"].is_string() {
        lines.push(format!("until {}; then what is configured is in force again", text(&levels["until"])));
    }
    let wants_trace = levels["level"] == "trace"
        || levels["modules"]
            .as_object()
            .is_some_and(|modules| modules.values().any(|level| level == "trace"));
    if wants_trace && levels["finest"] != "trace" {
        lines.push(format!("this build has no records finer than {}", text(&levels["finest"])));
    }
    let lost = |kind: &str| levels["lost"][kind].as_u64().unwrap_or(0);
    if lost("too_slow") + lost("failed") > 0 {
        lines.push(format!(
            "records lost since the start: {} because writing was too slow, {} because it failed",
            lost("too_slow"),
            lost("failed")
        ));
    }
    if with_modules {
        lines.push("modules for --module:".to_owned());
        for module in levels["known"].as_array().into_iter().flatten() {
            lines.push(format!("  {:13} {}", text(&module["name"]), text(&module["about"])));
        }
    }
    lines.join("\n")
}
