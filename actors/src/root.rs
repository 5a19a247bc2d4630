//! The root of the tree: the queue, after it one supervisor for each repository, the inspector of all of them, the
//! health checker and the config watcher.
//!
//! The repositories run only while the queue does. When the queue, or a supervisor, fails more often than its
//! policy allows, the root gives up and the process ends with an exit code of its own, so that whatever started
//! it starts it afresh.
//!
//! A start is a reload from the empty configuration: `seats_of` and `Root::add` serve both.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use backupbot_core::audit::Audit;
use backupbot_core::config::diff::{Diff, RepositoryDiff};
use backupbot_core::config::{Alerts, Config};
use backupbot_core::fault;
use backupbot_core::ignore::IgnoreRules;
use backupbot_core::lfs::SizeLimit;
use backupbot_core::names::{RepositoryName, RootName};
use backupbot_core::scan::{Bounds, WatchedRoot};
use backupbot_core::store::Store;
use slog::{Logger, warn};

use crate::alarm::{Alarm, Watchman};
use crate::board::Board;
use crate::config_watcher::ConfigWatcher;
use crate::control::Control;
use crate::health::HealthChecker;
use crate::inspector::Inspector;
use crate::measure;
use crate::queue::Queue;
use crate::repository::{Alter, RepositorySupervisor, hang_after};
use crate::seat::{Common, RepositorySeat, Seats};
use crate::supervision::{
    ChildSpec, Children, ExitHandle, Place, RestartPolicy, Spawned, Supervising, spawn, spawn_on_own_thread,
};

/// A supervisor of supervisors waits longer than they do.
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// The actor.
pub struct Root {
    common: Common,
    seats: Seats,
    limits: Alerts,
    watchman: Option<Watchman>,
    children: Children,
}

impl Supervising for Root {
    fn children(&mut self) -> &mut Children {
        &mut self.children
    }
}

impl Actor for Root {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (common, seats) = (self.common.clone(), self.seats.clone());
        let queue = ChildSpec::new("queue", "queue", move |exit| {
            let (store, seats) = (common.store.clone(), seats.clone());
            let build = move |exit| Queue::build(exit, &store, seats).map_err(|error| error.to_string());
            Ok::<_, String>(spawn_on_own_thread(exit, build)?.at(&common.queue))
        });
        self.children.add(queue.rank(1).rest_for_one().policy(RestartPolicy::escalating()));
        for seat in self.seats.now() {
            self.add(seat);
        }
        self.attend();
        self.children.attach(ctx);
    }
}

impl Root {
    /// Starts a repository, in the place of one of the same name if there is one: that is stopped first.
    fn add(&mut self, seat: Arc<RepositorySeat>) {
        let seats = self.seats.clone();
        let repository = ChildSpec::new("repository", child_name(&seat.settings.name), move |exit| {
            // A run after others begins with what is configured by then.
            let seat = seats.of(&seat.settings.name).unwrap_or_else(|| seat.clone());
            let place = seat.supervisor.clone();
            Ok::<_, String>(spawn(exit, |exit| RepositorySupervisor::new(seat, &exit)).at(&place))
        });
        self.children.add(repository.rank(2).stop_within(STOP_WITHIN).hang_after(None));
    }
}

impl Root {
    /// Starts those who look after all repositories, or stops and starts them: they know what was configured when they
    /// began, and nothing waits for them.
    fn attend(&mut self) {
        let (common, seats) = (self.common.clone(), self.seats.clone());
        let inspector = ChildSpec::new("inspector", "inspector", move |exit| {
            let (common, seats) = (common.clone(), seats.now());
            Ok::<_, String>(spawn(exit, |exit| Inspector::new(common, seats, &exit)))
        });
        self.children.add(inspector.rank(3).policy(RestartPolicy::parking()).hang_after(Some(hang_after())));
        let (seats, limits) = (self.seats.clone(), self.limits.clone());
        let (board, log) = (self.common.board.clone(), self.common.log.clone());
        let health = ChildSpec::new("health", "health", move |exit| {
            let (seats, limits, board, log) = (seats.now(), limits.clone(), board.clone(), log.clone());
            Ok::<_, String>(spawn(exit, |exit| HealthChecker::new(seats, limits, &board, &log, &exit)))
        });
        self.children.add(health.rank(3));
        let Some(watchman) = self.watchman.clone() else { return };
        let watchman = Watchman { receivers: self.limits.notify.clone(), ..watchman };
        let log = self.common.log.clone();
        let alarm = ChildSpec::new("alarm", "alarm", move |exit| {
            let (watchman, log) = (watchman.clone(), log.clone());
            Ok::<_, String>(spawn(exit, |exit| Alarm::new(watchman, &exit, &log)))
        });
        self.children.add(alarm.rank(3).policy(RestartPolicy::parking()));
    }
}

