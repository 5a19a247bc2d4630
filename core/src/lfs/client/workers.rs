//! Several transfers at a time. In: jobs and what to do with one; out: nothing, or the first error that ends it for
//! all. The caller's thread works too, so it goes on where the system gives no more threads.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Result};

/// Transfers at a time: hides the pauses between objects, and leaves a server room for others.
pub(super) const AT_ONCE: usize = 3;

/// Does `work` for each job, `at_once` at a time. After an error no job is begun.
pub(super) fn for_each<T: Send>(
    jobs: Vec<T>,
    at_once: usize,
    work: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let helpers = at_once.min(jobs.len()).saturating_sub(1);
    let waiting = Mutex::new(VecDeque::from(jobs));
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let run = || {
        while let Some(job) = next() {
            if let Err(error) = work(job) {
                waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            if thread::Builder::new().name("lfs".to_owned()).spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn so_many_at_a_time_and_every_job_once() {
        let together = Barrier::new(3);
        let sum = AtomicU32::new(0);
        for_each((1..=9).collect(), 3, |job: u32| {
            together.wait();
            sum.fetch_add(job, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 45);
        for_each(Vec::<u32>::new(), 3, |_| Ok(())).unwrap();
    }

    #[test]
    fn after_an_error_no_job_is_begun() {
        let begun = AtomicU32::new(0);
        let error = for_each((0..100).collect(), 1, |job: u32| {
            begun.fetch_add(1, Ordering::Relaxed);
            if job == 2 { Err(Error::new(Kind::Quota, "full")) } else { Ok(()) }
        })
        .unwrap_err();
        assert_eq!((error.kind(), begun.into_inner()), (Kind::Quota, 3));
    }
}
