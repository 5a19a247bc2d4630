//! Memory goes back to the system when it is no longer used: what the allocator may keep for itself.
//!
//! A daemon is idle for most of its life, after a first backup that was not. glibc's allocator makes an arena for
//! every thread that meets another in it and gives hardly anything of it back, so what a batch needed for a second
//! would stay for years. Elsewhere (macOS, musl) these functions do nothing.

/// Arenas for all threads together. A first backup of 100,000 files takes as much CPU time with two as with one for
/// each thread (docs/performance.md), because what is allocated per file is little.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 2;

/// Bounds what the allocator keeps. To be called once, before the first thread is started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn be_frugal() {
    // SAFETY: mallopt(3) changes a setting of the allocator under its own lock; it takes no pointers.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Gives free pages back to the system. Takes a few milliseconds, so after a large piece of work only.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub fn give_back() {
    // SAFETY: malloc_trim(3) releases pages that no allocation is on, each arena under its own lock.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Bounds what the allocator keeps. To be called once, before the first thread is started.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn be_frugal() {}

/// Gives free pages back to the system. Takes a few milliseconds, so after a large piece of work only.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
