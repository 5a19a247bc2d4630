//! Who does it and when: the supervision tree and its actors, one file an actor.
//!
//! An actor decides, a job of the core crate does; a handler never blocks. [`supervision`] starts actors,
//! learns how they ended and starts them anew, [`job`] runs one blocking core function for an actor,
//! [`inspector`] verifies and rehearses restoring on schedule,
//! `housekeeping` merges packs beside whatever else its actor does,
//! [`board`] holds what every part published last, so that a dead child still has an answer, [`measure`] counts what
//! happens, [`health`] looks whether all is well, [`config_watcher`] what the configuration's file says, and [`control`] is what an operator can ask. [`root`] starts the tree; [`messages`] has everything that actors say.

pub mod alarm;
pub mod board;
pub mod committer;
pub mod config_watcher;
pub mod control;
pub mod health;
mod housekeeping;
pub mod inspector;
pub mod job;
pub mod lag;
pub mod lfs_quota;
pub mod measure;
pub mod messages;
pub mod pusher;
pub mod queue;
pub mod repository;
pub mod root;
pub mod seat;
pub mod supervision;
mod trail;
pub mod watcher;
