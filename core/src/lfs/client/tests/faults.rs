//! Trouble: what passes is tried again, what does not is one object's or everybody's, and nothing is lost or taken for
//! done that is not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use super::*;

/// Does `first` with the first so many requests that `which` picks, and is good otherwise.
fn at_first(
    times: usize,
    which: impl Fn(&Request) -> bool + Send + 'static,
    first: impl Fn() -> Behaviour + Send + 'static,
) -> impl FnMut(&Request) -> Behaviour + Send + 'static {
    let left = AtomicUsize::new(times);
    move |request| {
        let is_picked = which(request)
            && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if is_picked { first() } else { Behaviour::Good }
    }
}

fn is_put(request: &Request) -> bool {
    request.method == "PUT"
}

fn is_get(request: &Request) -> bool {
    request.method == "GET"
}

#[test]
fn what_passes_is_tried_again_wherever_it_happens() {
    for which in [is_put as fn(&Request) -> bool, Request::is_batch, |request| request.path == "/verify"] {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            let bench = Bench::new();
            bench.server.verifies();
            bench.server.behave(at_first(2, which, move || Behaviour::status(status, "later")));
            let pointer = bench.stored(b"patience");
            assert_eq!(bench.upload(&[pointer]).unwrap().sent, 1, "{status}");
        }
    }
    for behaviour in [|| Behaviour::CutRequest(0), || Behaviour::CutRequest(1000), || Behaviour::LoseAnswer] {
        let bench = Bench::new();
        bench.server.behave(at_first(2, is_put, behaviour));
        let pointer = bench.stored(&content(1, 2_000_000));
        let sent = bench.upload(&[pointer]).unwrap();
        assert_eq!((sent.sent, sent.refused.len()), (1, 0));
        assert_eq!(bench.server.objects().len(), 1);
    }
}

