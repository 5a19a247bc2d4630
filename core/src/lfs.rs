//! Large files outside Git: what stands for them in a tree, and where their bytes lie here.
//!
//! ```text
//! file ─▶ objects (hashed while captured, <repository>/lfs/objects) ─▶ pointer ─▶ blob in the tree
//! ```
//!
//! [`client`] brings them to a remote and back.
//!
//! Formats and places are those of Git LFS (its docs/spec.md), so that its own program reads what we write, and the
//! reverse.

pub mod attributes;
pub mod classify;
pub mod client;
mod draft;
pub mod fetched;
pub mod known;
pub mod limits;
pub mod objects;
pub mod pointer;
#[cfg(test)]
pub(crate) mod tests;
pub mod usage;

pub use attributes::Attributes;
pub use classify::Classifier;
pub use client::Client;
pub use limits::SizeLimit;
pub use objects::Objects;
pub use pointer::{ObjectId, Pointer};
