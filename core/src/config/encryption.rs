//! The section `encryption`.

use super::model::encryption::{Encryption, EncryptionMethod, default_old_keys};
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
    if named == Some(Named::Gpg) {
        let text = "`gpg` is not built yet in this version: git-crypt can hand its key to OpenPGP recipients \
                    (method: git-crypt, recipients: [F.asc])";
        s.problems.error(&s.at_of("method"), text);
    }
    let key_file = match named {
        Some(Named::GitCrypt) => s.required("key_file", values::absolute_path),
        _ => s.optional("key_file", values::absolute_path),
    };
    let old_keys = s.optional("old_keys", values::absolute_path);
    let mut recipients = Vec::new();
    s.set_list("recipients", &mut recipients, values::absolute_path);
    let mut paths = Vec::new();
    s.set_list("paths", &mut paths, |n| {
        let text = values::line(n)?;
        Pattern::parse(&text).map(|_| text)
    });
    let mut accepts_clear_history = false;
    s.set("clear_history", &mut accepts_clear_history, |n| {
        values::choice(n, &[("refuse", false), ("accept", true)])
    });
    if named == Some(Named::None) {
        for key in ["key_file", "recipients", "paths"] {
            if s.has(key) {
                s.problems
                    .error(&s.at_of(key), format!("`{key}` has no meaning with method none: leave it out"));
            }
        }
    }
    let method = match named? {
        Named::None => EncryptionMethod::None { old_keys },
        Named::GitCrypt => {
            let key_file = key_file?;
            let old_keys = old_keys.unwrap_or_else(|| default_old_keys(&key_file));
            EncryptionMethod::GitCrypt { key_file, old_keys, recipients }
        }
        Named::Gpg => return None,
    };
    Some(Encryption { method, paths, accepts_clear_history })
}
