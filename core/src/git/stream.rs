//! One object's bytes, piece by piece, however large it is.
//!
//! In: an object's name. Out: its bytes, inflated, to a sink; the name is checked along the way, so whatever the sink did
//! counts only if no error follows. Whole entries of packs and loose objects take constant memory. Deltas, which only
//! other programs write, and not of files beyond 512 MB as they are set up by default, are read at once.

use std::fs::File;
use std::io::{BufReader, Read};

use flate2::bufread::ZlibDecoder;
use git2::Oid;

use super::pack::{EntryKind, ObjectKind, PackSet, hash_object, pour};
use super::repository::{Repository, git_error};
use crate::error::{Error, Kind, Result};
use crate::path::lossy;

/// A delta that makes a larger object is not read.
const MAX_DELTA_BYTES: usize = 1 << 30;
/// `commit`, a space, the digits of a size and a NUL.
const MAX_LOOSE_HEADER: usize = 32;
const CHUNK_BYTES: usize = 128 * 1024;

/// The objects of a repository, to be read as streams.
pub struct Contents<'r> {
    repository: &'r Repository,
    packs: PackSet,
}

impl<'r> Contents<'r> {
    /// Looks at the packs of `repository`.
    ///
    /// # Errors
    /// If their directory cannot be listed.
    pub fn open(repository: &'r Repository) -> Result<Self> {
        Ok(Self { repository, packs: PackSet::open(&repository.pack_directory())? })
    }

    /// Gives the object `oid` to `sink` in pieces.
    ///
    /// # Errors
    /// What `sink` says, and [`Kind::Git`] for an object that is not there or not what its name says.
    pub fn stream(&self, oid: &Oid, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match self.packs.find(oid)? {
            Some((pack, entry)) => match entry.kind {
                EntryKind::Whole(_) => pack.stream_object(oid, &entry, sink),
                EntryKind::OfsDelta { .. } | EntryKind::RefDelta { .. } => self.at_once(oid, sink),
            },
            None => match self.loose(oid, sink)? {
                true => Ok(()),
                // It may have been packed in this moment, or stand where only libgit2 looks.
                false => self.at_once(oid, sink),
            },
        }
    }

    fn at_once(&self, oid: &Oid, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let fail = |error| git_error(&format!("read the object {oid} of"), self.repository.path(), error);
        let objects = self.repository.objects()?;
        let (size, _) = objects.read_header(*oid).map_err(fail)?;
        if size > MAX_DELTA_BYTES {
            let text = format!(
                "{oid} is a delta that makes {size} bytes, more than the {MAX_DELTA_BYTES} that are read at once"
            );
            return Err(Error::new(Kind::Git, text));
        }
        let object = objects.read(*oid).map_err(fail)?;
        if hash_object(ObjectKind::try_from(object.kind())?, object.data())? != *oid {
            return Err(Error::new(Kind::Git, format!("what is stored as {oid} is something else")));
        }
        sink(object.data())
    }

    /// Whether it is a file of its own.
    fn loose(&self, oid: &Oid, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let name = oid.to_string();
        let (directory, file) = name.split_at(2);
        let path = self.repository.path().join("objects").join(directory).join(file);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("open the object", &path, error)),
        };
        let place = lossy(path.as_os_str().as_encoded_bytes());
        let fail = |what: &str| Error::new(Kind::Git, format!("the object {place} is damaged: {what}"));
        let mut inflate = ZlibDecoder::new(BufReader::with_capacity(CHUNK_BYTES, file));
        let mut header = Vec::new();
        let mut byte = [0];
        while header.len() < MAX_LOOSE_HEADER {
            inflate.read_exact(&mut byte).map_err(|error| fail(&format!("it does not inflate: {error}")))?;
            if byte == [0] {
                let (kind, size) = header_of(&header).ok_or_else(|| fail("its header is none"))?;
                return pour(inflate, kind, size, oid, sink, &fail).map(|()| true);
            }
            header.extend_from_slice(&byte);
        }
        Err(fail("its header does not end"))
    }
}

