//! Git as a format: packs, trees, references and repositories on disk. No transports, no git binary.

pub mod contents;
pub mod health;
pub mod housekeeping;
pub mod objects;
pub(crate) mod ownership;
pub mod pack;
pub mod prune;
pub mod reachable;
pub mod refs;
pub mod repository;
pub mod salvage;
pub mod size;
pub mod workshop;
