//! `keys add-recipient` and `keys remove-recipient`: who can open a repository with an OpenPGP key of his own.

use std::path::PathBuf;

use backupbot_core::audit::Event;
use backupbot_core::clock;
use backupbot_core::config::{Config, EncryptionMethod, Repository};
use backupbot_core::crypt::openpgp::{Recipient, certificate};
use backupbot_core::crypt::recipients::{self, Added};
use serde_json::json;

use super::{HOW_TO_ENCRYPT, configuration, given, meant, method, nudge, tell};
use crate::cli::Global;
use crate::cli::keys::{AddRecipient, RemoveRecipient};
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::output;
use crate::settings::World;

/// Seconds since 1970.
pub fn now() -> u64 {
    u64::try_from(clock::now().as_second()).unwrap_or_default()
}

/// What a configuration names as recipients, and the repositories that go by it.
fn places(config: &Config, wanted: Option<&str>) -> Result<(Vec<PathBuf>, Vec<String>), Failure> {
    let configured = |repository: &Repository| match method(repository) {
        None | Some(EncryptionMethod::None { .. }) => None,
        Some(method) => Some(method.recipients().to_vec()),
    };
    let mut chosen: Option<Vec<PathBuf>> = None;
    for repository in meant(config, wanted)? {
        let Some(recipients) = configured(repository) else { continue };
        match &chosen {
            Some(other) if *other != recipients => {
                return Err(Failure::usage(
                    "several repositories have recipients of their own: choose with --repository",
                ));
            }
            _ => chosen = Some(recipients),
        }
    }
    let Some(chosen) = chosen else {
        return Err(Failure::usage(format!("nothing is encrypted there: {HOW_TO_ENCRYPT}")));
    };
    let affected = config.repositories.iter().filter(|repository| {
        configured(repository).is_some_and(|recipients| recipients.iter().any(|place| chosen.contains(place)))
            || wanted == Some(repository.name.as_str())
    });
    let names = affected.map(|repository| repository.name.to_string()).collect();
    Ok((chosen, names))
}

pub fn add(world: &World, global: &Global, arguments: &AddRecipient) -> Result<Exit, Failure> {
    let config = configuration(world, global)?.config;
    let (places, repositories) = places(&config, arguments.which.repository.as_deref())?;
    let (bytes, name) = given(world, &arguments.certificate, certificate::LARGEST)?;
    let recipient = Recipient::parse(&bytes, &name, now())?;
    let added = recipients::add(&places, &bytes, &recipient)?;
    let (fingerprint, user) = (recipient.fingerprint(), recipient.user_id());
    let (path, word) = match &added {
        Added::New(path) => (path, "added"),
        Added::Renewed(path) => (path, "renewed"),
        Added::Present(path) => (path, "present"),
    };
    let mut told = "";
    if !matches!(added, Added::Present(_)) {
        tell(world, global, "add-recipient", &repositories, &|| {
            Event::new("recipient", word)
                .with("fingerprint", fingerprint)
                .with("user", user)
                .with("file", shown(path))
        });
        told = nudge(world, global, &repositories);
    }
    if global.json {
        let answer = json!({"fingerprint": fingerprint, "user_id": user, "file": path, "became": word,
                            "expires": recipient.expires(), "repositories": repositories});
        output::json(&answer)?;
        return Ok(Exit::Done);
    }
    let who = format!("{fingerprint} ({user})");
    output::answer(&match added {
        Added::Present(path) => {
            format!("{who} is a recipient already, by the same certificate in {}", shown(&path))
        }
        Added::Renewed(path) => {
            format!("{who} is a recipient already; the newer certificate is in {} now; {told}", shown(&path))
        }
        Added::New(path) if is_by_gpg(&config, &repositories) => format!(
            "{who} is a recipient of {} now, by {}; {told}. All files are read and encrypted anew with the next snapshots, so that \
             this person can read them too, and need room for it at every remote. Older snapshots stay closed to this person, and \
             so does what is not in the watched directories any more",
            repositories.join(", "),
            shown(&path)
        ),
        Added::New(path) => format!(
            "{who} is a recipient of {} now, by {}; {told}. From that snapshot on `git-crypt unlock` opens a clone with this \
             person's gpg key. Older snapshots made with the same key open with it too",
            repositories.join(", "),
            shown(&path)
        ),
    })?;
    Ok(Exit::Done)
}

