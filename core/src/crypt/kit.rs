//! The recovery kit: a sheet of text with the keys of a repository, to be printed and put where it does not burn with the machine.
//!
//! In: keys, and where the repository is. Out: text of 78 columns that says what it is and how everything is got back without
//! this program; and from such a text, typed in again, the keys.
//!
//! ```text
//! KEY 5f0c9c3d00112233
//!   1  0123 4567 89ab cdef 0123 4567  c3f1        12 bytes, then the check of the line
//!   ..
//!   8  ...
//! ```
//!
//! The eight lines are the AES key (32 bytes) and the HMAC key (64). The check is the first two bytes of SHA-256 over the line's
//! number (one byte) and its twelve bytes, so that a mistake in typing is found with its line, also two lines in the wrong
//! order; the id of the key proves the whole. Blanks and case mean nothing, `O` is taken for 0, `l` and `I` for 1.

use std::fmt::Write;
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::gitcrypt::KeyFile;
use super::keyring::Key;
use crate::error::{Error, Kind, Result};

const LINES: usize = 8;
const LINE_BYTES: usize = 12;
const CHECK_BYTES: usize = 2;
/// What a section begins with, and the words behind it are the id.
const SECTION: &str = "KEY";
/// More than a sheet with a thousand keys.
pub const LARGEST: u64 = 4 * 1024 * 1024;

/// What stands on the sheet beside the keys.
#[derive(Debug, Clone)]
pub struct Sheet<'s> {
    /// The day, for people.
    pub made: String,
    /// Of which installation.
    pub instance: String,
    /// Of which repository.
    pub repository: String,
    /// Its branch.
    pub branch: String,
    /// Names and addresses of the remotes, without credentials.
    pub remotes: Vec<(String, String)>,
    /// Whether large contents are at an LFS server.
    pub has_large: bool,
    /// The key that encrypts, then the old ones.
    pub keys: Vec<&'s Key>,
    /// The fingerprints of those who alone can read the contents, where these are OpenPGP messages.
    pub private_keys: Vec<String>,
}

impl Sheet<'_> {
    /// The text.
    ///
    /// # Errors
    /// None that reading the keys has not told already.
    pub fn text(&self) -> Result<Zeroizing<String>> {
        // Never moved while it grows, which would leave copies of the keys behind.
        let mut out = Zeroizing::new(String::with_capacity(16 * 1024 + self.keys.len() * 1024));
        let promise = if self.private_keys.is_empty() { ALL_OF_IT } else { METADATA_ONLY };
        let _ = writeln!(
            out,
            "BACKUPBOT RECOVERY KIT\n\nRepository {} of {}, made on {}.\n\n{promise}\nREMOTES (branch {})",
            self.repository,
            self.instance,
            self.made,
            self.branch.strip_prefix("refs/heads/").unwrap_or(&self.branch)
        );
        for (name, address) in &self.remotes {
            let _ = writeln!(out, "  {name}  {address}");
        }
        if self.remotes.is_empty() {
            out.push_str("  none: it is only in the state directory of this machine\n");
        }
        if self.private_keys.is_empty() {
            out.push_str(WITH_BACKUPBOT);
            let _ = writeln!(out, "{WITHOUT_BACKUPBOT}");
            out.push_str(if self.has_large { LARGE } else { "" });
        } else {
            out.push_str("\nPRIVATE KEYS, each of which can read it all, with the fingerprints\n");
            for fingerprint in &self.private_keys {
                let _ = writeln!(out, "  {fingerprint}");
            }
            let _ = writeln!(out, "{WITH_A_PRIVATE_KEY}");
        }
        out.push_str(if self.keys.len() > 1 { SEVERAL } else { "" });
        for (place, key) in self.keys.iter().enumerate() {
            let meaning = if place == 0 { "encrypts now" } else { "for older snapshots" };
            let _ = writeln!(out, "\n{SECTION} {}   ({meaning})", key.id());
            let version = key.version()?;
            let secret = Zeroizing::new([version.aes().as_slice(), version.hmac()].concat());
            for (at, bytes) in secret.chunks(LINE_BYTES).enumerate() {
                let number = at + 1;
                let _ = write!(out, "  {number} ");
                for pair in bytes.chunks(2) {
                    out.push(' ');
                    push_hex(&mut out, pair);
                }
                out.push_str("  ");
                push_hex(&mut out, &check(number, bytes));
                out.push('\n');
            }
        }
        Ok(out)
    }
}