#[test]
fn one_object_that_never_works_does_not_stop_the_others() {
    for (status, body, reason) in [
        (500, "", Reason::Trouble),
        (403, "", Reason::Rejected),
        (404, "", Reason::Rejected),
        (400, "no", Reason::Rejected),
        (413, "", Reason::TooLarge),
        (413, r#"{"Message":"quota exceeded"}{"objects":[]}"#, Reason::Quota),
        (422, r#"{"message":"Size must be less than 5"}"#, Reason::TooLarge),
        (501, "", Reason::Rejected),
        (507, "", Reason::Quota),
        (509, "", Reason::Quota),
    ] {
        let bench = Bench::new();
        let good: Vec<Pointer> = (0..8).map(|n| bench.stored(&content(n, 100))).collect();
        let bad = bench.stored(&content(99, 200_000));
        let name = bad.id.to_string();
        bench.server.behave(move |request| {
            let is_bad = is_put(request) && request.path.contains(&name);
            if is_bad { Behaviour::status(status, body) } else { Behaviour::Good }
        });
        let mut all = good.clone();
        all.push(bad);
        let sent = bench.upload(&all).unwrap();
        assert_eq!((sent.sent, reasons(&sent.refused)), (8, vec![reason]), "{status} {body}");
        let text = sent.refused[0].1.error.to_string();
        assert!(text.contains(&bad.id.to_string()) && !text.contains("very-secret"), "{text}");
    }
}

#[test]
fn trouble_with_five_objects_in_a_row_is_the_servers() {
    let bench = Bench::new();
    let pointers: Vec<Pointer> = (0..30).map(|n| bench.stored(&content(n, 100))).collect();
    bench.server.behave(|request| if is_put(request) { Behaviour::status(500, "") } else { Behaviour::Good });
    let error = bench.upload(&pointers).unwrap_err();
    assert_eq!(error.kind(), Kind::RemoteUnreachable, "{error}");
    assert!(bench.server.count("PUT") < 40, "{}", bench.server.count("PUT"));
}

#[test]
fn a_refusal_in_the_batch_is_one_objects_or_everybodys() {
    let bench = Bench::new();
    let pointers: Vec<Pointer> = (0..3).map(|n| bench.stored(&content(n, 100 + n as usize))).collect();
    bench.server.behave(|request| match request.is_batch() {
        true => Behaviour::But(Box::new(|answer| {
            let first = answer["objects"][0].as_object_mut().unwrap();
            first.remove("actions");
            first.insert("error".to_owned(), json!({"code": 422, "message": "object too large"}));
        })),
        false => Behaviour::Good,
    });
    let refused = bench.upload(&pointers).unwrap().refused;
    assert!(reasons(&refused).contains(&Reason::TooLarge), "{refused:?}");
    for (status, body, kind) in [
        (401, "", Kind::Credentials),
        (403, "", Kind::Credentials),
        (403, "This repository exceeded its LFS budget.", Kind::Quota),
        (404, r#"{"message":"Not found"}"#, Kind::RemoteRefused),
        (406, r#"{"message":"repository has exceeded its size limit"}"#, Kind::Quota),
        (413, r#"{"Message":"quota exceeded"}{"objects":[]}"#, Kind::Quota),
        (429, "", Kind::Busy),
        (500, "", Kind::RemoteUnreachable),
        (501, "", Kind::RemoteRefused),
        (507, "", Kind::Quota),
        (509, "", Kind::Quota),
        (200, "<html>please log in</html>", Kind::RemoteUnreachable),
        (200, "{}", Kind::RemoteUnreachable),
    ] {
        let bench = Bench::new().with_password();
        let pointer = bench.stored(b"x");
        bench.server.behave(move |_| Behaviour::status(status, body));
        let error = bench.upload(&[pointer]).unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {body}: {error}");
        assert!(!error.to_string().contains("correct-horse"));
    }
}

#[test]
fn a_batch_that_is_too_large_is_halved_until_it_is_not() {
    for status in [413, 422] {
        let bench = Bench::new();
        let pointers: Vec<Pointer> = (0..20).map(|n| bench.stored(&content(n, 100))).collect();
        let bad = pointers[7].id.to_string();
        bench.server.behave(move |request| {
            // The head alone says how many there are: some 90 bytes each.
            let length: usize = request.header("content-length").unwrap_or("0").parse().unwrap();
            match request.is_batch() && length > 600 {
                true => Behaviour::status(status, ""),
                false => Behaviour::Good,
            }
        });
        let sent = bench.upload(&pointers).unwrap();
        assert_eq!((sent.sent, sent.refused.len()), (20, 0), "{bad}");
    }
}

#[test]
fn a_pause_that_the_server_names_is_kept_and_a_long_one_is_the_callers() {
    let bench = Bench::new();
    bench.server.behave(at_first(1, is_put, || Behaviour::retry_after(429, 1)));
    let pointers: Vec<Pointer> = (0..2).map(|n| bench.stored(&content(n, 100))).collect();
    let began = Instant::now();
    assert_eq!(bench.upload(&pointers).unwrap().sent, 2);
    assert!(began.elapsed() >= Duration::from_millis(900));
    for which in [is_put as fn(&Request) -> bool, Request::is_batch] {
        let bench = Bench::new();
        bench.server.behave(at_first(9, which, || Behaviour::retry_after(503, 120)));
        let pointer = bench.stored(b"x");
        let error = bench.upload(&[pointer]).unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (Kind::Busy, Some(Duration::from_secs(120))));
    }
}

#[test]
fn what_ended_on_the_way_is_asked_for_again_once() {
    for status in [401, 403, 404, 409] {
        let bench = Bench::new();
        bench.server.behave(at_first(1, is_put, move || Behaviour::status(status, "expired")));
        let pointer = bench.stored(b"x");
        assert_eq!(bench.upload(&[pointer]).unwrap().sent, 1, "{status}");
        let batches = bench.server.seen().iter().filter(|request| request.is_batch()).count();
        assert_eq!(batches, 3, "the first, the new one, the confirmation");
    }
    let bench = Bench::new();
    bench.server.behave(at_first(1, Request::is_batch, || {
        Behaviour::But(Box::new(|answer| {
            answer["objects"][0]["actions"]["upload"]["expires_in"] = json!(1);
            answer["objects"][0]["actions"]["upload"]["href"] = json!("http://127.0.0.1:9/never-asked");
        }))
    }));
    let pointer = bench.stored(b"x");
    assert_eq!(bench.upload(&[pointer]).unwrap().sent, 1);
}

#[test]
fn what_the_server_takes_and_does_not_keep_is_not_called_sent() {
    let bench = Bench::new();
    let pointers = [bench.stored(b"kept"), bench.stored(b"thrown away")];
    let name = pointers[1].id.to_string();
    bench.server.behave(move |request| {
        let is_lost = is_put(request) && request.path.contains(&name);
        if is_lost { Behaviour::status(200, "") } else { Behaviour::Good }
    });
    let sent = bench.upload(&pointers).unwrap();
    assert_eq!((sent.sent, reasons(&sent.refused)), (1, vec![Reason::Trouble]));
    assert_eq!(sent.refused[0].0, pointers[1]);
    bench.server.verifies();
    let sent = bench.upload(&pointers).unwrap();
    assert_eq!((sent.already, reasons(&sent.refused)), (1, vec![Reason::Rejected]));
}

#[test]
fn what_is_missing_or_damaged_here_is_said_and_never_stored_there() {
    let bench = Bench::new();
    let absent = Pointer { id: crate::lfs::ObjectId([7; 32]), size: 5 };
    let damaged = bench.stored(&content(1, 700_000));
    let path = bench.store.path_of(&damaged.id);
    fs::remove_file(&path).unwrap();
    fs::write(&path, content(2, 700_000)).unwrap();
    let good = bench.stored(b"good");
    let there = bench.kept(b"there and not here");
    let sent = bench.upload(&[absent, damaged, good, there]).unwrap();
    assert_eq!((sent.sent, sent.already), (1, 1));
    let mut found: Vec<_> = sent.refused.iter().map(|(pointer, why)| (*pointer, why.reason)).collect();
    found.sort_by_key(|(pointer, _)| pointer.size);
    assert_eq!(found, [(absent, Reason::Missing), (damaged, Reason::Damaged)]);
    assert_eq!(bench.server.objects().len(), 2);
    let whole =
        bench.server.seen().into_iter().filter(|request| is_put(request) && request.body.len() == 700_000);
    assert_eq!(whole.count(), 0, "its last piece is never sent");
}

#[test]
fn an_early_refusal_counts_more_than_that_it_stopped_listening() {
    let bench = Bench::new();
    bench.server.behave(|request| match is_put(request) {
        true => Behaviour::Early(413, "nginx says no"),
        false => Behaviour::Good,
    });
    let pointer = bench.stored(&content(1, 30_000_000));
    let refused = bench.upload(&[pointer]).unwrap().refused;
    assert_eq!(reasons(&refused), [Reason::TooLarge]);
    assert!(refused[0].1.error.to_string().contains("client_max_body_size"), "{}", refused[0].1.error);
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let bench = Bench::new();
    let pointer = bench.kept(&content(5, 1_000_000));
    bench.server.behave(at_first(2, is_get, || Behaviour::CutAnswer(300_000)));
    assert_eq!(bench.download(&[pointer]).unwrap().received, 1);
    let ranges: Vec<Option<String>> = bench
        .server
        .seen()
        .iter()
        .filter(|request| is_get(request))
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 3);
    assert!(ranges[0].is_none() && ranges[1].as_deref().unwrap().starts_with("bytes="), "{ranges:?}");
    assert_eq!(bench.read(&pointer), content(5, 1_000_000));
}

#[test]
fn a_server_that_gives_a_little_at_a_time_is_not_asked_for_ever_and_a_bad_line_gets_there() {
    let bench = Bench::new();
    let pointer = bench.kept(&content(5, 12_000_000));
    bench.server.behave(|request| match is_get(request) {
        true => Behaviour::CutAnswer(1000),
        false => Behaviour::Good,
    });
    assert_eq!(reasons(&bench.download(&[pointer]).unwrap().failed), [Reason::Trouble]);
    assert_eq!(bench.server.count("GET"), 4);
    bench.server.behave(|request| match is_get(request) {
        true => Behaviour::CutAnswer(2_000_000),
        false => Behaviour::Good,
    });
    assert_eq!(bench.download(&[pointer]).unwrap().received, 1, "six parts, with four tries each");
}

#[test]
fn a_part_that_is_not_the_rest_is_never_put_together() {
    let bytes = content(5, 1_000_000);
    let half = bytes[500_000..].to_vec();
    let range = |text: &str| vec![("Content-Range", text.to_owned())];
    for second in [
        Behaviour::Answer(206, range("bytes 500000-999999/1000000"), half.clone()),
        Behaviour::Answer(206, range("bytes 300000-999999/999999"), half.clone()),
        Behaviour::Answer(206, range("nonsense"), half.clone()),
        Behaviour::Answer(206, Vec::new(), half),
        Behaviour::Answer(200, Vec::new(), bytes.clone()),
        Behaviour::Answer(416, Vec::new(), Vec::new()),
        Behaviour::Answer(404, Vec::new(), Vec::new()),
    ] {
        let bench = Bench::new();
        let pointer = bench.kept(&bytes);
        let mut second = Some(second);
        let mut asked = 0;
        bench.server.behave(move |request| {
            asked += usize::from(is_get(request));
            match asked {
                1 if is_get(request) => Behaviour::CutAnswer(300_000),
                2 if is_get(request) => second.take().unwrap_or(Behaviour::Good),
                _ => Behaviour::Good,
            }
        });
        assert_eq!(bench.download(&[pointer]).unwrap().received, 1);
        assert_eq!(bench.read(&pointer), bytes);
    }
}

#[test]
fn what_is_missing_damaged_short_or_long_there_is_named_and_not_taken() {
    let bench = Bench::new();
    let good = bench.kept(b"good");
    let missing = Pointer { id: crate::lfs::ObjectId([7; 32]), size: 5 };
    let damaged = bench.kept(&content(1, 10_000));
    let (short, long) = (bench.kept(&content(2, 20_000)), bench.kept(&content(3, 30_000)));
    for (pointer, bytes) in
        [(damaged, content(9, 10_000)), (short, content(2, 10_000)), (long, content(3, 40_000))]
    {
        bench.server.objects().insert(pointer.id.to_string(), bytes);
    }
    let got = bench.download(&[good, missing, damaged, short, long]).unwrap();
    assert_eq!(got.received, 1);
    let mut failed: Vec<_> = got.failed.iter().map(|(pointer, why)| (pointer.size, why.reason)).collect();
    failed.sort_by_key(|(size, _)| *size);
    let damaged = |size| (size, Reason::Damaged);
    assert_eq!(failed, [(5, Reason::Missing), damaged(10_000), damaged(20_000), damaged(30_000)]);
    assert_eq!(bench.store.list().unwrap(), [good]);
    assert_eq!(fs::read_dir(bench.repository().join("lfs/tmp")).unwrap().count(), 0);
}

#[test]
fn a_server_that_calls_a_batch_of_nothing_a_missing_repository_is_understood() {
    let bench = Bench::new();
    let pointer = bench.stored(b"missing there");
    let mut is_first = true;
    bench.server.behave(move |request| {
        let is_question = request.is_batch() && std::mem::take(&mut is_first);
        match is_question {
            true => Behaviour::status(404, r#"{"message":"Cannot find any of the requested objects"}"#),
            false => Behaviour::Good,
        }
    });
    let presence = bench.client().missing(&[pointer], &bench.progress).unwrap();
    assert_eq!(presence.missing, [pointer]);
    bench.server.behave(|_| Behaviour::status(404, r#"{"message":"Not found"}"#));
    let error = bench.client().missing(&[pointer], &bench.progress).unwrap_err();
    assert!(error.to_string().contains("is LFS switched on"), "{error}");
}

#[test]
fn silence_is_given_up_and_a_cancellation_ends_it_at_once() {
    let mut bench = Bench::new();
    bench.remote.timeouts.stall = Duration::from_millis(300);
    bench.remote.timeouts.answer = Duration::from_millis(300);
    let pointer = bench.kept(&content(1, 500_000));
    for behaviour in [|| Behaviour::Hang, || Behaviour::HangAnswer(1000)] {
        bench.server.behave(at_first(1, is_get, behaviour));
        assert_eq!(bench.download(&[pointer]).unwrap().received, 1);
        bench.store.remove(&pointer.id).unwrap();
    }
    bench.remote.timeouts.stall = Duration::from_secs(60);
    bench.remote.timeouts.answer = Duration::from_secs(60);
    for which in [is_get as fn(&Request) -> bool, Request::is_batch] {
        bench.server.behave(at_first(9, which, || Behaviour::Hang));
        let progress = Progress::new();
        let (client, cancelled) = (bench.client(), progress.clone());
        let began = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                cancelled.cancel();
            });
            let error = client.download(&[pointer], &bench.store, &progress).unwrap_err();
            assert_eq!(error.kind(), Kind::Cancelled);
        });
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn credentials_that_were_changed_are_read_again_once() {
    let bench = Bench::new().with_password();
    let file = bench.scratch.path().join("password");
    bench.server.behave(move |request| {
        // "bot:new-one" in base64.
        match request.header("authorization") {
            _ if !request.is_batch() => Behaviour::Good,
            Some("Basic Ym90Om5ldy1vbmU=") => Behaviour::Good,
            _ => {
                fs::write(&file, "new-one").unwrap();
                Behaviour::status(401, "")
            }
        }
    });
    let pointer = bench.stored(b"x");
    assert_eq!(bench.upload(&[pointer]).unwrap().sent, 1);
}
