//! Who does it and when: the supervision tree and its actors, one file an actor.
//!
//! An actor decides, a job of the core crate does; a handler never blocks. [`supervision`] starts actors,
//! learns how they ended and starts them anew, [`job`] runs one blocking core function for an actor, and
//! [`board`] holds what every part published last, so that a dead child still has an answer.

pub mod board;
pub mod job;
pub mod supervision;
