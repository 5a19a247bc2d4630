//! `GET /api/v1/events`: what happens, as server-sent events.
//!
//! ```text
//! board, guard's records, audit log ─ differences ─▶ Hub ─▶ ring of the latest ─▶ whoever comes back with Last-Event-ID
//!                                                     └──▶ a bounded queue a client ─▶ its connection
//! ```
//!
//! | event | data |
//! |---|---|
//! | `commit` | `repository`, `commit` |
//! | `push` | `repository`, `remote`, `commit`: it was read back there |
//! | `repository`, `root`, `remote`, `child` | its name and its new state |
//! | `guard` | `repository`, and as in the status `quarantine` or `mass_change`, or neither when it is over |
//! | `audit` | `seq` and `hash` of the last line of the audit log, whoever wrote it |
//! | `alert` | `raised`: an alert, or `cleared`: one |
//! | `gap` | what was missed cannot be told: look at the status |
//! | `closing` | why the stream ends; come back with the last id |
//!
//! The number of an event counts from the start of the process, whose own number stands before it. A client that takes
//! nothing is dropped; it slows nobody down.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use backupbot_actors::board::{Board, GuardStatus, Moment};
use backupbot_actors::control::Control;
use backupbot_core::audit::Head;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Door;
use super::admin::Answer;
use super::limits::{Turn, Wire};
use crate::alerts::Alert;

/// Events that are kept for those who come back, and that a client may be behind.
const RING: usize = 256;
/// Texts on their way to one client.
const ON_THE_WAY: usize = 8;
/// Something is sent at least so often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A client that takes nothing for so long is dropped.
const PATIENCE: Duration = Duration::from_secs(20);
/// The board changes in bursts, which are told at once.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What is not on the board is looked at so often if that is still.
const LOOK_AT_RECORDS: Duration = Duration::from_secs(5);

struct Event {
    number: u64,
    text: Bytes,
}

/// Where events come together; clones are the same.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    start: String,
    ring: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
}

impl Default for Hub {
    fn default() -> Self {
        // Another process never continues our numbers; without random numbers the pid tells it apart.
        let start = getrandom::u32().unwrap_or_else(|_| std::process::id());
        let (sender, _) = broadcast::channel(RING);
        Self(Arc::new(Shared { start: format!("{start:08x}"), ring: Mutex::default(), sender }))
    }
}

impl Hub {
    /// Tells everybody.
    pub fn tell(&self, kind: &str, data: &Value) {
        let mut ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let number = ring.back().map_or(0, |event| event.number) + 1;
        let text = format!("id: {}-{number}\nevent: {kind}\ndata: {data}\n\n", self.0.start);
        let event = Arc::new(Event { number, text: Bytes::from(text) });
        if ring.len() == RING {
            ring.pop_front();
        }
        ring.push_back(event.clone());
        // Nobody listens, as a rule.
        let _ = self.0.sender.send(event);
    }

    /// Whether anybody listens.
    pub fn has_listeners(&self) -> bool {
        self.0.sender.receiver_count() > 0
    }

    /// What comes from now on, and what is to be said first to whoever heard `last` last.
    fn join(&self, last: Option<&str>) -> (broadcast::Receiver<Arc<Event>>, Vec<Bytes>) {
        let ring = self.0.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.0.sender.subscribe();
        let mut first = vec![Bytes::from_static(b"retry: 3000\n: the status says how everything stands\n\n")];
        if let Some(last) = last {
            let known = last.split_once('-').filter(|(start, _)| *start == self.0.start);
            let heard: Option<u64> = known.and_then(|(_, number)| number.parse().ok());
            let oldest = ring.front().map_or(1, |event| event.number);
            let newest = ring.back().map_or(0, |event| event.number);
            match heard.filter(|heard| heard.saturating_add(1) >= oldest && *heard <= newest) {
                Some(heard) => {
                    first.extend(
                        ring.iter().filter(|event| event.number > heard).map(|event| event.text.clone()),
                    );
                }
                None => {
                    first.push(Bytes::from_static(b"event: gap\ndata: {\"reason\":\"too long ago\"}\n\n"))
                }
            }
        }
        (receiver, first)
    }
}

