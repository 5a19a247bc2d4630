//! Supervision in OTP's manner on actix primitives: who watches whom, and what happens when one ends.
//!
//! actix alone drops a panicking actor without a word to anybody, so actors of this program are started by
//! [`spawn`] only, which knows how they ended. A supervisor is an actor that holds [`Children`] and implements
//! [`Supervising`]; its children come from factories that build them anew after each exit, and [`policy`] says
//! whether and when. Neither `stopping` nor `stopped` is ever overridden: they run during unwinding, where a
//! second panic takes the process down. Clean-up happens at the next start.
//!
//! ```text
//! factory(ExitHandle) ─▶ spawn ─▶ actor ──ends──▶ ExitReason ─▶ policy::decide ─▶ restart | park | escalate | done
//! ```
//!
//! A supervisor with one child that others reach through a [`Place`]:
//!
//! ```no_run
//! use actix::{Actor, Context};
//! use backupbot_actors::board::Board;
//! use backupbot_actors::supervision::{
//!     ChildSpec, Children, ExitHandle, Place, RestartPolicy, Supervising, spawn, spawn_on_own_thread,
//! };
//!
//! struct Queue(ExitHandle);
//! impl Actor for Queue {
//!     type Context = Context<Self>;
//! }
//!
//! struct Root(Children);
//! impl Actor for Root {
//!     type Context = Context<Self>;
//!     fn started(&mut self, ctx: &mut Context<Self>) {
//!         self.0.attach(ctx);
//!     }
//! }
//! impl Supervising for Root {
//!     fn children(&mut self) -> &mut Children {
//!         &mut self.0
//!     }
//! }
//!
//! # async fn boot(board: Board, log: slog::Logger) {
//! let queue = Place::<Queue>::new();
//! let root = spawn(ExitHandle::topmost(), move |exit| {
//!     let mut children = Children::new(&exit, &board, &log);
//!     let factory = move |exit| Ok(spawn_on_own_thread(exit, |exit| Ok(Queue(exit)))?.at(&queue));
//!     children.add(
//!         ChildSpec::new("queue", "queue", factory).rest_for_one().policy(RestartPolicy::escalating()),
//!     );
//!     Root(children)
//! });
//! let reason = root.ended.await; // anything but Stopped: the process exits with 6
//! # }
//! ```

mod children;
mod exit;
mod panics;
mod place;
pub mod policy;
mod spawn;
mod spec;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use children::{Children, Supervising};
pub use exit::{ChildId, ExitHandle, Leash, WorkGuard};
pub(crate) use panics::describe as describe_panic;
pub use panics::{PanicReport, install_panic_hook, panics_total};
pub use place::Place;
pub use policy::{Backoff, ExitReason, OnExceeded, RestartPolicy};
pub use spawn::{Ended, Spawned, StillRunning, spawn, spawn_on_own_thread};
pub use spec::{ChildSpec, ChildStart, Strategy};

/// Locks `mutex`; what it guards here is never left half-changed, so a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
