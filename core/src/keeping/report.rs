//! What fills the remotes: the largest contents with their names, the directories that they are in, what only earlier snapshots
//! need, and what no snapshot needs at all.
//!
//! In: a census, what lies here, what the database knows of each remote. Out: numbers and the first names of each list.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::census::{Census, Found};
use super::prune::Amount;
use crate::error::Result;
use crate::lfs::{ObjectId, Objects, Pointer};
use crate::names::{RemoteName, RepositoryName};
use crate::path::lossy;
use crate::store::StoreReader;

/// What fills the remotes of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// What lies here.
    pub here: Amount,
    /// What lies here and no branch needs: of commits that never came to be, or of branches that are gone.
    pub unneeded_here: Amount,
    /// What all branches need.
    pub history: Amount,
    /// What the latest snapshot needs.
    pub latest: Amount,
    /// What only earlier snapshots need.
    pub only_earlier: Amount,
    /// What is known of each remote, in the order of the configuration.
    pub known: Vec<KnownThere>,
    /// The largest contents.
    pub largest: Vec<LargeFile>,
    /// The directories with the most bytes of them.
    pub directories: Vec<LargeDirectory>,
}

/// What is known to be at a remote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownThere {
    /// The remote.
    pub remote: String,
    /// What branches need and it is not known to have.
    pub lacks: Amount,
    /// What it is known to have and no branch needs.
    pub unneeded: Amount,
}

/// A content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeFile {
    /// `<root>/path`, the latest name that it had, lossy.
    pub path: String,
    /// The exact bytes in base64, if something was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// Its SHA-256.
    pub object: String,
    /// Its bytes.
    pub bytes: u64,
    /// Whether the latest snapshot has it.
    pub is_current: bool,
    /// The remotes that are known to have it.
    pub remotes: Vec<String>,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeDirectory {
    /// `<root>/path`, lossy.
    pub path: String,
    /// The exact bytes in base64, if something was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// Large contents directly in it, of all snapshots.
    #[serde(flatten)]
    pub amount: Amount,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// The repository.
    pub repository: &'q RepositoryName,
    /// Its remotes.
    pub remotes: &'q [RemoteName],
    /// Only what this one is known to have is in the lists.
    pub only: Option<&'q RemoteName>,
    /// So many names in each list.
    pub top: usize,
}

/// Answers. `census` has seen the latest snapshot.
///
/// # Errors
/// Of the database, and of the store here.
pub fn report(
    question: &Question<'_>,
    census: &Census,
    objects: &Objects,
    reader: &StoreReader,
) -> Result<Contents> {
    let mut contents = Contents::default();
    for pointer in objects.list()? {
        contents.here.add(pointer.size);
        if census.get(&pointer.id).is_none() {
            contents.unneeded_here.add(pointer.size);
        }
    }
    for (pointer, found) in census.contents() {
        contents.history.add(pointer.size);
        let amount = if found.is_current { &mut contents.latest } else { &mut contents.only_earlier };
        amount.add(pointer.size);
    }
    let mut there: Vec<(&RemoteName, BTreeSet<ObjectId>)> = Vec::new();
    for remote in question.remotes {
        let (mut ids, mut unneeded) = (BTreeSet::new(), Amount::default());
        reader.each_large(question.repository, remote, &mut |id, row| {
            if census.get(&id).is_none() {
                unneeded.add(row.size);
            }
            ids.insert(id);
        })?;
        let mut lacks = Amount::default();
        for (pointer, _) in census.contents().filter(|(pointer, _)| !ids.contains(&pointer.id)) {
            lacks.add(pointer.size);
        }
        contents.known.push(KnownThere { remote: remote.to_string(), lacks, unneeded });
        there.push((remote, ids));
    }
    let only = question.only.and_then(|only| there.iter().find(|(remote, _)| *remote == only));
    let mut listed: Vec<(Pointer, &Found)> = census
        .contents()
        .filter(|(pointer, _)| only.is_none_or(|(_, ids)| ids.contains(&pointer.id)))
        .collect();
    listed.sort_by(|(one, _), (other, _)| other.size.cmp(&one.size).then(one.id.cmp(&other.id)));
    contents.directories = directories(&listed, question.top);
    listed.truncate(question.top);
    contents.largest = listed
        .into_iter()
        .map(|(pointer, found)| {
            let (path, path_b64) = shown(&found.path_on_disk());
            let has = there.iter().filter(|(_, ids)| ids.contains(&pointer.id));
            LargeFile {
                path,
                path_b64,
                object: pointer.id.to_string(),
                bytes: pointer.size,
                is_current: found.is_current,
                remotes: has.map(|(remote, _)| remote.to_string()).collect(),
            }
        })
        .collect();
    Ok(contents)
}

