//! A server that is out to harm: where it sends us, what it has us say there, how much it says.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::*;

/// Every answer to a batch names this place.
fn names(server: &LfsServer, operation: &'static str, action: Value) {
    server.behave(move |request| match request.is_batch() {
        true => {
            let action = action.clone();
            Behaviour::But(Box::new(move |answer| {
                for object in answer["objects"].as_array_mut().unwrap() {
                    object["actions"] = json!({operation: action});
                }
            }))
        }
        false => Behaviour::Good,
    });
}

#[test]
fn places_that_nobody_should_be_sent_to_are_never_connected_to() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let pointer = bench.stored(b"x");
    for href in [
        format!("ftp://127.0.0.1:{port}/"),
        format!("http://user:hunter2@127.0.0.1:{port}/"),
        format!("file:///127.0.0.1:{port}"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://[fd00:ec2::254]/latest/".to_owned(),
        "http://[fe80::1]/".to_owned(),
        "http://224.0.0.1/".to_owned(),
        "http:///".to_owned(),
        format!("http://127.0.0.1:{port}/{}", "a".repeat(20_000)),
        format!("http://127.0.0.1:{port}/\r\nX: y"),
    ] {
        names(&bench.server, "upload", json!({"href": href}));
        let sent = bench.upload(&[pointer]).unwrap();
        assert_eq!(reasons(&sent.refused), [Reason::Rejected], "{href}");
        let text = sent.refused[0].1.error.to_string();
        assert!(!text.contains("hunter2") && text.len() < 1000, "{text}");
    }
    assert!(listener.accept().is_err(), "nobody connected");
}

#[test]
fn a_public_server_may_not_send_us_into_this_machine_by_number_name_or_redirect() {
    let bench = Bench::new();
    let pointer = bench.kept(b"x");
    // As if the remote itself were far away.
    let far_away = |bench: &Bench| {
        let client = bench.client();
        let Client(Way::Server(server)) = &client else { panic!() };
        server.set_reach_for_test(crate::transport::Reach::default());
        client
    };
    for place in ["127.0.0.1", "localhost", "[::1]", "2130706433"] {
        let href = format!("http://{place}:{}/store/{}", bench.server.port(), pointer.id);
        names(&bench.server, "download", json!({"href": href}));
        let got = far_away(&bench).download(&[pointer], &bench.store, &bench.progress).unwrap();
        assert_eq!(reasons(&got.failed), [Reason::Rejected], "{place}: {:?}", got.failed);
        assert!(got.failed[0].1.error.to_string().contains("inside this machine"), "{:?}", got.failed);
    }
    assert_eq!(bench.server.count("GET"), 0);
    assert!(bench.download(&[pointer]).unwrap().received == 1, "near it is allowed");
}

#[test]
fn what_lets_us_in_stays_at_the_configured_origin() {
    let bench = Bench::new().with_password();
    let elsewhere = LfsServer::start();
    let pointer = bench.stored(b"x");
    let href = format!("http://127.0.0.1:{}/store/{}", elsewhere.port(), pointer.id);
    // Another port is another origin.
    names(&bench.server, "upload", json!({"href": href, "header": {"X-Own": "y"}}));
    let _ = bench.upload(&[pointer]).unwrap();
    let put = elsewhere.seen().remove(0);
    assert_eq!((put.header("authorization"), put.header("x-own")), (None, Some("y")));
    assert!(bench.server.seen().iter().all(|request| request.header("authorization").is_some()));

    // At its own origin it is ours, unless the server gives another.
    let other = bench.stored(b"y");
    bench.server.behave(|_| Behaviour::Good);
    bench.upload(&[other]).unwrap();
    let put = bench.server.seen().into_iter().find(|request| request.method == "PUT").unwrap();
    assert!(put.header("authorization").unwrap().starts_with("Basic "));
    let third = bench.stored(b"z");
    let href = format!("http://127.0.0.1:{}/store/{}", bench.server.port(), third.id);
    names(&bench.server, "upload", json!({"href": format!("{href}?X-Amz-Signature=x")}));
    let _ = bench.upload(&[third]).unwrap();
    let put = bench.server.seen().into_iter().rfind(|request| request.method == "PUT").unwrap();
    assert_eq!(put.header("authorization"), None, "the place has a signature of its own");
    names(&bench.server, "upload", json!({"href": href, "header": {"authorization": "RemoteAuth t"}}));
    bench.server.objects().clear();
    let _ = bench.upload(&[third]).unwrap();
    let put = bench.server.seen().into_iter().rfind(|request| request.method == "PUT").unwrap();
    assert_eq!(put.header("authorization"), Some("RemoteAuth t"));
}