fn header_of(header: &[u8]) -> Option<(ObjectKind, u64)> {
    let (kind, size) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    let all = [ObjectKind::Commit, ObjectKind::Tree, ObjectKind::Blob, ObjectKind::Tag];
    let kind = all.into_iter().find(|known| known.as_str() == kind)?;
    let is_number = size.bytes().all(|byte| byte.is_ascii_digit());
    Some((kind, size.parse().ok().filter(|_| is_number)?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::git::pack::{PackWriter, Sync, install_by_name};
    use crate::progress::Progress;
    use crate::tree::judge::Judge;

    fn read(repository: &Repository, oid: &Oid) -> std::result::Result<Vec<u8>, String> {
        let mut all = Vec::new();
        let contents = Contents::open(repository).unwrap();
        let streamed = contents.stream(oid, &mut |piece| {
            all.extend_from_slice(piece);
            Ok(())
        });
        streamed.map(|()| all).map_err(|error| error.to_string())
    }

    fn large(seed: u8) -> Vec<u8> {
        (0..700_000_u32).flat_map(|number| (number / 3 * u32::from(seed)).to_le_bytes()).collect()
    }

    fn file_of(repository: &Repository, oid: &Oid) -> PathBuf {
        let name = oid.to_string();
        repository.path().join("objects").join(&name[..2]).join(&name[2..])
    }

    #[test]
    fn whole_entries_loose_objects_and_deltas_all_give_their_bytes() {
        let judge = Judge::new();
        let repository = Repository::open(judge.path()).unwrap();
        let contents: Vec<Vec<u8>> =
            vec![Vec::new(), b"small".to_vec(), large(1), [large(1), b"x".to_vec()].concat()];
        let ids: Vec<Oid> = contents.iter().map(|content| judge.write_blob(content)).collect();
        for (content, id) in contents.iter().zip(&ids) {
            assert!(file_of(&repository, id).exists());
            assert!(read(&repository, id).unwrap() == *content);
        }
        let names: String = ids.iter().map(|id| format!("{id}\n")).collect();
        judge.git_with(["pack-objects", "-q", "--window=10", "objects/pack/pack"], names.as_bytes());
        judge.git(["prune-packed"]);
        let repository = Repository::open(judge.path()).unwrap();
        for (content, id) in contents.iter().zip(&ids) {
            assert!(!file_of(&repository, id).exists());
            assert!(read(&repository, id).unwrap() == *content);
        }
        let packs = PackSet::open(&repository.pack_directory()).unwrap();
        let is_delta = |id: &Oid| !matches!(packs.find(id).unwrap().unwrap().1.kind, EntryKind::Whole(_));
        assert!(ids.iter().any(is_delta), "the test has a delta");
        assert!(read(&repository, &Oid::from_str(&"1".repeat(40)).unwrap()).is_err());
    }

    #[test]
    fn bytes_that_are_not_what_the_name_says_end_in_an_error() {
        let judge = Judge::new();
        let repository = Repository::open(judge.path()).unwrap();
        let pack = PackWriter::create(&repository.pack_directory()).unwrap();
        let content = large(7);
        let id = pack.add(ObjectKind::Blob, &content).unwrap();
        let finished = pack.finish(Sync::Durable, &Progress::new()).unwrap().unwrap();
        install_by_name(&repository.pack_directory(), &finished.into_name()).unwrap();
        assert!(read(&repository, &id).unwrap() == content);
        let packs = fs::read_dir(repository.pack_directory()).unwrap();
        let path = packs
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|it| it == "pack"));
        let path = path.unwrap();
        let sound = fs::read(&path).unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false)]
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
        for at in [20, sound.len() / 2, sound.len() - 30] {
            let mut flipped = sound.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, flipped).unwrap();
            assert!(read(&repository, &id).is_err(), "{at}");
        }

        let right = judge.write_blob(b"right");
        let wrong = judge.write_blob(b"wrong");
        fs::remove_file(file_of(&repository, &right)).unwrap();
        fs::copy(file_of(&repository, &wrong), file_of(&repository, &right)).unwrap();
        let error = read(&repository, &right).unwrap_err();
        assert!(error.contains("is not"), "{error}");
        for garbage in [&b""[..], b"not zlib at all"] {
            fs::remove_file(file_of(&repository, &right)).unwrap();
            fs::write(file_of(&repository, &right), garbage).unwrap();
            assert!(read(&repository, &right).is_err());
        }
    }
}
