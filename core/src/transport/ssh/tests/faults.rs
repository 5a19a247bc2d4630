//! Servers that hang, lie down or talk too much, and what is said of them.

use std::net::TcpListener;
use std::time::Instant;

use super::*;

#[test]
fn what_the_server_says_of_a_missing_repository_is_what_the_operator_reads() {
    let bench = Bench::new();
    let error = refusal(&mut bench.wire_to("/no/such/repository.git", LIMITS, &Progress::new()));
    assert_eq!(error.kind(), Kind::RemoteRefused);
    let text = error.to_string();
    assert!(
        text.contains("does not appear to be a git repository") && text.contains("git-receive-pack"),
        "{text}"
    );
}

#[test]
fn a_server_without_git_is_told_so_with_the_remedy() {
    let bench = Bench::new();
    bench.forced("PATH=/nowhere; git-receive-pack x");
    let error = bench.refusal();
    assert_eq!(error.kind(), Kind::RemoteRefused);
    assert!(error.to_string().contains("is git installed there"), "{error}");
}

#[test]
fn a_refusal_is_escaped_and_kept_short() {
    let bench = Bench::new();
    bench.forced(r#"printf '\033[31mERROR: no\007\nnot for you\n' >&2; exit 1"#);
    let error = bench.refusal();
    assert_eq!(error.kind(), Kind::RemoteRefused);
    let text = error.to_string();
    assert!(
        text.contains("ERROR: no") && text.contains("not for you") && text.contains("exit code 1"),
        "{text}"
    );
    assert!(!text.chars().any(char::is_control), "{text}");

    bench.forced("exit 0");
    assert!(bench.refusal().to_string().contains("said nothing"));
    bench.forced("echo 'fatal: No space left on device' >&2; exit 128");
    assert_eq!(bench.refusal().kind(), Kind::Quota);
    bench.forced("kill -KILL $$");
    let error = bench.refusal();
    assert!(error.kind() == Kind::RemoteUnreachable && error.to_string().contains("KILL"), "{error}");
}

#[test]
fn a_server_that_accepts_and_says_nothing_costs_the_limit_for_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::new();
    let address = format!("ssh://git@127.0.0.1:{}/x", listener.local_addr().unwrap().port());
    let (mut remote, url) = remote_at(&address);
    remote.credentials = Some(bench.credentials.clone());
    let limits = Limits { connect: Duration::from_millis(300), ..LIMITS };
    let mut wire = SshWire::new(&remote, &url, bench.scratch.path(), limits, &Progress::new()).unwrap();
    let began = Instant::now();
    let error = refusal(&mut wire);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(error.kind(), Kind::RemoteUnreachable);
    assert!(error.to_string().contains("no answer within 0.3 s"), "{error}");
}

#[test]
fn a_service_that_says_nothing_costs_the_limit_for_answers() {
    let bench = Bench::new();
    bench.forced("sleep 100");
    let limits = Limits { answer: Duration::from_millis(500), ..LIMITS };
    let error = refusal(&mut bench.wire_to("/x", limits, &Progress::new()));
    assert_eq!(error.kind(), Kind::RemoteUnreachable);
    assert!(error.to_string().contains("not answered"), "{error}");
}

#[test]
fn a_server_that_takes_nothing_more_is_a_stall() {
    let bench = Bench::new();
    bench.forced("sleep 100");
    let limits = Limits { stall: Duration::from_secs(1), ..LIMITS };
    let mut wire = bench.wire_to("/x", limits, &Progress::new());
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    let block = vec![0; 1 << 20];
    let asked = talk.ask(None, &mut |out| loop {
        out.write(&block)?;
    });
    let error = asked.err().unwrap();
    assert!(error.kind() == Kind::RemoteUnreachable && error.to_string().contains("stalled"), "{error}");
    drop(talk);
    assert!(wire.connection.is_none());
}

