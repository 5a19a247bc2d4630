//! What the tests here need: a root with large files, backed up, and remotes in directories that have been pushed to.

use std::fs;
use std::path::PathBuf;

use git2::Oid;

use super::census::Census;
use super::keeper::Keeper;
use crate::config::{Lfs, Remote, RemoteUrl, Repository as Settings};
use crate::git::repository::Repository;
use crate::lfs::tests::settings;
use crate::lfs::{Classifier, ObjectId, Objects, Pointer};
use crate::names::RemoteName;
use crate::progress::Progress;
use crate::push::courier::{Courier, Refusals};
use crate::push::large::LargeDelivery;
use crate::snapshot;
use crate::snapshot::tests::{Bench, bench, git};
use crate::store::remotes::RemoteRecord;

pub(crate) const BRANCH: &str = "refs/heads/main";

/// A repository that is backed up.
pub(crate) struct Place {
    pub bench: Bench,
    pub settings: Settings,
}

impl Place {
    /// With these remotes; `lfs` besides the threshold of four bytes.
    pub fn new(remotes: &[&str]) -> Self {
        let mut settings = settings("{threshold: 4B, keep_local: 0s}", &[]);
        let mut bench = bench();
        bench.classifier = Classifier::of(&settings);
        settings.name = bench.name.clone();
        let mut place = Self { bench, settings };
        remotes.iter().for_each(|name| place.add_remote(name));
        place
    }

    pub fn add_remote(&mut self, name: &str) {
        let path = self.bench.scratch.path().join(format!("{name}.git"));
        Repository::open_or_create(&path, BRANCH, name, name).unwrap();
        self.settings.remotes.push(Remote::at(RemoteName::new(name).unwrap(), RemoteUrl::Local(path)));
    }

    pub fn lfs(&mut self) -> &mut Lfs {
        self.settings.lfs.as_mut().unwrap()
    }

    pub fn remote_path(&self, number: usize) -> PathBuf {
        match &self.settings.remotes[number].url {
            RemoteUrl::Local(path) => path.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub fn objects_at(&self, number: usize) -> Objects {
        Objects::of(&self.remote_path(number))
    }

    pub fn own(&self) -> Objects {
        Objects::of(self.bench.repository.path())
    }

    /// Writes files and commits them; where the branch stands.
    pub fn back_up(&mut self, files: &[(&str, &str)]) -> Oid {
        files.iter().for_each(|(name, content)| self.bench.write(name, content));
        self.bench.back_up();
        self.tip()
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.bench.root().join(file)).unwrap();
    }

    pub fn tip(&self) -> Oid {
        self.bench.repository.reference(BRANCH).unwrap().unwrap()
    }

    pub fn census(&self) -> Census {
        Census::of_branches(&self.bench.repository, &Progress::new()).unwrap()
    }

    /// Brings everything to a remote, as a push does.
    pub fn push(&self, number: usize) {
        let remote = &self.settings.remotes[number];
        let known = self.bench.store.large(&self.bench.name, &remote.name);
        let mut courier = Courier {
            remote,
            remotes: &self.settings.remotes,
            repository: self.bench.repository.path(),
            branch: BRANCH,
            known: &known,
            refusals: &Refusals::default(),
            now_ms: crate::clock::now_ms(),
            notes: crate::transport::Notes::default(),
        };
        let brought = courier.bring(&self.census().pointers(), &Progress::new()).unwrap();
        assert_eq!(brought.withheld, []);
        git(
            self.bench.repository.path(),
            &["push", "-q", self.remote_path(number).to_str().unwrap(), BRANCH],
        );
        let confirmed = Some(snapshot::raw(self.tip()));
        let record = RemoteRecord { confirmed, ..RemoteRecord::default() };
        self.bench.store.remote(&self.bench.name, &remote.name).record(&record, None).unwrap();
    }

    pub fn keeper(&self) -> Keeper<'_> {
        Keeper {
            store: &self.bench.store,
            settings: &self.settings,
            path: self.bench.repository.path(),
            branch: BRANCH,
            state_dir: self.bench.scratch.path(),
        }
    }

    /// Whether the database says that a remote has it.
    pub fn is_known(&self, number: usize, pointer: &Pointer) -> bool {
        let remote = &self.settings.remotes[number].name;
        self.bench.store.reader().large(&self.bench.name, remote, &pointer.id).unwrap().is_some()
    }
}

/// The pointer of a content.
pub(crate) fn pointer_of(content: &str) -> Pointer {
    use sha2::{Digest, Sha256};
    Pointer { id: ObjectId(Sha256::digest(content).into()), size: content.len() as u64 }
}

/// Puts other bytes of the same length in a content's place.
pub(crate) fn spoil(objects: &Objects, pointer: &Pointer) {
    let path = objects.path_of(&pointer.id);
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b'?'; pointer.size as usize]).unwrap();
}
