//! The configuration: one model, read from YAML, TOML or flags, every mistake reported at once.
//!
//! Text becomes a located tree (`tree`), the environment is laid over it (`environment`), the tree becomes
//! the model (`decode`, with `reader` and `values`), and rules between sections are checked (`validate`).
//! Nothing stops at the first mistake but a syntax error. `on_disk` sees when the file says something else. A new key is a line in `model`, one in `decode` and one in `config.example.yaml`.

mod branch;
mod decode;
pub mod diff;
mod encryption;
mod environment;
mod flags;
mod hosts;
mod model;
pub mod on_disk;
mod reader;
mod tree;
mod url;
mod validate;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use branch::BranchTemplate;
pub use model::encryption::default_old_keys;
pub use model::{
    Admin, Alerts, BackendChoice, Batch, Config, Credentials, Debounce, Drill, Encryption, EncryptionMethod,
    Gpg, Identity, Lfs, Limits, LogConfig, LogFormat, LogLevel, MassChange, MassChangePolicy, Metrics,
    Notification, Provider, Receiver, ReceiverUrl, Remote, Repository, Retry, Root, Scrub, SecretSource,
    Smtp, TagPeriod, Tags, Timeouts, Verify,
};
pub(crate) use url::percent_decode;
pub use url::{NetworkUrl, RemoteUrl};

use on_disk::OnDisk;
use reader::{At, Problems};
use tree::{Mistake, Node, Place};

/// A larger file is refused before anything looks at its contents.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// A mistake or a warning, for people. `Display` is one line: place, field, message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line`, `environment NAME`, or an argument of the command line.
    pub place: String,
    /// The path of the field, such as `repositories[0].roots[1].debounce.quiet`; may be empty.
    pub field: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// A configuration that can be obeyed, and what is odd about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Nothing that stops the program.
    pub warnings: Vec<Problem>,
}

/// What the configuration depends on beside its text.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Used if nothing names another; absolute.
    pub default_state_dir: PathBuf,
    /// The host's name.
    pub default_instance: String,
    /// The process's environment.
    pub environment: BTreeMap<String, String>,
    /// `BACKUPBOT_*` variables that the command line reads itself.
    pub known_variables: &'static [&'static str],
    /// `--state-dir`; wins over everything.
    pub state_dir_flag: Option<PathBuf>,
}

/// The two ways to write a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.yaml` or `.yml`.
    Yaml,
    /// `.toml`.
    Toml,
}

impl Format {
    /// The format that the file's ending says.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// Reads and checks the file at `path`; its ending says the format.
pub fn load(path: &Path, context: &Context) -> Result<Loaded, Vec<Problem>> {
    load_text(path, on_disk::read(path), context)
}

/// As [`load`], and what the file said when it was read, whatever is to be thought of it.
pub fn load_and_mark(path: &Path, context: &Context) -> (OnDisk, Result<Loaded, Vec<Problem>>) {
    let text = on_disk::read(path);
    let on_disk = match &text {
        Ok(text) => OnDisk::Text(on_disk::checksum(text)),
        Err(error) => OnDisk::Unreadable(error.to_string()),
    };
    (on_disk, load_text(path, text, context))
}

fn load_text(path: &Path, text: io::Result<Vec<u8>>, context: &Context) -> Result<Loaded, Vec<Problem>> {
    let file_name = crate::path::lossy(path.as_os_str().as_encoded_bytes());
    let whole_file =
        |message: String| vec![Problem { place: file_name.clone(), field: String::new(), message }];
    let Some(format) = Format::of(path) else {
        return Err(whole_file("the name of a configuration must end in .yaml, .yml or .toml".to_owned()));
    };
    let text = text.map_err(|error| whole_file(format!("cannot read this configuration: {error}")))?;
    parse(&text, format, &file_name, context)
}

/// Checks a configuration that is already in memory; `file_name` is for the problems' places.
pub fn parse(
    text: &[u8],
    format: Format,
    file_name: &str,
    context: &Context,
) -> Result<Loaded, Vec<Problem>> {
    let problems = Problems::new(file_name);
    let tree = match read_tree(text, format, &problems) {
        Ok(tree) => tree,
        Err(mistakes) => {
            for mistake in mistakes {
                problems.error(&At::new(mistake.place, mistake.field), mistake.message);
            }
            return Err(problems.into_result().err().unwrap_or_default());
        }
    };
    finish(tree, text, context, problems)
}

/// The configuration that `--watch` and `--remote` stand for. All paths must be absolute already.
pub fn from_flags(watch: &[PathBuf], remotes: &[String], context: &Context) -> Result<Loaded, Vec<Problem>> {
    let problems = Problems::new("command line");
    let (tree, canonical) = flags::tree(watch, remotes, &problems);
    finish(tree, canonical.as_bytes(), context, problems)
}

fn read_tree(text: &[u8], format: Format, problems: &Problems) -> Result<Node, Vec<Mistake>> {
    let mistake = |place, message: String| vec![Mistake { place, field: String::new(), message }];
    if text.len() > MAX_FILE_BYTES {
        return Err(mistake(
            Place::File,
            format!("larger than {MAX_FILE_BYTES} bytes, which no configuration is"),
        ));
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        mistake(Place::Line(line), "this line is not UTF-8".to_owned())
    })?;
    match format {
        Format::Yaml => tree::from_yaml(text).map_err(|mistake| vec![mistake]),
        Format::Toml => {
            let (tree, duplicates) = tree::from_toml(text)?;
            for duplicate in duplicates {
                problems.error(&At::new(duplicate.place, duplicate.field), duplicate.message);
            }
            Ok(tree)
        }
    }
}

fn finish(
    mut tree: Node,
    text: &[u8],
    context: &Context,
    problems: Problems,
) -> Result<Loaded, Vec<Problem>> {
    environment::overlay(&mut tree, context);
    let checksum = on_disk::checksum(text);
    let decode::Decoded { config, sites } = decode::decode(&tree, context, checksum, &problems);
    validate::validate(&config, &sites, &problems);
    environment::report_unknown(context, &config, &problems);
    let warnings = problems.into_result()?;
    Ok(Loaded { config, warnings })
}
