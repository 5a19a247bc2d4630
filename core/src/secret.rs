//! Secrets: read where the configuration says, at the moment of use, wiped after it, and never shown.
//!
//! [`read`] fetches one from a file, an environment variable or a command. A [`Secret`] has no `Debug` and no
//! `Display`; its memory is wiped when it goes. Every secret that was read is remembered, in the forms in which it
//! could turn up in somebody else's message (as it is, base64, percent-encoded), so that [`redact`] can take it out of
//! whatever is about to be logged, stored or answered.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::{Zeroize, Zeroizing};

use crate::config::SecretSource;
use crate::error::{Error, Kind, Result};

/// No password, token or key is larger.
const LARGEST: u64 = 64 * 1024;
/// A command that has not answered by then never will.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// So many values are kept to be redacted; rotated ones push the oldest out.
const REMEMBERED: usize = 64;
/// Anything shorter would blot out half of a message, and is no secret.
const SHORTEST_REDACTED: usize = 4;
/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";

/// A secret in memory; wiped when dropped.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes a value over, and remembers it for [`redact`].
    pub fn new(value: Vec<u8>) -> Self {
        let secret = Self(Zeroizing::new(value));
        remember(secret.bytes());
        secret
    }

    /// The value. Whoever copies it wipes the copy.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.0)
            .map_err(|_| Error::new(Kind::Credentials, "a secret that goes into a header is not UTF-8 text"))
    }
}

/// What was read, and what is wrong with the place although it worked.
pub struct Found {
    /// The secret.
    pub secret: Secret,
    /// A sentence for the operator, such as that everybody may read the file.
    pub warning: Option<String>,
}

/// Reads a secret. `what` names it in messages, for example `password of remote gitea`. Line ends at the end are cut
/// off, unless `is_whole`: a key file is taken as it is.
///
/// # Errors
/// [`Kind::Credentials`], with the place and the remedy, when there is none, or none that could be one.
pub fn read(source: &SecretSource, what: &str, is_whole: bool) -> Result<Found> {
    let (mut value, warning, place) = match source {
        SecretSource::File(path) => {
            let (value, warning) = from_file(path, what)?;
            (value, warning, crate::path::lossy(path.as_os_str().as_encoded_bytes()))
        }
        SecretSource::Environment(name) => {
            (from_environment(name, what)?, None, format!("the variable {name}"))
        }
        SecretSource::Command(arguments) => (from_command(arguments, what)?, None, shown(arguments)),
    };
    if !is_whole {
        while matches!(value.last(), Some(b'\n' | b'\r')) {
            value.pop();
        }
        if value.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
            value.zeroize();
            let text = format!(
                "the {what} from {place} has control characters or several lines: one line is expected"
            );
            return Err(Error::new(Kind::Credentials, text));
        }
    }
    if value.is_empty() {
        return Err(Error::new(Kind::Credentials, format!("the {what} from {place} is empty")));
    }
    Ok(Found { secret: Secret::new(value), warning })
}

fn from_file(path: &Path, what: &str) -> Result<(Vec<u8>, Option<String>)> {
    let place = crate::path::lossy(path.as_os_str().as_encoded_bytes());
    let fail = |error: std::io::Error| {
        let kind = crate::error::kind_of_io(&error);
        let kind = if kind == Kind::Io { Kind::Credentials } else { kind };
        Error::with_source(kind, format!("cannot read the {what} from {place}"), error)
    };
    let metadata = fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        let is = if metadata.is_dir() { "a directory" } else { "no regular file" };
        let text = format!("the {what} should be in the file {place}, which is {is}");
        return Err(Error::new(Kind::Credentials, text));
    }
    // Never moved while it grows, which would leave copies behind.
    let mut value = Vec::with_capacity(usize::try_from(metadata.len().min(LARGEST)).unwrap_or_default() + 64);
    let mut file = File::open(path).map_err(fail)?.take(LARGEST + 1);
    file.read_to_end(&mut value).map_err(fail)?;
    if value.len() as u64 > LARGEST {
        value.zeroize();
        return Err(Error::new(Kind::Credentials, format!("{place} is too large to be the {what}")));
    }
    let warning = (metadata.mode() & 0o004 != 0)
        .then(|| format!("everybody on this machine may read the {what} in {place}: chmod 600 it"));
    Ok((value, warning))
}

