//! Programs of others as the other end and as the judge: giftless over HTTP, sshd before it, and Git's own LFS program.

use std::path::Path;
use std::process::Command;

use super::giftless::Giftless;
use super::*;
use crate::transport::ssh::test_sshd::{Sshd, make_key};

/// Our repository, and a real server that lets in everybody, or who has a token.
struct Real {
    scratch: tempfile::TempDir,
    server: Giftless,
    store: Objects,
    progress: Progress,
}

impl Real {
    fn new(is_open: bool) -> Option<Self> {
        let scratch = tempfile::tempdir().unwrap();
        let server = Giftless::start(scratch.path(), is_open)?;
        let store = Objects::of(&scratch.path().join("repositories/ours.git"));
        Some(Self { scratch, server, store, progress: Progress::new() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn client(&self, remote: &Remote) -> Client {
        Client::connect(remote, &self.path("repositories/ours.git"), &self.progress).unwrap()
    }

    fn with_token(&self, may_write: bool) -> Remote {
        let mut remote = remote_at(&self.server.url());
        let file = self.path("token");
        fs::write(&file, self.server.token(may_write)).unwrap();
        let token = Some(SecretSource::File(file));
        remote.credentials = Some(Credentials { token, ..Default::default() });
        remote
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "lfs.locksverify=false"])
        .args(arguments)
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "git {arguments:?}: {said}");
    said
}

fn has_git_lfs() -> bool {
    Command::new("git").args(["lfs", "version"]).output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_real_server_takes_confirms_gives_back_and_is_asked_again_after_it_lost_everything() {
    let Some(real) = Real::new(true) else { return };
    let client = real.client(&remote_at(&real.server.url()));
    let contents: Vec<Vec<u8>> = (0..5).map(|n| content(n, 10 + 500_000 * n as usize)).collect();
    let pointers: Vec<Pointer> = contents.iter().map(|bytes| stored(&real.store, bytes)).collect();
    assert_eq!(client.missing(&pointers, &real.progress).unwrap().missing.len(), 5, "it says 404 of all");
    let sent = client.upload(&pointers, &real.store, &real.progress).unwrap();
    assert_eq!((sent.sent, sent.refused.len()), (5, 0), "{}", real.server.log());
    let presence = client.missing(&pointers, &real.progress).unwrap();
    assert_eq!((presence.there, presence.missing.len()), (5, 0));
    let elsewhere = Objects::of(&real.path("repositories/other.git"));
    assert_eq!(client.download(&pointers, &elsewhere, &real.progress).unwrap().received, 5);

    // One is another content by now, one is gone, then all are.
    let path = |pointer: &Pointer| real.server.storage().join(pointer.id.to_string());
    fs::write(path(&pointers[1]), content(77, contents[1].len())).unwrap();
    fs::remove_file(path(&pointers[2])).unwrap();
    let third = Objects::of(&real.path("repositories/third.git"));
    let got = client.download(&pointers, &third, &real.progress).unwrap();
    assert_eq!(got.received, 3);
    let mut failed: Vec<_> = got.failed.iter().map(|(pointer, why)| (pointer.size, why.reason)).collect();
    failed.sort_by_key(|(size, _)| *size);
    assert_eq!(failed, [(pointers[1].size, Reason::Damaged), (pointers[2].size, Reason::Missing)]);
    real.server.wipe();
    assert_eq!(client.missing(&pointers, &real.progress).unwrap().missing.len(), 5);
    assert_eq!(client.upload(&pointers, &real.store, &real.progress).unwrap().sent, 5);
    assert_eq!(fs::read(path(&pointers[1])).unwrap(), contents[1]);
}

#[test]
fn a_token_that_may_only_read_reads_and_is_told_when_it_writes() {
    let Some(real) = Real::new(false) else { return };
    let pointer = stored(&real.store, b"guarded");
    let other = stored(&real.store, b"never sent");
    let sent = real.client(&real.with_token(true)).upload(&[pointer], &real.store, &real.progress).unwrap();
    assert_eq!(sent.sent, 1);
    let reader = real.client(&real.with_token(false));
    let presence = reader.missing(&[pointer, other], &real.progress).unwrap();
    assert_eq!((presence.there, presence.missing), (1, vec![other]));
    assert_eq!(reader.missing(&[other], &real.progress).unwrap().missing, [other], "by its words");
    let error = reader.upload(&[other], &real.store, &real.progress).unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials, "{error}");
    let nobody = real.client(&remote_at(&real.server.url()));
    let error = nobody.upload(&[other], &real.store, &real.progress).unwrap_err();
    assert!(error.to_string().contains("no credentials are configured"), "{error}");
}

#[test]
fn over_ssh_the_server_says_where_and_with_what() {
    let Some(real) = Real::new(false) else { return };
    let sshd = Sshd::start(real.scratch.path());
    let key = real.path("key");
    make_key(&key, "ed25519", "");
    let log = real.path("asked");
    let script = format!(
        "#!/bin/sh\necho \"$SSH_ORIGINAL_COMMAND\" >> {log}\n\
         printf '{{\"href\":\"{url}/info/lfs\",\"header\":{{\"Authorization\":\"Bearer %s\"}},\"expires_in\":%s}}' \
         \"$(cat {token})\" \"$(cat {lifetime})\"\n",
        log = log.display(),
        url = real.server.url(),
        token = real.path("token").display(),
        lifetime = real.path("lifetime").display(),
    );
    fs::write(real.path("authenticate"), script).unwrap();
    Command::new("chmod").arg("755").arg(real.path("authenticate")).status().unwrap();
    sshd.let_in(&key, &format!("command=\"{}\"", real.path("authenticate").display()));
    fs::write(real.path("known_hosts"), sshd.known_hosts_line("ed25519")).unwrap();
    fs::write(real.path("token"), real.server.token(true)).unwrap();
    fs::write(real.path("lifetime"), "600").unwrap();

    let mut remote = remote_at(&sshd.url("/org/repo.git"));
    remote.credentials = Some(Credentials { ssh_key: Some(SecretSource::File(key)), ..Default::default() });
    let client = real.client(&remote);
    let pointers: Vec<Pointer> = (0..3).map(|n| stored(&real.store, &content(n, 10_000))).collect();
    assert_eq!(client.upload(&pointers, &real.store, &real.progress).unwrap().sent, 3);
    assert_eq!(client.upload(&pointers, &real.store, &real.progress).unwrap().already, 3);
    let elsewhere = Objects::of(&real.path("repositories/other.git"));
    assert_eq!(client.download(&pointers, &elsewhere, &real.progress).unwrap().received, 3);
    let asked = fs::read_to_string(&log).unwrap();
    let expected =
        "git-lfs-authenticate '/org/repo.git' upload\ngit-lfs-authenticate '/org/repo.git' download\n";
    assert_eq!(asked, expected, "once for each operation");
    assert!(client.notes().warnings.iter().any(|warning| warning.contains("not encrypted")));

    // A grant that ends is asked for anew, on the connection there is; so is one that the server does not take.
    fs::write(real.path("lifetime"), "3").unwrap();
    let client = real.client(&remote);
    let log_ins = sshd.log_ins();
    for _ in 0..3 {
        assert_eq!(client.upload(&pointers, &real.store, &real.progress).unwrap().already, 3);
    }
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 5);
    assert_eq!(sshd.log_ins(), log_ins + 1);
    fs::write(real.path("lifetime"), "600").unwrap();
    fs::write(real.path("token"), "not-a-token").unwrap();
    let client = real.client(&remote);
    let error = client.upload(&pointers, &real.store, &real.progress).unwrap_err();
    assert_eq!(error.kind(), Kind::Credentials, "{error}");
    let text = error.to_string();
    assert!(!text.contains("not-a-token") && text.contains("git-lfs-authenticate gave"), "{text}");

