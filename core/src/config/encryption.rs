//! The section `encryption`.

use super::model::encryption::{Encryption, EncryptionMethod, Gpg, default_old_keys};
use super::reader::Section;
use super::values;
use crate::crypt::patterns::Pattern;

/// What `method` names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    None,
    GitCrypt,
    Gpg,
}

pub(super) fn encryption(s: &mut Section<'_>) -> Option<Encryption> {
    let methods = [("git-crypt", Named::GitCrypt), ("gpg", Named::Gpg), ("none", Named::None)];
    let named = s.required("method", |n| values::choice(n, &methods));
    let key_file = match named {
        Some(Named::GitCrypt) => s.required("key_file", values::absolute_path),
        _ => s.optional("key_file", values::absolute_path),
    };
    let old_keys = s.optional("old_keys", values::absolute_path);
    let mut recipients = Vec::new();
    s.set_list("recipients", &mut recipients, values::absolute_path);
    if named == Some(Named::Gpg) && recipients.is_empty() {
        let text = "with method gpg there has to be somebody who can read: name OpenPGP certificates, as `gpg --export` \
                    writes them, or a directory of them";
        s.problems.error(&s.at_of("recipients"), text);
    }
    let private_key = s.optional("private_key", values::absolute_path);
    let passphrase_file = s.optional("passphrase_file", values::absolute_path);
    if s.has("passphrase_file") && !s.has("private_key") {
        s.problems.error(
            &s.at_of("passphrase_file"),
            "it is the passphrase of `private_key`, which is not there (gpg's agent asks for its own)",
        );
    }
    let mut agent = false;
    s.set("gpg_agent", &mut agent, values::boolean);
    let mut paths = Vec::new();
    s.set_list("paths", &mut paths, |n| {
        let text = values::line(n)?;
        Pattern::parse(&text).map(|_| text)
    });
    let mut accepts_clear_history = false;
    s.set("clear_history", &mut accepts_clear_history, |n| {
        values::choice(n, &[("refuse", false), ("accept", true)])
    });
    let meaningless: &[&str] = match named {
        Some(Named::None) => {
            &["key_file", "recipients", "paths", "private_key", "passphrase_file", "gpg_agent"]
        }
        Some(Named::GitCrypt) => &["private_key", "passphrase_file", "gpg_agent"],
        _ => &[],
    };
    for key in meaningless {
        if s.has(key) {
            let method = if named == Some(Named::None) { "none" } else { "git-crypt" };
            s.problems
                .error(&s.at_of(key), format!("`{key}` has no meaning with method {method}: leave it out"));
        }
    }
    let method = match named? {
        Named::None => EncryptionMethod::None { old_keys },
        Named::GitCrypt => {
            let key_file = key_file?;
            let old_keys = old_keys.unwrap_or_else(|| default_old_keys(&key_file));
            EncryptionMethod::GitCrypt { key_file, old_keys, recipients }
        }
        Named::Gpg => {
            let makes_key = key_file.is_none();
            let key_file = key_file.unwrap_or_default();
            let old_keys = old_keys.unwrap_or_else(|| default_old_keys(&key_file));
            let gpg = Gpg { recipients, key_file, makes_key, old_keys, private_key, passphrase_file, agent };
            EncryptionMethod::Gpg(gpg)
        }
    };
    Some(Encryption { method, paths, accepts_clear_history })
}
