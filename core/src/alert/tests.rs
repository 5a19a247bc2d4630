use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use super::ledger::{Active, Delays, Ledger};
use super::outbox::Outbox;
use super::send::{News, deliver};
use super::*;
use crate::config::{Notification, Receiver, ReceiverUrl, SecretSource, Smtp};
use crate::progress::Progress;

const MINUTE: i64 = 60_000;

fn condition(name: &str, severity: Severity) -> Condition {
    Condition {
        name: name.to_owned(),
        subject: "documents/usb".to_owned(),
        severity,
        message: "nothing arrives; plug it in".to_owned(),
        since_ms: Some(1_000),
    }
}

fn critical() -> Condition {
    condition("remote_stale", Severity::Critical)
}

fn warning() -> Condition {
    condition("backlog", Severity::Warning)
}

fn changes(ledger: &mut Ledger, at_ms: i64, conditions: &[Condition]) -> Vec<ChangeKind> {
    let changes = ledger.update(conditions.to_vec(), at_ms, Delays::default());
    changes.into_iter().map(|change| change.event).collect()
}

#[test]
fn an_alert_fires_once_and_clears_once() {
    let mut ledger = Ledger::default();
    assert_eq!(changes(&mut ledger, 0, &[critical()]), [ChangeKind::Fired]);
    for minute in 1..10 {
        assert!(changes(&mut ledger, minute * MINUTE, &[critical()]).is_empty());
    }
    assert!(changes(&mut ledger, 10 * MINUTE, &[]).is_empty(), "gone for a moment only, perhaps");
    assert_eq!(ledger.active().len(), 1);
    assert_eq!(changes(&mut ledger, 12 * MINUTE, &[]), [ChangeKind::Cleared]);
    assert!(ledger.active().is_empty());
    assert!(changes(&mut ledger, 13 * MINUTE, &[]).is_empty());
}

#[test]
fn what_flickers_is_told_once_and_a_warning_has_to_last() {
    let mut ledger = Ledger::default();
    assert!(changes(&mut ledger, 0, &[warning()]).is_empty());
    assert!(changes(&mut ledger, MINUTE / 2, &[]).is_empty());
    assert!(changes(&mut ledger, MINUTE, &[warning()]).is_empty(), "it began anew");
    assert_eq!(changes(&mut ledger, 2 * MINUTE, &[warning()]), [ChangeKind::Fired]);
    for second in 0..50 {
        let holds: &[Condition] = if second % 2 == 0 { &[] } else { &[warning()] };
        assert!(changes(&mut ledger, 2 * MINUTE + second * MINUTE, holds).is_empty());
    }
}

#[test]
fn a_warning_that_becomes_critical_is_told_again_and_two_subjects_are_two_alerts() {
    let mut ledger = Ledger::default();
    changes(&mut ledger, 0, &[warning()]);
    changes(&mut ledger, MINUTE, &[warning()]);
    let worse = Condition { severity: Severity::Critical, ..warning() };
    assert_eq!(changes(&mut ledger, 2 * MINUTE, std::slice::from_ref(&worse)), [ChangeKind::Fired]);
    assert!(changes(&mut ledger, 3 * MINUTE, std::slice::from_ref(&worse)).is_empty());
    assert!(changes(&mut ledger, 4 * MINUTE, &[warning()]).is_empty(), "better is no news");
    let other = Condition { subject: "photos/nas".to_owned(), ..critical() };
    assert_eq!(changes(&mut ledger, 5 * MINUTE, &[critical(), other, warning()]), [ChangeKind::Fired; 2]);
}

#[test]
fn an_alert_survives_a_restart_and_a_clock_that_is_set_back() {
    let mut ledger = Ledger::default();
    changes(&mut ledger, 100 * MINUTE, &[critical()]);
    changes(&mut ledger, 101 * MINUTE, &[]);
    let text = serde_json::to_string(&ledger).unwrap();
    let mut ledger: Ledger = serde_json::from_str(&text).unwrap();
    assert!(changes(&mut ledger, 0, &[]).is_empty(), "the delay begins again under the new clock");
    assert_eq!(changes(&mut ledger, 2 * MINUTE, &[]), [ChangeKind::Cleared]);
}

fn fired() -> Change {
    Change { event: ChangeKind::Fired, condition: critical(), at_ms: 5_000 }
}

