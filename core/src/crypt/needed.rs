//! Which keys the snapshots of a repository need.
//!
//! In: its branches. Out: every key that a policy in their history names, with how many snapshots need it. A snapshot costs two
//! small trees; a policy is read once for all snapshots that share its file.

use std::collections::HashMap;

use git2::{Odb, Oid, Sort};

use super::policy::{self, KeyId, Policy};
use crate::error::Result;
use crate::git::repository::{Repository, git_error};
use crate::progress::Progress;
use crate::tree;

/// A key that snapshots need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Its name.
    pub key: KeyId,
    /// How many snapshots.
    pub snapshots: u64,
    /// The newest of them.
    pub newest: Oid,
    /// The oldest of them.
    pub oldest: Oid,
}

/// What the history of a repository needs to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The keys, that of the newest snapshots first.
    pub keys: Vec<Needed>,
    /// Snapshots in clear text.
    pub clear: u64,
    /// Snapshots of which it cannot be told.
    pub unreadable: u64,
    /// Why, of the newest of them.
    pub trouble: Option<String>,
}

/// Looks at every snapshot that a branch leads to.
///
/// # Errors
/// When the history cannot be walked; cancellation.
pub fn of_history(repository: &Repository, progress: &Progress) -> Result<History> {
    let objects = repository.objects()?;
    let fail = |error| git_error("walk the history of", repository.path(), error);
    let mut commits = repository.git().revwalk().map_err(fail)?;
    commits.set_sorting(Sort::TIME).map_err(fail)?;
    for (name, tip) in repository.references()? {
        if name.starts_with("refs/heads/") {
            commits.push(tip).map_err(fail)?;
        }
    }
    let mut history = History::default();
    let mut known: HashMap<Oid, std::result::Result<Option<KeyId>, String>> = HashMap::new();
    for commit in commits {
        progress.check()?;
        let commit = commit.map_err(fail)?;
        let tree = repository.tree_of(commit)?;
        let key = match policy_entry(&objects, tree) {
            Ok(None) => Ok(None),
            Ok(Some(entry)) => known
                .entry(entry)
                .or_insert_with(|| {
                    let policy = Policy::of_tree(&objects, tree);
                    policy.map(|policy| policy.map(|policy| policy.key)).map_err(|error| error.to_string())
                })
                .clone(),
            Err(error) => Err(error.to_string()),
        };
        match key {
            Ok(None) => history.clear += 1,
            Ok(Some(key)) => history.count(key, commit),
            Err(why) => {
                history.unreadable += 1;
                history.trouble.get_or_insert(why);
            }
        }
    }
    Ok(history)
}

fn policy_entry(objects: &Odb<'_>, tree: Oid) -> Result<Option<Oid>> {
    Ok(tree::lookup(objects, tree, policy::PATH.as_bytes())?.map(|entry| entry.oid))
}

impl History {
    fn count(&mut self, key: KeyId, commit: Oid) {
        match self.keys.iter_mut().find(|needed| needed.key == key) {
            Some(needed) => {
                needed.snapshots += 1;
                needed.oldest = commit;
            }
            None => self.keys.push(Needed { key, snapshots: 1, newest: commit, oldest: commit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::gitcrypt::KeyFile;
    use crate::crypt::patterns::Patterns;
    use crate::crypt::policy::Cipher;
    use crate::tree::judge::Judge;
    use crate::tree::{Edits, Entry, MODE_FILE};

    fn commit(judge: &Judge, parent: Option<&str>, files: &[(&str, &[u8])], second: u32) -> String {
        let objects = judge.objects();
        let mut edits = Edits::new();
        for (path, content) in files {
            edits.set(*path, Entry { mode: MODE_FILE, oid: judge.write_blob(content) });
        }
        let tree = tree::apply(&objects, &objects, None, &edits).unwrap().unwrap().to_string();
        let parents = parent.map_or_else(String::new, |parent| format!("parent {parent}\n"));
        let text = format!(
            "tree {tree}\n{parents}author a <a@example.org> {second} +0000\n\
             committer a <a@example.org> {second} +0000\n\nx\n"
        );
        let made = judge.git_with(["hash-object", "-t", "commit", "-w", "--stdin"], text.as_bytes());
        String::from_utf8(made).unwrap().trim().to_owned()
    }

    #[test]
    fn every_key_is_named_with_the_snapshots_that_need_it() {
        let judge = Judge::new();
        let policies: Vec<Policy> = (0..2)
            .map(|_| {
                let key = KeyFile::generate(None).unwrap();
                Policy {
                    key: KeyId::of(&key.versions()[0]),
                    cipher: Cipher::GitCrypt,
                    paths: Patterns::parse(&[] as &[&str]).unwrap(),
                }
            })
            .collect();
        let (one, two) = (policies[0].encode().unwrap(), policies[1].encode().unwrap());
        let mut chain: Vec<String> = Vec::new();
        for (second, policy) in
            [None, Some(&one[..]), Some(&one), Some(&b"nonsense"[..]), Some(&two)].into_iter().enumerate()
        {
            let number = second.to_string();
            let mut files = vec![("a/x", number.as_bytes())];
            files.extend(policy.map(|policy| (policy::PATH, policy)));
            let made = commit(&judge, chain.last().map(String::as_str), &files, second as u32 + 1);
            chain.push(made);
        }
        judge.git(["update-ref", "refs/heads/main", &chain[4]]);
        judge.git(["update-ref", "refs/heads/other", &chain[2]]);
        let repository = Repository::open(judge.path()).unwrap();
        let history = of_history(&repository, &Progress::new()).unwrap();
        let oid = |at: usize| Oid::from_str(&chain[at]).unwrap();
        assert_eq!(
            history.keys,
            [
                Needed { key: policies[1].key.clone(), snapshots: 1, newest: oid(4), oldest: oid(4) },
                Needed { key: policies[0].key.clone(), snapshots: 2, newest: oid(2), oldest: oid(1) },
            ]
        );
        assert_eq!((history.clear, history.unreadable), (1, 1));
        assert!(history.trouble.unwrap().contains("damaged"));
    }

    #[test]
    fn a_repository_without_a_snapshot_needs_nothing() {
        let judge = Judge::new();
        let repository = Repository::open(judge.path()).unwrap();
        assert_eq!(of_history(&repository, &Progress::new()).unwrap(), History::default());
    }
}
