//! Which path somebody means: as it stands, from the working directory, or through the links above it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use backupbot_core::names::RootName;
use backupbot_core::path::RelPath;

/// What a path can mean, the most literal first: as given (absolute, or `<root>/rel`), from the working
/// directory, and with symbolic links above it resolved.
pub fn meanings(current_dir: &Path, given: &Path) -> Vec<PathBuf> {
    let absolute = current_dir.join(given);
    let mut meanings = vec![given.to_path_buf(), absolute.components().collect()];
    if let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name())
        && let Ok(parent) = parent.canonicalize()
    {
        meanings.push(parent.join(name));
    }
    meanings.extend(absolute.canonicalize());
    let mut seen = Vec::new();
    meanings.retain(|path| {
        let is_new = !seen.contains(path);
        seen.push(path.clone());
        is_new
    });
    meanings
}

/// The root that a path belongs to, and the path in it. Roots that are no longer watched have no directory.
pub fn locate(
    current_dir: &Path,
    given: &Path,
    roots: &[(RootName, Option<PathBuf>)],
) -> Option<(RootName, RelPath)> {
    meanings(current_dir, given).iter().find_map(|meaning| {
        roots.iter().find_map(|(name, directory)| {
            let below = match meaning.is_absolute() {
                true => meaning.strip_prefix(directory.as_ref()?).ok()?,
                false => meaning.strip_prefix(".").unwrap_or(meaning).strip_prefix(name.as_str()).ok()?,
            };
            Some((name.clone(), relative(below)?))
        })
    })
}

/// The components with single slashes between them; `None` where one leads upwards.
fn relative(path: &Path) -> Option<RelPath> {
    let mut bytes: Vec<u8> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                if !bytes.is_empty() {
                    bytes.push(b'/');
                }
                bytes.extend_from_slice(name.as_bytes());
            }
            Component::CurDir => {}
            _ => return None,
        }
    }
    RelPath::new(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_literally_first_and_from_the_working_directory_then() {
        let scratch = tempfile::tempdir().unwrap();
        let real = scratch.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("data")).unwrap();
        std::os::unix::fs::symlink(real.join("data"), real.join("link")).unwrap();
        let found = meanings(&real, Path::new("link/gone.txt"));
        assert_eq!(
            found,
            [PathBuf::from("link/gone.txt"), real.join("link/gone.txt"), real.join("data/gone.txt")]
        );
        assert_eq!(meanings(&real, &real.join("data/./x")).last(), Some(&real.join("data/x")));
    }

    #[test]
    fn a_path_is_found_in_its_root_however_it_is_said() {
        let root = |name: &str| RootName::new(name).unwrap();
        let roots =
            [(root("docs"), Some(PathBuf::from("/data/docs"))), (root("gone"), None), (root("doc"), None)];
        let here = Path::new("/data/docs/sub");
        let found = |path: &str| {
            let (root, path) = locate(here, Path::new(path), &roots)?;
            Some(format!("{root}:{path}"))
        };
        for (path, expected) in [
            ("docs/a/b", Some("docs:a/b")),
            ("./docs//a/./b/", Some("docs:a/b")),
            ("docs", Some("docs:")),
            ("/data/docs/a", Some("docs:a")),
            ("/data/docs", Some("docs:")),
            ("/data/docs2", None),
            ("gone/x", Some("gone:x")),
            ("doc/x", Some("doc:x")),
            ("x", Some("docs:sub/x")),
            (".", Some("docs:sub")),
            ("docs/../x", None),
            ("/elsewhere", None),
        ] {
            assert_eq!(found(path).as_deref(), expected, "{path}");
        }
    }
}
