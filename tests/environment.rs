//! Poor surroundings: no home, no locale, no place for temporary files, no name for the user, little stack, few
//! descriptors, nothing to say anything to, nothing writable but state and remote. The main job works in each.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::daemon::{Daemon, Setup, is_root, leftovers};
use crate::support::git::{Judge, assert_clone_equals};
use crate::support::tree::write;
use crate::support::{SOON, eventually, skip};

/// The program's own command line in a world, as arguments for a wrapper.
fn program(setup: &Setup, command: &str) -> Vec<OsString> {
    let config = setup.write_config();
    let built = env!("CARGO_BIN_EXE_backupbot");
    vec![built.into(), command.into(), "--config".into(), config.into_os_string()]
}

/// A shell that does `first` and then becomes the program.
fn after(first: &str, program: Vec<OsString>) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{first}; exec \"$0\" \"$@\"")).args(program);
    command
}

/// Back up, change, back up, stop; and once more by `once`.
fn the_main_job_works(what: &str, setup: &Setup, wrap: impl Fn(Vec<OsString>) -> Command) {
    write(&setup.root(), "file", "1");
    write(&setup.root(), "deep/er/file", "1");
    let mut command = wrap(program(setup, "run"));
    command.current_dir("/").stdin(Stdio::null());
    let daemon = Daemon::spawn(command, setup);
    daemon.api().flush();
    write(&setup.root(), "file", "2");
    eventually(&format!("{what}: the change is pushed"), SOON, || {
        (setup.remote().blob("main", "folder1/file").as_deref() == Some(b"2")).then_some(())
    });
    daemon.api().status();
    daemon.api().flush();
    daemon.stop();
    setup.assert_all_is_well();

    write(&setup.root(), "file", "3");
    let output = wrap(program(setup, "once")).current_dir("/").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(setup.remote().blob("main", "folder1/file").unwrap(), b"3", "{what}");
    setup.assert_all_is_well();
}

#[test]
fn without_home_locale_or_any_other_variable() {
    the_main_job_works("no environment", &Setup::new(), |program| {
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).env_clear();
        command
    });
}

#[test]
fn with_variables_that_lead_nowhere() {
    the_main_job_works("a wrong environment", &Setup::new(), |program| {
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).env_clear();
        for name in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "GIT_DIR"] {
            command.env(name, "/nowhere/at/all");
        }
        command.env("LC_ALL", "xx_YY.NOTHING").env("LANG", "\u{1b}").env("TZ", "No/Such/Zone");
        command
    });
}

#[test]
fn with_a_stack_of_512_kilobytes() {
    // The shell sets the main thread's; threads take theirs from the variable.
    the_main_job_works("a small stack", &Setup::new(), |program| {
        let mut command = after("ulimit -s 512", program);
        command.env("RUST_MIN_STACK", "524288");
        command
    });
}

#[test]
fn with_nothing_to_read_from_and_nothing_to_say_anything_to() {
    the_main_job_works("closed standard streams", &Setup::new(), |program| {
        after("exec <&- >&- 2>&-", program)
    });
}

