//! Black-box tests: the built program as a user runs it, judged by plain `git` and by what is on disk.
//!
//! Each test has directories of its own, starts the program on a port of its own, and waits for conditions
//! with a deadline, never for a time. `support` is the harness; the other modules are topics. What needs the
//! feature `fault-points` is compiled only with it; the long tier runs with `BACKUPBOT_TEST_LONG=1`
//! (`tests/run --long`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::type_complexity,
    reason = "a harness fails by panicking, which the lints allow in test functions only; cases stand in tables"
)]

mod support;

mod adoption;
mod alerts;
mod api;
mod api_fuzz;
mod api_history;
mod api_reload;
mod api_robust;
mod audit;
mod audit_deeds;
mod cli;
#[cfg(feature = "fault-points")]
mod crash;
mod crash_random;
mod dashboard;
mod deploy;
mod disk;
mod documents;
mod encryption_gpg;
mod encryption_messages;
mod encryption_reading;
mod encryption_switch;
mod environment;
mod faults;
mod guard;
#[cfg(feature = "fault-points")]
mod health;
mod hostile;
mod http;
mod http_faults;
mod http_refusals;
mod inspect;
mod keys;
mod lfs;
mod lfs_http;
#[cfg(feature = "fault-points")]
mod lfs_keeping;
mod lfs_remotes;
mod lifecycle;
mod logs;
mod look;
mod main_job;
mod metrics;
mod names;
mod notify;
mod packaging;
mod polling;
mod power;
mod recipe;
mod recipe_encrypted;
mod reload;
mod remote_faults;
mod remote_test;
mod remotes;
mod restore;
mod scale;
mod ssh;
mod ssh_refusals;
mod state_damage;
mod storm;
mod supervision;
mod time_jumps;
mod verify;