    // A server without the program, and one that refuses.
    for (script, kind, words) in [
        ("echo 'sh: git-lfs-authenticate: not found' >&2; exit 127", Kind::RemoteUnreachable, "127.0.0.1"),
        ("echo 'You shall not pass' >&2; exit 1", Kind::Credentials, "You shall not pass"),
        ("head -c 1000000 /dev/zero", Kind::RemoteRefused, "more than makes sense"),
    ] {
        fs::write(real.path("authenticate"), format!("#!/bin/sh\n{script}\n")).unwrap();
        let client = real.client(&remote).with_law(FAST);
        let error = client.upload(&pointers, &real.store, &real.progress).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn git_lfs_itself_gets_what_we_brought_and_we_get_what_it_brought() {
    let Some(real) = Real::new(true) else { return };
    assert!(has_git_lfs(), "Debian: git-lfs");
    let bytes = content(1, 3_000_000);
    let pointer = stored(&real.store, &bytes);
    let client = real.client(&remote_at(&real.server.url()));
    assert_eq!(client.upload(&[pointer], &real.store, &real.progress).unwrap().sent, 1);

    let work = real.path("work");
    fs::create_dir(&work).unwrap();
    git(&work, &["init", "-q", "-b", "main", "."]);
    git(&work, &["lfs", "install", "--local", "--skip-repo"]);
    git(&work, &["config", "lfs.url", &format!("{}/info/lfs", real.server.url())]);
    git(&work, &["remote", "add", "origin", &real.server.url()]);
    fs::write(work.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    // The pointer is put into the tree as text, so that its content has to come from the server.
    let blob = real.path("pointer");
    fs::write(&blob, pointer.encode()).unwrap();
    let id = git(&work, &["hash-object", "-w", blob.to_str().unwrap()]);
    let entry = format!("100644,{},ours.bin", id.trim());
    git(&work, &["update-index", "--add", "--cacheinfo", &entry]);
    git(&work, &["add", ".gitattributes"]);
    git(&work, &["commit", "-qm", "ours"]);
    git(&work, &["checkout", "--", "ours.bin"]);
    git(&work, &["lfs", "pull"]);
    assert!(fs::read(work.join("ours.bin")).unwrap() == bytes, "git-lfs pulls what we uploaded");

    let theirs = content(2, 2_000_000);
    fs::write(work.join("theirs.bin"), &theirs).unwrap();
    git(&work, &["add", "theirs.bin"]);
    git(&work, &["commit", "-qm", "theirs"]);
    git(&work, &["lfs", "push", "--all", "origin", "main"]);
    let text = git(&work, &["cat-file", "blob", "HEAD:theirs.bin"]);
    let pushed = Pointer::parse(text.as_bytes()).unwrap();
    let elsewhere = Objects::of(&real.path("repositories/other.git"));
    assert_eq!(client.download(&[pushed], &elsewhere, &real.progress).unwrap().received, 1);
    assert!(fs::read(elsewhere.path_of(&pushed.id)).unwrap() == theirs);
}

#[test]
fn git_lfs_itself_finds_what_we_put_into_a_directory() {
    assert!(has_git_lfs(), "Debian: git-lfs");
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let store = Objects::of(&path("repositories/ours.git"));
    let bytes = content(1, 1_000_000);
    let pointer = stored(&store, &bytes);
    git(scratch.path(), &["init", "-q", "--bare", "-b", "main", "remote.git"]);
    let work = path("work");
    git(scratch.path(), &["init", "-q", "-b", "main", "work"]);
    fs::write(work.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    fs::write(path("pointer"), pointer.encode()).unwrap();
    let id = git(&work, &["hash-object", "-w", path("pointer").to_str().unwrap()]);
    git(&work, &["update-index", "--add", "--cacheinfo", &format!("100644,{},ours.bin", id.trim())]);
    git(&work, &["add", ".gitattributes"]);
    git(&work, &["commit", "-qm", "ours"]);
    let url = format!("file://{}", path("remote.git").display());
    git(&work, &["push", "-q", &url, "main"]);
    let progress = Progress::new();
    let remote = remote_at(&url);
    let client = Client::connect(&remote, &path("repositories/ours.git"), &progress).unwrap();
    assert_eq!(client.upload(&[pointer], &store, &progress).unwrap().sent, 1);
    git(scratch.path(), &["lfs", "install"]);
    git(scratch.path(), &["clone", "-q", &url, "clone"]);
    assert!(fs::read(path("clone/ours.bin")).unwrap() == bytes);
}

/// Peak of this process' memory, in kB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "a gibibyte"]
fn a_gibibyte_goes_there_and_back_in_flat_memory() {
    let Some(real) = Real::new(true) else { return };
    let mut draft = real.store.begin().unwrap();
    let zeros = vec![0; 1 << 20];
    for number in 0..1024u64 {
        draft.write(&number.to_le_bytes()).unwrap();
        draft.write(&zeros[8..]).unwrap();
    }
    let pointer = draft.finish().unwrap();
    let client = real.client(&remote_at(&real.server.url()));
    let before = peak();
    let began = std::time::Instant::now();
    let sent = client.upload(&[pointer], &real.store, &real.progress).unwrap();
    assert_eq!(sent.sent, 1, "{:?}", sent.refused);
    let up = began.elapsed();
    let elsewhere = Objects::of(&real.path("repositories/other.git"));
    assert_eq!(client.download(&[pointer], &elsewhere, &real.progress).unwrap().received, 1);
    let grown = peak().saturating_sub(before);
    println!("up {up:?}, both {:?}, memory {grown} kB more", began.elapsed());
    assert!(grown < 64 * 1024, "{grown} kB");
}
