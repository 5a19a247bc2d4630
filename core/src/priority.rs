//! Work that is to be in nobody's way.

use std::thread;

use crate::error::{Error, Kind, Result};

/// As low as an ordinary process can go.
#[cfg(target_os = "linux")]
const LOWEST: i32 = 19;

/// Runs `work` on a thread of its own that gets the processor when nobody else wants it; threads that it starts inherit that.
/// A priority that was given up cannot be taken back without special rights, so a thread that others use later will not do.
///
/// # Errors
/// Those of `work`, and [`Kind::Limit`] if there can be no thread. A panic goes on in the caller.
pub fn lowest<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let run = || {
            // Only on Linux is this the thread's own; elsewhere it would slow down everything.
            #[cfg(target_os = "linux")]
            let _ = rustix::process::setpriority_process(None, LOWEST);
            work()
        };
        let spawned = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, run);
        let thread = spawned.map_err(|error| {
            Error::with_source(Kind::Limit, format!("cannot start a thread to {name}"), error)
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_work_is_polite_and_the_caller_keeps_what_it_had() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        assert_eq!(
            lowest("work", || Ok((own(), thread::spawn(own).join().unwrap()))).unwrap(),
            (LOWEST, LOWEST)
        );
        assert_eq!(own(), before);
    }
}
