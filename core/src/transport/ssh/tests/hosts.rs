//! Which servers are believed, and at which address they are found.

use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use super::*;

fn site_of(bench: &Bench) -> Site {
    let (remote, url) = bench.remote("/x");
    Site::of(&remote, &url, bench.scratch.path()).unwrap()
}

#[test]
fn an_unknown_server_is_told_nothing_and_named_with_its_key() {
    let bench = Bench::new();
    fs::remove_file(bench.path("known_hosts")).unwrap();
    let error = bench.refusal();
    assert_eq!(error.kind(), Kind::HostKey);
    let text = error.to_string();
    for part in [
        &format!("127.0.0.1:{}", bench.sshd.port()),
        "ssh-ed25519",
        &bench.sshd.fingerprint("ed25519"),
        "`backupbot remote trust nas`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!bench.sshd.log().contains(&format!("user {}", sshd::user())), "{}", bench.sshd.log());
}

#[test]
fn a_server_with_another_key_than_before_is_not_believed() {
    let mut bench = Bench::new();
    let before = bench.sshd.fingerprint("ed25519");
    bench.sshd.change_host_key("ed25519");
    let error = bench.refusal();
    assert_eq!(error.kind(), Kind::HostKey);
    let text = error.to_string();
    assert!(text.contains(&before) && text.contains(&bench.sshd.fingerprint("ed25519")), "{text}");
    assert!(text.contains("line 1") && text.contains("--replace"), "{text}");
    assert_eq!(bench.sshd.log_ins(), 0);
}

#[test]
fn a_revoked_key_and_an_authority_alone_are_refused() {
    let bench = Bench::new();
    let line = bench.sshd.known_hosts_line("ed25519");
    for (text, word) in [
        (format!("{line}@revoked * {}", line.split_once(' ').unwrap().1), "revoked"),
        (format!("@cert-authority {line}"), "certificate authority"),
    ] {
        fs::write(bench.path("known_hosts"), text).unwrap();
        let error = bench.refusal();
        assert!(error.kind() == Kind::HostKey && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_server_is_asked_for_the_key_that_is_on_file() {
    let bench = Bench::with(&["ed25519", "ecdsa", "rsa"], "");
    for kind in ["rsa", "ecdsa", "ed25519"] {
        fs::write(bench.path("known_hosts"), bench.sshd.known_hosts_line(kind)).unwrap();
        let mut wire = bench.wire();
        let mut talk = wire.open(Service::ReceivePack).unwrap_or_else(|error| panic!("{kind}: {error}"));
        read_to_flush(talk.advertisement()).unwrap();
        talk.close();
    }
}

#[test]
fn a_hashed_name_is_as_good_as_a_plain_one() {
    let bench = Bench::new();
    let hashed =
        Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(bench.path("known_hosts")).output().unwrap();
    assert!(hashed.status.success());
    let mut wire = bench.wire();
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    read_to_flush(talk.advertisement()).unwrap();
    talk.close();
}

/// Accepts connections and says nothing.
fn silent(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn each_address_has_its_limit_and_the_next_one_its_chance() {
    let bench = Bench::new();
    let site = site_of(&bench);
    let known = Arc::new(KnownHosts::read(&site.known_hosts).unwrap());
    let (_hangs, hanging) = silent("[::1]:0");
    let (closed, refusing) = silent("127.0.0.1:0");
    drop(closed);
    let good: SocketAddr = ([127, 0, 0, 1], bench.sshd.port()).into();
    let patience = Duration::from_secs(2);
    let meet = |addresses: &[SocketAddr]| {
        run(&Progress::new(), async { connect::meet(&site, addresses, &known, patience).await })
    };
    let began = Instant::now();
    let connection = meet(&[hanging, refusing, good]).unwrap();
    assert_eq!(connection.address, good);
    assert!(began.elapsed() >= patience);

    let error = meet(&[hanging, refusing]).err().unwrap();
    assert_eq!(error.kind(), Kind::RemoteUnreachable);
    let text = error.to_string();
    assert!(text.contains(&format!("{hanging}: no answer within 2 s")), "{text}");
    assert!(text.contains(&format!("{refusing}: ")) && text.contains("refused"), "{text}");
}

#[test]
fn the_wrong_server_at_one_address_is_not_passed_over() {
    let mut bench = Bench::new();
    let site = site_of(&bench);
    let known = Arc::new(KnownHosts::read(&site.known_hosts).unwrap());
    bench.sshd.change_host_key("ed25519");
    let port = bench.sshd.port();
    let addresses = [([127, 0, 0, 1], port).into(), ([127, 0, 0, 1], port).into()];
    let met = run(&Progress::new(), async { connect::meet(&site, &addresses, &known, LIMITS.connect).await });
    assert_eq!(met.err().unwrap().kind(), Kind::HostKey);
    assert_eq!(bench.sshd.log().matches("Connection from").count(), 3, "{}", bench.sshd.log());
}

#[test]
fn a_server_with_unsafe_algorithms_only_is_refused_for_good() {
    let bench = Bench::with(&["rsa"], "HostKeyAlgorithms ssh-rsa");
    let error = bench.refusal();
    assert_eq!(error.kind(), Kind::RemoteRefused);
    assert!(error.to_string().contains("ssh-rsa"), "{error}");
}

#[test]
fn what_is_no_ssh_server_is_told_apart_from_nobody() {
    let (listener, address) = silent("127.0.0.1:0");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let scratch = tempfile::tempdir().unwrap();
    let key = scratch.path().join("key");
    sshd::make_key(&key, "ed25519", "");
    let (mut remote, url) = remote_at(&format!("ssh://git@127.0.0.1:{}/x", address.port()));
    remote.credentials = Some(Credentials { ssh_key: Some(SecretSource::File(key)), ..Default::default() });
    let mut wire = SshWire::new(&remote, &url, scratch.path(), LIMITS, &Progress::new()).unwrap();
    let error = refusal(&mut wire);
    assert_eq!(error.kind(), Kind::RemoteUnreachable, "{error}");
}

#[test]
fn a_host_without_an_address_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let key = scratch.path().join("key");
    sshd::make_key(&key, "ed25519", "");
    let (mut remote, url) = remote_at("ssh://git@no-such-host.invalid/x");
    remote.credentials = Some(Credentials { ssh_key: Some(SecretSource::File(key)), ..Default::default() });
    let mut wire = SshWire::new(&remote, &url, scratch.path(), LIMITS, &Progress::new()).unwrap();
    let error = refusal(&mut wire);
    assert_eq!(error.kind(), Kind::RemoteUnreachable);
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}
