//! Where waiting for the network happens: one small runtime of its own for the whole process.
//!
//! The rest of this crate blocks. A call that waits for a remote hands its future to [`run`], which looks for a
//! cancellation while it waits and drops the future at once then, closing what it holds open. The waits are bounded by
//! the futures themselves, so they count as steps: nobody takes a job that waits for a slow remote for a hung one.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// So late is a cancellation noticed at most.
const LOOK: Duration = Duration::from_millis(50);

static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();

/// The runtime, for what has to go on between two calls.
pub(super) fn runtime() -> Result<&'static Runtime> {
    let made = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(1).max_blocking_threads(8).thread_name("network").enable_all();
        builder.build().map_err(|error| error.to_string())
    });
    made.as_ref().map_err(|error| {
        Error::new(Kind::Limit, format!("cannot start the thread that talks to the network: {error}"))
    })
}

/// Waits for a future, until `progress` is cancelled. Must not be called by something that runs on a runtime itself.
pub(crate) fn run<T>(progress: &Progress, future: impl Future<Output = Result<T>>) -> Result<T> {
    if progress.is_cancelled() {
        return Err(Error::cancelled());
    }
    runtime()?.block_on(async {
        tokio::pin!(future);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                outcome = &mut future => return outcome,
                _ = look.tick() => progress.check()?,
            }
        }
    })
}
