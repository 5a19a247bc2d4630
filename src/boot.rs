//! What must stand before the tree can start: the state directory, its lock, the database, the listener.
//!
//! Everything here is done by one process at a time and may block; the actix system starts afterwards.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backupbot_actors::alarm;
use backupbot_actors::supervision::install_panic_hook;
use backupbot_core::adopt::Adoption;
use backupbot_core::audit::{Audit, Event};
use backupbot_core::config::{Admin, Config};
use backupbot_core::error::Result as CoreResult;
use backupbot_core::inspect;
use backupbot_core::private_file;
use backupbot_core::small_state::Aside;
use backupbot_core::store::{Recovery, Store};
use rustix::fs::Mode;
use slog::{Logger, crit, error, info, warn};

use crate::adoption;
use crate::cli::Adopt;
use crate::exit::Failure;
use crate::files::shown;
use crate::http::auth;
use crate::lock::{self, Holder, Lock};
use crate::restoring;
use crate::settings::{Origin, Settings};
use crate::status::VERSION;

/// The audit log, unless the configuration says otherwise.
pub const AUDIT_FILE: &str = "audit.jsonl";

/// What the alarm keeps.
pub const ALERTS_FILE: &str = "alerts.json";

/// How long a start waits for a command that only looks to let go of the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// What a tree is started on. The lock must outlive everything else.
pub struct Ground {
    /// The open database.
    pub store: Store,
    /// What was done about a damaged one.
    pub recovery: Option<Recovery>,
    /// Small files that were damaged.
    pub asides: Vec<Aside>,
    /// Where it is written down what is done.
    pub audit: Audit,
    /// Keeps others out.
    pub lock: Lock,
}

/// Runs an event loop on a thread that never ends, and returns what it came to. Ending the thread would drop
/// what the loop left behind: that waits for a job that hangs on a dead file system, and may touch thread-local
/// values that are gone already. The process ends around it instead.
pub fn on_a_thread_that_stays<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("main-loop".to_owned()).spawn(move || {
        let _ = tell.send(work());
        loop {
            std::thread::park();
        }
    });
    thread.map_err(|error| Failure::io("cannot start a thread", error))?;
    told.recv().map_err(|_| Failure::failed("the main loop broke down; see the log"))
}

/// Files that we make are for us alone, whoever started us with whatever umask.
pub fn keep_files_private() {
    rustix::process::umask(Mode::from_bits_truncate(0o077));
}

/// A panic is logged like everything else; supervision decides what follows from it.
pub fn log_panics(log: &Logger) {
    let log = log.clone();
    install_panic_hook(move |report| {
        crit!(log, "a part of the program panicked"; "message" => &report.message, "at" => &report.location,
              "thread" => &report.thread);
    });
}

/// Makes the state directory ready and opens the database.
pub fn prepare(
    settings: &mut Settings,
    adopt: Option<Adopt>,
    command: &str,
    host: &str,
    log: &Logger,
) -> Result<Ground, Failure> {
    let config = &settings.config;
    for warning in &settings.warnings {
        warn!(log, "in the configuration"; "warning" => %warning);
    }
    make_state_dir(&config.state_dir, log)?;
    let lock = lock::take(&config.state_dir, &Holder::this(command, &config.instance, host), LOCK_PATIENCE)?;
    private_file::sweep(&config.state_dir)?;
    let asides = mend_small_files(&config.state_dir, log);
    let audit = Audit::open(&audit_file(config))?;
    let (store, recovery) = Store::open(&config.state_dir)?;
    if let Some(recovery) = &recovery {
        error!(log, "{}", recovered(recovery));
    }
    settings.remember()?;
    let who = format!("{command} by user {}", rustix::process::getuid().as_raw());
    log_start(settings, &store, (command, &who), &audit, log)?;
    if let Some(adopt) = adopt {
        let adoption = match adopt {
            Adopt::Continue => Adoption::Continue,
            Adopt::Branch => Adoption::Branch,
        };
        adoption::decide(&mut settings.config, adoption, &store, (&who, &audit), log)?;
    }
    Ok(Ground { store, recovery, asides, audit, lock })
}

/// Sets aside what is damaged of the small files, so that nobody takes them for empty. `branches.json` is not among them: without
/// it commits would go elsewhere, so its reader refuses to start.
fn mend_small_files(state_dir: &Path, log: &Logger) -> Vec<Aside> {
    let mut asides = Vec::new();
    let mut take = |mended: CoreResult<Vec<Aside>>| match mended {
        Ok(mended) => asides.extend(mended),
        Err(error) => error!(log, "a damaged file cannot be set aside"; "error" => %error),
    };
    take(alarm::mend(&state_dir.join(ALERTS_FILE)).map(Vec::from_iter));
    take(restoring::mend(state_dir).map(Vec::from_iter));
    take(inspect::mend(state_dir));
    for aside in &asides {
        error!(log, "{}", aside.words());
    }
    asides
}

/// What happened to a damaged database, in words for the operator.
pub fn recovered(recovery: &Recovery) -> String {
    format!(
        "the state database was damaged ({}) and is set aside as {}; a new one is built from the repositories, the \
         watched directories and the remotes; paused repositories are no longer paused",
        recovery.reason,
        shown(&recovery.set_aside)
    )
}

