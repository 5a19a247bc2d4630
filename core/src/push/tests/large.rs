//! Large contents go before the branch that needs them, and what is refused is said and holds nothing else up.

use super::*;
use crate::lfs::{Objects, Pointer};

/// A server that takes what it is given unless it was told otherwise, and remembers what was asked of it.
#[derive(Default)]
struct Server {
    refuses: Vec<Pointer>,
    asked: Vec<Vec<Pointer>>,
    /// Where the remote's branch stood at each question.
    stood: Vec<Option<String>>,
    path: PathBuf,
}

impl LargeDelivery for Server {
    fn bring(&mut self, wanted: &[Pointer], _: &Progress) -> Result<Brought> {
        self.asked.push(wanted.to_vec());
        let repository = Repository::open(&self.path).ok();
        let tip = repository.and_then(|it| it.reference(BRANCH).unwrap());
        self.stood.push(tip.map(|tip| tip.to_string()));
        let refused = |pointer: &&Pointer| self.refuses.contains(pointer);
        let withheld = wanted.iter().filter(refused).map(|pointer| Withheld {
            pointer: *pointer,
            kind: Kind::TooLarge,
            why: "the server takes 5 bytes at most".to_owned(),
        });
        Ok(Brought { sent: wanted.len() as u64, bytes: 10, withheld: withheld.collect() })
    }
}

/// Puts a content into the store and a file into the root that points at it.
fn write_large(bench: &mut Bench, name: &str, content: &str) -> Pointer {
    let mut draft = Objects::of(bench.repository.path()).begin().unwrap();
    draft.write(content.as_bytes()).unwrap();
    let pointer = draft.finish().unwrap();
    bench.write(name, pointer.encode());
    pointer
}

#[test]
fn large_contents_are_there_before_the_branch_moves_and_are_asked_for_once() {
    let mut bench = bench();
    let target = target(&bench, "remote.git");
    let mut server = Server { path: target.path.clone(), ..Server::default() };
    bench.write("small", "x");
    let first = write_large(&mut bench, "large", "one");
    bench.back_up();
    let delivery = run_with(&bench, &target, Some(&mut server), (false, false), 1);
    assert!(delivery.is_verified);
    assert_eq!(delivery.sent.unwrap().large, 1);
    assert_eq!((&server.asked, &server.stood), (&vec![vec![first]], &vec![None]));
    let before = tip(&target, "main");
    let second = write_large(&mut bench, "other", "two");
    bench.back_up();
    run_with(&bench, &target, Some(&mut server), (false, false), 2);
    assert_eq!(server.asked[1..], [vec![second]]);
    assert_eq!(server.stood[1], Some(before));
    bench.write("small", "y");
    bench.back_up();
    run_with(&bench, &target, Some(&mut server), (false, false), 3);
    assert_eq!(server.asked.len(), 2, "nothing large is new");
}

#[test]
fn what_the_server_refuses_is_named_and_the_rest_goes_on_until_it_is_taken() {
    let mut bench = bench();
    let target = target(&bench, "remote.git");
    let mut server = Server { path: target.path.clone(), ..Server::default() };
    bench.write("small", "x");
    let large = write_large(&mut bench, "films/large.iso", "one");
    server.refuses.push(large);
    bench.back_up();
    let delivery = run_with(&bench, &target, Some(&mut server), (false, false), 1_000);
    assert!(!delivery.is_verified && delivery.confirmed.is_none());
    assert!(delivery.unprotected_since_ms.is_some());
    let halt = delivery.record.halted.unwrap();
    assert_eq!(halt.reason, "too_large");
    assert!(halt.message.contains("films/large.iso (3 bytes"), "{}", halt.message);
    assert!(halt.message.contains("takes 5 bytes"), "{}", halt.message);
    assert_eq!(
        tip(&target, "main"),
        git(bench.repository.path(), &["rev-parse", "main"]).trim(),
        "the rest is protected"
    );

    let waits = run_with(&bench, &target, Some(&mut server), (false, false), 2_000);
    assert!(!waits.attempted, "nobody asks every second");
    bench.write("small", "y");
    bench.back_up();
    let goes_on = run_with(&bench, &target, Some(&mut server), (false, false), 3_000);
    assert!(goes_on.attempted && !goes_on.is_verified);
    assert_eq!(
        tip(&target, "main"),
        git(bench.repository.path(), &["rev-parse", "main"]).trim(),
        "what came later is protected too"
    );

    server.refuses.clear();
    let healed = run_with(&bench, &target, Some(&mut server), (true, false), 4_000);
    assert!(healed.is_verified && healed.record.halted.is_none());
    assert_eq!(server.asked.last().unwrap(), &vec![large]);
}

#[test]
fn contents_that_a_killed_push_left_out_are_asked_for_by_the_next() {
    let mut bench = bench();
    let target = target(&bench, "remote.git");
    let large = write_large(&mut bench, "large", "one");
    bench.back_up();
    // The branch is there, and nothing is recorded.
    git(
        bench.repository.path(),
        &["push", "-q", "--mirror", {
            Repository::open_or_create(&target.path, BRANCH, "remote", "remote").unwrap();
            target.path.to_str().unwrap()
        }],
    );
    let mut server = Server { path: target.path.clone(), ..Server::default() };
    let delivery = run_with(&bench, &target, Some(&mut server), (false, false), 1);
    assert!(delivery.is_verified);
    assert_eq!(server.asked, [vec![large]]);
}