fn from_environment(name: &str, what: &str) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    std::env::var_os(name).map(OsStringExt::into_vec).ok_or_else(|| {
        Error::new(
            Kind::Credentials,
            format!("the {what} should be in the variable {name}, which is not set"),
        )
    })
}

fn shown(arguments: &[String]) -> String {
    format!("the command {}", arguments.first().map_or("", String::as_str))
}

fn from_command(arguments: &[String], what: &str) -> Result<Vec<u8>> {
    let fail =
        |why: String| Error::new(Kind::Credentials, format!("the {what} from {}: {why}", shown(arguments)));
    let Some((program, rest)) = arguments.split_first() else {
        return Err(fail("no program is named".to_owned()));
    };
    // What it writes to stderr may hold anything, a secret too: nobody keeps it.
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| fail(format!("it cannot be started: {error}")))?;
    let Some(output) = child.stdout.take() else { return Err(fail("it has no output".to_owned())) };
    let reader = std::thread::spawn(move || {
        let mut value = Vec::new();
        let read = output.take(LARGEST + 1).read_to_end(&mut value);
        read.map(|_| value)
    });
    let deadline = Instant::now() + COMMAND_TIMEOUT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            ended => {
                let _ = child.kill();
                let _ = child.wait();
                let why = match ended {
                    Err(error) => error.to_string(),
                    _ => format!("it did not end within {} s", COMMAND_TIMEOUT.as_secs()),
                };
                return Err(fail(why));
            }
        }
    };
    if !status.success() {
        return Err(fail(format!("it failed: {status}")));
    }
    // A grandchild may hold the pipe open for ever; what the command itself wrote is there by now.
    while !reader.is_finished() {
        if Instant::now() >= deadline {
            return Err(fail("something that it started keeps its output open".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let value = reader.join().map_err(|_| fail("its output could not be read".to_owned()))?;
    let value = value.map_err(|error| fail(error.to_string()))?;
    if value.len() as u64 > LARGEST {
        return Err(fail("its output is too long".to_owned()));
    }
    Ok(value)
}

/// The forms of a secret that may appear in text.
static KNOWN: RwLock<VecDeque<Vec<Zeroizing<String>>>> = RwLock::new(VecDeque::new());

fn remember(value: &[u8]) {
    if value.len() < SHORTEST_REDACTED {
        return;
    }
    let forms = forms_of(value);
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = known.iter().position(|other| *other == forms) {
        // The ones in use stay.
        if let Some(again) = known.remove(at) {
            known.push_back(again);
        }
        return;
    }
    if known.len() >= REMEMBERED {
        known.pop_front();
    }
    known.push_back(forms);
}

fn forms_of(value: &[u8]) -> Vec<Zeroizing<String>> {
    let mut forms: Vec<Zeroizing<String>> = Vec::new();
    let mut add = |form: String| {
        let form = Zeroizing::new(form);
        if form.len() >= SHORTEST_REDACTED && !forms.contains(&form) {
            forms.push(form);
        }
    };
    if let Ok(text) = std::str::from_utf8(value) {
        add(text.to_owned());
        // A key is shown line by line, if at all.
        for line in text.lines().filter(|line| line.len() >= 16 && !line.starts_with("-----")) {
            add(line.to_owned());
        }
        add(text.escape_debug().to_string());
    }
    for upper in [true, false] {
        add(percent_encoded(value, upper));
    }
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        add(engine.encode(value));
    }
    // The longest first, so that no part of one is left over.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms
}

/// Percent-encoded as strictly as anybody does: everything but letters, digits and `-._~`.
pub fn percent_encoded(value: &[u8], upper: bool) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(value.len() * 3);
    for byte in value {
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                write!(text, "{}", *byte as char)
            }
            _ if upper => write!(text, "%{byte:02X}"),
            _ => write!(text, "%{byte:02x}"),
        };
    }
    text
}

/// Remembers a further form of a secret that goes over a wire, such as `user:password` in base64.
pub fn remember_form(form: &str) {
    remember(form.as_bytes());
}

/// `text` without any secret that this process has read.
pub fn redact(text: &str) -> std::borrow::Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut clean = std::borrow::Cow::Borrowed(text);
    for form in known.iter().flatten() {
        if clean.contains(form.as_str()) {
            clean = std::borrow::Cow::Owned(clean.replace(form.as_str(), REDACTED));
        }
    }
    clean
}

#[cfg(test)]
mod tests;
