use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};

use backupbot_core::config::{Receiver as To, ReceiverUrl};

use super::*;
use crate::supervision::spawn;

/// A receiver that answers with a status that can be changed, and hands out the bodies that it accepted.
struct Webhook {
    url: String,
    status: Arc<Mutex<u16>>,
    accepted: Receiver<String>,
}

fn webhook() -> Webhook {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let status = Arc::new(Mutex::new(200));
    let (tell, accepted) = channel();
    let answers = status.clone();
    // It ends with the process: nobody closes the listener.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap(), &answers, &tell);
        }
    });
    Webhook { url, status, accepted }
}

fn serve(stream: std::net::TcpStream, answers: &Mutex<u16>, tell: &Sender<String>) {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let status = *answers.lock().unwrap();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    reader.get_mut().write_all(head.as_bytes()).unwrap();
    if status == 200 {
        let _ = tell.send(String::from_utf8(body).unwrap());
    }
}

struct World {
    wrong: Arc<Mutex<Vec<Condition>>>,
    watchman: Watchman,
}

fn world(file: &Path, receivers: Vec<Notification>) -> World {
    let wrong: Arc<Mutex<Vec<Condition>>> = Arc::default();
    let conditions = wrong.clone();
    let none = Duration::ZERO;
    let watchman = Watchman {
        instance: "laptop".to_owned(),
        receivers,
        file: file.to_owned(),
        conditions: Arc::new(move || conditions.lock().unwrap().clone()),
        known: Known::default(),
        delays: Delays { warning: none, clear: none },
        calm: none,
        pause: Duration::from_millis(20),
    };
    World { wrong, watchman }
}

fn stale() -> Condition {
    Condition {
        name: "remote_stale".to_owned(),
        subject: "documents/usb".to_owned(),
        severity: Severity::Critical,
        message: "plug it in".to_owned(),
        since_ms: None,
    }
}

fn to(webhook: &Webhook) -> Vec<Notification> {
    vec![Notification::Webhook(To { url: ReceiverUrl::Plain(webhook.url.clone()), token: None })]
}

/// Runs an alarm until `done`, or fails.
fn with_alarm(watchman: &Watchman, mut done: impl FnMut() -> bool) {
    let watchman = watchman.clone();
    actix::System::new().block_on(async move {
        let log = Logger::root(slog::Discard, o!());
        let alarm = spawn(ExitHandle::topmost(), |exit| Alarm::new(watchman, &exit, &log));
        let end = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < end, "waited in vain");
            actix_rt::time::sleep(Duration::from_millis(10)).await;
        }
        drop(alarm);
    });
}

fn event(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    format!("{} {}", body["event"].as_str().unwrap(), body["alert"]["name"].as_str().unwrap())
}

#[test]
fn a_receiver_is_told_once_that_it_begins_and_once_that_it_ends_over_restarts() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("alerts.json");
    let webhook = webhook();
    let World { wrong, watchman } = world(&file, to(&webhook));
    wrong.lock().unwrap().push(stale());
    let mut told = Vec::new();
    with_alarm(&watchman, || {
        told.extend(webhook.accepted.try_recv());
        told.len() == 1 && watchman.known.unreached().is_empty()
    });
    assert_eq!(event(&told[0]), "fired remote_stale");
    // Another process finds the file.
    let World { wrong, watchman: again } = world(&file, to(&webhook));
    wrong.lock().unwrap().push(stale());
    let mut looks = 0;
    with_alarm(&again, || {
        looks += 1;
        looks > 10 && again.known.active().len() == 1
    });
    wrong.lock().unwrap().clear();
    with_alarm(&again, || {
        told.extend(webhook.accepted.try_recv());
        told.len() >= 2
    });
    assert_eq!(event(&told[1]), "cleared remote_stale", "and nothing between");
    assert!(again.known.active().is_empty());
}

#[test]
fn a_receiver_that_is_out_of_order_is_named_and_told_later_also_by_another_process() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("alerts.json");
    let webhook = webhook();
    *webhook.status.lock().unwrap() = 503;
    let World { wrong, watchman } = world(&file, to(&webhook));
    wrong.lock().unwrap().push(stale());
    with_alarm(&watchman, || !watchman.known.unreached().is_empty());
    let (name, why) = watchman.known.unreached().remove(0);
    assert_eq!(name, "webhook");
    assert!(why.contains("503") && why.contains("waiting messages: 1"), "{why}");
    *webhook.status.lock().unwrap() = 200;
    let World { watchman: again, .. } = world(&file, to(&webhook));
    let mut told = Vec::new();
    with_alarm(&again, || {
        told.extend(webhook.accepted.try_recv());
        told.len() == 2
    });
    assert_eq!([event(&told[0]), event(&told[1])], ["fired remote_stale", "cleared remote_stale"]);
}

#[test]
fn a_damaged_file_is_nothing_and_what_cannot_be_written_stops_no_message() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("alerts.json");
    std::fs::write(&file, "half of a crash").unwrap();
    // Nothing can be put in its place.
    std::fs::create_dir(scratch.path().join("alerts.json.new")).unwrap();
    let webhook = webhook();
    let World { wrong, watchman } = world(&file, to(&webhook));
    wrong.lock().unwrap().push(stale());
    let mut told = 0;
    with_alarm(&watchman, || {
        told += usize::from(webhook.accepted.try_recv().is_ok());
        told == 1
    });
}

#[test]
fn an_alarm_that_is_replaced_goes_on_from_what_is_known_and_not_from_an_older_file() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("alerts.json");
    let webhook = webhook();
    let World { wrong, watchman } = world(&file, to(&webhook));
    wrong.lock().unwrap().push(stale());
    let mut told = 0;
    with_alarm(&watchman, || {
        told += usize::from(webhook.accepted.try_recv().is_ok());
        told == 1 && watchman.known.active().len() == 1
    });
    // As if it could not be written since.
    std::fs::write(&file, "{}").unwrap();
    let began = Instant::now();
    with_alarm(&watchman, || began.elapsed() > Duration::from_millis(300));
    assert!(webhook.accepted.try_recv().is_err(), "it is told twice");
}

#[test]
fn several_of_a_kind_have_names_of_their_own() {
    let one = Notification::Ntfy(To { url: ReceiverUrl::Plain("http://a/".to_owned()), token: None });
    let names: Vec<String> = named(&[one.clone(), one]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ntfy", "ntfy 2"]);
}
