//! Conversations that go well.

use std::time::Instant;

use super::*;

#[test]
fn a_push_and_a_fetch_share_one_connection() {
    let bench = Bench::new();
    let source = bench.path("source");
    let head = commit(&source, b"hello");
    let mut wire = bench.wire();

    let report = push(&mut wire, &source, &head).unwrap();
    assert!(report.contains("unpack ok") && report.contains("ok refs/heads/main"), "{report}");
    assert_eq!(git(&bench.path("remote.git"), &["rev-parse", "main"]), head);

    let mut talk = wire.open(Service::UploadPack).unwrap();
    let lines = read_to_flush(talk.advertisement()).unwrap();
    assert!(
        lines.iter().any(|line| line.starts_with(&head) && line.contains("refs/heads/main")),
        "{lines:?}"
    );
    let mut answer = talk
        .ask(None, &mut |out| {
            out.write(&packet(&format!("want {head} ofs-delta\n")))?;
            out.write(b"0000")?;
            out.write(&packet("done\n"))
        })
        .unwrap();
    assert_eq!(read_exactly(&mut *answer, 8).unwrap(), b"0008NAK\n");
    answer.flow();
    let pack = read_to_end(&mut *answer).unwrap();
    assert!(pack.starts_with(b"PACK"));
    drop(answer);
    talk.close();
    assert_eq!(bench.sshd.log_ins(), 1, "{}", bench.sshd.log());
}

#[test]
fn one_who_only_looks_leaves_politely_and_can_look_again() {
    let bench = Bench::new();
    let mut wire = bench.wire();
    for service in [Service::ReceivePack, Service::UploadPack, Service::ReceivePack] {
        let mut talk = wire.open(service).unwrap();
        read_to_flush(talk.advertisement()).unwrap();
        talk.close();
        assert!(wire.connection.is_some());
    }
    assert_eq!(bench.sshd.log_ins(), 1);
}

#[test]
fn a_conversation_that_is_just_dropped_takes_its_connection_with_it() {
    let bench = Bench::new();
    let mut wire = bench.wire();
    drop(wire.open(Service::ReceivePack).unwrap());
    assert!(wire.connection.is_none());
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    read_to_flush(talk.advertisement()).unwrap();
    talk.close();
    assert_eq!(bench.sshd.log_ins(), 2);
}

#[test]
fn a_connection_that_broke_between_conversations_is_made_anew() {
    let bench = Bench::new();
    let mut wire = bench.wire();
    for _ in 0..2 {
        let mut talk = wire.open(Service::ReceivePack).unwrap();
        read_to_flush(talk.advertisement()).unwrap();
        talk.close();
        bench.sshd.cut_connections();
    }
    assert_eq!(bench.sshd.log_ins(), 2);
}

#[test]
fn a_path_with_a_space_a_quote_and_signs_of_the_shell_is_one_path() {
    let bench = Bench::new();
    let name = "my docs' $(touch owned) `x` \\ \"!\" ;.git";
    git(bench.scratch.path(), &["init", "-q", "--bare", name]);
    let encoded = bench.path(name).to_str().unwrap().replace(' ', "%20").replace('\\', "%5C");
    let mut wire = bench.wire_to(&encoded, LIMITS, &Progress::new());
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    assert!(!read_to_flush(talk.advertisement()).unwrap().is_empty());
    talk.close();
}

#[test]
fn the_server_is_reached_by_ipv6_too() {
    let bench = Bench::new();
    let address =
        format!("ssh://{}@[::1]:{}{}", sshd::user(), bench.sshd.port(), bench.path("remote.git").display());
    let (mut remote, url) = remote_at(&address);
    remote.credentials = Some(bench.credentials.clone());
    let known = bench.sshd.known_hosts_line("ed25519").replace("127.0.0.1", "::1");
    fs::write(bench.path("known_hosts"), known).unwrap();
    let mut wire = SshWire::new(&remote, &url, bench.scratch.path(), LIMITS, &Progress::new()).unwrap();
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    read_to_flush(talk.advertisement()).unwrap();
    talk.close();
}

#[test]
fn keys_are_exchanged_anew_in_the_middle_of_a_transfer_without_harm() {
    let bench = Bench::with(&["ed25519"], "RekeyLimit 1M");
    let source = bench.path("source");
    let head = commit(&source, &noise(12 << 20));
    let report = push(&mut bench.wire(), &source, &head).unwrap();
    assert!(report.contains("unpack ok"), "{report}");
    let mut wire = bench.wire();
    let mut talk = wire.open(Service::UploadPack).unwrap();
    read_to_flush(talk.advertisement()).unwrap();
    let mut answer = talk
        .ask(None, &mut |out| {
            out.write(&packet(&format!("want {head}\n")))?;
            out.write(b"0000")?;
            out.write(&packet("done\n"))
        })
        .unwrap();
    assert!(read_to_end(&mut *answer).unwrap().len() > 12 << 20);
    drop(answer);
    talk.close();
}

