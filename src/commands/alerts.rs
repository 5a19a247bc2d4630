//! `backupbot alerts`: what somebody should look at, and whether messages about it arrive.

use backupbot_actors::alarm::named;
use backupbot_actors::board::Moment;
use backupbot_actors::seat::now_ms;
use backupbot_core::alert::send::{News, deliver};
use backupbot_core::alert::{Change, ChangeKind, Condition, Severity};
use backupbot_core::progress::Progress;
use serde_json::json;

use super::status;
use crate::alerts::{Alert, Severity as Urgency};
use crate::cli::Global;
use crate::cli::alerts::{Alerts, AlertsCommand, AlertsTest};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::{self, World};
use crate::spans;

pub fn alerts(world: &World, global: &Global, arguments: &Alerts) -> Result<Exit, Failure> {
    match &arguments.command {
        None => list(world, global),
        Some(AlertsCommand::Test(test)) => try_out(world, global, test),
    }
}

fn list(world: &World, global: &Global) -> Result<Exit, Failure> {
    let answer = status::ask(world, global)?;
    if global.json {
        output::json(&json!({"alerts": answer.alerts}))?;
        return Ok(Exit::Done);
    }
    if answer.alerts.is_empty() {
        output::answer("no alerts")?;
    }
    let now = Moment::now();
    for alert in &answer.alerts {
        output::answer(&line(alert, now))?;
    }
    Ok(Exit::Done)
}

fn line(alert: &Alert, now: Moment) -> String {
    let urgency = match alert.severity {
        Urgency::Critical => "CRITICAL",
        Urgency::Warning => "warning",
    };
    let since = alert
        .since
        .map_or_else(String::new, |since| format!(", for {}", spans::in_words(now.seconds_since(since))));
    format!("{urgency}  {}{since}\n    {}", alert.name, alert.message)
}

fn try_out(world: &World, global: &Global, test: &AlertsTest) -> Result<Exit, Failure> {
    let Some(settings) = settings::for_asking(world, global)?.configuration()? else {
        return Err(Failure::usage("no configuration found: name one with --config FILE"));
    };
    let mut receivers = named(&settings.config.alerts.notify);
    let known: Vec<String> = receivers.iter().map(|(name, _)| name.clone()).collect();
    if let Some(wanted) = &test.receiver {
        receivers.retain(|(name, _)| name == wanted);
    }
    if receivers.is_empty() {
        let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Failure::failed(format!(
            "there is nobody to tell (alerts.notify in the configuration); there is: {there}"
        )));
    }
    let change = Change {
        event: ChangeKind::Test,
        condition: Condition {
            name: "test".to_owned(),
            subject: String::new(),
            severity: Severity::Warning,
            message: "This is a test of BackupBot's messages: nothing is wrong.".to_owned(),
            since_ms: None,
        },
        at_ms: now_ms(),
    };
    let mut exit = Exit::Done;
    let mut told = Vec::new();
    for (name, receiver) in receivers {
        let changes = std::slice::from_ref(&change);
        let news = News { instance: &settings.config.instance, changes, active: &[], now_ms: now_ms() };
        let error = deliver(&receiver, news, &Progress::new()).1.err().map(|error| error.to_string());
        if error.is_some() {
            exit = Exit::Failed;
        }
        if !global.json {
            match &error {
                None => output::answer(&format!("{name}: sent"))?,
                Some(error) => output::complain(&format!("{name}: {error}")),
            }
        }
        told.push(json!({"receiver": name, "sent": error.is_none(), "error": error}));
    }
    if global.json {
        output::json(&json!({"receivers": told}))?;
    }
    Ok(exit)
}
