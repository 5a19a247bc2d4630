//! Tests under limits of their own: in a user namespace the kernel counts watches and instances separately.

use std::process::Command;

const INSIDE: &str = "BACKUPBOT_TEST_IN_NAMESPACE";

/// Whether this process is the one that runs `test` in namespaces of its own, where `script` was run first. If
/// it is not, has such a process run the test; it fails as that one fails.
#[allow(clippy::unwrap_used, clippy::panic, reason = "a part of tests")]
pub(super) fn is_inside(test: &str, script: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("1 passed"), "{test} is not the name of a test: {said}");
        }
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
            panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        other => {
            let why = match other {
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => error.to_string(),
            };
            // Not `eprintln!`: the test runner would swallow it as the output of a test that passes.
            let line = format!("\nSKIPPED: {test}: no user namespace can be made here: {why}\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        }
    }
    false
}

/// Whether temporary directories are in memory themselves, announced: then a file system in memory cannot stand for
/// another kind.
pub(super) fn scratch_is_in_memory(test: &str) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    let is_tmpfs = rustix::fs::statfs(std::env::temp_dir()).is_ok_and(|found| found.f_type as u64 == TMPFS);
    if is_tmpfs {
        let line =
            format!("\nSKIPPED: {test}: temporary files are kept in memory here; set TMPDIR to a disk\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    is_tmpfs
}
