//! Large contents after they were pushed: how much room they take at each remote, what they are, when the copy here can
//! go, and whether each remote still has them, whole.
//!
//! In: a repository, its remotes, what the database knows of them. Out: numbers and what was done. [`census`] finds what the
//! history needs, [`fullness`] how full a remote is, [`report`] what fills it, [`prune`] removes here what every remote
//! has, [`scrub`] asks for all of it and reads some, [`scrubs`] remembers what came of
//! that. A [`keeper::Keeper`] does each for one repository, for the daemon and for commands alike.

pub mod census;
pub mod fullness;
pub mod keeper;
pub mod prune;
pub mod report;
pub mod scrub;
pub mod scrubs;

#[cfg(test)]
pub(crate) mod tests;
