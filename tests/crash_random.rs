//! Killed fifty times at moments that nobody chose, the very first start among them, while files keep changing.

use std::time::Duration;

use crate::support::daemon::Setup;
use crate::support::tree::{Churn, corpus, fingerprint};
use crate::support::{Random, is_long, seed};

#[test]
fn fifty_kills_at_random_moments_lose_nothing() {
    let seed = seed("fifty_kills_at_random_moments_lose_nothing");
    let rounds = if is_long() { 1000 } else { 50 };
    let mut random = Random::new(seed);
    let setup = Setup::new();
    corpus(&setup.root(), 400, &mut random);
    let mut churn = Churn::start(&setup.root(), seed, Duration::from_millis(10));
    let mut complete: Option<String> = None;
    for round in 0..rounds {
        let daemon = setup.launch(&[]);
        // The shortest lives end before anything is open, the longest after a few commits.
        let life = match round {
            0 => 5 + random.below(60),
            _ => random.below(800),
        };
        std::thread::sleep(Duration::from_millis(life as u64));
        daemon.kill();
        let tip = setup.remote().tip("main");
        if let Some(earlier) = &complete {
            let now = tip.as_ref().unwrap_or_else(|| panic!("round {round}: the remote's branch is gone"));
            assert!(setup.remote().is_ancestor(earlier, now), "round {round}: the remote went back");
        }
        complete = tip;
        if round % 10 == 9 {
            churn.stop();
            let untouched = fingerprint(&setup.root());
            let daemon = setup.start();
            daemon.api().flush();
            daemon.kill();
            setup.assert_clone_equals_root();
            assert_eq!(fingerprint(&setup.root()), untouched, "round {round}");
            for judge in [setup.remote(), setup.local()] {
                judge.assert_sound();
                judge.assert_tidy("main");
            }
            complete = setup.remote().tip("main");
            churn = Churn::start(&setup.root(), seed.wrapping_add(round), Duration::from_millis(10));
        }
    }
    churn.stop();
    let daemon = setup.start();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();
    assert!(setup.remote().is_ancestor(&complete.expect("something was pushed"), "main"));
}