#[test]
fn the_bandwidth_is_kept_both_ways() {
    let bench = Bench::new();
    bench.forced("head -c 200000 >/dev/null; head -c 100000 /dev/zero");
    let limits = Limits { bandwidth: Some(200_000), ..LIMITS };
    let mut wire = bench.wire_to("/x", limits, &Progress::new());
    let began = Instant::now();
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    let mut answer = talk.ask(None, &mut |out| out.write(&vec![7; 200_000])).unwrap();
    assert_eq!(read_to_end(&mut *answer).unwrap().len(), 100_000);
    let took = began.elapsed();
    assert!((1.2..6.0).contains(&took.as_secs_f64()), "{took:?}");
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Run alone: `cargo test -p backupbot-core -- --ignored --nocapture half_a_gigabyte`.
#[test]
#[ignore = "measures speed and memory, compared with ssh, so nothing else may run beside it"]
fn half_a_gigabyte_goes_each_way_as_fast_as_with_ssh_and_in_little_memory() {
    const LENGTH: usize = 512 << 20;
    let bench = Bench::new();
    bench.forced(&format!("head -c {LENGTH} >/dev/null; head -c {LENGTH} /dev/zero"));
    let before = peak_kib();
    let mut buffer = vec![0; 256 * 1024];
    for _ in 0..2 {
        let mut wire = bench.wire();
        let mut talk = wire.open(Service::ReceivePack).unwrap();
        let began = Instant::now();
        let cpu = cpu_seconds();
        let mut answer = talk
            .ask(None, &mut |out| {
                for _ in 0..LENGTH / buffer.len() {
                    out.write(&buffer)?;
                }
                Ok(())
            })
            .unwrap();
        let sent = began.elapsed();
        let (began, sent_cpu) = (Instant::now(), cpu_seconds() - cpu);
        let mut length = 0;
        loop {
            match answer.read(&mut buffer).unwrap() {
                0 => break,
                more => length += more,
            }
        }
        assert_eq!(length, LENGTH);
        let rate = |took: Duration| LENGTH as f64 / 1e6 / took.as_secs_f64();
        println!(
            "ours: out {:.0} MB/s, {sent_cpu:.2} CPU-s; in {:.0} MB/s, {:.2} CPU-s",
            rate(sent),
            rate(began.elapsed()),
            cpu_seconds() - cpu - sent_cpu
        );
        println!("memory grew by {} KiB at most", peak_kib() - before);

        let ssh = |script: &str, way: &str| {
            let began = Instant::now();
            let line = format!(
                "{script} ssh -F /dev/null -o BatchMode=yes -o UserKnownHostsFile={} -i {} -p {} {}@127.0.0.1 x {way}",
                bench.path("known_hosts").display(),
                bench.path("key").display(),
                bench.sshd.port(),
                sshd::user()
            );
            let output = Command::new("bash").args(["-c", &format!("time ( {line} )")]).output().unwrap();
            println!(
                "ssh: {:.0} MB/s {}",
                2.0 * rate(began.elapsed()),
                String::from_utf8_lossy(&output.stderr).replace('\n', " ")
            );
        };
        ssh(&format!("head -c {LENGTH} /dev/zero |"), ">/dev/null");
    }
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[test]
fn a_conversation_that_was_parked_goes_on_without_another_program() {
    let bench = Bench::new();
    let source = bench.path("source");
    let head = commit(&source, b"hello");
    let programs = || bench.sshd.log().matches("Starting session: command").count();
    let mut wire = bench.wire();
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    read_to_flush(talk.advertisement()).unwrap();
    talk.park();
    let mut talk = wire.resume(Service::ReceivePack).unwrap();
    assert!(!talk.has_to_be_read_first());
    let pack = git_with(&source, &["pack-objects", "--revs", "--stdout", "-q"], &format!("{head}\n"));
    let command = packet(&format!("{} {head} refs/heads/main\0report-status", "0".repeat(40)));
    let mut answer =
        talk.ask(None, &mut |out| [&command[..], b"0000", &pack].iter().try_for_each(|part| out.write(part)));
    let report = read_to_end(answer.as_mut().unwrap().as_mut()).unwrap();
    assert!(String::from_utf8_lossy(&report).contains("ok refs/heads/main"));
    drop(answer);
    talk.close();
    assert_eq!(programs(), 1, "{}", bench.sshd.log());

    // Whoever wants something else does not find it in the way, and there is nothing to go on with twice.
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    read_to_flush(talk.advertisement()).unwrap();
    talk.park();
    let mut other = wire.resume(Service::UploadPack).unwrap();
    assert!(other.has_to_be_read_first());
    read_to_flush(other.advertisement()).unwrap();
    other.close();
    let mut fresh = wire.resume(Service::ReceivePack).unwrap();
    assert!(fresh.has_to_be_read_first());
    read_to_flush(fresh.advertisement()).unwrap();
    fresh.close();
    assert_eq!(bench.sshd.log_ins(), 1);
    assert!(wire.connection.is_some());
}