/// Tells what changes, for as long as it is polled. The rest changes with the board as a rule; what commands write into the
/// audit log does not.
pub async fn follow(control: Control, hub: Hub) {
    let board = control.board().clone();
    let mut changes = board.subscribe();
    let mut before = Seen::default();
    let mut is_first = true;
    loop {
        let mut now = Seen::of(&board);
        let asked = control.clone();
        let recorded = web::block(move || Recorded::look(&asked)).await.unwrap_or_default();
        now.take(recorded, &before);
        if !std::mem::take(&mut is_first) {
            now.tell_since(&before, &hub);
        }
        before = now;
        let waiting = actix_rt::time::timeout(LOOK_AT_RECORDS, changes.changed());
        if waiting.await.is_ok() {
            actix_rt::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// What is not on the board: it blocks to read it.
#[derive(Default)]
struct Recorded {
    /// How each repository stands with the guard; one that cannot be read is missing.
    guards: BTreeMap<String, Value>,
    /// The last line of the audit log.
    head: Option<Head>,
}

impl Recorded {
    fn look(control: &Control) -> Self {
        let guards = control.seats().into_iter().filter_map(|seat| {
            let name = &seat.settings.name;
            let record = seat.common.store.reader().guard(name).ok()?;
            // Whether it is paused is told of the repository.
            let standing =
                GuardStatus::of(&record, false, &seat.settings.mass_change, Moment::now()).ok()?;
            let told = json!({"repository": name, "quarantine": standing.quarantine, "mass_change": standing.mass_change});
            Some((name.to_string(), told))
        });
        Self { guards: guards.collect(), head: control.audit().head().ok() }
    }
}

/// Tells which alerts began and ended.
pub fn tell_alerts(before: &mut BTreeMap<String, Alert>, now: Vec<Alert>, hub: &Hub) {
    // Texts tell ages, which is no news.
    let subject = |alert: &Alert| format!("{} {}", alert.name, alert.subject);
    let now: BTreeMap<String, Alert> = now.into_iter().map(|alert| (subject(&alert), alert)).collect();
    for (_, alert) in now.iter().filter(|(key, _)| !before.contains_key(*key)) {
        hub.tell("alert", &json!({"raised": alert}));
    }
    for (_, alert) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
        hub.tell("alert", &json!({"cleared": alert}));
    }
    *before = now;
}

/// What is news when it changes: by kind and name, first what became of it, then its state.
#[derive(Default)]
struct Seen {
    commits: BTreeMap<Vec<String>, Option<String>>,
    states: BTreeMap<(&'static str, Vec<String>), Value>,
    head: Option<Head>,
}

impl Seen {
    fn of(board: &Board) -> Self {
        let mut seen = Self::default();
        for repository in board.repositories() {
            let name = repository.name.to_string();
            seen.commits.insert(vec![name.clone()], repository.commit);
            let state = json!({"repository": &name, "paused": repository.paused, "paused_until": repository.paused_until,
                               "trouble": repository.trouble});
            seen.states.insert(("repository", vec![name.clone()]), state);
            for root in board.roots(&repository.name) {
                let state = json!({"repository": &name, "root": root.name, "state": root.state, "reason": root.reason});
                seen.states.insert(("root", vec![name.clone(), root.name.to_string()]), state);
            }
            for remote in board.remotes(&repository.name) {
                let key = vec![name.clone(), remote.name.to_string()];
                let state = json!({"repository": &name, "remote": remote.name, "state": remote.state, "reason": remote.reason});
                seen.commits.insert(key.clone(), remote.commit);
                seen.states.insert(("remote", key), state);
            }
        }
        for child in board.children() {
            let mut state = json!(child.state);
            state["id"] = json!(child.id);
            state["role"] = json!(child.role);
            state["restarts"] = json!(child.restarts);
            seen.states.insert(("child", vec![child.id.to_string()]), state);
        }
        seen
    }

    /// What could not be read is as it was. That there is nothing to say is news only where there was something.
    fn take(&mut self, recorded: Recorded, before: &Self) {
        self.head = recorded.head.or_else(|| before.head.clone());
        let configured: Vec<String> = self.commits.keys().filter_map(|key| key.first().cloned()).collect();
        for name in configured {
            let key = ("guard", vec![name]);
            let was = before.states.get(&key);
            let known = recorded.guards.get(&key.1[0]).or(was);
            let is_said = |known: &&Value| {
                was.is_some() || known["quarantine"].is_object() || known["mass_change"].is_object()
            };
            if let Some(known) = known.filter(is_said) {
                self.states.insert(key, known.clone());
            }
        }
    }

    fn tell_since(&self, before: &Self, hub: &Hub) {
        for (name, commit) in &self.commits {
            let Some(commit) = commit.as_ref().filter(|_| before.commits.get(name) != Some(commit)) else {
                continue;
            };
            match name.as_slice() {
                [repository] => hub.tell("commit", &json!({"repository": repository, "commit": commit})),
                [repository, remote] => {
                    hub.tell("push", &json!({"repository": repository, "remote": remote, "commit": commit}));
                }
                _ => {}
            }
        }
        for (key, state) in self.states.iter().filter(|(key, state)| before.states.get(*key) != Some(*state))
        {
            hub.tell(key.0, state);
        }
        if let Some(head) = self.head.as_ref().filter(|head| before.head.as_ref() != Some(head)) {
            hub.tell("audit", &json!({"seq": head.seq, "hash": head.hash}));
        }
    }
}

/// What happens, as server-sent events
///
/// Events are `commit`, `push`, `repository`, `root`, `remote`, `child`, `guard`, `audit`, `alert`, `gap` and `closing`; their
/// data is JSON. With `Last-Event-ID` what was missed comes first, if it is still known.
#[utoipa::path(
    get, path = "/events", tag = "state",
    params(("Last-Event-ID" = Option<String>, Header, description = "The last event that was heard")),
    responses((status = 200, description = "A stream without end", body = String, content_type = "text/event-stream"))
)]
pub async fn events(door: Data<Door>, request: HttpRequest) -> Answer {
    door.enter()?;
    let turn = door.turns.listen()?;
    let last = request.headers().get("Last-Event-ID").and_then(|value| value.to_str().ok());
    let (receiver, first) = door.events.join(last);
    let (sender, texts) = channel(ON_THE_WAY);
    let wire = request.conn_data::<Wire>().cloned();
    actix_rt::spawn(serve(receiver, first, sender, wire, turn));
    Ok(HttpResponse::Ok()
        .insert_header(("Content-Type", "text/event-stream"))
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .body(Texts(texts)))
}

async fn serve(
    mut events: broadcast::Receiver<Arc<Event>>,
    first: Vec<Bytes>,
    client: Sender<Bytes>,
    wire: Option<Wire>,
    turn: Turn,
) {
    let _turn = turn;
    let send = async |text: Bytes| match actix_rt::time::timeout(PATIENCE, client.send(text)).await {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            wire.iter().for_each(Wire::cut);
            false
        }
    };
    for text in first {
        if !send(text).await {
            return;
        }
    }
    loop {
        let next = tokio::select! {
            next = actix_rt::time::timeout(HEARTBEAT, events.recv()) => next,
            () = client.closed() => return,
        };
        let text = match next {
            Ok(Ok(event)) => event.text.clone(),
            Err(_) => Bytes::from_static(b": still here\n\n"),
            Ok(Err(RecvError::Lagged(missed))) => {
                let text =
                    format!("event: closing\ndata: {{\"reason\":\"too slow\",\"missed\":{missed}}}\n\n");
                send(Bytes::from(text)).await;
                return;
            }
            Ok(Err(RecvError::Closed)) => return,
        };
        if !send(text).await {
            return;
        }
    }
}

