//! What a remote advertised when it was last looked at, kept from one push to the next.
//!
//! Over HTTP a look before a push is a request of its own, and between two pushes of ours hardly anything happens to a
//! remote. A push names the value that each reference is to move from, and the remote refuses if it is another by then;
//! afterwards it is looked at in any case. So what is remembered can be wrong without doing harm: then it is looked
//! at as ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::advertisement::Advertised;

/// What is older may have been forgotten by everybody else as well.
const LONGEST: Duration = Duration::from_secs(3600);
/// More references are not worth the memory.
const MOST_REFERENCES: usize = 1000;

/// The memory of one remote; every clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Option<(Instant, Advertised)>>>);

impl Memory {
    /// Takes it out: whatever comes of it, it is not used twice.
    pub(super) fn take(&self) -> Option<Advertised> {
        let (since, advertised) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        (since.elapsed() < LONGEST).then_some(advertised)
    }

    pub(super) fn keep(&self, advertised: &Advertised) {
        let kept = (advertised.references.len() <= MOST_REFERENCES).then(|| advertised.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept.map(|kept| (Instant::now(), kept));
    }

    /// Forgets.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
