//! A network and servers that misbehave: every way ends in a sentence that says what happened and in another try,
//! delays nobody else, and what was pushed is pushed once.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{remote, row, served, standing};
use crate::support::daemon::Setup;
use crate::support::fault_proxy::{Behaviour, FaultProxy, Head, Recorder};
use crate::support::scrape::Scrape;
use crate::support::tree::write;
use crate::support::web::{Switches, Web};
use crate::support::{SOON, eventually};

/// The server through a proxy of ours as remote `web`, and the same over HTTPS not at all.
fn proxied() -> Option<(Setup, Web, FaultProxy)> {
    let (mut setup, web) = served(&Switches::default())?;
    let proxy = FaultProxy::start(web.plain_port());
    setup.repository()["remotes"] = json!([remote(&setup, "web", &proxy.url("documents"))]);
    Some((setup, web, proxy))
}

fn is_look(head: &Head) -> bool {
    head.method == "GET"
}

#[test]
fn every_fault_is_told_and_passes_by_itself() {
    let Some((setup, _web, proxy)) = proxied() else { return };
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    let endless = b"0032".repeat(20_000);
    let on_look: Vec<(Behaviour, &str)> = vec![
        (Behaviour::HangBeforeHead, "no answer within 2 s"),
        (Behaviour::HangAfterHead, "stalled"),
        (Behaviour::Drip, "stalled"),
        (Behaviour::Reset, "cannot list the references"),
        (Behaviour::Truncate(0), "answer broke off"),
        (Behaviour::Truncate(20), "answer broke off"),
        (Behaviour::Garbage, "cannot list the references"),
        (Behaviour::Body(b"<html>".to_vec()), "packet format"),
        (Behaviour::Body(endless), "does not answer as Git does"),
        (Behaviour::Body(Vec::new()), "says nothing"),
        (Behaviour::status(500), "500"),
        (Behaviour::status(502), "502"),
        (
            Behaviour::Status(200, vec![("Content-Type", "text/html".to_owned())], "<h1>Log in</h1>"),
            "text/html",
        ),
    ];
    let on_push: Vec<(Behaviour, &str)> = vec![
        (Behaviour::HangBeforeHead, "has not answered for 2 s"),
        (Behaviour::Reset, "cannot send"),
        (Behaviour::Garbage, "cannot send"),
        (Behaviour::Body(b"000eunpack ok\n".to_vec()), "on no known band"),
        (Behaviour::Body(b"0000".to_vec()), "without a report"),
        (Behaviour::Body(b"0013\x03out of memory\n".to_vec()), "gave up: out of memory"),
        (Behaviour::status(504), "504"),
    ];
    let mut number = 0;
    for (on_push, cases) in [(false, on_look), (true, on_push)] {
        for (behaviour, word) in cases {
            number += 1;
            println!("{:.60}", format!("{behaviour:?}"));
            let began = Instant::now();
            let told = behaviour.clone();
            proxy.behave(move |head| {
                let is_hit = if on_push { head.is_push() } else { is_look(head) };
                if is_hit { told.clone() } else { Behaviour::Pass }
            });
            write(&setup.root(), "file", number.to_string());
            let state = if word == "gave up: out of memory" { "halted" } else { "backoff" };
            standing(&daemon, "web", state, word);
            proxy.always(Behaviour::Pass);
            let before = setup.local().tip("main").unwrap();
            let status = daemon.status_when("it passes by itself", |status| {
                row(status, "web")["state"] == "idle" && row(status, "web")["commit"] == before.as_str()
            });
            assert!(row(&status, "web")["reason"].is_null(), "{status:#}");
            println!("{:?}", began.elapsed());
        }
    }
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_remote_that_hangs_delays_no_other() {
    let Some((mut setup, _web, proxy)) = proxied() else { return };
    let usb = setup.path("usb.git");
    let remotes = setup.repository()["remotes"].as_array_mut().unwrap();
    remotes[0]["timeouts"] = json!({"connect": "60s", "stall": "60s", "answer": "60s"});
    remotes.push(json!({"name": "usb", "url": usb.to_str().unwrap()}));
    setup.config["shutdown_grace"] = json!("1s");
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    let judge = crate::support::git::Judge::new(&usb);
    let median = |word: &str| {
        let mut took: Vec<Duration> = (0..5)
            .map(|number| {
                let content = format!("{word} {number}");
                write(&setup.root(), "file", &content);
                let began = Instant::now();
                eventually("the other has it", SOON, || {
                    (judge.blob("main", "folder1/file")? == content.as_bytes()).then_some(())
                });
                began.elapsed()
            })
            .collect();
        took.sort_unstable();
        took[2]
    };
    let alone = median("nobody hangs");
    proxy.always(Behaviour::HangBeforeHead);
    let before = proxy.seen().len();
    write(&setup.root(), "file", "hang");
    eventually("it hangs", SOON, || (proxy.seen().len() > before).then_some(()));
    let beside = median("one hangs");
    assert!(beside < alone + Duration::from_secs(1), "{alone:?} alone, {beside:?} beside one that hangs");
    assert_eq!(proxy.seen().len(), before + 1, "it still hangs");
    daemon.stop_or_fail();
}

#[test]
fn a_server_that_asks_to_be_left_alone_is() {
    let Some((setup, _web, proxy)) = proxied() else { return };
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    for (code, on_push) in [(429, false), (503, true)] {
        let told = Behaviour::Status(code, vec![("Retry-After", "4".to_owned())], "busy");
        let mut hits = 0;
        proxy.behave(move |head| {
            let is_hit = if on_push { head.is_push() } else { is_look(head) };
            if !is_hit || hits > 0 {
                return Behaviour::Pass;
            }
            hits += 1;
            told.clone()
        });
        let before = proxy.seen().len();
        let began = Instant::now();
        write(&setup.root(), "file", format!("after {code}"));
        standing(&daemon, "web", "backoff", &code.to_string());
        let in_vain = proxy.seen().len() - before;
        daemon.status_when("it comes back", |status| row(status, "web")["state"] == "idle");
        assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
        assert!(in_vain <= 3, "{in_vain} requests");
    }
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn refusals_by_status_have_their_reasons() {
    let Some((setup, _web, proxy)) = proxied() else { return };
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    let cases = [
        (401, "credentials"),
        (403, "credentials"),
        (404, "rejected"),
        (413, "too_large"),
        (423, "rejected"),
        (507, "quota"),
    ];
    for (code, reason) in cases {
        for on_push in [false, true] {
            proxy.behave(move |head| {
                let is_hit = if on_push { head.is_push() } else { is_look(head) };
                if is_hit { Behaviour::Status(code, Vec::new(), "no \u{1b}[31mway") } else { Behaviour::Pass }
            });
            write(&setup.root(), "file", format!("{code} {on_push}"));
            let found = standing(&daemon, "web", "halted", &format!("{reason}: "));
            let words = found["reason"].as_str().unwrap();
            assert!(words.contains(&code.to_string()) && words.contains("\\u{1b}[31mway"), "{words}");
            proxy.always(Behaviour::Pass);
            daemon.api().flush();
        }
    }
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_redirect_to_another_origin_is_refused_and_nothing_is_sent_there() {
    let Some((setup, _web, proxy)) = proxied() else { return };
    let other = Recorder::start();
    write(&setup.root(), "file", "0");
    for on_push in [false, true] {
        let to = format!("{}/git/documents.git/info/refs?service=git-receive-pack", other.url());
        proxy.behave(move |head| {
            let is_hit = if on_push { head.is_push() } else { is_look(head) };
            if is_hit { Behaviour::redirect(&to) } else { Behaviour::Pass }
        });
        let daemon = setup.start();
        standing(&daemon, "web", "halted", "redirected: ");
        let scrape = Scrape::of(&daemon);
        let web = "repository=\"documents\",remote=\"web\"";
        assert!(scrape.value("push_failures_total", &format!("{web},reason=\"redirected\"")) >= 1.0);
        assert_eq!(scrape.value("remote_up", web), 0.0);
        daemon.stop_or_fail();
        fs::remove_dir_all(setup.state()).unwrap();
    }
    assert_eq!(other.heard(), (0, Vec::new()));
}

#[test]
fn a_redirect_within_the_origin_is_followed_for_the_question_only() {
    let Some((mut setup, _web, proxy)) = proxied() else { return };
    setup.repository()["remotes"][0]["url"] = json!(format!("{}/old/documents", proxy.address()));
    let base = proxy.address();
    proxy.behave(move |head| match head.path.strip_prefix("/old/documents") {
        Some(rest) if is_look(head) => Behaviour::redirect(&format!("{base}/git/documents.git{rest}")),
        Some(_) => Behaviour::status(500),
        None => Behaviour::Pass,
    });
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    // The same again, for ever.
    let base = proxy.address();
    proxy.behave(move |head| Behaviour::redirect(&format!("{base}{}", head.path)));
    write(&setup.root(), "file", "1");
    let before = proxy.seen().len();
    standing(&daemon, "web", "halted", "redirected: ");
    assert!(proxy.seen().len() - before <= 8, "{}", proxy.seen().len() - before);
    proxy.always(Behaviour::Pass);
    daemon.stop_or_fail();
}

#[test]
fn a_push_whose_answer_is_lost_is_recognised_and_not_made_again() {
    let Some((setup, _web, proxy)) = proxied() else { return };
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    proxy.behave(|head| if head.is_push() { Behaviour::LoseAnswer } else { Behaviour::Pass });
    let before = proxy.pushes();
    write(&setup.root(), "file", "1");
    eventually("it is there", SOON, || (setup.remote().blob("main", "folder1/file")? == b"1").then_some(()));
    let tip = setup.local().tip("main").unwrap();
    daemon.status_when("it is known to be there", |status| {
        let row = row(status, "web");
        row["state"] == "idle" && row["commit"] == tip.as_str()
    });
    assert_eq!(proxy.pushes() - before, 1);
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_push_goes_by_what_the_last_one_saw_and_looks_again_when_that_is_wrong() {
    let Some((setup, web, proxy)) = proxied() else { return };
    write(&setup.root(), "file", "0");
    let daemon = setup.start();
    daemon.api().flush();
    let looks = || proxy.seen().iter().filter(|head| is_look(head)).count();
    for number in 1..=3 {
        let before = proxy.seen().len();
        write(&setup.root(), "file", number.to_string());
        let seen =
            eventually("two requests", SOON, || proxy.seen().get(before..before + 2).map(<[Head]>::to_vec));
        assert!(seen[0].is_push() && is_look(&seen[1]), "it is read back, and not asked before: {seen:?}");
        daemon.api().flush();
    }
    // A flush with nothing to push reads the remote all the same.
    let looked = looks();
    daemon.api().flush();
    assert!(looks() > looked);
    let remote = setup.remote().path;
    for (what, disturb) in [
        ("deleted", &["update-ref", "-d", "refs/heads/main"][..]),
        ("set back", &["update-ref", "refs/heads/main", "main~1"][..]),
    ] {
        write(&setup.root(), "file", what);
        daemon.api().flush();
        crate::support::git::git(&remote, disturb);
        write(&setup.root(), "file", format!("after it was {what}"));
        if what == "deleted" {
            daemon.api().flush();
        } else {
            standing(&daemon, "web", "halted", "rewound");
        }
    }
    daemon.stop_or_fail();
    drop(web);
}
