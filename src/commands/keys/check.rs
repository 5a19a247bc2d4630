//! `keys check`: which keys and recipients there are, whether every snapshot can be read with them, and what somebody has to do.
//!
//! In: the configuration, the files that it names, and the repository in the state directory. Nothing is changed, and no lock
//! is taken: a daemon may be running. Findings need a person; remarks settle themselves, or are meant.

mod page;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backupbot_actors::root::repository_path;
use backupbot_core::clock;
use backupbot_core::config::{Config, Encryption, EncryptionMethod, Repository as RepositorySettings};
use backupbot_core::crypt::keyring::{Key, key_files};
use backupbot_core::crypt::needed::{self, History};
use backupbot_core::crypt::openpgp::Recipient;
use backupbot_core::crypt::policy::{KeyId, Policy};
use backupbot_core::crypt::recipients;
use backupbot_core::git::repository::Repository;
use backupbot_core::progress::Progress;
use backupbot_core::wording::counted;
use serde::Serialize;
use serde_json::json;

use super::people::now;
use super::{configuration, meant};
use crate::cli::Global;
use crate::cli::keys::Which;
use crate::exit::{Exit, Failure};
use crate::files::shown;
use crate::output;
use crate::settings::World;

/// A certificate that ends within this is told: when it does, nothing is backed up any more.
const ENDS_SOON: u64 = 30 * 24 * 3600;

/// A key file.
#[derive(Debug, Serialize)]
struct KeyRow {
    /// `null` if it cannot be read.
    id: Option<KeyId>,
    file: PathBuf,
    /// The permissions, in octal digits.
    mode: Option<String>,
}

/// A certificate.
#[derive(Debug, Serialize)]
struct RecipientRow {
    fingerprint: Option<String>,
    user_id: Option<String>,
    /// Seconds since 1970.
    expires: Option<u64>,
    file: PathBuf,
    /// Why it cannot be encrypted to.
    trouble: Option<String>,
}

/// The latest snapshot.
#[derive(Debug, Serialize)]
struct TipRow {
    commit: String,
    /// `null`: clear text.
    key: Option<KeyId>,
    /// Whether it is encrypted as the configuration says.
    as_configured: bool,
    /// Whether exactly the recipients have the key in it.
    recipients_current: Option<bool>,
}

/// A key that snapshots need.
#[derive(Debug, Serialize)]
struct NeededRow {
    key: KeyId,
    snapshots: u64,
    newest: String,
    oldest: String,
    in_hand: bool,
}

/// What is known of one repository.
#[derive(Debug, Serialize)]
struct Answer {
    repository: String,
    method: &'static str,
    key: Option<KeyRow>,
    old_keys: Vec<KeyRow>,
    recipients: Vec<RecipientRow>,
    latest: Option<TipRow>,
    needed: Vec<NeededRow>,
    clear_snapshots: u64,
    unreadable_snapshots: u64,
    /// What somebody has to see to.
    findings: Vec<String>,
    /// What settles itself, or is meant.
    remarks: Vec<String>,
}

pub fn check(world: &World, global: &Global, which: &Which) -> Result<Exit, Failure> {
    let config = configuration(world, global)?.config;
    let mut answers = Vec::new();
    for repository in meant(&config, which.repository.as_deref())? {
        answers.push(look(&config, repository));
    }
    let is_well = answers.iter().all(|answer| answer.findings.is_empty());
    if global.json {
        output::json(&json!({"repositories": answers, "ok": is_well}))?;
    } else {
        for answer in &answers {
            output::answer(&page::page(answer))?;
        }
    }
    Ok(if is_well { Exit::Done } else { Exit::SomeSkipped })
}

fn look(config: &Config, repository: &RepositorySettings) -> Answer {
    let encryption = repository.encryption.as_ref();
    let mut answer = Answer {
        repository: repository.name.to_string(),
        method: encryption.map_or("none", |encryption| encryption.method.as_str()),
        key: None,
        old_keys: Vec::new(),
        recipients: Vec::new(),
        latest: None,
        needed: Vec::new(),
        clear_snapshots: 0,
        unreadable_snapshots: 0,
        findings: Vec::new(),
        remarks: Vec::new(),
    };
    let mut current: Option<Key> = None;
    let mut good: Option<Vec<Recipient>> = None;
    match encryption.map(|encryption| &encryption.method) {
        None | Some(EncryptionMethod::None { old_keys: None }) => {}
        Some(EncryptionMethod::None { old_keys: Some(old_keys) }) => answer.old_keys_in(config, old_keys),
        Some(EncryptionMethod::Gpg(gpg)) if gpg.makes_key && !gpg.key_file.try_exists().unwrap_or(true) => {
            answer.remarks.push(format!(
                "{} is made with the next snapshot: the key of the metadata. If there was one, everything is read and \
                 encrypted anew then",
                shown(&gpg.key_file)
            ));
            good = answer.people(&gpg.recipients);
        }
        Some(method) => {
            if let Some(key_file) = method.key_file() {
                let (row, key) = answer.key_file(config, key_file);
                answer.key = Some(row);
                current = key;
            }
            if let Some(old_keys) = method.old_keys() {
                answer.old_keys_in(config, old_keys);
            }
            good = answer.people(method.recipients());
        }
    }
    if let Err(error) = answer.history(config, repository, current.as_ref(), good.as_deref()) {
        answer.findings.push(format!("the snapshots cannot be looked at: {error}"));
    }
    answer
}