#[test]
fn time_that_we_need_ourselves_is_no_stall() {
    let bench = Bench::new();
    bench.forced("cat");
    let limits = Limits { stall: Duration::from_millis(400), ..LIMITS };
    let mut wire = bench.wire_to("/x", limits, &Progress::new());
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    let piece = vec![0; 100_000];
    let mut answer = talk
        .ask(None, &mut |out| {
            for _ in 0..4 {
                out.write(&piece)?;
                std::thread::sleep(Duration::from_millis(500));
            }
            Ok(())
        })
        .unwrap();
    answer.flow();
    let mut length = 0;
    let mut buffer = [0; 70_000];
    while length < 400_000 {
        length += answer.read(&mut buffer).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_connection_that_breaks_in_the_middle_is_trouble_that_passes() {
    let bench = Bench::new();
    bench.forced("printf '0010some'; cat >/dev/null");
    let mut wire = bench.wire();
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    assert_eq!(read_exactly(talk.advertisement(), 8).unwrap(), b"0010some");
    bench.sshd.cut_connections();
    let error = read_exactly(talk.advertisement(), 8).unwrap_err();
    assert_eq!(error.kind(), Kind::RemoteUnreachable, "{error}");
    drop(talk);
    assert!(wire.connection.is_none());
}

#[test]
fn an_answer_counts_more_than_that_the_question_was_not_taken_whole() {
    let bench = Bench::new();
    bench.forced("head -c 1000 >/dev/null; echo 'too large' >&2; printf '0010unpack no...'; exit 1");
    let mut wire = bench.wire();
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    let block = vec![0; 1 << 20];
    let mut answer = talk
        .ask(None, &mut |out| {
            for _ in 0..200 {
                out.write(&block)?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(read_to_end(&mut *answer).unwrap(), b"0010unpack no...");
    drop(answer);
    assert_eq!(talk.aside(), b"too large\n");
}

#[test]
fn without_an_answer_what_was_said_aside_is_the_reason() {
    let bench = Bench::new();
    bench.forced("head -c 1000 >/dev/null; echo 'fatal: out of memory' >&2; exit 128");
    let mut wire = bench.wire();
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    let block = vec![0; 64 << 20];
    let mut answer = talk.ask(None, &mut |out| out.write(&block)).unwrap();
    let error = read_to_end(&mut *answer).unwrap_err();
    assert_eq!(error.kind(), Kind::RemoteUnreachable);
    assert!(error.to_string().contains("out of memory"), "{error}");
}

#[test]
fn our_own_error_in_the_middle_of_a_question_ends_it_for_the_server_too() {
    let bench = Bench::new();
    bench.forced("cat >/dev/null; sleep 100");
    let mut wire = bench.wire();
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    let asked = talk.ask(None, &mut |out| {
        out.write(b"half")?;
        Err(Error::new(Kind::Git, "a damaged pack"))
    });
    assert_eq!(asked.err().unwrap().kind(), Kind::Git);
    drop(talk);
    assert!(wire.connection.is_none());
}

#[test]
fn a_cancelled_wait_ends_at_once_whatever_it_waits_for() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = format!("ssh://git@127.0.0.1:{}/x", listener.local_addr().unwrap().port());
    bench.forced("sleep 100");
    type Waiting = fn(&mut SshWire) -> Result<()>;
    let waits: [(&str, Waiting); 3] = [
        (&deaf, |wire| wire.open(Service::ReceivePack).map(|_| ())),
        ("", |wire| wire.open(Service::ReceivePack)?.advertisement().read(&mut [0]).map(|_| ())),
        ("", |wire| {
            let mut talk = wire.open(Service::ReceivePack)?;
            talk.ask(None, &mut |out| out.write(&vec![0; 100 << 20])).map(|_| ())
        }),
    ];
    for (address, wait) in waits {
        let (mut remote, url) = if address.is_empty() { bench.remote("/x") } else { remote_at(address) };
        remote.credentials = Some(bench.credentials.clone());
        let progress = Progress::new();
        let mut wire = SshWire::new(&remote, &url, bench.scratch.path(), LIMITS, &progress).unwrap();
        let canceller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1500));
            progress.cancel();
            Instant::now()
        });
        let error = wait(&mut wire).unwrap_err();
        let ended = Instant::now();
        assert_eq!(error.kind(), Kind::Cancelled, "{error}");
        let late = ended.saturating_duration_since(canceller.join().unwrap());
        assert!(late < Duration::from_secs(1), "{late:?}");
        assert!(wire.connection.is_none());
    }
}

#[test]
fn a_flood_on_stderr_is_kept_short_and_ends_with_patience() {
    let bench = Bench::new();
    bench.forced("yes 'this goes on and on' >&2");
    let limits = Limits { answer: Duration::from_millis(300), ..LIMITS };
    let mut wire = bench.wire_to("/x", limits, &Progress::new());
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    let error = talk.advertisement().read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), Kind::RemoteUnreachable);
    // How much has come by then is the machine's business.
    let aside = talk.aside();
    assert!(aside.len() <= 8 * 1024 && aside.iter().all(|byte| b"this goes on and on\n".contains(byte)));
}

#[test]
fn a_flood_that_nobody_reads_waits_at_the_server() {
    let bench = Bench::new();
    let counter = bench.path("sent");
    bench.forced(&format!(
        "i=0; while :; do head -c 1048576 /dev/zero || exit; i=$((i+1)); echo $i > {}; done",
        counter.display()
    ));
    let limits = Limits { stall: Duration::from_secs(2), ..LIMITS };
    let mut wire = bench.wire_to("/x", limits, &Progress::new());
    let mut talk = wire.open(Service::ReceivePack).unwrap();
    // Nobody reads; the flood even keeps the question from being taken.
    let asked = talk.ask(None, &mut |out| out.write(&vec![0; 64 << 20]));
    let error = asked.err().unwrap();
    assert!(error.to_string().contains("stalled"), "{error}");
    let sent: u64 = fs::read_to_string(counter).unwrap().trim().parse().unwrap();
    assert!(sent < 64, "{sent} MiB");
}
