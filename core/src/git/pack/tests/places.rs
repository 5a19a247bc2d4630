//! Names, crashes between names, and what is left behind: nothing.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::error::Kind;

fn waiting(repository: &Repository) -> (String, BTreeMap<Oid, (ObjectKind, Vec<u8>)>) {
    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    let data = content(4, 4000, true);
    let oid = writer.add(ObjectKind::Blob, &data).unwrap();
    (finished(writer).into_name(), BTreeMap::from([(oid, (ObjectKind::Blob, data))]))
}

#[test]
fn dropping_at_any_stage_leaves_no_file() {
    let repository = Repository::new();
    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    writer.add(ObjectKind::Blob, &content(1, 3_000_000, false)).unwrap();
    assert!(repository.pack_files()[0].starts_with(TEMPORARY_PREFIX));
    drop(writer);
    assert_eq!(repository.pack_files(), [""; 0]);

    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    assert!(writer.finish(Sync::Durable, &Progress::new()).unwrap().is_none());
    assert_eq!(repository.pack_files(), [""; 0]);

    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    writer.add(ObjectKind::Blob, b"x").unwrap();
    let pack = finished(writer);
    let (pack_path, index_path) = pack.temporary_paths().unwrap();
    assert!(pack_path.exists() && index_path.exists());
    drop(pack);
    assert_eq!(repository.pack_files(), [""; 0]);

    let cancelled = Progress::new();
    cancelled.cancel();
    let writer = PackWriter::create(&repository.pack_dir()).unwrap();
    writer.add(ObjectKind::Blob, b"x").unwrap();
    assert_eq!(writer.finish(Sync::Durable, &cancelled).unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(repository.pack_files(), [""; 0]);
}

#[test]
fn a_pack_is_invisible_until_it_is_installed() {
    let repository = Repository::new();
    let (name, objects) = waiting(&repository);
    let oid = objects.keys().next().unwrap().to_string();
    let libgit2 = git2::Repository::open_bare(repository.pack_dir().join("../..")).unwrap();
    assert!(repository.try_git(&["cat-file", "-e", &oid], b"").is_err());
    assert!(!libgit2.odb().unwrap().exists(*objects.keys().next().unwrap()));
    assert!(PackSet::open(&repository.pack_dir()).unwrap().is_empty());

    let installed = install_by_name(&repository.pack_dir(), &name).unwrap();
    repository.assert_holds(&objects);
    assert_eq!(repository.pack_files(), [format!("{name}.idx"), format!("{name}.pack")]);
    let mode = std::fs::metadata(&installed.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o222, 0, "packs are never written to again");
}

#[test]
fn an_installation_that_stopped_anywhere_is_finished_by_name() {
    for stopped_after in 0..=2 {
        let repository = Repository::new();
        let (name, objects) = waiting(&repository);
        let places = [("pack", "pack"), ("idx", "idx")];
        for (temporary, ending) in places.iter().take(stopped_after) {
            let hex = name.trim_start_matches("pack-");
            let from = repository.pack_dir().join(format!("{TEMPORARY_PREFIX}{hex}_{temporary}"));
            std::fs::rename(from, repository.pack_dir().join(format!("{name}.{ending}"))).unwrap();
        }
        for round in 0..2 {
            let installed = install_by_name(&repository.pack_dir(), &name).unwrap();
            assert_eq!(installed.was_there, stopped_after == 2 || round == 1);
        }
        repository.assert_holds(&objects);
        assert_eq!(repository.pack_files().len(), 2);
    }
}

#[test]
fn a_pack_is_removed_by_name_wherever_it_is() {
    for stopped_after in 0..=2 {
        let repository = Repository::new();
        let (name, _) = waiting(&repository);
        if stopped_after > 0 {
            install_by_name(&repository.pack_dir(), &name).unwrap();
        }
        if stopped_after == 1 {
            std::fs::remove_file(repository.pack_dir().join(format!("{name}.idx"))).unwrap();
        }
        for _ in 0..2 {
            remove_by_name(&repository.pack_dir(), &name).unwrap();
            assert_eq!(repository.pack_files(), [""; 0]);
        }
        assert_eq!(install_by_name(&repository.pack_dir(), &name).unwrap_err().kind(), Kind::Git);
    }
}

#[test]
fn only_names_of_packs_are_taken() {
    let repository = Repository::new();
    let longer = format!("pack-{}", "0".repeat(41));
    for name in ["", "pack-", "pack-../../../HEAD", &longer, &format!("pack-{}/", "0".repeat(39))] {
        assert!(install_by_name(&repository.pack_dir(), name).is_err(), "{name}");
        assert!(remove_by_name(&repository.pack_dir(), name).is_err(), "{name}");
        assert!(sweep_temporary(&repository.pack_dir(), Some(name)).is_err(), "{name}");
    }
}

#[test]
fn a_pack_that_is_there_already_stays() {
    let repository = Repository::new();
    let blobs = [content(1, 500, true)];
    let first = pack_of(&repository, &blobs);
    let inode = std::fs::metadata(&first.path).unwrap().ino();
    let second = pack_of(&repository, &blobs);
    assert_eq!((second.was_there, &second.name), (true, &first.name));
    assert_eq!(std::fs::metadata(&first.path).unwrap().ino(), inode);
    assert_eq!(repository.pack_files().len(), 2);
}

#[test]
fn the_stump_of_a_pack_that_an_accident_left_is_replaced() {
    let repository = Repository::new();
    let (name, objects) = waiting(&repository);
    std::fs::write(repository.pack_dir().join(format!("{name}.pack")), b"").unwrap();
    assert!(!install_by_name(&repository.pack_dir(), &name).unwrap().was_there);
    repository.assert_holds(&objects);
}

#[test]
fn the_sweep_takes_what_nobody_recorded() {
    let repository = Repository::new();
    let installed = pack_of(&repository, &[content(1, 100, true)]);
    let (name, objects) = waiting(&repository);
    std::fs::write(repository.pack_dir().join(format!("{TEMPORARY_PREFIX}new_1")), b"x").unwrap();
    assert_eq!(sweep_temporary(&repository.pack_dir(), Some(&name)).unwrap(), 1);
    install_by_name(&repository.pack_dir(), &name).unwrap();
    repository.assert_holds(&objects);
    waiting(&repository);
    assert_eq!(sweep_temporary(&repository.pack_dir(), None).unwrap(), 2);
    assert!(installed.path.exists());
    assert_eq!(repository.pack_files().len(), 4, "two packs, each with its index");
    assert_eq!(sweep_temporary(Path::new("/no/such/directory"), None).unwrap(), 0);
}

#[test]
fn a_whole_pack_is_copied_to_another_repository() {
    let (from, to) = (Repository::new(), Repository::new());
    let blobs: Vec<Vec<u8>> = (0..20).map(|seed| content(seed, 100_000, false)).collect();
    let source = PackReader::open(&pack_of(&from, &blobs).path).unwrap();
    let copy = copy_whole_pack(&source, &to.pack_dir(), Sync::Durable, &Progress::new()).unwrap();
    assert_eq!((copy.objects(), copy.bytes()), (20, source.bytes()));
    assert_eq!(to.pack_files().len(), 2);
    let installed = copy.install().unwrap();
    assert_eq!(from.pack_files(), to.pack_files());
    assert_eq!(to.verify_pack(&installed.path), listed(&source));
    assert!(
        !copy_whole_pack(&source, &to.pack_dir(), Sync::Relaxed, &Progress::new()).unwrap().name().is_empty()
    );
    assert_eq!(to.pack_files().len(), 2, "a copy that is not installed is removed");

    let missing = to.pack_dir().join("no such directory");
    assert!(copy_whole_pack(&source, &missing, Sync::Relaxed, &Progress::new()).is_err());
}

#[test]
fn a_pack_that_was_half_in_place_or_half_removed_is_swept_with_its_index() {
    let repository = Repository::new();
    let installed = pack_of(&repository, &[content(1, 100, true)]);
    let (name, _) = waiting(&repository);
    let pack = repository.pack_dir().join(&name).with_extension("pack");
    let hex = name.trim_start_matches("pack-");
    std::fs::rename(repository.pack_dir().join(format!("{TEMPORARY_PREFIX}{hex}_pack")), &pack).unwrap();
    assert_eq!(sweep_temporary(&repository.pack_dir(), Some(&name)).unwrap(), 0);
    assert!(pack.exists());
    assert_eq!(sweep_temporary(&repository.pack_dir(), None).unwrap(), 1);
    assert!(!pack.exists());
    assert!(installed.path.exists());
    // One that is whole in its place stays, whatever else bears its name.
    let hex = installed.name.trim_start_matches("pack-");
    std::fs::write(repository.pack_dir().join(format!("{TEMPORARY_PREFIX}{hex}_idx")), b"x").unwrap();
    assert_eq!(sweep_temporary(&repository.pack_dir(), None).unwrap(), 1);
    assert_eq!(repository.pack_files().len(), 2);
}
