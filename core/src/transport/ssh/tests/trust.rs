//! How a host's key gets on file.

use std::os::unix::fs::MetadataExt;

use super::super::tests::{remote_at, sshd::Sshd};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn ask(sshd: &Sshd, state: &Path) -> HostKey {
    let (remote, url) = remote_at(&sshd.url("/x"));
    host_key(&remote, &url, state, PATIENCE, &Progress::new()).unwrap()
}

#[test]
fn a_key_is_looked_at_without_logging_in_and_recorded_privately() {
    let scratch = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(scratch.path());
    let state = scratch.path().join("not/yet/there");
    let host = ask(&sshd, &state);
    assert_eq!(host.standing, Standing::Unknown { only_authority: false });
    assert_eq!((host.algorithm.as_str(), &host.fingerprint), ("ssh-ed25519", &sshd.fingerprint("ed25519")));
    assert_eq!(host.line + "\n", sshd.known_hosts_line("ed25519"));
    assert_eq!(host.file, state.join("known_hosts"));
    assert!(!state.exists());

    let host = ask(&sshd, &state);
    record(&host, false).unwrap();
    record(&host, false).unwrap();
    assert_eq!(fs::read_to_string(&host.file).unwrap(), sshd.known_hosts_line("ed25519"));
    assert_eq!(fs::metadata(&host.file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    assert_eq!(ask(&sshd, &state).standing, Standing::Known);
    assert!(!sshd.log().contains("user"), "{}", sshd.log());
}

#[test]
fn a_changed_key_replaces_the_old_one_only_when_told_to() {
    let scratch = tempfile::tempdir().unwrap();
    let mut sshd = Sshd::start(scratch.path());
    let others = "other ssh-ed25519 AAAA\r\n# end";
    let file = scratch.path().join("known_hosts");
    fs::write(&file, sshd.known_hosts_line("ed25519") + others).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let before = sshd.fingerprint("ed25519");
    sshd.change_host_key("ed25519");
    let host = ask(&sshd, scratch.path());
    let Standing::Changed { recorded } = &host.standing else { panic!("{:?}", host.standing) };
    assert_eq!((recorded[0].fingerprint.as_str(), recorded[0].line), (before.as_str(), 1));

    assert_eq!(record(&host, false).unwrap_err().kind(), Kind::HostKey);
    record(&host, true).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("{others}\n{}", sshd.known_hosts_line("ed25519")));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    assert_eq!(ask(&sshd, scratch.path()).standing, Standing::Known);
}

#[test]
fn a_revoked_key_is_never_recorded() {
    let scratch = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(scratch.path());
    fs::write(scratch.path().join("known_hosts"), format!("@revoked {}", sshd.known_hosts_line("ed25519")))
        .unwrap();
    let host = ask(&sshd, scratch.path());
    assert_eq!(host.standing, Standing::Revoked);
    assert_eq!(record(&host, true).unwrap_err().kind(), Kind::HostKey);
}

#[test]
fn a_file_behind_a_link_is_changed_where_it_is_and_two_at_once_lose_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let sshd = Sshd::start(scratch.path());
    let real = scratch.path().join("real");
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink("real", scratch.path().join("known_hosts")).unwrap();
    let host = ask(&sshd, scratch.path());
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut host = host.clone();
            host.known_as = format!("host{number}");
            host.line = format!("host{number} {}", host.line.split_once(' ').unwrap().1);
            scope.spawn(move || record(&host, false).unwrap());
        }
    });
    assert!(scratch.path().join("known_hosts").is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap().lines().count(), 8);
}