#[test]
fn with_64_descriptors_several_repositories_roots_and_remotes() {
    let mut setup = Setup::new();
    let at = |setup: &Setup, name: &str| setup.path(name).to_str().unwrap().to_owned();
    for root in ["folder2", "folder3", "folder4"] {
        fs::create_dir(setup.path(root)).unwrap();
    }
    let quick = json!({"quiet": "50ms", "max": "200ms"});
    let root = |setup: &Setup, name: &str| json!({"name": name, "path": at(setup, name), "debounce": quick});
    let mut second = setup.repository().clone();
    second["name"] = json!("second");
    second["roots"] = json!([root(&setup, "folder3"), root(&setup, "folder4")]);
    second["remotes"] = json!([
        {"name": "usb", "url": at(&setup, "remote/second.git")},
        {"name": "nas", "url": at(&setup, "remote/second-nas.git")},
    ]);
    setup.repository()["roots"] = json!([root(&setup, "folder1"), root(&setup, "folder2")]);
    setup.repository()["remotes"] = json!([
        {"name": "usb", "url": at(&setup, "remote/documents.git")},
        {"name": "nas", "url": at(&setup, "remote/documents-nas.git")},
    ]);
    setup.config["repositories"].as_array_mut().unwrap().push(second);
    let names = ["folder1", "folder2", "folder3", "folder4"];
    let daemon = Daemon::spawn(after("ulimit -n 64", program(&setup, "run")), &setup);
    // Enough commits for packs to pile up, and directories to walk.
    for round in 0..40 {
        for name in names {
            write(&setup.path(name), format!("d{round}/file"), format!("{name} {round}"));
        }
        let flushed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| daemon.api().flush()));
        assert!(flushed.is_ok(), "round {round}: {}", daemon.output());
    }
    let children = daemon.api().get("/api/v1/children").json();
    for child in children["children"].as_array().unwrap() {
        assert_eq!(child["restarts"], 0, "{child}\n{}", daemon.output());
    }
    assert!(!daemon.output().contains("Too many open files"), "{}", daemon.output());
    daemon.stop();
    let paths = names.map(|name| setup.path(name));
    for remote in ["documents", "documents-nas"] {
        let roots: [(&str, &Path); 2] = [("folder1", &paths[0]), ("folder2", &paths[1])];
        assert_clone_equals(&setup.path(&format!("remote/{remote}.git")), "main", &roots, |_| false);
    }
    for remote in ["second", "second-nas"] {
        let roots: [(&str, &Path); 2] = [("folder3", &paths[2]), ("folder4", &paths[3])];
        assert_clone_equals(&setup.path(&format!("remote/{remote}.git")), "main", &roots, |_| false);
        Judge::new(setup.path(&format!("remote/{remote}.git"))).assert_sound();
    }
    assert_eq!(leftovers(&setup.path("remote")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn as_a_user_that_nobody_has_heard_of() {
    if !is_root() {
        return skip("a user without a name: becoming one needs root");
    }
    let setup = Setup::new();
    let copy = setup.path("backupbot");
    fs::copy(env!("CARGO_BIN_EXE_backupbot"), &copy).unwrap();
    the_main_job_works("no entry in passwd", &setup, |mut program| {
        let given = Command::new("chown").args(["-R", "54321:54321"]).arg(setup.scratch.path()).status();
        assert!(given.unwrap().success());
        program[0] = copy.clone().into_os_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=54321", "--regid=54321", "--clear-groups", "--"]).args(program).env_clear();
        command
    });
}

/// A shell in a mount namespace of its own that does `first` and then becomes the program.
fn in_own_mounts(first: &str, program: Vec<OsString>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c"]).arg(format!("{first}; exec \"$0\" \"$@\"")).args(program);
    command
}

/// A world outside of `/tmp`, in a place that can be mounted over; `None`, announced, where that cannot be had.
fn world_of_mounts(what: &str) -> Option<Setup> {
    let tried = Command::new("unshare").args(["-m", "mount", "--make-rprivate", "/"]).output();
    if !is_root() || !tried.is_ok_and(|output| output.status.success()) {
        skip(&format!("{what}: mount namespaces need root"));
        return None;
    }
    Some(Setup::beneath(Path::new("/var/tmp")))
}

#[test]
fn without_a_place_for_temporary_files() {
    let Some(setup) = world_of_mounts("no /tmp") else { return };
    let hide = "set -e; mount --make-rprivate /; mount -t tmpfs -o ro,size=4k none /tmp";
    the_main_job_works("no /tmp", &setup, |program| in_own_mounts(hide, program));
}

#[test]
fn with_nothing_writable_but_state_and_remote() {
    let Some(setup) = world_of_mounts("a read-only system") else { return };
    fs::create_dir_all(setup.state()).unwrap();
    fs::create_dir_all(setup.path("remote")).unwrap();
    let (state, remote) = (setup.state(), setup.path("remote"));
    let lock_down = format!(
        "set -e; mount --make-rprivate /; mount --bind {state} {state}; mount --bind {remote} {remote}; \
         mount -o remount,bind,ro /; mount -t tmpfs -o ro,size=4k none /tmp; ! touch /var/tmp/x 2>/dev/null",
        state = state.display(),
        remote = remote.display()
    );
    the_main_job_works("a read-only system", &setup, |program| in_own_mounts(&lock_down, program));
}
