//! Who is let in, and what is said of the others.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Child;

use super::*;

fn looks(wire: &mut SshWire) -> Result<()> {
    let mut talk = wire.open(Service::ReceivePack)?;
    read_to_flush(talk.advertisement())?;
    talk.close();
    Ok(())
}

#[test]
fn every_type_of_key_logs_in_with_its_passphrase() {
    let mut bench = Bench::new();
    for (kind, passphrase) in [
        ("ed25519", ""),
        ("ecdsa", "correct horse"),
        ("rsa", ""),
        ("rsa-PEM", ""),
        ("ecdsa-PKCS8", "correct horse"),
    ] {
        let key = bench.path(&format!("key-{kind}"));
        sshd::make_key(&key, kind, passphrase);
        bench.sshd.let_in(&key, "");
        bench.credentials.ssh_key = Some(SecretSource::File(key));
        let file = bench.path("passphrase");
        fs::write(&file, format!("{passphrase}\r\n")).unwrap();
        bench.credentials.passphrase = Some(SecretSource::File(file));
        looks(&mut bench.wire()).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
    let log = bench.sshd.log();
    assert_eq!(bench.sshd.log_ins(), 5, "{log}");
}

#[test]
fn rsa_signs_with_sha_2_only() {
    let mut bench = Bench::with(&["ed25519"], "PubkeyAcceptedAlgorithms ssh-rsa");
    let key = bench.path("rsa");
    sshd::make_key(&key, "rsa", "");
    bench.sshd.let_in(&key, "");
    bench.credentials.ssh_key = Some(SecretSource::File(key));
    let error = bench.refusal();
    assert_eq!(error.kind(), Kind::Credentials);
    assert!(error.to_string().contains(" ssh-rsa SHA256:"), "{error}");
    assert_eq!(bench.sshd.log_ins(), 0);
}

#[test]
fn a_key_from_the_environment_or_a_command_does_as_well() {
    let mut bench = Bench::new();
    let print = vec!["cat".to_owned(), bench.path("key").to_str().unwrap().to_owned()];
    bench.credentials.ssh_key = Some(SecretSource::Command(print));
    looks(&mut bench.wire()).unwrap();
}

#[test]
fn a_refused_key_is_named_with_what_the_server_takes_and_not_tried_twice() {
    let mut bench = Bench::new();
    let key = bench.path("other");
    sshd::make_key(&key, "ed25519", "");
    bench.credentials.ssh_key = Some(SecretSource::File(key.clone()));
    let error = bench.refusal();
    assert_eq!(error.kind(), Kind::Credentials);
    let text = error.to_string();
    assert!(text.contains(&sshd::fingerprint(&key)) && text.contains("it takes: publickey"), "{text}");
    assert!(text.contains("ssh-ed25519") && text.contains(&sshd::user()), "{text}");
    let tries = bench.sshd.log().matches("Failed publickey").count();
    assert!(tries <= 1, "{}", bench.sshd.log());
}

#[test]
fn a_key_that_was_changed_meanwhile_is_read_again_after_a_refusal() {
    let mut bench = Bench::new();
    let (old, new) = (bench.path("old"), bench.path("new"));
    for key in [&old, &new] {
        sshd::make_key(key, "ed25519", "");
    }
    bench.sshd.let_in(&new, "");
    let first = bench.path("first");
    let script = format!(
        "if [ -e {first} ]; then cat {new}; else touch {first}; cat {old}; fi",
        first = first.display(),
        old = old.display(),
        new = new.display()
    );
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    bench.credentials.ssh_key = Some(SecretSource::Command(command));
    looks(&mut bench.wire()).unwrap();
}

#[test]
fn a_new_key_counts_from_the_next_connection_on() {
    let bench = Bench::new();
    let mut wire = bench.wire();
    looks(&mut wire).unwrap();
    let key = bench.path("key");
    for path in [key.clone(), key.with_extension("pub")] {
        fs::remove_file(path).unwrap();
    }
    sshd::make_key(&key, "ed25519", "");
    bench.sshd.let_nobody_in();
    bench.sshd.let_in(&key, "");
    bench.sshd.cut_connections();
    looks(&mut wire).unwrap();
}

#[test]
fn a_key_file_that_others_may_read_is_warned_of_once() {
    let bench = Bench::new();
    fs::set_permissions(bench.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut wire = bench.wire();
    looks(&mut wire).unwrap();
    let warnings = wire.notes().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("chmod 600"), "{warnings:?}");
    assert!(wire.notes().warnings.is_empty());
}

#[test]
fn a_server_that_wants_more_than_a_key_says_what() {
    let bench =
        Bench::with(&["ed25519"], "AuthenticationMethods publickey,password\nPasswordAuthentication yes");
    let error = bench.refusal();
    assert_eq!(error.kind(), Kind::Credentials);
    assert!(error.to_string().contains("wants more: password"), "{error}");
}

#[test]
fn a_server_that_takes_no_keys_says_what_it_takes() {
    let bench = Bench::with(&["ed25519"], "PubkeyAuthentication no\nPasswordAuthentication yes");
    let error = bench.refusal();
    assert_eq!(error.kind(), Kind::Credentials);
    assert!(error.to_string().contains("it takes: password"), "{error}");
}

#[test]
fn a_banner_is_part_of_the_refusal() {
    let scratch = tempfile::tempdir().unwrap();
    let banner = scratch.path().join("banner");
    fs::write(&banner, "Maintenance\x1b[31m until noon\n").unwrap();
    let bench = Bench::with(&["ed25519"], &format!("Banner {}", banner.display()));
    bench.sshd.let_nobody_in();
    let text = bench.refusal().to_string();
    assert!(text.contains("Maintenance") && text.contains("until noon") && !text.contains('\x1b'), "{text}");
}

/// A real agent; ends with the test.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(socket: PathBuf, keys: &[PathBuf]) -> Self {
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Its first line tells that the socket is there.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        for key in keys {
            let added = Command::new("ssh-add").env("SSH_AUTH_SOCK", &socket).arg(key).output().unwrap();
            assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        }
        Self { child, socket }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn without_a_key_the_agent_is_asked_for_each_of_its_own() {
    let mut bench = Bench::new();
    bench.credentials.ssh_key = None;
    let mut keys = Vec::new();
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let key = bench.path(&format!("agent-{kind}"));
        sshd::make_key(&key, kind, "");
        keys.push(key);
    }
    let agent = Agent::start(bench.path("agent"), &keys);
    let mut wire = bench.wire();
    wire.login.agent = Some(agent.socket.clone());
    let error = refusal(&mut wire);
    assert_eq!(error.kind(), Kind::Credentials);
    for key in &keys {
        assert!(error.to_string().contains(&sshd::fingerprint(key)), "{error}");
    }
    for key in &keys[1..] {
        bench.sshd.let_nobody_in();
        bench.sshd.let_in(key, "");
        let mut wire = bench.wire();
        wire.login.agent = Some(agent.socket.clone());
        looks(&mut wire).unwrap();
    }
}

#[test]
fn no_key_no_agent_and_an_agent_without_keys_are_told_with_the_remedy() {
    let mut bench = Bench::new();
    bench.credentials.ssh_key = None;
    let agent = Agent::start(bench.path("agent"), &[]);
    for (socket, word) in [
        (None, "credentials.ssh_key_file"),
        (Some(agent.socket.clone()), "ssh-add"),
        (Some(bench.path("nobody")), "SSH_AUTH_SOCK"),
    ] {
        let mut wire = bench.wire();
        wire.login.agent = socket;
        let error = refusal(&mut wire);
        assert!(error.kind() == Kind::Credentials && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_server_that_never_decides_costs_the_limit_for_connecting() {
    let settings =
        format!("AuthorizedKeysCommand /bin/sleep 100\nAuthorizedKeysCommandUser {}", sshd::user());
    let bench = Bench::with(&["ed25519"], &settings);
    bench.sshd.let_nobody_in();
    let limits = Limits { connect: Duration::from_secs(2), ..LIMITS };
    let error = refusal(&mut bench.wire_to("/x", limits, &Progress::new()));
    assert_eq!(error.kind(), Kind::RemoteUnreachable);
    assert!(error.to_string().contains("logging in at"), "{error}");
}
