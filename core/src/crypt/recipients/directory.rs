//! The directory of certificates that the configuration names: one more, one less, one renewed.
//!
//! Certificates are public; what is written is readable by everybody, because the daemon may run as another user.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{SUFFIXES, certificates_at, contents, shown, survey};
use crate::crypt::openpgp::Recipient;
use crate::error::{Error, Kind, Result};

/// What became of a certificate that was to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    New(PathBuf),
    /// It took the place of an older copy of the same certificate.
    Renewed(PathBuf),
    /// The very same was there.
    Present(PathBuf),
}

/// What became of a certificate that was to be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files in directories, gone now.
    pub files: Vec<PathBuf>,
    /// Files that the configuration names itself: they stay, and their lines have to go.
    pub configured: Vec<PathBuf>,
}

/// Puts a certificate, whose recipient was found good, where the configuration looks for recipients.
///
/// # Errors
/// [`Kind::Config`] if the configuration names no directory; of writing.
pub fn add(places: &[PathBuf], bytes: &[u8], recipient: &Recipient) -> Result<Added> {
    let fingerprint = recipient.fingerprint();
    // Whether the others are in force does not matter here.
    let present =
        survey(places, 0).into_iter().find(|found| found.fingerprint.as_deref() == Some(fingerprint));
    if let Some(found) = present {
        if contents(&found.path)? == bytes {
            return Ok(Added::Present(found.path));
        }
        write(&found.path, bytes)?;
        return Ok(Added::Renewed(found.path));
    }
    let Some(directory) = places.iter().find(|place| is_directory(place)) else {
        let text = "the configuration names no directory of certificates: write `recipients: [DIRECTORY]` under \
                    `encryption` of the repository, with an absolute path, or name the certificate's own file there";
        return Err(Error::new(Kind::Config, text));
    };
    let fail = |error| Error::io("make the directory", directory, error);
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(fail)?;
    let suffix = if bytes.starts_with(b"-----BEGIN") { SUFFIXES[0] } else { SUFFIXES[1] };
    let path = directory.join(format!("{fingerprint}.{suffix}"));
    write(&path, bytes)?;
    Ok(Added::New(path))
}

/// Takes the certificate with this fingerprint away, wherever the configuration has it, also one that is not in force any
/// more.
///
/// # Errors
/// When a file cannot be removed.
pub fn remove(places: &[PathBuf], fingerprint: &str) -> Result<Removed> {
    let mut removed = Removed::default();
    for place in places {
        let is_directory = is_directory(place);
        let Ok(paths) = certificates_at(place) else { continue };
        let place = std::slice::from_ref(place);
        let theirs =
            survey(place, 0).into_iter().filter(|found| found.fingerprint.as_deref() == Some(fingerprint));
        for found in theirs.filter(|found| paths.contains(&found.path)) {
            if !is_directory {
                removed.configured.push(found.path);
                continue;
            }
            fs::remove_file(&found.path).map_err(|error| Error::io("remove", &found.path, error))?;
            removed.files.push(found.path);
        }
    }
    for directory in removed.files.iter().filter_map(|path| path.parent()) {
        sync_directory(directory)?;
    }
    Ok(removed)
}

/// Whether a configured place is a directory, or would be one: a name without the ending of a certificate.
fn is_directory(place: &Path) -> bool {
    match fs::metadata(place) {
        Ok(metadata) => metadata.is_dir(),
        Err(_) => {
            let extension = place.extension().and_then(|extension| extension.to_str());
            !extension.is_some_and(|extension| SUFFIXES.contains(&extension))
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let draft = path.with_file_name(format!(".{name}.new"));
    let write = || -> io::Result<()> {
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&draft);
        let text = format!("cannot write the certificate {}", shown(path));
        Error::with_source(crate::error::kind_of_io(&error), text, error)
    })?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| Error::io("sync", directory, error))
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use crate::crypt::openpgp::tests::gpg::Gpg;
    use crate::crypt::openpgp::tests::now;

    #[test]
    fn a_certificate_is_added_renewed_and_removed_also_when_it_has_expired() {
        let scratch = tempfile::tempdir().unwrap();
        let places = [scratch.path().join("bob.asc"), scratch.path().join("people")];
        let alice = Gpg::generate("alice", &["future-default", "default", "2y"], "");
        let certificate = alice.armored_certificate();
        let path = places[1].join(format!("{}.asc", alice.fingerprint()));
        assert_eq!(add(&places, &certificate, &alice.recipient()).unwrap(), Added::New(path.clone()));
        assert_eq!(add(&places, &certificate, &alice.recipient()).unwrap(), Added::Present(path.clone()));
        alice.make(&["--quick-set-expire", alice.fingerprint(), "5y"]);
        let longer = alice.armored_certificate();
        assert_eq!(add(&places, &longer, &alice.recipient()).unwrap(), Added::Renewed(path.clone()));
        assert_eq!(fs::read(&path).unwrap(), longer);
        assert_eq!(read(&places[1..], now()).unwrap()[0].fingerprint(), alice.fingerprint());
        // At the time of this look it is not in force.
        assert!(survey(&places[1..], 0)[0].recipient.is_err());
        assert_eq!(remove(&places, alice.fingerprint()).unwrap().files, std::slice::from_ref(&path));
        assert!(!path.exists());
        assert_eq!(remove(&places, alice.fingerprint()).unwrap(), Removed::default());
    }

    #[test]
    fn a_file_that_the_configuration_names_itself_stays_and_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let alice = Gpg::with_key("alice", "future-default");
        let places = [scratch.path().join("alice.gpg")];
        let error = add(&places, &alice.certificate(), &alice.recipient()).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        fs::write(&places[0], alice.certificate()).unwrap();
        let removed = remove(&places, alice.fingerprint()).unwrap();
        assert_eq!(removed, Removed { files: Vec::new(), configured: places.to_vec() });
        assert!(places[0].exists());
    }
}
