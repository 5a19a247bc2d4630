//! Places where a test build can be made to die, panic or stall; nothing at all in any other build.
//!
//! With the feature `fault-points`, `BACKUPBOT_FAULT` holds a comma-separated list of `name=action@n`: at the
//! n-th pass (counted from 1, default 1) through the point `name` the process kills itself (`kill`), the
//! thread panics (`panic`, at every pass from the n-th if the number is followed by `+`), sleeps an hour
//! (`stall`), or waits for as long as the file that `BACKUPBOT_FAULT_HELD_BY` names is there (`hold`). docs/architecture.md lists the points beside what is on disk at each.

/// A named place to die at. Names are `area:what-just-became-true`.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn point(_name: &str) {}

#[cfg(feature = "fault-points")]
pub use enabled::point;

/// As [`point`]; a plan may name it `name` or, for one of several that pass here, `name/subject`.
#[cfg(not(feature = "fault-points"))]
#[inline(always)]
pub fn point_of(_name: &str, _subject: &str) {}

#[cfg(feature = "fault-points")]
pub use enabled::point_of;

#[cfg(feature = "fault-points")]
mod enabled {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex};
    use std::time::Duration;

    #[derive(Clone, Copy)]
    enum Action {
        Kill,
        Panic,
        Stall,
        Hold,
    }

    #[derive(Clone)]
    struct Plan {
        action: Action,
        at: u64,
        onwards: bool,
        passes: u64,
    }

    static PLANS: LazyLock<Mutex<HashMap<String, Plan>>> = LazyLock::new(|| {
        let text = std::env::var("BACKUPBOT_FAULT").unwrap_or_default();
        Mutex::new(text.split(',').filter(|part| !part.is_empty()).filter_map(parse).collect())
    });

    fn parse(part: &str) -> Option<(String, Plan)> {
        let (name, rest) = part.split_once('=')?;
        let (action, count) = rest.split_once('@').unwrap_or((rest, "1"));
        let action = match action {
            "kill" => Action::Kill,
            "panic" => Action::Panic,
            "stall" => Action::Stall,
            "hold" => Action::Hold,
            _ => return None,
        };
        let onwards = count.ends_with('+');
        let at = count.trim_end_matches('+').parse().ok()?;
        Some((name.to_owned(), Plan { action, at, onwards, passes: 0 }))
    }

    /// A pass of one of several.
    pub fn point_of(name: &str, subject: &str) {
        point(name);
        point(&format!("{name}/{subject}"));
    }

    /// Counts a pass and acts if it is the planned one.
    #[allow(clippy::panic)]
    pub fn point(name: &str) {
        let action = {
            let mut plans = match PLANS.lock() {
                Ok(plans) => plans,
                Err(poisoned) => poisoned.into_inner(),
            };
            let Some(plan) = plans.get_mut(name) else { return };
            plan.passes += 1;
            if plan.passes == plan.at || (plan.onwards && plan.passes > plan.at) {
                Some(plan.action)
            } else {
                None
            }
        };
        match action {
            None => {}
            Some(Action::Kill) => {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                std::thread::sleep(Duration::from_secs(60));
            }
            Some(Action::Panic) => panic!("fault point {name}"),
            Some(Action::Stall) => std::thread::sleep(Duration::from_secs(3600)),
            Some(Action::Hold) => {
                let held_by = std::env::var_os("BACKUPBOT_FAULT_HELD_BY").map(std::path::PathBuf::from);
                while held_by.as_ref().is_some_and(|file| file.exists()) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}
