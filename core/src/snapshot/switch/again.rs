//! What the next batches have to read again after a switch that could not bring everything into the other form.
//!
//! In: the switch and its plan. Out: why, if anything has to be, and the marks in the stat cache, which are durable with the
//! commit: whatever happens afterwards, no look at a marked file finds it unchanged.

use std::collections::BTreeMap;

use super::plan::Plan;
use super::{Again, Batch, Switch, Way};
use crate::error::Result;
use crate::names::RootName;
use crate::path::RelPath;
use crate::store::files::{FileDelta, FileRecord};

/// Why files have to be read again.
pub(super) fn why(batch: &Batch<'_>, switch: &Switch, plan: &Plan) -> Option<Again> {
    match (&switch.way, &switch.old) {
        (Way::Afresh, _) => Some(Again::Afresh),
        (Way::Over, Some(old)) if old.key.is_none() => Some(Again::Lost),
        (Way::Over, Some(old)) if !plan.messages.is_empty() => {
            let key = batch.sealer.map(|sealer| &sealer.policy().key);
            Some(if key == Some(&old.policy.key) { Again::Recipients } else { Again::Key })
        }
        _ => None,
    }
}

/// The marks, by root.
pub(super) fn marks(
    batch: &Batch<'_>,
    why: Option<Again>,
    plan: &Plan,
) -> Result<Vec<(RootName, Vec<FileDelta>)>> {
    let mut marks: BTreeMap<RootName, Vec<FileDelta>> = BTreeMap::new();
    match why {
        None => {}
        Some(Again::Afresh | Again::Lost) => {
            for root in batch.roots {
                let of_root = marks.entry(root.name.clone()).or_default();
                let top = RelPath::root();
                if why == Some(Again::Afresh) {
                    of_root.push(FileDelta::RemoveTree(top));
                    continue;
                }
                let recorded = batch.files.get(&root.name, &top)?;
                of_root.extend(recorded.map(|record| mark(top.clone(), &record, false)));
                batch.files.records_below(&root.name, &top, &mut |path, record| {
                    of_root.push(mark(path, &record, false));
                })?;
            }
        }
        Some(reason @ (Again::Recipients | Again::Key)) => {
            for (root, path) in &plan.messages {
                if let Some(record) = batch.files.get(root, path)? {
                    let keeps_checksum = reason == Again::Recipients;
                    marks.entry(root.clone()).or_default().push(mark(path.clone(), &record, keeps_checksum));
                }
            }
        }
    }
    Ok(marks.into_iter().collect())
}

fn mark(path: RelPath, record: &FileRecord, keeps_checksum: bool) -> FileDelta {
    let mut marked = record.to_be_stored_again();
    if !keeps_checksum {
        marked.checksum = [0; 32];
    }
    FileDelta::Put(path, Box::new(marked))
}
