//! Clients that misbehave, over real sockets: whatever they do, probes answer, and nobody is held up for long.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::api::Api;
use crate::support::daemon::{Daemon, Setup};
use crate::support::tree::write;
use crate::support::{Random, SOON, eventually};

/// Longer than any client is waited for, on a loaded machine.
const CUT_WITHIN: Duration = Duration::from_secs(90);

fn assert_probes_answer(api: &Api) {
    for probe in ["/livez", "/readyz"] {
        let asked = Instant::now();
        assert_eq!(api.raw("GET", probe, &[("Host", "x")], b"").status, 200, "{probe}");
        assert!(asked.elapsed() < Duration::from_secs(10), "{probe} took {:?}", asked.elapsed());
    }
}

/// Reads to the end, however that comes.
fn drained(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(CUT_WITHIN)).unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn slow_heads_and_bodies_are_given_up_and_probes_answer_meanwhile() {
    let setup = Setup::new();
    write(&setup.root(), "file", "x");
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let connect = || TcpStream::connect(&api.address).unwrap();
    let silent: Vec<TcpStream> = (0..200).map(|_| connect()).collect();
    let mut slow: Vec<TcpStream> = (0..200).map(|_| connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ").unwrap();
    }
    let mut body = connect();
    let head = format!(
        "POST /api/v1/flush HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        api.address,
        api.bearer()
    );
    body.write_all(head.as_bytes()).unwrap();
    assert_probes_answer(&api);
    api.status();
    let begun = Instant::now();
    for stream in slow.into_iter().chain(silent) {
        let answer = drained(stream);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
    }
    let text = String::from_utf8_lossy(&drained(body)).into_owned();
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("problem+json"), "{text}");
    assert!(begun.elapsed() < CUT_WITHIN, "{:?}", begun.elapsed());
    assert_probes_answer(&api);
}

#[test]
fn oversized_heads_are_refused() {
    let setup = Setup::new();
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let large = "x".repeat(1 << 20);
    let mut stream = api.begin("/api/v1/status", "X-Begin: 1\r\n");
    let _ = stream.read(&mut [0; 1]);
    let mut stream = TcpStream::connect(&api.address).unwrap();
    let _ =
        stream.write_all(format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Large: {large}\r\n\r\n").as_bytes());
    let text = String::from_utf8_lossy(&drained(stream)).into_owned();
    assert!(!text.starts_with("HTTP/1.1 200"), "{text}");
    assert_probes_answer(&api);
}

#[test]
fn downloads_that_nobody_reads_take_no_memory_and_are_cut_off() {
    const SIZE: usize = 48 << 20;
    let setup = Setup::new();
    std::fs::write(setup.root().join("large"), Random::new(3).bytes(SIZE)).unwrap();
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let path = "/api/v1/repositories/documents/snapshots/latest/files?path=folder1/large";
    let before = resident(&daemon);
    let stalled: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = api.begin(path, "");
            let mut first = [0; 12];
            stream.read_exact(&mut first).unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
            stream
        })
        .collect();
    let problem = api.get(path);
    problem.problem(429);
    assert!(problem.header("retry-after").is_some());
    assert_probes_answer(&api);
    api.status();
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < 24 << 20, "memory grew by {grown} bytes");
    eventually("their turns come back", CUT_WITHIN, || (api.get(path).body.len() == SIZE).then_some(()));
    for stream in stalled {
        assert!(drained(stream).len() < SIZE, "it was cut off");
    }
    assert!(!daemon.output().contains("panicked"), "{}", daemon.output());
}

/// Reads events until `wanted` stands in what came.
fn hear(stream: &mut TcpStream, heard: &mut String, wanted: &str) {
    let deadline = Instant::now() + SOON;
    let mut piece = [0; 4096];
    while !heard.contains(wanted) {
        assert!(Instant::now() < deadline, "{wanted:?} was not heard:\n{heard}");
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "it ended:\n{heard}");
        heard.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
}

#[test]
fn events_tell_what_happens_and_what_was_missed() {
    let setup = Setup::new();
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let mut stream = api.begin("/api/v1/events", "");
    let mut heard = String::new();
    hear(&mut stream, &mut heard, "retry:");
    assert!(heard.contains("text/event-stream"), "{heard}");
    write(&setup.root(), "file", "1");
    hear(&mut stream, &mut heard, "event: commit");
    hear(&mut stream, &mut heard, "event: push");
    api.post("/api/v1/pause", &json!({}));
    hear(&mut stream, &mut heard, "\"paused\":true");
    let last = heard.rsplit("id: ").next().unwrap().lines().next().unwrap().to_owned();
    drop(stream);
    api.post("/api/v1/resume", &json!({}));
    let mut again = api.begin("/api/v1/events", &format!("Last-Event-ID: {last}\r\n"));
    let mut missed = String::new();
    hear(&mut again, &mut missed, "\"paused\":false");
    assert!(!missed.contains("event: gap"), "{missed}");
    let mut strange = api.begin("/api/v1/events", "Last-Event-ID: ffffffff-7\r\n");
    hear(&mut strange, &mut String::new(), "event: gap");

    // No more than there is room for; those who listen and take nothing do not keep the program from stopping.
    let listeners: Vec<TcpStream> = (0..30).map(|_| api.begin("/api/v1/events", "")).collect();
    eventually("too many are refused", SOON, || {
        (api.begin("/api/v1/events", "Connection: close\r\n").read(&mut [0; 12]).is_ok()
            && api.get("/api/v1/events").status == 429)
            .then_some(())
    });
    assert_probes_answer(&api);
    daemon.stop();
    drop(listeners);
}

#[test]
fn events_tell_of_a_quarantine_and_of_lines_in_the_audit_log_that_a_command_wrote() {
    let mut setup = Setup::new();
    setup.repository()["mass_change"] = json!({"min_files": 4});
    for number in 0..10 {
        write(&setup.root(), format!("file-{number}"), format!("content {number}"));
    }
    let daemon = setup.start();
    let api = daemon.api();
    api.flush();
    let mut stream = api.begin("/api/v1/events", "");
    let mut heard = String::new();
    hear(&mut stream, &mut heard, "retry:");
    assert!(setup.run(&["restore", "--to", setup.path("out").to_str().unwrap()]).status.success());
    let verified = setup.run(&["audit", "verify", "--json"]);
    let verified: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    hear(&mut stream, &mut heard, &format!("\"hash\":{}", verified["last"]["hash"]));
    assert!(!heard.contains("event: guard"), "{heard}");
    for number in 0..10 {
        write(&setup.root(), format!("file-{number}"), format!("encrypted {number}"));
    }
    hear(&mut stream, &mut heard, "event: guard");
    hear(&mut stream, &mut heard, "\"protected_branch\":\"main\"");
    api.post("/api/v1/approve", &json!({}));
    hear(&mut stream, &mut heard, "\"quarantine\":null");
    daemon.stop();
}

#[test]
fn guessing_is_slowed_down_and_the_token_still_opens() {
    let setup = Setup::new();
    let daemon = setup.start();
    let api = daemon.api();
    let guess = api.with_token("wrong");
    let answer = eventually("a guess is one too many", SOON, || {
        let answer = guess.get("/api/v1/status");
        (answer.status == 429).then_some(answer)
    });
    answer.problem(429);
    assert!(answer.header("retry-after").is_some());
    api.status();
}
