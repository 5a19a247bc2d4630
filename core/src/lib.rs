//! What BackupBot does and how it does it, without actors, HTTP or a terminal.
//!
//! Arrows point downwards only: verbs ([`snapshot`], [`push`], [`scan`], [`history`], [`restore`], [`verify`], [`inspect`], [`keeping`], [`adopt`], [`heal`], [`alert`]) use nouns
//! ([`git`], [`store`], [`watch`], [`metadata`], [`tree`], [`lfs`], [`crypt`], [`config`], [`ignore`]), and both stand on the ground
//! ([`path`], [`names`], [`clock`], [`quarantine`], [`audit`], [`disk`], [`limits`], [`memory`], [`priority`], [`private_file`], [`secret`], [`error`], [`progress`], [`fault`]).
//! Nothing here logs, prints, reads a home
//! directory or panics on input: a function takes what it needs and returns what happened.

pub mod adopt;
pub mod alert;
pub mod audit;
pub mod beneath;
pub mod clock;
pub mod config;
pub mod content;
pub mod crypt;
pub mod disk;
pub mod error;
pub mod fault;
pub mod file_lock;
pub mod git;
pub mod guard;
pub mod heal;
pub mod history;
pub mod ignore;
pub mod inspect;
pub mod keeping;
pub mod lfs;
pub mod limits;
pub mod memory;
pub mod metadata;
pub mod names;
pub mod path;
pub mod priority;
pub mod privacy;
pub mod private_file;
pub mod progress;
pub mod protection;
pub mod push;
pub mod quarantine;
pub mod restore;
pub mod retrieve;
pub mod scan;
pub mod secret;
pub mod small_state;
pub mod snapshot;
pub mod store;
pub mod transport;
pub mod tree;
pub mod verify;
pub mod watch;
pub mod wording;