#[test]
fn what_was_not_delivered_is_tried_again_ever_more_rarely_and_is_bounded() {
    let mut outbox = Outbox::default();
    outbox.put(fired());
    assert_eq!(outbox.due(0).len(), 1);
    outbox.failed("no route", 0);
    assert!(outbox.due(4_999).is_empty());
    assert_eq!(outbox.due(5_000).len(), 1);
    for _ in 0..40 {
        outbox.failed("no route", 0);
    }
    assert!(outbox.due(899_999).is_empty());
    assert_eq!(outbox.due(900_000).len(), 1);
    assert_eq!(outbox.due(-1_000_000_000).len(), 1, "the clock was set back");
    (0..300).for_each(|_| outbox.put(fired()));
    assert_eq!(outbox.trouble().unwrap(), "no route; waiting messages: 200, 101 were dropped");
    outbox.arrived(&vec![fired(); 200]);
    assert_eq!((outbox.trouble(), outbox.due(0).len()), (None, 0));
}

#[test]
fn what_arrived_twice_takes_nothing_else_along() {
    let mut outbox = Outbox::default();
    let cleared = Change { event: ChangeKind::Cleared, ..fired() };
    outbox.put(fired());
    outbox.put(cleared.clone());
    // Two told the receiver of it at the same time, as around a reload.
    outbox.arrived(&[fired()]);
    outbox.arrived(&[fired()]);
    assert_eq!(outbox.due(0), [cleared]);
}

/// Answers each request with the next status, and tells what came.
fn server(answers: &[u16]) -> (String, std::thread::JoinHandle<Vec<(String, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers = answers.to_vec();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for status in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            seen.push((head, String::from_utf8(body).unwrap()));
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: 5\r\nConnection: close\r\nLocation: /\r\n\r\nwords"
            );
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
        seen
    });
    (url, thread)
}

fn receiver(url: &str) -> Receiver {
    Receiver { url: ReceiverUrl::Plain(url.to_owned()), token: None }
}

fn news<'n>(changes: &'n [Change], active: &'n [Active]) -> News<'n> {
    News { instance: "läptop", changes, active, now_ms: 60_000 }
}

