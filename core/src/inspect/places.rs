//! What a schedule has to know of each place besides the results: `<state_dir>/inspections.json`.
//!
//! A place is a repository here, or one of its remotes. An attempt is noted before it is made, so that one that takes the
//! process with it is not made again at once by the next.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::notes;
use crate::clock::Moment;
use crate::error::Result;
use crate::small_state::Aside;

const FILE: &str = "inspections";

/// A place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The repository.
    pub repository: String,
    /// Its remote; absent: what is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Since when there is something to look at.
    pub since: Moment,
    /// Attempts in a row that came to no result.
    #[serde(default)]
    pub attempts: u32,
    /// When the last of these was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted: Option<Moment>,
    /// Why it came to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    places: Vec<Place>,
}

/// Sets the file aside if it is damaged.
pub(super) fn mend(state_dir: &Path) -> Result<Option<Aside>> {
    notes::mend::<Document>(state_dir, FILE, "attempts and due times are reckoned anew")
}

/// All that is known.
pub fn read(state_dir: &Path) -> Vec<Place> {
    notes::read::<Document>(state_dir, FILE).places
}

/// Notes this one in the place of what was known of it.
///
/// # Errors
/// When the file cannot be written.
pub fn note(state_dir: &Path, newer: &Place) -> Result<()> {
    notes::change(state_dir, FILE, |document: &mut Document| {
        let is_it = |it: &Place| it.repository == newer.repository && it.remote == newer.remote;
        document.places.retain(|it| !is_it(it));
        document.places.push(newer.clone());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_place_there_is_one_note_and_it_outlives_the_process() {
        let scratch = tempfile::tempdir().unwrap();
        let here = Place {
            repository: "documents".to_owned(),
            remote: None,
            since: Moment::now(),
            attempts: 0,
            attempted: None,
            reason: None,
        };
        let usb = Place { remote: Some("usb".to_owned()), ..here.clone() };
        note(scratch.path(), &here).unwrap();
        note(scratch.path(), &usb).unwrap();
        let failed = Place { attempts: 2, reason: Some("unplugged".to_owned()), ..usb };
        note(scratch.path(), &failed).unwrap();
        assert_eq!(read(scratch.path()), [here.clone(), failed]);

        std::fs::write(scratch.path().join("inspections.json"), "{\"places\": [").unwrap();
        let aside = mend(scratch.path()).unwrap().unwrap();
        assert!(aside.words().contains("inspections.json was damaged"), "{}", aside.words());
        assert_eq!(mend(scratch.path()).unwrap(), None);
        // Whoever writes meanwhile does not write over it either.
        std::fs::write(scratch.path().join("inspections.json"), "[]").unwrap();
        note(scratch.path(), &here).unwrap();
        assert_eq!(read(scratch.path()), [here]);
        assert_eq!(crate::quarantine::earlier(&scratch.path().join("inspections.json")).len(), 2);
    }
}