fn directories(listed: &[(Pointer, &Found)], top: usize) -> Vec<LargeDirectory> {
    let mut by_path: BTreeMap<Vec<u8>, Amount> = BTreeMap::new();
    for (pointer, found) in listed {
        let mut path = found.path_on_disk();
        path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
        by_path.entry(path).or_default().add(pointer.size);
    }
    let mut sorted: Vec<(Vec<u8>, Amount)> = by_path.into_iter().collect();
    sorted.sort_by_key(|(_, amount)| std::cmp::Reverse(amount.bytes));
    sorted.truncate(top);
    sorted
        .into_iter()
        .map(|(path, amount)| {
            let (path, path_b64) = shown(&path);
            LargeDirectory { path, path_b64, amount }
        })
        .collect()
}

/// For people, and the exact bytes where something is lost.
fn shown(path: &[u8]) -> (String, Option<String>) {
    let is_exact = std::str::from_utf8(path).is_ok_and(|text| !text.chars().any(char::is_control));
    (lossy(path), (!is_exact).then(|| STANDARD.encode(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeping::tests::Place;
    use crate::progress::Progress;

    #[test]
    fn what_fills_the_remotes_is_named_and_what_only_earlier_snapshots_need_is_told_apart() {
        let mut place = Place::new(&["usb", "nas"]);
        place.back_up(&[
            ("a", "first content"),
            ("films/long", &"x".repeat(100)),
            ("films/short", "a short one"),
        ]);
        place.push(0);
        place.remove("films/long");
        place.back_up(&[("bad\nname", "second content")]);
        let mut draft = place.own().begin().unwrap();
        draft.write(b"of no commit").unwrap();
        draft.finish().unwrap();
        let mut census = place.census();
        census.see_latest(&place.bench.repository, place.tip(), &Progress::new()).unwrap();
        let remotes: Vec<RemoteName> = place.settings.remotes.iter().map(|it| it.name.clone()).collect();
        let ask = |only: Option<&RemoteName>, top| {
            let question = Question { repository: &place.settings.name, remotes: &remotes, only, top };
            report(&question, &census, &place.own(), &place.bench.store.reader()).unwrap()
        };
        let all = ask(None, 10);
        let amount = |objects, bytes| Amount { objects, bytes };
        assert_eq!((all.here, all.unneeded_here), (amount(5, 150), amount(1, 12)));
        assert_eq!(
            (all.history, all.latest, all.only_earlier),
            (amount(4, 138), amount(3, 38), amount(1, 100))
        );
        assert_eq!((all.known[0].lacks, all.known[1].lacks), (amount(1, 14), amount(4, 138)));
        let first = &all.largest[0];
        assert_eq!((first.path.as_str(), first.bytes, first.is_current), ("folder/films/long", 100, false));
        assert_eq!((&first.remotes, all.largest.len()), (&vec!["usb".to_owned()], 4));
        let odd = &all.largest[1];
        assert_eq!(
            (odd.path.as_str(), odd.path_b64.as_deref()),
            ("folder/bad\\nname", Some("Zm9sZGVyL2JhZApuYW1l"))
        );
        let directories: Vec<_> = all.directories.iter().map(|it| (it.path.as_str(), it.amount)).collect();
        assert_eq!(directories, [("folder/films", amount(2, 111)), ("folder", amount(2, 27))]);
        let nas = ask(Some(&remotes[1]), 10);
        assert_eq!((nas.largest.len(), nas.directories.len(), nas.history), (0, 0, all.history));
        assert_eq!(
            ask(Some(&remotes[0]), 2).largest,
            all.largest[..1].iter().cloned().chain([all.largest[2].clone()]).collect::<Vec<_>>()
        );
    }
}