impl Answer {
    /// A key file: what it is, and whether anybody else can read or replace it.
    fn key_file(&mut self, config: &Config, path: &Path) -> (KeyRow, Option<Key>) {
        let mut row = KeyRow { id: None, file: path.to_path_buf(), mode: None };
        let key = match Key::read(path) {
            Ok(key) => key,
            Err(error) => {
                self.findings.push(error.to_string());
                return (row, None);
            }
        };
        row.id = Some(key.id().clone());
        let name = shown(path);
        if let Ok(metadata) = fs::metadata(path) {
            let mode = metadata.mode() & 0o7777;
            row.mode = Some(format!("{mode:04o}"));
            if mode & 0o027 != 0 {
                self.findings.push(format!(
                    "others than its owner may read or change {name} (mode {mode:04o}): chmod 600 {name}"
                ));
            } else if mode & 0o050 != 0 {
                self.remarks.push(format!("the group {} may read {name}", metadata.gid()));
            }
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        if let Ok(metadata) = fs::metadata(directory)
            && metadata.mode() & 0o022 != 0
            && metadata.mode() & 0o1000 == 0
        {
            let directory = shown(directory);
            self.findings.push(format!(
                "others may write into {directory}, and put another key in the place of {name}: chmod go-w {directory}"
            ));
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        for root in config.repositories.iter().flat_map(|repository| &repository.roots) {
            if real.starts_with(&root.path) {
                self.findings.push(format!(
                    "{name} lies in the watched directory {}, and is backed up with it: keep keys outside of what is watched",
                    shown(&root.path)
                ));
            }
        }
        (row, Some(key))
    }

    fn old_keys_in(&mut self, config: &Config, directory: &Path) {
        match key_files(directory) {
            Ok(paths) => {
                for path in paths {
                    if self.key.as_ref().is_some_and(|key| key.file == path) {
                        continue;
                    }
                    let (row, _) = self.key_file(config, &path);
                    self.old_keys.push(row);
                }
            }
            Err(error) => self.findings.push(error.to_string()),
        }
    }

    /// The certificates; the recipients if all are good.
    fn people(&mut self, places: &[PathBuf]) -> Option<Vec<Recipient>> {
        let now = now();
        let mut is_good = true;
        for found in recipients::survey(places, now) {
            let mut row = RecipientRow {
                fingerprint: found.fingerprint,
                user_id: None,
                expires: None,
                file: found.path,
                trouble: None,
            };
            match &found.recipient {
                Ok(recipient) => {
                    row.user_id = Some(recipient.user_id().to_owned());
                    row.expires = recipient.expires();
                    if let Some(at) = recipient.expires().filter(|at| *at <= now.saturating_add(ENDS_SOON)) {
                        self.findings.push(format!(
                            "the certificate {} of {} ends on {}, and then nothing is backed up any more: have it prolonged \
                             (gpg --quick-set-expire), and give the new one to `backupbot keys add-recipient`, or take it away \
                             with `backupbot keys remove-recipient`",
                            shown(&row.file),
                            recipient.user_id(),
                            page::day(at)
                        ));
                    }
                }
                Err(error) => {
                    is_good = false;
                    self.findings.push(format!("{error}; nothing is backed up until this is put right"));
                    row.trouble = Some(error.to_string());
                }
            }
            self.recipients.push(row);
        }
        if !places.is_empty() && self.recipients.is_empty() {
            self.remarks.push(
                "encryption.recipients names directories without a certificate: nobody can open the repository with an OpenPGP \
                 key (backupbot keys add-recipient)"
                    .to_owned(),
            );
        }
        if is_good { recipients::read(places, now).ok() } else { None }
    }

    fn history(
        &mut self,
        config: &Config,
        settings: &RepositorySettings,
        current: Option<&Key>,
        good: Option<&[Recipient]>,
    ) -> Result<(), backupbot_core::error::Error> {
        let path = repository_path(&config.state_dir, settings.name.as_str());
        if !path.try_exists().unwrap_or(true) {
            self.remarks.push("nothing was backed up yet".to_owned());
            return Ok(());
        }
        let repository = Repository::open(&path)?;
        let branch = settings.branch.full_name(&config.instance, clock::now())?;
        let tip = match repository.reference(&branch)? {
            Some(tip) => Some(tip),
            None => repository.reference("HEAD")?,
        };
        let Some(tip) = tip else {
            self.remarks.push("nothing was backed up yet".to_owned());
            return Ok(());
        };
        let objects = repository.objects()?;
        let tree = repository.tree_of(tip)?;
        let policy = Policy::of_tree(&objects, tree)?;
        let as_configured = self.compare(settings.encryption.as_ref(), policy.as_ref(), current);
        let mut recipients_current = None;
        if let (Some(key), Some(people), true) = (current, good, as_configured) {
            let are_current = recipients::are_current(&objects, tree, key, people)?;
            recipients_current = Some(are_current);
            if !are_current {
                self.remarks.push(
                    "the latest snapshot has the key for other recipients: the next one has it for those above"
                        .to_owned(),
                );
            }
        }
        self.latest = Some(TipRow {
            commit: tip.to_string(),
            key: policy.map(|policy| policy.key),
            as_configured,
            recipients_current,
        });
        let history = needed::of_history(&repository, &Progress::new())?;
        self.needs(history, settings.encryption.is_some());
        Ok(())
    }

    /// Whether the latest snapshot is encrypted as it is configured; what follows if it is not.
    fn compare(
        &mut self,
        encryption: Option<&Encryption>,
        policy: Option<&Policy>,
        current: Option<&Key>,
    ) -> bool {
        match (encryption.map(|encryption| (&encryption.method, &encryption.paths)), policy) {
            (None, None) | (Some((EncryptionMethod::None { .. }, _)), None) => true,
            (None, Some(policy)) => {
                self.findings.push(format!(
                    "the latest snapshot is encrypted with the key {}, and the configuration says nothing of encryption: bring \
                     the section `encryption` back, or write `encryption: {{method: none, old_keys: DIRECTORY}}` if clear text \
                     is meant from now on",
                    policy.key
                ));
                false
            }
            (Some((EncryptionMethod::None { .. }, _)), Some(_)) => {
                self.remarks.push(
                    "the latest snapshot is encrypted: the next one stores everything in clear text, as configured".to_owned(),
                );
                false
            }
            (Some(_), None) => {
                self.remarks
                    .push("the latest snapshot is clear text: the next one encrypts everything".to_owned());
                false
            }
            (Some((method, paths)), Some(policy)) => {
                let is_key = current.is_some_and(|key| *key.id() == policy.key);
                let is_method = policy.cipher.as_str() == method.as_str();
                let are_paths = policy.paths.texts() == *paths;
                if current.is_some() && !(is_key && is_method && are_paths) {
                    let what = match (is_method, is_key) {
                        (false, _) => "with another method",
                        (true, false) => "with another key",
                        (true, true) => "for other paths",
                    };
                    self.remarks.push(format!(
                        "the latest snapshot is encrypted {what}: the next one encrypts everything anew"
                    ));
                }
                is_key && is_method && are_paths
            }
        }
    }

    /// Which keys the snapshots need, and whether they are here.
    fn needs(&mut self, history: History, is_encrypted_now: bool) {
        for needed in history.keys {
            let in_hand =
                self.key.iter().chain(&self.old_keys).any(|row| row.id.as_ref() == Some(&needed.key));
            if !in_hand {
                let is_latest = self.latest.as_ref().is_some_and(|tip| tip.key.as_ref() == Some(&needed.key));
                let old = if is_latest && self.key.as_ref().is_none_or(|row| row.id.is_none()) {
                    ""
                } else {
                    "--old "
                };
                self.findings.push(format!(
                    "{} the key {}, which is not here (from {:.12} to {:.12}): bring it back with `backupbot keys import \
                     {old}FILE`",
                    counted(needed.snapshots, "snapshot needs", "snapshots need"),
                    needed.key,
                    needed.oldest.to_string(),
                    needed.newest.to_string()
                ));
            }
            self.needed.push(NeededRow {
                key: needed.key,
                snapshots: needed.snapshots,
                newest: needed.newest.to_string(),
                oldest: needed.oldest.to_string(),
                in_hand,
            });
        }
        self.clear_snapshots = history.clear;
        self.unreadable_snapshots = history.unreadable;
        if history.clear > 0 && (is_encrypted_now || !self.needed.is_empty()) {
            self.remarks.push(format!(
                "{} snapshots of the history are clear text, for everybody who can read a remote",
                history.clear
            ));
        }
        if let Some(trouble) = history.trouble {
            self.findings.push(format!(
                "of {} snapshots it cannot be told which key they need: {trouble}",
                history.unreadable
            ));
        }
    }
}