#[test]
fn a_webhook_gets_each_change_as_json_and_what_arrived_is_not_sent_again() {
    let (url, thread) = server(&[200, 204, 503]);
    let kept = tempfile::tempdir().unwrap();
    let (address, token) = (kept.path().join("address"), kept.path().join("token"));
    std::fs::write(&address, format!("{url}/hook/s3cret\n")).unwrap();
    std::fs::write(&token, "t0ken-of-the-receiver\n").unwrap();
    let to = Notification::Webhook(Receiver {
        url: ReceiverUrl::Kept(SecretSource::File(address)),
        token: Some(SecretSource::File(token)),
    });
    let cleared = Change { event: ChangeKind::Cleared, ..fired() };
    let (arrived, told) = deliver(&to, news(&[fired(), cleared, fired()], &[]), &Progress::new());
    assert_eq!(arrived, 2);
    let error = told.unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("words"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    let seen = thread.join().unwrap();
    assert!(seen[0].0.starts_with("POST /hook/s3cret HTTP/1.1"), "{}", seen[0].0);
    assert!(seen[0].0.to_lowercase().contains("authorization: bearer t0ken-of-the-receiver"));
    let body: serde_json::Value = serde_json::from_str(&seen[0].1).unwrap();
    assert_eq!(body["event"], "fired");
    assert_eq!(body["alert"]["severity"], "critical");
    assert_eq!(body["alert"]["since"], "1970-01-01T00:00:01Z");
    assert!(seen[1].1.contains("\"cleared\""), "{}", seen[1].1);
}

#[test]
fn alertmanager_hears_of_all_that_is_active_and_of_what_ended() {
    let (url, thread) = server(&[200]);
    let active = [Active { condition: critical(), fired_ms: 2_000 }];
    let over = Change { event: ChangeKind::Cleared, condition: warning(), at_ms: 50_000 };
    let to = Notification::Alertmanager(receiver(&format!("{url}/")));
    let (arrived, told) = deliver(&to, news(&[fired(), over], &active), &Progress::new());
    told.unwrap();
    assert_eq!(arrived, 2);
    let seen = thread.join().unwrap();
    assert!(seen[0].0.starts_with("POST /api/v2/alerts "), "{}", seen[0].0);
    let body: serde_json::Value = serde_json::from_str(&seen[0].1).unwrap();
    assert_eq!(body[0]["labels"]["alertname"], "BackupBot_remote_stale");
    assert_eq!(body[0]["endsAt"], "1970-01-01T00:06:00Z");
    assert_eq!(body[1]["labels"]["alertname"], "BackupBot_backlog");
    assert_eq!(body[1]["endsAt"], "1970-01-01T00:00:50Z");
    assert!(body.get(2).is_none());
}

#[test]
fn ntfy_gets_a_title_that_is_a_header_whatever_the_instance_is_called() {
    let (url, thread) = server(&[200]);
    let to = Notification::Ntfy(receiver(&format!("{url}/topic")));
    deliver(&to, news(&[fired()], &[]), &Progress::new()).1.unwrap();
    let seen = thread.join().unwrap();
    let head = seen[0].0.to_lowercase();
    assert!(head.contains("title: =?utf-8?b?") && head.contains("priority: urgent"), "{head}");
    assert_eq!(seen[0].1, critical().message);
}

#[test]
fn a_ping_says_that_all_is_well_or_that_it_is_not_and_follows_nobody_elsewhere() {
    let (url, thread) = server(&[200, 200, 302]);
    let to = Notification::Healthchecks(receiver(&format!("{url}/uuid")));
    deliver(&to, news(&[], &[]), &Progress::new()).1.unwrap();
    let active = [Active { condition: critical(), fired_ms: 0 }];
    deliver(&to, news(&[], &active), &Progress::new()).1.unwrap();
    assert!(deliver(&to, news(&[], &[]), &Progress::new()).1.is_err(), "redirects are not followed");
    let seen = thread.join().unwrap();
    assert!(seen[0].0.starts_with("POST /uuid "), "{}", seen[0].0);
    assert!(seen[1].0.starts_with("POST /uuid/fail "), "{}", seen[1].0);
}

#[test]
fn nobody_there_is_an_error_without_the_address() {
    let to = Notification::Ntfy(receiver("http://127.0.0.1:1/s3cret-topic"));
    let error = deliver(&to, news(&[fired()], &[]), &Progress::new()).1.unwrap_err().to_string();
    assert!(error.contains("ntfy cannot be reached") && !error.contains("s3cret"), "{error}");
}

#[test]
fn a_mail_says_what_happened_and_what_the_server_refuses_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let mut letters = Vec::new();
        for recipient in ["250 ok", "550 nobody of that name"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            stream.write_all(b"220 here\r\n").unwrap();
            let mut letter = String::new();
            let mut is_data = false;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() == 0 {
                    break;
                }
                if is_data && line != ".\r\n" {
                    letter.push_str(&line);
                    continue;
                }
                let word = line.get(..4).unwrap_or_default().to_uppercase();
                let answer = match (is_data, word.as_str()) {
                    (true, _) => "250 kept",
                    (_, "RCPT") => recipient,
                    (_, "DATA") => "354 go on",
                    (_, "QUIT") => "221 bye",
                    _ => "250 ok",
                };
                is_data = !is_data && word == "DATA";
                stream.write_all(format!("{answer}\r\n").as_bytes()).unwrap();
                if word == "QUIT" {
                    break;
                }
            }
            letters.push(letter);
        }
        letters
    });
    let smtp = Smtp {
        host: "127.0.0.1".to_owned(),
        port,
        from: "BackupBot <bot@example.org>".to_owned(),
        to: vec!["admin@example.org".to_owned()],
        username: None,
        password: None,
    };
    let to = Notification::Smtp(smtp.clone());
    let (arrived, told) = deliver(&to, news(&[fired(), fired()], &[]), &Progress::new());
    told.unwrap();
    assert_eq!(arrived, 2);
    let error = deliver(&to, news(&[fired()], &[]), &Progress::new()).1.unwrap_err().to_string();
    assert!(error.contains("nobody of that name"), "{error}");
    let letters = thread.join().unwrap();
    assert!(
        letters[0].contains("To: admin@example.org") && letters[0].contains("Subject: "),
        "{}",
        letters[0]
    );
    assert!(letters[0].contains("nothing arrives"), "{}", letters[0]);
    let (arrived, told) = deliver(&to, news(&[], &[]), &Progress::new());
    assert!(told.is_ok() && arrived == 0, "without news there is no mail");
    let wrong = Notification::Smtp(Smtp { to: vec!["no address".to_owned()], ..smtp });
    assert!(deliver(&wrong, news(&[fired()], &[]), &Progress::new()).1.is_err());
}