impl Handler<Rearrange> for Root {
    type Result = ();

    fn handle(&mut self, message: Rearrange, _: &mut Self::Context) {
        for name in &message.removed {
            self.children.remove(&child_name(name));
        }
        for seat in message.anew {
            self.add(seat);
        }
        for alter in message.altered {
            // One that is not running begins with the new seat by itself.
            if let Some(supervisor) = alter.seat.supervisor.address() {
                supervisor.do_send(alter);
            }
        }
        self.limits = message.limits;
        self.attend();
    }
}

impl Handler<AreYouThere> for Root {
    type Result = ();

    fn handle(&mut self, _: AreYouThere, _: &mut Self::Context) {
        fault::point("actor:root:handle");
    }
}

/// Answered when the root comes to it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AreYouThere;

impl Handler<WatchConfiguration> for Root {
    type Result = ();

    fn handle(&mut self, message: WatchConfiguration, _: &mut Self::Context) {
        let (board, log) = (self.common.board.clone(), self.common.log.clone());
        let watcher = ChildSpec::new("config_watcher", "config watcher", move |exit| {
            let (file, board, log) = (message.0.clone(), board.clone(), log.clone());
            Ok::<_, String>(spawn(exit, |exit| ConfigWatcher::new(file, &board, &log, &exit)))
        });
        self.children.add(watcher.rank(3).policy(RestartPolicy::parking()).hang_after(Some(hang_after())));
    }
}

/// Watches the configuration's file from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WatchConfiguration(pub PathBuf);

/// Makes the tree what another configuration asks for. Repositories that it does not name run on untouched.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Rearrange {
    /// Repositories that are stopped and forgotten.
    pub removed: Vec<RepositoryName>,
    /// Repositories that are started, or stopped and started.
    pub anew: Vec<Arc<RepositorySeat>>,
    /// Repositories of which roots or remotes are started or stopped, and nothing else.
    pub altered: Vec<Alter>,
    /// When to raise the alarm.
    pub limits: Alerts,
}

/// The name of a repository's supervisor among the children of the root.
pub(crate) fn child_name(repository: &RepositoryName) -> String {
    format!("repository {repository}")
}

/// Starts the tree that `config` describes. Must be called within an actix system; the returned root must be
/// kept, its end is the end of the tree.
pub fn start(
    config: &Config,
    store: &Store,
    board: &Board,
    audit: &Audit,
    watchman: Option<Watchman>,
    log: &Logger,
) -> (Spawned<Root>, Control) {
    let common = Common {
        state_dir: config.state_dir.clone(),
        instance: config.instance.clone(),
        identity: config.identity.clone(),
        store: store.clone(),
        board: board.clone(),
        audit: audit.clone(),
        log: log.clone(),
        queue: Place::new(),
    };
    let seats = Seats::default();
    seats.put(seats_of(&common, config, &Diff::from_nothing(config), &[]));
    let place = Place::new();
    let control = Control::new(common.clone(), seats.clone(), place.clone());
    let limits = config.alerts.clone();
    let root = spawn(ExitHandle::topmost(), |exit| {
        let children = Children::new(&exit, board, log);
        Root { common, seats, limits, watchman, children }
    });
    (root.at(&place), control)
}