const ALL_OF_IT: &str = "\
Whoever has this sheet and can read one of the remotes can read the whole
backup. Without the key on it nobody can, you included. Keep it on paper, in
a place that does not burn with the machine, and make a new one after every
`backupbot keys rotate`.
";

const METADATA_ONLY: &str = "\
The contents of the files are read with one of the private keys below, and
with nothing else. THEY ARE NOT ON THIS SHEET: keep a copy of one beside it
(gpg --export-secret-keys, or paperkey). The key on it has owners, modes,
times and checksums only; each private key finds it in the repository too.
";

const WITH_A_PRIVATE_KEY: &str = r"
TO GET EVERYTHING BACK, with BackupBot

  backupbot restore --from ADDRESS --key-file PRIVATE.asc --to DIRECTORY

or with --gpg instead, where gpg has the private key.

TO GET EVERYTHING BACK, with git, gpg and python3 alone

  git clone ADDRESS backup
  cd backup
  gpg --decrypt FILE > DECRYPTED

for each file; large ones come with `git lfs pull` first. The files are in
the directories that are called as the watched ones were. `backupbot recipe`,
printed in time, does all of it, and puts owners and times back.
";

const WITH_BACKUPBOT: &str = "
TO GET EVERYTHING BACK, with BackupBot
Type the lines of KEY below into a file kit.txt, or scan them, then:

  backupbot keys import kit.txt --to backup.key
  backupbot restore --from ADDRESS --key-file backup.key --to DIRECTORY

A line that was mistyped is named.
";

const WITHOUT_BACKUPBOT: &str = r"
TO GET EVERYTHING BACK, with git, git-crypt and python3 alone
Type the lines of KEY (the one that encrypts now) into a file kit.txt, and
these into key.py:

  import hashlib
  key = b''
  for line in open('kit.txt'):
      w = line.lower().split()
      if len(w) == 8 and w[0] in '12345678':
          part = bytes.fromhex(''.join(w[1:7]))
          sum = hashlib.sha256(bytes([int(w[0])]) + part).hexdigest()
          if sum[:4] != w[7]: print('line', w[0], 'is mistyped')
          key += part
  H = bytes.fromhex
  open('backup.key', 'wb').write(b'\0GITCRYPTKEY' + H('00000002' '00000000'
      '00000001' '00000004' '00000000' '00000003' '00000020') + key[:32]
      + H('00000005' '00000040') + key[32:] + H('00000000'))

  python3 key.py
  git clone ADDRESS backup
  cd backup
  git-crypt unlock ../backup.key

The files are in the directories that are called as the watched ones were.
`backupbot recipe`, printed in time, also puts owners and times back.
";

const LARGE: &str = "
Large files come with git-lfs, and are decrypted afterwards, one by one:

  git lfs pull
  git-crypt smudge --key-file=../backup.key < FILE > DECRYPTED
";

const SEVERAL: &str = "
Older snapshots need the older keys: check the snapshot out in a fresh clone
and unlock that with the key that its file .backupbot/encryption names.
";

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

fn check(number: usize, bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update([u8::try_from(number).unwrap_or(u8::MAX)]);
    hasher.update(bytes);
    let digest = hasher.finalize();
    [digest[0], digest[1]]
}

/// One key as it was typed in.
struct Section {
    /// `None` where only the lines were typed.
    id: Option<String>,
    lines: [Option<Zeroizing<[u8; LINE_BYTES]>>; LINES],
    mistakes: Vec<String>,
}

impl Section {
    fn new(id: Option<String>) -> Self {
        Self { id, lines: Default::default(), mistakes: Vec::new() }
    }

    fn is_begun(&self) -> bool {
        !self.mistakes.is_empty() || self.lines.iter().any(Option::is_some)
    }

    fn name(&self) -> String {
        self.id.as_ref().map_or_else(|| "the key".to_owned(), |id| format!("key {id}"))
    }

