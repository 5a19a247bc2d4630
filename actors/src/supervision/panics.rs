//! What a panic said and where it happened, for whoever learns later that a task ended by one.
//!
//! A process-wide hook, installed once, counts every panic, hands it to one callback (the program's logger;
//! nothing is printed besides) and keeps the last few by the id of the task they happened in. The end of a
//! task carries the message but not the place; [`describe`] joins the two.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use tokio::task;

use super::lock;

/// Panics nobody asks about, in tasks of no child, must not pile up.
const REMEMBERED: usize = 64;

static INSTALL: Once = Once::new();
static TOTAL: AtomicU64 = AtomicU64::new(0);
static LAST: Mutex<VecDeque<(task::Id, PanicReport)>> = Mutex::new(VecDeque::new());

/// One panic, as the hook saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanicReport {
    /// What the panic said.
    pub message: String,
    /// File, line and column.
    pub location: String,
    /// The name of the thread.
    pub thread: String,
}

/// Replaces the panic hook by one that counts, remembers and calls `log`; later calls change nothing.
///
/// `log` runs while the thread panics: a panic inside it aborts the process, and it must not take a lock that
/// the panicking code may hold.
pub fn install_panic_hook(log: impl Fn(&PanicReport) + Send + Sync + 'static) {
    INSTALL.call_once(|| {
        std::panic::set_hook(Box::new(move |info| {
            TOTAL.fetch_add(1, Ordering::Relaxed);
            let report = report_of(info);
            if let Some(id) = task::try_id() {
                let mut last = lock(&LAST);
                if last.len() >= REMEMBERED {
                    last.pop_front();
                }
                last.push_back((id, report.clone()));
            }
            log(&report);
        }));
    });
}

/// Panics since the hook was installed, caught ones included.
pub fn panics_total() -> u64 {
    TOTAL.load(Ordering::Relaxed)
}

fn report_of(info: &PanicHookInfo<'_>) -> PanicReport {
    PanicReport {
        message: message_of(info.payload()),
        location: info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string),
        thread: std::thread::current().name().unwrap_or("unnamed").to_owned(),
    }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        return (*text).to_owned();
    }
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The message of a caught panic, with the place if the hook saw it happen in `task`.
pub(crate) fn describe(payload: &(dyn Any + Send), task: Option<task::Id>) -> String {
    let message = message_of(payload);
    match task.and_then(take) {
        Some(report) => format!("{message} (at {})", report.location),
        None => message,
    }
}

fn take(task: task::Id) -> Option<PanicReport> {
    let mut last = lock(&LAST);
    let newest = last.iter().rposition(|(id, _)| *id == task)?;
    last.remove(newest).map(|(_, report)| report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[actix::test]
    async fn the_hook_counts_calls_the_logger_and_remembers_the_place() {
        let logged = Arc::new(Mutex::new(Vec::new()));
        let log = logged.clone();
        install_panic_hook(move |report| {
            // The other tests of this process are still to say why they fail.
            eprintln!("{}: {} (at {})", report.thread, report.message, report.location);
            lock(&log).push(report.clone());
        });
        install_panic_hook(|_| unreachable!("the first hook stays"));
        let before = panics_total();

        let error = actix::spawn(async { panic!("number {}", 7) }).await.unwrap_err();
        let task = error.id();
        let text = describe(error.into_panic().as_ref(), Some(task));

        assert!(text.starts_with("number 7 (at "), "{text}");
        assert!(text.contains("panics.rs:"), "{text}");
        assert!(panics_total() > before);
        assert!(lock(&logged).iter().any(|report| report.message == "number 7"));
        assert_eq!(take(task), None, "told once");
    }

    #[test]
    fn a_payload_that_is_no_text_has_a_text() {
        assert_eq!(describe(&7_u8, None), "a panic without a message");
        assert_eq!(describe(&"plain", None), "plain");
    }
}
