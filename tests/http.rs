//! Git over HTTP(S) against a real web server: the main job, credentials that rotate or are wrong, certificates,
//! and that nothing but the configuration is obeyed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::fault_proxy::{Behaviour, FaultProxy, Recorder};
use crate::support::git::{Judge, assert_clone_equals, assert_same, git};
use crate::support::scrape::Scrape;
use crate::support::tree::{picture, undo_escapes, write};
use crate::support::web::{PASSWORD, Switches, USER, Web, free_port};
use crate::support::{SOON, eventually};

/// A web server with an empty `documents.git`, and a configuration that pushes there over HTTPS.
pub fn served(switches: &Switches) -> Option<(Setup, Web)> {
    let mut setup = Setup::new();
    let web = Web::start(&setup, switches)?;
    web.repository("documents");
    set_password(&setup, PASSWORD);
    let url = web.https("documents");
    let mut remote = remote(&setup, "web", &url);
    remote["ca_file"] = json!(web.ca_file());
    setup.repository()["remotes"] = json!([remote]);
    Some((setup, web))
}

/// The section of a remote, with short waits.
pub fn remote(setup: &Setup, name: &str, url: &str) -> Value {
    json!({
        "name": name,
        "url": url,
        "credentials": {"username": USER, "password_file": setup.path("password").to_str().unwrap()},
        "timeouts": {"connect": "2s", "stall": "1s", "answer": "2s"},
    })
}

/// What stands in the password file.
pub fn set_password(setup: &Setup, password: &str) {
    let path = setup.path("password");
    fs::write(&path, password).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The status row of a remote.
pub fn row<'s>(status: &'s Value, name: &str) -> &'s Value {
    let remotes = status["repositories"][0]["remotes"].as_array().unwrap();
    remotes.iter().find(|remote| remote["name"] == name).unwrap_or_else(|| panic!("{name} in {status:#}"))
}

/// Waits until a remote is in this state with this in its reason.
pub fn standing(daemon: &Daemon, name: &str, state: &str, reason: &str) -> Value {
    let what = format!("{name} is {state} with \"{reason}\"");
    let status = daemon.status_when(&what, |status| {
        let row = row(status, name);
        row["state"] == state && row["reason"].as_str().unwrap_or_default().contains(reason)
    });
    row(&status, name).clone()
}

/// No file below `directory` has any of these bytes.
fn assert_nowhere(directory: &Path, forms: &[String]) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_nowhere(&path, forms);
            continue;
        }
        let content = fs::read(&path).unwrap_or_default();
        for form in forms {
            let found = content.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "\"{form}\" is in {}", path.display());
        }
    }
}

#[test]
fn a_change_reaches_a_server_over_https_and_a_lost_state_goes_on_from_there() {
    for switches in [Switches::default(), Switches { gzip: true, ..Switches::default() }] {
        let Some((setup, web)) = served(&switches) else { return };
        for number in 0..300 {
            write(&setup.root(), format!("many/{number}"), format!("file {number}"));
        }
        write(&setup.root(), "large", "x".repeat(3_000_000));
        let daemon = setup.start();
        daemon.api().flush();
        write(&setup.root(), "file", "changed");
        daemon.api().flush();
        daemon.stop();
        setup.assert_all_is_well();
        assert_eq!(web.seen().iter().any(|seen| seen.encoding == "gzip"), switches.gzip);
        let clone = setup.path("clone");
        web.clone_by_git("documents", PASSWORD, &clone);
        let stored = undo_escapes(&picture(&clone.join("folder1"), |_| false));
        assert_same(&picture(&setup.root(), |_| false), &stored, "the clone over HTTPS");
        let before = setup.remote().tip("main").unwrap();

        fs::remove_dir_all(setup.state()).unwrap();
        write(&setup.root(), "file", "changed while nobody looked");
        let daemon = setup.start();
        daemon.api().flush();
        daemon.stop();
        setup.assert_all_is_well();
        assert!(setup.remote().is_ancestor(&before, "main"), "the history goes on");
        let status = setup.remote().references();
        assert!(!status.keys().any(|name| name.contains("rescue")), "{status:?}");
    }
}

