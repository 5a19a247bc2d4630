//! Inspecting: is what was backed up still there, here and at the remotes, and can it really be restored?
//!
//! ```text
//! here:     the repository in the state directory ───────────────▶ verify ──────────────▶ verified.json
//! remote:   a path is read in place, anything else is fetched ─┬▶ verify ──────────────▶ verified.json
//!                                                              └▶ restore, read again ─▶ drills.json
//! ```
//!
//! [`far`] takes what a remote holds as a stranger would, [`drill`] restores a part of it into a scratch directory and
//! compares. [`schedule`] says when each is due, from times that survive restarts; [`verified`] and [`drills`] remember
//! what was found. Nothing here writes into a repository, a remote or a watched directory.

use std::path::Path;

use crate::error::Result;
use crate::keeping::scrubs;
use crate::small_state::Aside;

pub mod drill;
pub mod drills;
pub mod far;
pub(crate) mod notes;
pub mod places;
pub mod schedule;
pub mod scratch;
pub mod verified;

/// Sets aside what is damaged of the files that remember what was found, before anybody takes it for empty.
///
/// # Errors
/// When one cannot be set aside.
pub fn mend(state_dir: &Path) -> Result<Vec<Aside>> {
    let mended = [
        verified::mend(state_dir)?,
        drills::mend(state_dir)?,
        places::mend(state_dir)?,
        scrubs::mend(state_dir)?,
    ];
    Ok(mended.into_iter().flatten().collect())
}
