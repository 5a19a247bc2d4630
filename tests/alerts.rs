//! Alerts: receivers are told once when something begins and once when it is over, whatever is restarted meanwhile, and the
//! operator can see and try all of it.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::daemon::Setup;
use crate::support::receiver::Receiver;
use crate::support::running::{Running, free_address};
use crate::support::tree::write;
use crate::support::{SOON, eventually};

/// Being told takes minutes, but for a test build.
#[cfg(feature = "fault-points")]
mod told {
    use std::fs;

    use serde_json::{Value, json};

    use crate::support::daemon::Setup;
    use crate::support::git::git;
    use crate::support::receiver::Receiver;
    use crate::support::tree::write;
    use crate::support::{SOON, eventually};

    /// A test build waits only so long before it tells.
    const SOONER: [(&str, &str); 1] = [("BACKUPBOT_FAULT_ALERTS_AFTER_MS", "50")];

    /// What a webhook was told of one kind of alert, in order.
    fn told(receiver: &Receiver, name: &str) -> Vec<String> {
        let bodies =
            receiver.taken().into_iter().filter_map(|(_, body)| serde_json::from_str::<Value>(&body).ok());
        bodies
            .filter(|body| body["alert"]["name"] == name)
            .map(|body| body["event"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Somebody else writes to the remote's branch.
    fn diverge(setup: &Setup) {
        let clone = setup.path("intruder");
        git(
            &setup.path("."),
            &["clone", "-q", setup.remote().path.to_str().unwrap(), clone.to_str().unwrap()],
        );
        let identity = ["-c", "user.name=x", "-c", "user.email=x@y"];
        git(&clone, &[&identity[..], &["commit", "-q", "--allow-empty", "-m", "not ours"]].concat());
        git(&clone, &["push", "-q"]);
        fs::remove_dir_all(clone).unwrap();
    }

    #[test]
    fn a_webhook_hears_of_a_halted_remote_once_and_of_its_end_once_over_a_kill() {
        let receiver = Receiver::start();
        let mut setup = Setup::new();
        fs::write(setup.path("token"), "the-receivers-token\n").unwrap();
        setup.config["alerts"] = json!({"notify": [
            {"webhook": {"url": receiver.url("hook"), "token_file": setup.path("token")}},
            {"healthchecks": {"url": receiver.url("ping")}},
        ]});
        write(&setup.root(), "a", "one");
        let daemon = setup.launch(&SOONER);
        daemon.serving().flush();
        eventually("a sign of life", SOON, || {
            receiver.taken().iter().any(|(path, _)| path == "/ping").then_some(())
        });
        diverge(&setup);
        write(&setup.root(), "a", "two");
        eventually("it is told", SOON, || (told(&receiver, "remote_halted") == ["fired"]).then_some(()));
        daemon.kill();

        let daemon = setup.launch(&SOONER);
        let api = daemon.serving();
        eventually("a new process says at once that not all is well", SOON, || {
            receiver
                .taken()
                .iter()
                .any(|(path, body)| path == "/ping/fail" && body.contains("halted"))
                .then_some(())
        });
        assert_eq!(told(&receiver, "remote_halted"), ["fired"], "the new process repeats nothing");
        let local = setup.local().path;
        let theirs = setup.remote().tip("main").unwrap();
        git(&setup.remote().path, &["update-ref", "refs/heads/main", &format!("{theirs}~1")]);
        assert_eq!(api.post("/api/v1/resume", &json!({"repository": "documents"})).status, 200);
        api.flush();
        eventually("its end is told", SOON, || {
            (told(&receiver, "remote_halted") == ["fired", "cleared"]).then_some(())
        });
        daemon.stop();
        assert!(local.exists());
        let kept = fs::read_to_string(setup.state().join("alerts.json")).unwrap();
        assert!(!kept.contains("the-receivers-token") && !kept.contains(&receiver.url("")), "{kept}");
    }

    #[test]
    fn a_receiver_that_refuses_is_an_alert_itself_and_hears_everything_later() {
        let receiver = Receiver::start();
        receiver.answer(503);
        let mut setup = Setup::new();
        setup.config["alerts"] =
            json!({"backlog": 1, "notify": [{"webhook": {"url": receiver.url("s3cret")}}]});
        write(&setup.root(), "a", "one");
        let daemon = setup.launch(&SOONER);
        daemon.serving().flush();
        diverge(&setup);
        write(&setup.root(), "a", "two");
        let status = daemon.status_when("it is told that nobody hears it", |status| {
            status["alerts"].as_array().unwrap().iter().any(|alert| alert["name"] == "notify_failed")
        });
        assert!(!status.to_string().contains("s3cret"), "{status}");
        receiver.answer(200);
        eventually("it hears", SOON, || {
            told(&receiver, "remote_halted").first().is_some_and(|event| event == "fired").then_some(())
        });
        daemon.status_when("it is well again", |status| {
            status["alerts"].as_array().unwrap().iter().all(|alert| alert["name"] != "notify_failed")
        });
        daemon.stop();
    }
}

#[test]
fn the_command_lists_alerts_with_and_without_a_daemon() {
    let mut setup = Setup::new();
    setup.repository()["remotes"] = json!([]);
    write(&setup.root(), "a", "one");
    let alerts = |setup: &Setup| {
        let output = setup.run(&["alerts", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["alerts"][0].clone()
    };
    let daemon = setup.start();
    let listed = alerts(&setup);
    assert_eq!((&listed["name"], &listed["subject"]), (&json!("no_remote"), &json!("documents")));
    daemon.stop();
    assert_eq!(alerts(&setup)["name"], "no_remote");
    let text = String::from_utf8(setup.run(&["alerts"]).stdout).unwrap();
    assert!(text.starts_with("warning  no_remote"), "{text}");
}

#[test]
fn a_test_message_says_of_each_receiver_whether_it_arrived() {
    let receiver = Receiver::start();
    let mut setup = Setup::new();
    setup.config["alerts"] = json!({"notify": [
        {"ntfy": {"url": receiver.url("topic")}},
        {"webhook": {"url": "http://127.0.0.1:1/s3cret"}},
    ]});
    setup.write_config();
    let output = setup.run(&["alerts", "test"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ntfy: sent") && said.contains("webhook: the webhook cannot be reached"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
    assert!(receiver.taken()[0].1.contains("nothing is wrong"));
    assert!(setup.run(&["alerts", "test", "--receiver", "ntfy"]).status.success());
    let unknown = setup.run(&["alerts", "test", "--receiver", "pigeon"]);
    let complaint = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.status.code() == Some(1) && complaint.contains("ntfy, webhook"), "{complaint}");
}

#[test]
fn a_real_alertmanager_takes_them() {
    let mut setup = Setup::new();
    let address = free_address();
    fs::write(setup.path("alertmanager.yml"), "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
        .unwrap();
    let log = fs::File::create(setup.path("alertmanager.log")).unwrap();
    let _alertmanager = Running(
        Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", setup.path("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", setup.path("alertmanager").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let alertmanager = Api { address: address.clone(), token: String::new() };
    let listed = || {
        let answer = alertmanager.try_raw("GET", "/api/v2/alerts", &[("Host", &address)], b"").ok()?;
        (answer.status == 200).then(|| answer.json())
    };
    eventually("Alertmanager answers", SOON, listed);
    setup.config["alerts"] = json!({"notify": [{"alertmanager": {"url": format!("http://{address}")}}]});
    setup.write_config();
    let output = setup.run(&["alerts", "test"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let alerts = eventually("it has the alert", SOON, || {
        listed().filter(|alerts| alerts.as_array().is_some_and(|alerts| !alerts.is_empty()))
    });
    assert_eq!(alerts[0]["labels"]["alertname"], "BackupBot_test", "{alerts}");
    assert_eq!(alerts[0]["labels"]["instance"], "testbox");
}

#[test]
fn a_real_mail_server_takes_them() {
    let mut setup = Setup::new();
    let address = free_address();
    let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
    let log = fs::File::create(setup.path("mail.log")).unwrap();
    let _server = Running(
        Command::new("/usr/bin/python3")
            .args([
                "-u",
                "-m",
                "aiosmtpd",
                "-n",
                "-l",
                &address,
                "-c",
                "aiosmtpd.handlers.Debugging",
                "stdout",
            ])
            .stdout(log)
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    eventually("the mail server answers", SOON, || std::net::TcpStream::connect(&address).ok());
    setup.config["alerts"] = json!({"notify": [{"smtp": {
        "host": "127.0.0.1", "port": port, "from": "bot@example.org", "to": ["admin@example.org"],
    }}]});
    setup.write_config();
    let output = setup.run(&["alerts", "test"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let letter = eventually("the letter is there", SOON, || {
        let text = fs::read_to_string(setup.path("mail.log")).unwrap();
        text.contains("Subject: BackupBot testbox: test").then_some(text)
    });
    assert!(letter.contains("To: admin@example.org") && letter.contains("nothing is wrong"), "{letter}");
}
