//! What this process has in its memory stays there: it is not written to a disk when the process dies, and other processes of
//! the same user do not get at it.
//!
//! Keys are in memory for as long as something is encrypted, and file contents always. A core dump would put both into a file
//! that nobody thinks of; programs that this one starts inherit the limit.

/// Switches core dumps off, and on Linux also makes the process one that only root may look into: no `/proc/<pid>/environ`,
/// no `/proc/<pid>/mem`, no debugger for others. To be called once, before anything secret is read. What a system refuses is
/// left as it was.
pub fn keep() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}