#[test]
fn a_redirect_is_followed_three_times_and_takes_nothing_secret_along() {
    let bench = Bench::new().with_password();
    let elsewhere = LfsServer::start();
    let pointer = bench.stored(b"moved");
    let place = |port: u16, path: &str| format!("http://127.0.0.1:{port}/{path}");
    let href = place(bench.server.port(), "first");
    let to = place(elsewhere.port(), &format!("store/{}", pointer.id));
    let name = to;
    bench.server.behave(move |request| {
        let (href, to) = (href.clone(), name.clone());
        match (request.is_batch(), request.path.as_str()) {
            (true, _) => Behaviour::But(Box::new(move |answer| {
                let action = json!({"href": href, "header": {"Authorization": "RemoteAuth t", "X-Own": "y"}});
                for object in answer["objects"].as_array_mut().unwrap() {
                    object.as_object_mut().unwrap().remove("error");
                    object["actions"] = json!({"upload": action, "download": action});
                }
            })),
            (_, "/first") => Behaviour::redirect(307, "/second"),
            _ => Behaviour::redirect(307, &to),
        }
    });
    let _ = bench.upload(&[pointer]).unwrap();
    let put = elsewhere.seen().remove(0);
    assert_eq!((put.header("authorization"), put.header("x-own")), (None, Some("y")));
    assert_eq!(elsewhere.objects().len(), 1);
    bench.store.remove(&pointer.id).unwrap();
    assert_eq!(bench.download(&[pointer]).unwrap().received, 1);

    let round = place(bench.server.port(), "first");
    for to in [round, "file:///etc/passwd".to_owned(), String::new(), "http://a:b@127.0.0.1/".to_owned()] {
        bench.store.remove(&pointer.id).unwrap();
        let href = place(bench.server.port(), "first");
        bench.server.behave(move |request| {
            let href = href.clone();
            match request.is_batch() {
                true => Behaviour::But(Box::new(move |answer| {
                    let object = answer["objects"][0].as_object_mut().unwrap();
                    object.remove("error");
                    object.insert("actions".to_owned(), json!({"download": {"href": href}}));
                })),
                false => Behaviour::redirect(302, &to),
            }
        });
        let got = bench.download(&[pointer]).unwrap();
        assert_eq!(reasons(&got.failed), [Reason::Rejected]);
    }
}

#[test]
fn a_question_is_redirected_within_its_origin_only() {
    let bench = Bench::new().with_password();
    let elsewhere = LfsServer::start();
    let pointer = bench.stored(b"x");
    let mut is_first = true;
    bench.server.behave(move |_| match std::mem::take(&mut is_first) {
        true => Behaviour::redirect(307, "/renamed.git/info/lfs/objects/batch"),
        false => Behaviour::Good,
    });
    assert_eq!(bench.upload(&[pointer]).unwrap().sent, 1);
    let to = elsewhere.url();
    bench.server.behave(move |_| Behaviour::redirect(307, &to));
    assert_eq!(bench.upload(&[pointer]).unwrap_err().kind(), Kind::Redirected);
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let bench = Bench::new();
    let pointer = bench.stored(b"x");
    for length in [5 << 20, 100 << 20] {
        bench.server.behave(move |_| Behaviour::Answer(200, Vec::new(), vec![b' '; length]));
        let error = bench.upload(&[pointer]).unwrap_err();
        assert!(error.to_string().contains("larger than makes sense"), "{error}");
    }
    let kept = bench.kept(b"small");
    bench.server.behave(|request| match request.method.as_str() {
        "GET" => Behaviour::Answer(200, Vec::new(), vec![0; 200 << 20]),
        _ => Behaviour::Good,
    });
    assert_eq!(reasons(&bench.download(&[kept]).unwrap().failed), [Reason::Damaged]);
}

#[test]
fn signatures_in_addresses_and_headers_are_never_repeated() {
    let bench = Bench::new();
    let pointers = [bench.stored(b"x"), bench.kept(b"y")];
    let echo = "<Error><Code>SignatureDoesNotMatch</Code><Message>very-secret-2d711642 RemoteAuth tok-en-1234567</Message></Error>";
    bench.server.behave(move |request| match request.is_batch() {
        true => Behaviour::But(Box::new(|answer| {
            let actions = answer["objects"][0]["actions"].as_object_mut().unwrap();
            for (_, action) in actions {
                action["header"] = json!({"Authorization": "RemoteAuth tok-en-1234567"});
            }
        })),
        false => Behaviour::status(400, echo),
    });
    let sent = bench.upload(&pointers[..1]).unwrap();
    let got = bench.download(&pointers[1..]).unwrap();
    let texts = [sent.refused[0].1.error.to_string(), got.failed[0].1.error.to_string()];
    for text in &texts {
        assert!(text.contains("SignatureDoesNotMatch") && !text.contains("tok-en-1234567"), "{text}");
    }
    assert!(!texts[0].contains("very-secret"), "{}", texts[0]);
    // Nothing listens there, so that the client's own words come.
    let href = "http://127.0.0.1:9/store/x?X-Amz-Signature=very-secret-1";
    names(&bench.server, "upload", json!({"href": href}));
    let text = bench.upload(&pointers[..1]).unwrap().refused[0].1.error.to_string();
    assert!(!text.contains("very-secret"), "{text}");
}
