//! Ctrl-C during a restore or a verification: the first one stops it in an orderly way, the second one at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backupbot_core::progress::Progress;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure};
use crate::output;

/// How often one progress is asked whether the other was cancelled.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Cancels `progress` at the first signal and ends the process at the second. Where signals cannot be had, they do
/// what the system does by itself; nothing half-written stays either way.
pub fn listen(progress: &Progress) {
    let progress = progress.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            let mut is_second = false;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if is_second {
                    std::process::exit(Exit::Failed as i32);
                }
                is_second = true;
                output::complain("stopping after what is being done now; once more stops at once");
                progress.cancel();
            }
        });
    });
}

/// Hands a cancellation on while it lives.
pub struct Following(Arc<AtomicBool>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Cancels `to` when `from` is.
pub fn follow(from: &Progress, to: &Progress) -> Following {
    let ended = Arc::new(AtomicBool::new(false));
    let (from, to, is_over) = (from.clone(), to.clone(), ended.clone());
    let _ = std::thread::Builder::new().name("cancel".to_owned()).spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            if from.is_cancelled() {
                to.cancel();
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    });
    Following(ended)
}

/// Says what an interruption means.
pub fn explain(failure: Failure, progress: &Progress) -> Failure {
    if !progress.is_cancelled() {
        return failure;
    }
    Failure::failed("interrupted; nothing is half-written, and the same command goes on from here")
}