/// The seats that `config` asks for: new ones for what `diff` names, those of `present` for the rest.
pub(crate) fn seats_of(
    common: &Common,
    config: &Config,
    diff: &Diff,
    present: &[Arc<RepositorySeat>],
) -> Vec<Arc<RepositorySeat>> {
    let seats = config.repositories.iter().map(|settings| {
        let former = present.iter().find(|seat| seat.settings.name == settings.name);
        let change = diff.of(&settings.name);
        if let (Some(former), None) = (former, change) {
            return former.clone();
        }
        measure::begin(settings);
        let shared = former.zip(change).filter(|(_, change)| !change.is_whole());
        Arc::new(seat_of(common, SizeLimit::of(settings, config.limits.repository_size), settings, shared))
    });
    seats.collect()
}

/// Where a repository's bare Git repository stands.
pub fn repository_path(state_dir: &std::path::Path, name: &str) -> PathBuf {
    state_dir.join("repos").join(format!("{name}.git"))
}

/// A seat, which shares with the former one what `shared` says that did not change.
fn seat_of(
    common: &Common,
    largest_file: SizeLimit,
    settings: &backupbot_core::config::Repository,
    shared: Option<(&Arc<RepositorySeat>, &RepositoryDiff)>,
) -> RepositorySeat {
    let former = shared.map(|(former, _)| former);
    let is_same = |root: &RootName| shared.is_some_and(|(_, change)| !change.roots.changed.contains(root));
    let roots = settings.roots.iter().map(|root| {
        if let Some(same) = former.and_then(|former| former.root(&root.name)).filter(|_| is_same(&root.name)) {
            return same.clone();
        }
        let (rules, problems) =
            IgnoreRules::new(&root.path, &root.ignore, &root.ignore_files, root.system_excludes);
        for problem in problems {
            warn!(common.log, "an ignore rule is not obeyed, so nothing is left out by it"; "root" => %root.name,
                  "reason" => &problem.reason);
        }
        let bounds = Bounds { one_file_system: root.one_file_system, largest_file };
        WatchedRoot::new(root.name.clone(), root.path.clone(), Arc::new(rules), bounds)
    });
    // The actors of what changed take their places over, so whoever waits for one waits for the new one.
    let pushers = settings.remotes.iter().map(|remote| {
        let place = former.and_then(|former| former.pushers.get(&remote.name).cloned());
        (remote.name.clone(), place.unwrap_or_default())
    });
    let committed = settings.remotes.iter().map(|remote| {
        let nudge = former.and_then(|former| former.committed.get(&remote.name).cloned());
        (remote.name.clone(), nudge.unwrap_or_default())
    });
    let watchers = settings.roots.iter().map(|root| {
        let place = former.and_then(|former| former.watchers.get(&root.name).cloned());
        (root.name.clone(), place.unwrap_or_default())
    });
    let detected = settings.roots.iter().map(|root| {
        let count = former.and_then(|former| former.detected.get(&root.name).cloned());
        (root.name.clone(), count.unwrap_or_default())
    });
    RepositorySeat {
        path: repository_path(&common.state_dir, settings.name.as_str()),
        roots: Arc::new(roots.collect()),
        supervisor: former.map(|former| former.supervisor.clone()).unwrap_or_default(),
        committer: former.map(|former| former.committer.clone()).unwrap_or_default(),
        pushers: pushers.collect(),
        watchers: watchers.collect(),
        queued: former.map(|former| former.queued.clone()).unwrap_or_default(),
        committed: committed.collect(),
        activity: former.map(|former| former.activity.clone()).unwrap_or_default(),
        detected: detected.collect(),
        suspicion: former.map(|former| former.suspicion.clone()).unwrap_or_default(),
        settled: former.map(|former| former.settled.clone()).unwrap_or_default(),
        guard: former.map(|former| former.guard.clone()).unwrap_or_default(),
        lfs: former.map(|former| former.lfs.clone()).unwrap_or_default(),
        uploaded: former.map(|former| former.uploaded.clone()).unwrap_or_default(),
        settings: settings.clone(),
        common: common.clone(),
    }
}
