//! Tasks that go on beside the supervised tree for as long as the process lives, each begun anew when it breaks down.
//!
//! The tree's children are actors with a supervisor of their own. What connects the tree with the outside (the configuration's
//! file, signals, listeners) is too little for an actor and must not end by a panic either, because nobody would notice.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_rt::task::JoinHandle;
use slog::{Logger, error};

/// Before a task that broke down is begun anew; longer each time, up to the last.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(60)];
/// A run of this length has made up for those that broke down before.
const LONG_RUN: Duration = Duration::from_secs(600);

/// Runs what `begin` makes until it completes. It ends with what is returned.
pub fn keep<W>(name: &'static str, log: &Logger, begin: impl Fn() -> W + 'static) -> Kept
where
    W: Future<Output = ()> + 'static,
{
    keep_with(PAUSES, name, log, begin)
}

fn keep_with<W>(
    pauses: [Duration; 4],
    name: &'static str,
    log: &Logger,
    begin: impl Fn() -> W + 'static,
) -> Kept
where
    W: Future<Output = ()> + 'static,
{
    let log = log.clone();
    let present: Rc<Cell<Option<JoinHandle<()>>>> = Rc::default();
    let its = present.clone();
    let keeper = actix_rt::spawn(async move {
        let mut broken = 0_usize;
        loop {
            let began = Instant::now();
            let (tell, told) = tokio::sync::oneshot::channel();
            let work = begin();
            its.set(Some(actix_rt::spawn(async move {
                work.await;
                let _ = tell.send(());
            })));
            // A panic drops the sender.
            if told.await.is_ok() {
                return;
            }
            broken = if began.elapsed() >= LONG_RUN { 0 } else { broken + 1 };
            let pause = pauses[broken.saturating_sub(1).min(pauses.len() - 1)];
            error!(log, "a task has broken down and is begun anew"; "task" => name, "after" => ?pause);
            actix_rt::time::sleep(pause).await;
        }
    });
    Kept { keeper, present }
}

/// A task that is kept going.
pub struct Kept {
    keeper: JoinHandle<()>,
    present: Rc<Cell<Option<JoinHandle<()>>>>,
}

impl Kept {
    /// Ends it and waits until it has.
    pub async fn end(self) {
        self.keeper.abort();
        let _ = self.keeper.await;
        if let Some(present) = self.present.take() {
            present.abort();
            let _ = present.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::{Discard, o};

    #[actix_web::test]
    async fn what_breaks_down_is_begun_anew_until_it_completes() {
        let runs = Rc::new(Cell::new(0));
        let counted = runs.clone();
        let kept = keep_with([Duration::ZERO; 4], "test", &Logger::root(Discard, o!()), move || {
            counted.set(counted.get() + 1);
            let run = counted.get();
            async move {
                tokio::task::yield_now().await;
                assert!(run >= 7, "it breaks down six times");
            }
        });
        let _ = kept.keeper.await;
        assert_eq!(runs.get(), 7);
    }

    #[actix_web::test]
    async fn what_is_ended_does_nothing_more() {
        let alive = Rc::new(());
        let held = alive.clone();
        let kept = keep("test", &Logger::root(Discard, o!()), move || {
            let held = held.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        });
        tokio::task::yield_now().await;
        kept.end().await;
        assert_eq!(Rc::strong_count(&alive), 1, "it holds nothing any more");
    }
}
