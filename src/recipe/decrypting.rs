//! The key of an encrypted repository, and the filter that decrypts with it while Git writes the files.
//!
//! `git-crypt unlock` would do the same, but in a directory that is exactly what Git would write: one name that the file
//! system does not take, and it decrypts nothing.

use std::path::Path;

use super::shell::quoted;
use super::{Source, Step, lines};

/// What decrypts one file that is here, if it is encrypted: git-crypt loses what is short and is not.
pub const IN_PLACE: &str = " && case $(head -c 10 restored-file | tr -d '\\0') in GITCRYPT) git-crypt smudge \
    --key-file=\"$key\" < restored-file > restored-file.new && mv restored-file.new restored-file ;; esac";

/// The same of a message; what is none stays.
pub const MESSAGE_IN_PLACE: &str = " && { gpg --quiet --yes --output restored-file.new --decrypt restored-file && \
    mv restored-file.new restored-file || echo 'restored-file is not encrypted, or not for you' >&2; }";

/// The steps between the choice of a state and the files.
pub fn steps(key: &Path, git: &str, repository: &str) -> Vec<Step> {
    let place = key.to_string_lossy();
    vec![
        step(
            repository,
            "key",
            &format!(
                "The key: BackupBot has it in {}. Copy it here, or name your copy of it. A state\n\
                 from before a change of the key needs the key of then, one from before the encryption none: any will do.",
                place
            ),
            format!("key={}", quoted(&place)),
            false,
        ),
        step(
            repository,
            "wrapped_key",
            "Or the key that is in the repository for the owner of an OpenPGP key: gpg asks for the passphrase.",
            unwrapping(git, repository),
            true,
        ),
        step(
            repository,
            "decryption",
            "git-crypt decrypts each file as Git writes it. With a wrong key nothing is written.",
            filtering(git),
            false,
        ),
    ]
}

/// The same where contents are OpenPGP messages: the key has the metadata only, and the program at the end has gpg decrypt.
pub fn steps_with_gpg(git: &str, repository: &str) -> Vec<Step> {
    vec![
        step(
            repository,
            "wrapped_key",
            "The key of the metadata, which is in the repository for the owners of the OpenPGP keys that can read it all. gpg asks\n\
             for the passphrase, here and for the files.",
            unwrapping(git, repository),
            false,
        ),
        step(
            repository,
            "decryption",
            "git-crypt decrypts the metadata as Git writes it. With a wrong key nothing is written.",
            filtering(git),
            false,
        ),
    ]
}

fn step(repository: &str, step: &'static str, text: &str, command: String, optional: bool) -> Step {
    Step { repository: Some(repository.to_owned()), step, text: lines(text), command, optional }
}

fn unwrapping(git: &str, repository: &str) -> String {
    format!(
        "key={}\n{git} ls-tree -r --name-only \"$state\" -- .git-crypt/keys/default/0/ | (umask 077; while read -r wrapped\n\
         do {git} cat-file blob \"$state:$wrapped\" | gpg --quiet --decrypt > \"$key\" && break; done) ||\necho 'none of your private keys opens it' >&2",
        quoted(&format!("{repository}.key"))
    )
}

fn filtering(git: &str) -> String {
    format!(
        "case $key in /*) ;; *) key=$PWD/$key ;; esac\ntest -s \"$key\" || {{ echo \"there is no key in $key\" >&2; exit 1; }}\n\
         one=$({git} ls-tree -r \"$state\" -- .backupbot/meta/ | sed -n '1s/^[0-9]* blob \\([0-9a-f]*\\).*/\\1/p')\n\
         test -z \"$one\" || {git} cat-file blob \"$one\" | git-crypt smudge --key-file=\"$key\" >/dev/null 2>&1 ||\n    \
         {{ echo \"$key is not the key of this state\" >&2; exit 1; }}\n\
         export key\n{git} config backupbot.key \"$key\"\n\
         {git} config filter.git-crypt.smudge 'git-crypt smudge --key-file=\"$key\"'\n\
         {git} config filter.git-crypt.required true"
    )
}

/// The repository as an argument of the program at the end.
pub fn argument(source: &Source) -> String {
    let directory = quoted(&source.name);
    match source.key.is_some() && source.has_large && !source.is_open_pgp {
        true => {
            let history = quoted(&format!("{}.git", source.name));
            format!("--git-crypt-key=\"$(git --git-dir={history} config backupbot.key)\" {directory}")
        }
        false => directory,
    }
}