fn log_start(
    settings: &Settings,
    store: &Store,
    (command, who): (&str, &str),
    audit: &Audit,
    log: &Logger,
) -> Result<(), Failure> {
    let config = &settings.config;
    let origin = match &settings.origin {
        Origin::File(path) => shown(path),
        Origin::Flags(_) => "the command line".to_owned(),
    };
    let origin_words = origin.clone();
    info!(log, "starting"; "command" => command, "version" => VERSION, "pid" => std::process::id(),
          "instance" => &config.instance, "state_dir" => shown(&config.state_dir), "configuration" => origin);
    let start = Event::new("start", "ok").by(who).with("version", VERSION);
    audit.record(start.with("pid", std::process::id()));
    let former = store.swap_config_checksum(&config.checksum)?;
    if former.as_ref() != Some(&config.checksum) {
        let change =
            Event::new("configuration", "ok").by(who).with("from", former.as_deref().unwrap_or("none"));
        audit.record(change.with("to", &config.checksum).with("read from", &origin_words));
    }
    if former.is_some_and(|former| former != config.checksum) {
        info!(log, "the configuration has changed since the last start");
    }
    for repository in config.repositories.iter().filter(|repository| repository.remotes.is_empty()) {
        warn!(log, "no remote is configured: commits stay on this machine"; "repository" => %repository.name);
    }
    Ok(())
}

/// Makes the directory, for us alone, unless it is there.
pub fn make_state_dir(path: &Path, log: &Logger) -> Result<(), Failure> {
    let failed = |doing: &str, error: &dyn std::fmt::Display| {
        let remedy = "choose another with --state-dir, or make it for the user that BackupBot runs as";
        Failure::failed(format!("cannot {doing} the state directory {}: {error}; {remedy}", shown(path)))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("make", &error))?;
    let found = fs::metadata(path).map_err(|error| failed("look at", &error))?;
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own {
        // A volume may belong to root and be lent to our group; closing it is not ours to do.
        warn!(log, "the state directory belongs to another user, who can change what is in it";
              "state_dir" => shown(path), "its user" => found.uid(), "own user" => own);
    } else if found.mode() & 0o077 != 0 {
        warn!(log, "the state directory was open to other users and is closed to them now";
              "state_dir" => shown(path), "mode" => format!("{:o}", found.mode() & 0o7777));
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| failed("close", &error))?;
    }
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|error| failed("write to", &error))
}

/// Where the audit log is.
pub fn audit_file(config: &Config) -> PathBuf {
    config.log.audit_file.clone().unwrap_or_else(|| config.state_dir.join(AUDIT_FILE))
}

/// Where the token is.
pub fn token_file(config: &Config) -> PathBuf {
    config.admin.token_file.clone().unwrap_or_else(|| config.state_dir.join("admin.token"))
}

/// Makes the token, unless the operator names a file that holds one.
pub fn make_token(config: &Config, log: &Logger) -> Result<(), Failure> {
    let path = token_file(config);
    if config.admin.token_file.is_none() {
        return auth::make_token(&path);
    }
    if let Err(error) = auth::read_token(&path) {
        warn!(log, "the token cannot be read; nobody is let in until it can"; "file" => shown(&path),
              "error" => %error);
    }
    Ok(())
}

/// Binds the admin address. The default port may be taken by another instance on this machine, so then any
/// free one serves: clients find it through daemon.json.
pub fn bind(admin: &Admin, log: &Logger) -> Result<TcpListener, Failure> {
    let is_default = admin.listen == Admin::default().listen;
    if !admin.listen.ip().is_loopback() {
        warn!(log, "the admin interface can be reached from other machines; put a TLS proxy in front of it";
              "listen" => %admin.listen);
    }
    match TcpListener::bind(admin.listen) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_default => {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = TcpListener::bind(any).map_err(|error| {
                Failure::io(format!("cannot listen on {any} for the admin interface"), error)
            })?;
            warn!(log, "the default admin port is taken, probably by another instance; using a free one";
                  "taken" => %admin.listen);
            Ok(listener)
        }
        Err(error) => Err(Failure::io(
            format!("cannot listen on {} (admin.listen) for the admin interface", admin.listen),
            error,
        )),
    }
}

/// Binds the address of the metrics, if they have one of their own.
pub fn bind_metrics(listen: Option<SocketAddr>) -> Result<Option<TcpListener>, Failure> {
    let Some(listen) = listen else { return Ok(None) };
    let bound = TcpListener::bind(listen).map_err(|error| {
        Failure::io(format!("cannot listen on {listen} (metrics.listen) for the metrics"), error)
    })?;
    Ok(Some(bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Logger {
        Logger::root(slog::Discard, slog::o!())
    }

    #[test]
    fn the_state_directory_is_for_us_alone_whether_made_or_found() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        make_state_dir(&path, &log()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        make_state_dir(&path, &log()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);

        fs::write(scratch.path().join("file"), "").unwrap();
        let failure = make_state_dir(&scratch.path().join("file"), &log()).unwrap_err();
        assert!(failure.lines[0].contains("--state-dir"), "{failure:?}");
    }

    #[test]
    fn only_the_default_port_is_exchanged_for_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = Admin { listen: taken.local_addr().unwrap(), ..Admin::default() };
        assert!(bind(&admin, &log()).unwrap_err().lines[0].contains("admin.listen"));

        let default = Admin::default();
        // Whether or not somebody else on this machine has the port, one of the two is second.
        let (first, second) = (bind(&default, &log()).unwrap(), bind(&default, &log()).unwrap());
        assert_ne!(first.local_addr().unwrap().port(), second.local_addr().unwrap().port());
        assert!(second.local_addr().unwrap().ip().is_loopback());
    }
}