struct Texts(Receiver<Bytes>);

impl MessageBody for Texts {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.0.poll_recv(cx).map(|text| text.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::Severity;

    fn said(texts: &[Bytes]) -> String {
        texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    #[test]
    fn who_comes_back_hears_what_was_missed_or_that_it_is_gone() {
        let hub = Hub::default();
        for number in 1..=3 {
            hub.tell("commit", &json!({"number": number}));
        }
        let id = |number: u64| format!("{}-{number}", hub.0.start);
        let first = |last: Option<&str>| said(&hub.join(last).1);
        assert!(!first(None).contains("event:"));
        let missed = first(Some(&id(1)));
        assert!(
            missed.contains(&format!("id: {}\nevent: commit\ndata: {{\"number\":2}}\n\n", id(2))),
            "{missed}"
        );
        assert!(missed.contains("\"number\":3") && !missed.contains("\"number\":1"));
        assert!(!first(Some(&id(3))).contains("event:"));
        for strange in [id(4), "00-1".to_owned(), "x".to_owned(), String::new(), id(u64::MAX)] {
            assert!(first(Some(&strange)).contains("event: gap"), "{strange}");
        }
        for _ in 0..RING {
            hub.tell("commit", &json!({}));
        }
        assert!(first(Some(&id(1))).contains("event: gap"));
    }

    #[actix_web::test]
    async fn a_slow_client_hears_why_it_is_dropped_and_holds_nobody_up() {
        let hub = Hub::default();
        let (receiver, first) = hub.join(None);
        let (sender, mut texts) = channel(1);
        let turns = super::super::limits::Turns::default();
        for _ in 0..3 * RING {
            hub.tell("commit", &json!({}));
        }
        actix_rt::spawn(serve(receiver, first, sender, None, turns.listen().unwrap()));
        let mut heard = Vec::new();
        while let Some(text) = texts.recv().await {
            heard.push(text);
        }
        assert!(said(&heard).contains("event: closing"), "{}", said(&heard));
    }

    #[test]
    fn an_alert_begins_once_and_ends_once() {
        let hub = Hub::default();
        let alert = |age: &str| {
            let message = format!("documents: remote usb lacks changes that are {age} old");
            Alert::new("remote_stale", Severity::Critical, message)
        };
        let mut before = BTreeMap::new();
        tell_alerts(&mut before, vec![alert("7 h")], &hub);
        tell_alerts(&mut before, vec![alert("8 h")], &hub);
        tell_alerts(&mut before, Vec::new(), &hub);
        let told = said(&hub.join(Some(&format!("{}-0", hub.0.start))).1);
        assert_eq!((told.matches("raised").count(), told.matches("cleared").count()), (1, 1), "{told}");
    }
}
