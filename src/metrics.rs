//! `/metrics`: what happened (counted by the actors as it happens) and what is (read from the board when somebody asks),
//! as text that Prometheus reads.
//!
//! Counters and histograms live in one recorder for as long as the process. Gauges are put into a fresh one at each
//! scrape, so nothing of a remote that is no longer configured is left over there; of the counters, series of what is no
//! longer configured are kept and not shown (`text.rs`), so that one that comes back goes on where it was. A scrape is
//! remembered for a second and made by one task at a time, however many ask.

mod gauges;
mod text;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web::{self, Bytes};
use backupbot_actors::board::Moment;
use backupbot_actors::control::Control;
use backupbot_actors::measure::{self, Shape};
use metrics::Unit;
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio::sync::Mutex as AsyncMutex;

use crate::exit::Failure;

/// The text format's name and version.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Within this the same text is given again.
const FRESH: Duration = Duration::from_secs(1);
/// How long who asks waits for a scrape: Prometheus gives up at ten seconds.
const PATIENCE: Duration = Duration::from_secs(9);
/// What is timed is taken in this often, so that it does not pile up while nobody asks.
const UPKEEP: Duration = Duration::from_secs(20);

/// What is exported.
pub struct Exporter {
    events: PrometheusHandle,
    started: Moment,
    last: Mutex<Option<(Instant, Bytes)>>,
    turn: AsyncMutex<()>,
}

impl Exporter {
    /// The process's own: from now on what happens is counted.
    pub fn install() -> Result<Arc<Self>, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::io("cannot count what happens", error);
        let recorder = recorder().map_err(|error| failed(&error))?;
        let exporter = Self::of(&recorder);
        metrics::set_global_recorder(recorder).map_err(|error| failed(&error))?;
        Ok(exporter)
    }

    fn of(recorder: &PrometheusRecorder) -> Arc<Self> {
        Arc::new(Self {
            events: recorder.handle(),
            started: Moment::now(),
            last: Mutex::new(None),
            turn: AsyncMutex::new(()),
        })
    }

    /// Takes in what was timed, for ever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            self.events.run_upkeep();
            actix_rt::time::sleep(UPKEEP).await;
        }
    }

    /// The text; `None` if it cannot be had in time.
    pub async fn scrape(self: Arc<Self>, control: Control) -> Option<Bytes> {
        if let Some(fresh) = self.fresh() {
            return Some(fresh);
        }
        // A task of its own: one whose asker has gone away is still at it, and nobody begins another meanwhile.
        let made = actix_rt::spawn(async move {
            let _turn = self.turn.lock().await;
            if let Some(fresh) = self.fresh() {
                return Some(fresh);
            }
            let (events, started) = (self.events.clone(), self.started);
            let collected = web::block(move || collect(&events, &control, started)).await;
            let text = Bytes::from(collected.ok()?);
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((Instant::now(), text.clone()));
            Some(text)
        });
        actix_rt::time::timeout(PATIENCE, made).await.ok()?.ok()?
    }

    fn fresh(&self) -> Option<Bytes> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, text)| text.clone())
    }
}

fn collect(events: &PrometheusHandle, control: &Control, started: Moment) -> String {
    // What commands wrote into the audit log counts too. If it cannot be read now it counts later, and an alert says why.
    let _ = control.audit().head();
    let configured = text::Configured::of(control.seats().iter().map(|seat| &seat.settings));
    let mut text = text::tidy(&events.render(), &configured);
    text.push_str(&text::tidy(&gauges::render(control, started), &configured));
    text
}

/// A recorder of what happens.
fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for event in &measure::EVENTS {
        if let Shape::Histogram(buckets) = event.shape {
            builder = builder.set_buckets_for_metric(Matcher::Full(event.name.to_owned()), buckets)?;
        }
    }
    let recorder = builder.build_recorder();
    metrics::with_local_recorder(&recorder, || {
        for event in &measure::EVENTS {
            match event.shape {
                Shape::Counter => metrics::describe_counter!(event.name, Unit::Count, event.help),
                Shape::Histogram(_) => metrics::describe_histogram!(event.name, Unit::Seconds, event.help),
            }
        }
    });
    Ok(recorder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backupbot_core::push::tally::Tally;

    #[test]
    fn what_happened_is_in_the_text_and_what_is_no_longer_configured_is_not() {
        let recorder = recorder().unwrap();
        let tally = |failure| Tally {
            is_retry: failure,
            is_event: true,
            failure: failure.then_some("quota"),
            was_answered: None,
        };
        metrics::with_local_recorder(&recorder, || {
            measure::push_ended("documents", "usb", &tally(false), Duration::from_millis(70));
            measure::push_ended("documents", "usb", &tally(true), Duration::from_secs(7));
            measure::push_ended("documents", "sold", &tally(false), Duration::from_secs(7));
        });
        let configured = text::Configured::named("documents", &["usb"], &["folder1"]);
        let text = text::tidy(&recorder.handle().render(), &configured);
        for line in [
            "# TYPE backupbot_pushes_total counter",
            "backupbot_pushes_total{repository=\"documents\",remote=\"usb\",result=\"success\"} 1",
            "backupbot_pushes_total{repository=\"documents\",remote=\"usb\",result=\"failure\"} 1",
            "backupbot_push_retries_total{repository=\"documents\",remote=\"usb\"} 1",
            "backupbot_push_failures_total{repository=\"documents\",remote=\"usb\",reason=\"quota\"} 1",
            "backupbot_push_duration_seconds_bucket{repository=\"documents\",remote=\"usb\",le=\"0.1\"} 1",
            "backupbot_push_duration_seconds_count{repository=\"documents\",remote=\"usb\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        assert!(!text.contains("sold"), "{text}");
    }
}
