//! Where the present run of a child can be reached.
//!
//! A restarted child has a new address. Whoever needs it takes it from its [`Place`] once, when it is built
//! itself, or again when a send fails; it does not take a fresh one for each message, because each clone of
//! an actix address has a mailbox slot of its own and so escapes the mailbox' bound.

use std::fmt;
use std::sync::{Arc, Mutex};

use actix::{Actor, Addr};

use super::lock;

/// A named seat that runs of a child take one after the other; clones are the same seat.
pub struct Place<A: Actor>(Arc<Mutex<Option<Addr<A>>>>);

impl<A: Actor> Place<A> {
    /// An empty one.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// The address of the present run, if one is alive.
    pub fn address(&self) -> Option<Addr<A>> {
        lock(&self.0).clone().filter(Addr::connected)
    }

    /// The address, or a reason fit for a factory's error.
    pub fn address_of(&self, who: &str) -> Result<Addr<A>, String> {
        self.address().ok_or_else(|| format!("the {who} is not running"))
    }

    pub(crate) fn take_by(&self, address: Addr<A>) {
        *lock(&self.0) = Some(address);
    }
}

impl<A: Actor> Clone for Place<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Actor> Default for Place<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Actor> fmt::Debug for Place<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.address().is_some() { "Place(taken)" } else { "Place(empty)" })
    }
}
