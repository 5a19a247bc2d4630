//! Reading the found files into the pack, on several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::gather::RootFindings;
use crate::content::{Capture, Cleaner, Destination};
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::scan::Finding;

/// Files taken by a thread at a time: large enough to stay off the shared counter, small enough to end together.
const STRIDE: usize = 16;

/// Captures the content of every finding that has one; the answer stands at the finding's place.
pub(super) fn store(
    root: &RootFindings<'_>,
    to: Destination<'_>,
    threads: usize,
    progress: &Progress,
) -> Result<Vec<Option<Capture>>> {
    let next = AtomicUsize::new(0);
    let threads = threads.clamp(1, root.findings.len().div_ceil(STRIDE).max(1));
    let mut captures: Vec<Option<Capture>> = Vec::new();
    captures.resize_with(root.findings.len(), || None);
    let parts = std::thread::scope(|scope| -> Result<Vec<Vec<(usize, Capture)>>> {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(|| work(root, to, &next, progress))).collect();
        // This thread works too: one thread less to start, and none at all for a small batch.
        let mut parts = vec![work(root, to, &next, progress)];
        for worker in workers {
            let part = worker.join();
            parts.push(part.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a reading thread panicked"))));
        }
        parts.into_iter().collect()
    })?;
    for (index, capture) in parts.into_iter().flatten() {
        captures[index] = Some(capture);
    }
    Ok(captures)
}

fn work(
    root: &RootFindings<'_>,
    to: Destination<'_>,
    next: &AtomicUsize,
    progress: &Progress,
) -> Result<Vec<(usize, Capture)>> {
    let mut cleaner = Cleaner::new(&root.watched.name, &root.directory, to);
    let mut captures = Vec::new();
    loop {
        let from = next.fetch_add(STRIDE, Ordering::Relaxed);
        if from >= root.findings.len() {
            return Ok(captures);
        }
        let to = (from + STRIDE).min(root.findings.len());
        for (index, finding) in root.findings[from..to].iter().enumerate() {
            let Finding::Changed { path, look, recorded } = finding else { continue };
            if look.kind.has_content() {
                captures.push((from + index, cleaner.clean(path, look, recorded.as_deref(), progress)?));
            }
        }
    }
}