#[test]
fn a_token_alone_is_a_bearers_and_with_a_name_a_password() {
    use base64::Engine;
    let Some((mut setup, web)) = served(&Switches::default()) else { return };
    let proxy = FaultProxy::start(web.plain_port());
    fs::write(setup.path("token"), "tok-3n").unwrap();
    let pair = base64::engine::general_purpose::STANDARD.encode("me:tok-3n");
    for (user, expected) in [(None, "Bearer tok-3n".to_owned()), (Some("me"), format!("Basic {pair}"))] {
        setup.repository()["remotes"] = json!([remote(&setup, "web", &proxy.url("documents"))]);
        let token = setup.path("token").to_str().unwrap().to_owned();
        let mut credentials = json!({"token_file": token});
        if let Some(user) = user {
            credentials["username"] = json!(user);
        }
        setup.repository()["remotes"][0]["credentials"] = credentials;
        write(&setup.root(), "file", format!("{user:?}"));
        let daemon = setup.start();
        standing(&daemon, "web", "halted", "credentials");
        let last = proxy.seen().pop().unwrap();
        assert_eq!(last.header("authorization"), Some(expected.as_str()));
        daemon.stop_or_fail();
        let _ = fs::remove_dir_all(setup.state());
    }
}

#[test]
fn a_wrong_password_halts_without_hammering_and_the_right_one_needs_no_restart() {
    let Some((setup, web)) = served(&Switches::default()) else { return };
    set_password(&setup, "wrong-one");
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    let found = standing(&daemon, "web", "halted", "credentials");
    assert!(found["reason"].as_str().unwrap().contains("backup"), "who was refused is named: {found}");
    std::thread::sleep(Duration::from_secs(2));
    let refused = web.seen().iter().filter(|seen| seen.status == 401).count();
    // Twice for each look: as it was read, and read again.
    assert!((2..=12).contains(&refused), "{refused} requests");
    write(&setup.root(), "file", "2");
    set_password(&setup, &format!("{PASSWORD}\r\n"));
    daemon.api().flush();
    standing(&daemon, "web", "idle", "");
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_password_that_rotates_is_no_failure() {
    let Some((setup, web)) = served(&Switches::default()) else { return };
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    for number in 0..3 {
        let new = format!("{PASSWORD}{number}");
        set_password(&setup, &new);
        web.set_password(&new);
        write(&setup.root(), "file", format!("with password {number}"));
        daemon.api().flush();
    }
    let said = daemon.output();
    assert!(!said.contains("halted") && !said.contains("push failed"), "{said}");
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_password_that_rotates_in_the_middle_of_a_push_is_read_again() {
    use crate::support::fault_proxy::Behaviour;
    let Some((mut setup, web)) = served(&Switches::default()) else { return };
    let proxy = FaultProxy::start(web.plain_port());
    setup.repository()["remotes"] = json!([remote(&setup, "web", &proxy.url("documents"))]);
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    let (theirs, ours) = (setup.path("web/passwords"), setup.path("password"));
    proxy.behave(move |head| {
        // Between the question and the push.
        if head.is_push() && fs::read_to_string(&ours).unwrap() == PASSWORD {
            fs::write(&theirs, format!("{USER}:{{PLAIN}}rotated")).unwrap();
            fs::write(&ours, "rotated").unwrap();
        }
        Behaviour::Pass
    });
    let before = proxy.pushes();
    write(&setup.root(), "file", "2".repeat(3_000_000));
    daemon.api().flush();
    assert_eq!(proxy.pushes() - before, 2);
    assert!(!daemon.output().contains("push failed"));
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn what_is_wrong_with_a_password_file_is_said_and_its_content_never() {
    let Some((setup, _web)) = served(&Switches::default()) else { return };
    let path = setup.path("password");
    write(&setup.root(), "file", "1");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = setup.start();
    daemon.api().flush();
    let status = daemon.api().status();
    let warnings = row(&status, "web")["warnings"].to_string();
    assert!(warnings.contains("chmod 600") && warnings.contains("password"), "{status:#}");
    eventually("the log warns too", SOON, || daemon.output().contains("chmod 600").then_some(()));
    let cases: [(&str, &dyn Fn()); 3] = [
        ("No such file", &|| fs::remove_file(&path).unwrap()),
        ("a directory", &|| fs::create_dir(&path).unwrap()),
        ("is empty", &|| {
            fs::remove_dir(&path).unwrap();
            set_password(&setup, "\n");
        }),
    ];
    for (number, (word, spoil)) in cases.into_iter().enumerate() {
        spoil();
        write(&setup.root(), "file", format!("spoilt {number}"));
        let _ = daemon.api().post("/api/v1/flush", &json!({"wait": true, "timeout": "10s"}));
        let found = standing(&daemon, "web", "halted", word);
        assert!(found["reason"].as_str().unwrap().contains(path.to_str().unwrap()), "{found}");
    }
    set_password(&setup, PASSWORD);
    daemon.api().flush();
    let said = daemon.output() + &daemon.api().status().to_string();
    use base64::Engine;
    let pair = format!("{USER}:{PASSWORD}");
    let forms = [
        PASSWORD.to_owned(),
        PASSWORD.replace('@', "%40").replace('/', "%2F"),
        base64::engine::general_purpose::STANDARD.encode(pair),
    ];
    daemon.stop();
    assert!(forms.iter().all(|form| !said.contains(form)), "{said}");
    assert_nowhere(&setup.state(), &forms);
    assert_nowhere(&setup.remote().path, &forms);
    setup.assert_all_is_well();
}

#[test]
fn an_unknown_authority_is_named_and_its_file_is_read_again() {
    let Some((mut setup, mut web)) = served(&Switches::default()) else { return };
    let theirs = setup.path("authorities.pem");
    let good = fs::read(web.ca_file()).unwrap();
    let other = web.certify("other");
    fs::copy(other, &theirs).unwrap();
    // The certificate by the other authority is taken when the server starts again.
    setup.repository()["remotes"][0]["ca_file"] = json!(theirs.to_str().unwrap());
    fs::write(&theirs, &good).unwrap();
    web.restart(&Switches::default());
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    let found = standing(&daemon, "web", "backoff", "ca_file");
    assert!(found["reason"].as_str().unwrap().contains("certificate"), "{found}");
    fs::write(&theirs, "no certificate at all").unwrap();
    standing(&daemon, "web", "halted", theirs.to_str().unwrap());
    fs::write(&theirs, fs::read(setup.path("web/other.pem")).unwrap()).unwrap();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn nobodys_settings_and_no_variables_are_obeyed() {
    let Some((mut setup, web)) = served(&Switches::default()) else { return };
    let trap = Recorder::start();
    let proxy = FaultProxy::start(web.plain_port());
    let plain = remote(&setup, "plain", &proxy.url("documents"));
    setup.repository()["remotes"].as_array_mut().unwrap().push(plain);
    let hostile = format!(
        "[http]\n\tproxy = {url}\n\tsslVerify = false\n\textraHeader = X-Trap: 1\n[url \"{url}/\"]\n\tinsteadOf = https://\n\
         \tinsteadOf = http://\n[core]\n\tsshCommand = false\n[credential]\n\thelper = \"!touch {touched}; echo\"\n",
        url = trap.url(),
        touched = setup.path("touched").display(),
    );
    fs::write(setup.path(".gitconfig"), &hostile).unwrap();
    fs::write(setup.path(".netrc"), "machine 127.0.0.1 login trap password trap-password\n").unwrap();
    let (config, url) = (setup.path(".gitconfig"), trap.url());
    let variables = [
        ("http_proxy", url.as_str()),
        ("https_proxy", &url),
        ("HTTP_PROXY", &url),
        ("HTTPS_PROXY", &url),
        ("ALL_PROXY", &url),
        ("all_proxy", &url),
        ("GIT_CONFIG_GLOBAL", config.to_str().unwrap()),
        ("GIT_CONFIG_SYSTEM", config.to_str().unwrap()),
        ("GIT_SSL_NO_VERIFY", "1"),
        ("GIT_ASKPASS", "/bin/false"),
        ("GIT_DIR", "/nonexistent"),
        ("GIT_OBJECT_DIRECTORY", "/nonexistent"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "http.proxy"),
        ("GIT_CONFIG_VALUE_0", &url),
        ("SSL_CERT_FILE", "/nonexistent"),
    ];
    write(&setup.root(), "file", "1");
    let daemon = setup.launch(&variables);
    daemon.api().flush();
    daemon.stop();
    assert_clone_equals(&setup.remote().path, "main", &[("folder1", &setup.root())], |_| false);
    assert_eq!(trap.heard(), (0, Vec::new()));
    assert!(!setup.path("touched").exists());
    assert!(!proxy.seen().is_empty());
    assert!(proxy.seen().iter().all(|head| head.header("x-trap").is_none()));
    assert!(web.seen().iter().all(|seen| seen.user == USER), "{:?}", web.seen());
}

#[test]
fn a_proxy_is_used_where_it_is_configured() {
    let Some((mut setup, web)) = served(&Switches::default()) else { return };
    let proxy = FaultProxy::start(web.plain_port());
    // Only the proxy knows where that is.
    let url = format!("http://git.example.invalid:{}/git/documents.git", free_port());
    let mut through = remote(&setup, "web", &url);
    through["proxy"] = json!(proxy.address());
    setup.repository()["remotes"] = json!([through]);
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
    assert!(proxy.seen().iter().all(|head| head.path.starts_with("http://git.example.invalid:")));
}

#[test]
fn an_encrypted_connection_goes_through_a_proxy_as_it_is() {
    let Some((mut setup, web)) = served(&Switches::default()) else { return };
    let direct = setup.repository()["remotes"][0]["url"].as_str().unwrap().to_owned();
    let port = direct.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap();
    let proxy = FaultProxy::start(port);
    setup.repository()["remotes"][0]["proxy"] = json!(proxy.address());
    write(&setup.root(), "file", "1");
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
    let seen = proxy.seen();
    assert!(!seen.is_empty() && seen.iter().all(|head| head.method == "CONNECT"), "{seen:?}");
    assert!(seen.iter().all(|head| head.header("authorization").is_none()), "the password is the server's");
    drop(web);
}

#[test]
fn one_change_in_a_large_directory_sends_little_also_to_a_server_that_has_lost_what_it_was_before() {
    let Some((setup, web)) = served(&Switches::default()) else { return };
    let remote = setup.remote().path;
    // As strict as hosts are, and the way that large pushes go.
    git(&remote, &["config", "receive.fsckObjects", "true"]);
    git(&remote, &["config", "transfer.unpackLimit", "1"]);
    for number in 0..2000 {
        write(&setup.root(), format!("file-{number}"), number.to_string());
    }
    let daemon = setup.start();
    daemon.api().flush();
    let pushed = || {
        let output = daemon.output();
        let line = output.lines().rfind(|line| line.contains("\"pushed\"")).unwrap();
        serde_json::from_str::<Value>(line).unwrap()["bytes"].as_u64().unwrap()
    };
    assert!(pushed() > 50_000, "the directory itself takes more: {}", pushed());
    write(&setup.root(), "file-1000", "changed");
    daemon.api().flush();
    assert!(pushed() < 5_000, "{}", pushed());
    // It works on without the directory's former version, which nobody needs who has the new one.
    let former = git(&remote, &["rev-parse", "main:folder1"]);
    lose(&remote, former.trim());
    write(&setup.root(), "file-1000", "changed again");
    daemon.api().flush();
    assert!(pushed() > 50_000, "whole ones need nothing: {}", pushed());
    daemon.stop();
    assert_eq!(setup.remote().blob("main", "folder1/file-1000").unwrap(), b"changed again");
    drop(web);
}

/// Makes every object of a repository a file of its own, and removes one.
fn lose(repository: &Path, object: &str) {
    let packs: Vec<_> =
        fs::read_dir(repository.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let aside = repository.join("aside");
    fs::create_dir(&aside).unwrap();
    for path in packs {
        fs::rename(&path, aside.join(path.file_name().unwrap())).unwrap();
    }
    for pack in fs::read_dir(&aside).unwrap().map(|entry| entry.unwrap().path()) {
        if pack.extension().is_some_and(|ending| ending == "pack") {
            let unpacked = Command::new("git")
                .args(["unpack-objects", "-q"])
                .current_dir(repository)
                .stdin(fs::File::open(&pack).unwrap())
                .status();
            assert!(unpacked.unwrap().success());
        }
    }
    fs::remove_dir_all(&aside).unwrap();
    fs::remove_file(repository.join("objects").join(&object[..2]).join(&object[2..])).unwrap();
}

#[test]
fn a_bandwidth_is_kept_to() {
    let Some((mut setup, _web)) = served(&Switches::default()) else { return };
    setup.repository()["remotes"][0]["bandwidth"] = json!("1MiB/s");
    let mut random = crate::support::Random::new(5);
    let noise: Vec<u8> = (0..1 << 19).flat_map(|_| random.next().to_le_bytes()).collect();
    write(&setup.root(), "noise", &noise);
    let began = Instant::now();
    let daemon = setup.start();
    daemon.api().flush();
    // A burst may go first; the rest takes its time.
    assert!(began.elapsed() > Duration::from_millis(2500), "{:?}", began.elapsed());
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn when_a_token_ends_is_in_status_and_soon_enough_a_warning() {
    let Some((mut setup, web)) = served(&Switches::default()) else { return };
    let proxy = FaultProxy::start(web.plain_port());
    setup.repository()["remotes"] = json!([remote(&setup, "web", &proxy.url("documents"))]);
    write(&setup.root(), "file", "1");
    let ends = |at: &str| Behaviour::PassWith("github-authentication-token-expiration", at.to_owned());
    proxy.always(ends("2099-12-24 18:30:00 UTC"));
    let daemon = setup.start();
    daemon.api().flush();
    let status = daemon.status_when("it is known", |status| !row(status, "web")["token_expires"].is_null());
    assert!(
        row(&status, "web")["token_expires"].as_str().unwrap().starts_with("2099-12-24T18:30:00"),
        "{status:#}"
    );
    assert!(row(&status, "web")["warnings"].is_null(), "{status:#}");
    let ends_at = Scrape::of(&daemon)
        .value("token_expires_timestamp_seconds", "repository=\"documents\",remote=\"web\"");
    assert_eq!(ends_at, 4_101_820_200.0);
    proxy.always(ends("2026-01-02 03:04:05 UTC"));
    write(&setup.root(), "file", "2");
    daemon.api().flush();
    let status = daemon.status_when("it is warned of", |status| !row(status, "web")["warnings"].is_null());
    let warnings = &row(&status, "web")["warnings"];
    assert!(warnings[0].as_str().unwrap().contains("ends at 2026-01-02 03:04:05 UTC"), "{warnings}");
    assert_eq!(warnings.as_array().unwrap().len(), 1, "{warnings}");
    // What makes no sense is no date.
    proxy.always(ends("tomorrow\u{fffd}"));
    write(&setup.root(), "file", "3");
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
}

#[test]
fn a_stop_during_a_push_that_hangs_is_quick() {
    use crate::support::fault_proxy::Behaviour;
    let Some((mut setup, web)) = served(&Switches::default()) else { return };
    let proxy = FaultProxy::start(web.plain_port());
    let mut slow = remote(&setup, "web", &proxy.url("documents"));
    slow["timeouts"] = json!({"connect": "60s", "stall": "60s", "answer": "60s"});
    setup.repository()["remotes"] = json!([slow]);
    setup.config["shutdown_grace"] = json!("2s");
    write(&setup.root(), "file", "1");
    proxy.behave(|head| if head.is_push() { Behaviour::HangBeforeHead } else { Behaviour::Pass });
    let daemon = setup.start();
    eventually("a push hangs", SOON, || (proxy.pushes() == 1).then_some(()));
    let began = Instant::now();
    daemon.stop_or_fail();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(Judge::new(setup.remote().path).tip("main").is_none());
}