pub fn remove(world: &World, global: &Global, arguments: &RemoveRecipient) -> Result<Exit, Failure> {
    let config = configuration(world, global)?.config;
    let (places, repositories) = places(&config, arguments.which.repository.as_deref())?;
    let fingerprint = match fingerprint_in(&arguments.who) {
        Some(fingerprint) => fingerprint,
        None => {
            let (bytes, name) = given(world, arguments.who.as_ref(), certificate::LARGEST)?;
            let identity = certificate::identity(&bytes).ok_or_else(|| {
                Failure::failed(format!(
                    "{name} is neither one OpenPGP certificate nor a fingerprint of 40 digits"
                ))
            })?;
            identity.0
        }
    };
    let removed = recipients::remove(&places, &fingerprint)?;
    if removed.files.is_empty() && removed.configured.is_empty() {
        return Err(Failure::failed(format!(
            "{fingerprint} is no recipient: `backupbot keys check` shows who is"
        )));
    }
    let mut told = "";
    if !removed.files.is_empty() {
        tell(world, global, "remove-recipient", &repositories, &|| {
            Event::new("recipient", "removed").with("fingerprint", &fingerprint)
        });
        told = nudge(world, global, &repositories);
    }
    if global.json {
        output::json(&json!({"fingerprint": fingerprint, "removed": removed.files,
                             "named_in_configuration": removed.configured, "repositories": repositories}))?;
    } else {
        for path in &removed.files {
            output::answer(&format!("removed {}; {told}", shown(path)))?;
        }
    }
    if !removed.configured.is_empty() {
        let files: Vec<String> = removed.configured.iter().map(|path| shown(path)).collect();
        return Err(Failure::failed(format!(
            "{fingerprint} stays a recipient: the configuration names {} under encryption.recipients; take it out there and \
             reload",
            files.join(", ")
        )));
    }
    if !global.json && is_by_gpg(&config, &repositories) {
        output::answer(
            "All files are read and encrypted anew with the next snapshots, for the others only, and need room for it at every \
             remote. What was pushed before stays readable to this person",
        )?;
    } else if !global.json {
        output::answer(
            "Whoever could open the key may have it still, and can read everything that is encrypted with it, also what is \
             backed up from now on. `backupbot keys rotate` ends that for what comes; what was pushed before stays readable \
             to whoever has both the old key and a copy of it",
        )?;
    }
    Ok(Exit::Done)
}

/// Whether the contents of these repositories are messages to their recipients.
fn is_by_gpg(config: &Config, repositories: &[String]) -> bool {
    let meant = config
        .repositories
        .iter()
        .filter(|repository| repositories.iter().any(|it| repository.name.as_str() == it));
    meant.map(method).all(|method| matches!(method, Some(EncryptionMethod::Gpg(_))))
}

/// A fingerprint as people write it: in groups, with 0x, in any case.
fn fingerprint_in(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    let text = text.strip_prefix("0x").unwrap_or(&text);
    let is_one = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| text.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_known_in_every_way_that_people_write_it() {
        let plain = "CFEFD6D6C52F425706F422D167D2D55D192DD4BD";
        for text in [
            plain,
            "0xcfefd6d6c52f425706f422d167d2d55d192dd4bd",
            "CFEF D6D6 C52F 4257 06F4  22D1 67D2 D55D 192D D4BD",
        ] {
            assert_eq!(fingerprint_in(text).as_deref(), Some(plain));
        }
        for text in ["", "alice.asc", "192DD4BD", &plain[1..], "0x"] {
            assert_eq!(fingerprint_in(text), None);
        }
    }
}
