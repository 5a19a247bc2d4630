//! `keys create` and `keys rotate`: a new key, where there is none, or in the place of another.

use backupbot_core::audit::Event;
use backupbot_core::crypt::key_files;
use serde_json::json;

use super::{Place, configuration, nudge, owner, place, tell, warn_of_owner};
use crate::cli::Global;
use crate::cli::keys::Which;
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::output::{self, quoted};
use crate::settings::World;

pub fn create(world: &World, global: &Global, which: &Which) -> Result<Exit, Failure> {
    let settings = configuration(world, global)?;
    let place = place(&settings.config, which.repository.as_deref())?;
    let key = key_files::create(&place.key_file, owner(&settings.config))?;
    tell(world, global, "create", &place.repositories, &|| {
        Event::new("key", "created").with("key", key.id()).with("file", shown(&place.key_file))
    });
    if global.json {
        output::json(&json!({"key": key.id(), "file": place.key_file, "repositories": place.repositories}))?;
        return Ok(Exit::Done);
    }
    if place.is_of_metadata {
        output::answer(&format!(
            "made the key {} in {}\n\n\
             It has the metadata and the checksums only, and is in the repository for each recipient too. Contents are read with \
             the private keys of the recipients and nothing else: see to it that copies of those do not burn with this machine \
             (gpg --export-secret-keys).\n\
             Then `backupbot check`, and start or reload the daemon. The first snapshot encrypts everything.",
            key.id(),
            shown(&place.key_file)
        ))?;
        warn_of_owner(&settings.config);
        return Ok(Exit::Done);
    }
    output::answer(&format!(
        "made the key {} in {}\n\n\
         Now, before anything else: print the recovery kit, and put it where it does not burn with this machine. Without the \
         key nobody can read the backup, you included.\n  \
         backupbot keys export --kit{} | lpr\n\
         Then `backupbot check`, and start or reload the daemon. The first snapshot encrypts everything.",
        key.id(),
        shown(&place.key_file),
        of_repository(&place)
    ))?;
    warn_of_owner(&settings.config);
    Ok(Exit::Done)
}

pub fn rotate(world: &World, global: &Global, which: &Which) -> Result<Exit, Failure> {
    let settings = configuration(world, global)?;
    let place = place(&settings.config, which.repository.as_deref())?;
    let rotated = key_files::rotate(&place.key_file, &place.old_keys)?;
    tell(world, global, "rotate", &place.repositories, &|| {
        Event::new("key", "rotated")
            .with("key", rotated.new.id())
            .with("old key", &rotated.old)
            .with("file", shown(&place.key_file))
    });
    let told = nudge(world, global, &place.repositories);
    let kept: Vec<String> = rotated.kept.iter().map(|path| shown(path)).collect();
    if global.json {
        output::json(&json!({
            "key": rotated.new.id(), "file": place.key_file, "old_key": rotated.old, "old_files": rotated.kept,
            "repositories": place.repositories,
        }))?;
        return Ok(Exit::Done);
    }
    if place.is_of_metadata {
        output::answer(&format!(
            "made the key {} of the metadata in {}; the old one, {}, is kept in {}\n\n\
             All files of {} are read and encrypted anew, for the recipients, with the next snapshots, and need room for it at \
             every remote; {told}.\n\
             The metadata of older snapshots is read with the old key, so keep it; the recipients have it in the repository too. \
             What a recipient could read he can still read: `backupbot keys remove-recipient` ends that for what comes.",
            rotated.new.id(),
            shown(&place.key_file),
            rotated.old,
            kept.join(" and "),
            place.repositories.join(", ")
        ))?;
        return Ok(Exit::Done);
    }
    output::answer(&format!(
        "made the key {} in {}; the old one, {}, is kept in {}\n\n\
         The next snapshot of {} encrypts everything anew and needs room for it at every remote; {told}.\n\
         Older snapshots stay encrypted with the old key, so keep it. BackupBot reads them by itself. Plain git-crypt opens a \
         clone with one key only: `git-crypt unlock` with the new key opens everything from that snapshot on; for an older one \
         check it out in a fresh clone and unlock that with {}.\n\
         Whoever had the old key can still read whatever was encrypted with it.\n\n\
         The printed recovery kit does not have the new key. Print a new one now, which has both:\n  \
         backupbot keys export --kit{} | lpr",
        rotated.new.id(),
        shown(&place.key_file),
        rotated.old,
        kept.join(" and "),
        place.repositories.join(", "),
        kept.first().map_or("", String::as_str),
        of_repository(&place)
    ))?;
    Ok(Exit::Done)
}

/// What chooses this key in another command, where that is needed or does no harm.
fn of_repository(place: &Place) -> String {
    place.repositories.first().map_or_else(String::new, |name| format!(" --repository {}", quoted(name)))
}