    /// Takes a line of the text; those that do not begin with the number of a line mean nothing here.
    fn take(&mut self, text: &str) {
        let text = text.trim();
        let Some(number) = text.chars().next().and_then(|first| first.to_digit(10)) else { return };
        let Some(slot) = (number as usize).checked_sub(1).filter(|at| *at < LINES) else { return };
        let rest = text[1..].trim_start_matches(['.', ':', ')', '|', '\t', ' ']);
        let is_set_off = rest.len() + 1 < text.len();
        // A day, or an address.
        if !is_set_off && rest.len() < LINE_BYTES * 2 {
            return;
        }
        match digits(rest) {
            Ok(bytes) => {
                let (data, given) = bytes.split_at(LINE_BYTES);
                let mut line = Zeroizing::new([0; LINE_BYTES]);
                line.copy_from_slice(data);
                if check(slot + 1, data) != given {
                    self.mistakes.push(format!(
                        "line {number} is mistyped: its last four digits do not fit the others"
                    ));
                } else if self.lines[slot].as_ref().is_some_and(|other| **other != *line) {
                    self.mistakes.push(format!("line {number} stands there twice, and differs"));
                }
                self.lines[slot] = Some(line);
            }
            Err(why) => {
                self.mistakes.push(format!("line {number} {why}"));
                self.lines[slot].get_or_insert_with(|| Zeroizing::new([0; LINE_BYTES]));
            }
        }
    }

    fn finish(mut self, place: &str) -> Result<Key> {
        for (slot, line) in self.lines.iter().enumerate() {
            if line.is_none() {
                self.mistakes.push(format!("line {} is missing", slot + 1));
            }
        }
        if !self.mistakes.is_empty() {
            let text = format!("{} in {place} cannot be read: {}", self.name(), self.mistakes.join("; "));
            return Err(Error::new(Kind::EncryptionKey, text));
        }
        let mut secret = Zeroizing::new([0; LINES * LINE_BYTES]);
        for (piece, line) in secret.chunks_mut(LINE_BYTES).zip(self.lines.iter().flatten()) {
            piece.copy_from_slice(&line[..]);
        }
        let key = Key::new(KeyFile::of_secrets(&secret), Path::new(place))?;
        match &self.id {
            Some(id) if id != key.id().as_str() => {
                let text = format!(
                    "the lines of key {id} in {place} are the key {}: the id or a line was taken from another kit",
                    key.id()
                );
                Err(Error::new(Kind::EncryptionKey, text))
            }
            _ => Ok(key),
        }
    }
}

/// The twelve bytes of a line and its check.
fn digits(text: &str) -> std::result::Result<Zeroizing<[u8; LINE_BYTES + CHECK_BYTES]>, String> {
    let mut bytes = Zeroizing::new([0; LINE_BYTES + CHECK_BYTES]);
    let mut count = 0;
    for letter in text.chars().filter(|letter| !letter.is_whitespace()) {
        let letter = match letter {
            'O' | 'o' => '0',
            'l' | 'I' | 'i' => '1',
            other => other,
        };
        let Some(digit) = letter.to_digit(16) else {
            return Err(format!("is mistyped: {letter:?} is none of 0-9 and a-f"));
        };
        if let Some(byte) = bytes.get_mut(count / 2) {
            *byte = (*byte << 4) | digit as u8;
        }
        count += 1;
    }
    let wanted = 2 * (LINE_BYTES + CHECK_BYTES);
    if count != wanted {
        return Err(format!("is mistyped: it has {count} digits, not {wanted}"));
    }
    Ok(bytes)
}

/// The keys in a kit that was typed in or scanned, in its order. `place` says in messages where it is from.
///
/// # Errors
/// [`Kind::EncryptionKey`] with every line that is wrong, or if there is no key.
pub fn read(text: &str, place: &str) -> Result<Vec<Key>> {
    let mut sections: Vec<Section> = Vec::new();
    let mut loose = Section::new(None);
    for line in text.lines() {
        if let Some(id) = section_id(line) {
            sections.push(Section::new(Some(id)));
            continue;
        }
        sections.last_mut().unwrap_or(&mut loose).take(line);
    }
    if sections.is_empty() && loose.is_begun() {
        sections.push(loose);
    }
    if sections.is_empty() {
        let text = format!(
            "{place} holds no key: give a key file of git-crypt, or a recovery kit with its line `KEY ...` and the eight lines \
             after it"
        );
        return Err(Error::new(Kind::EncryptionKey, text));
    }
    sections.into_iter().map(|section| section.finish(place)).collect()
}

/// The id in the line that a section begins with; what stands in brackets behind it means nothing.
fn section_id(line: &str) -> Option<String> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace)?;
    if !word.eq_ignore_ascii_case(SECTION) {
        return None;
    }
    let given = rest.split('(').next().unwrap_or_default();
    let id: String = given
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .map(|letter| match letter.to_ascii_lowercase() {
            'o' => '0',
            'l' | 'i' => '1',
            other => other,
        })
        .collect();
    (id.len() == 16 && id.chars().all(|digit| digit.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests;
