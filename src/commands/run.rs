//! `backupbot run`: the daemon. Boots, serves the API, watches over the tree, stops in order.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web::Data;
use backupbot_actors::alarm::{self, Watchman};
use backupbot_actors::board::{Board, Moment};
use backupbot_actors::control::Control;
use backupbot_actors::{measure, root};
use backupbot_core::alert::ledger::Delays;
use backupbot_core::audit::{Audit, Event};
use backupbot_core::store::Store;
use slog::{Logger, info, warn};
use tokio::signal::unix::Signal;
use tokio::sync::Mutex;

use crate::beside;
use crate::boot;
use crate::cli::{Adopt, Invocation, Target};
use crate::daemon::{self, Daemon};
use crate::exit::{Exit, Failure};
use crate::http::{self, Door, Inside};
use crate::logging::{self, Levels, Log};
use crate::meter::{self, Meter};
use crate::metrics::Exporter;
use crate::notify::{self, Manager};
use crate::press;
use crate::race::{First, first};
use crate::reload::{self, Reloader};
use crate::restoring::Jobs;
use crate::settings::{self, Origin, Settings, World};
use crate::shutdown::{self, End, Signals};
use crate::status::VERSION;

/// Where alerts and messages that wait are kept.
/// How often the moving line moves.
const METER_PAUSE: Duration = Duration::from_millis(250);
/// How often the service manager is told how things stand, if that has changed.
const SAY_STATUS_EVERY: Duration = Duration::from_secs(10);
/// How often the main loop gives a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// However often the service manager wants one.
const SHORTEST_BEAT: Duration = Duration::from_millis(20);

/// Whom the daemon tells what happens.
#[derive(Clone)]
struct Audience {
    manager: Arc<Manager>,
    meter: Meter,
    log: Logger,
    levels: Arc<Levels>,
}

pub fn run(world: &World, invocation: &Invocation, target: &Target) -> Result<Exit, Failure> {
    boot::keep_files_private();
    let mut settings = settings::for_work(world, invocation, target)?;
    let meter = Meter::default();
    let Log { root: log, levels, guard } = logging::start(&settings.config.log, &meter)?;
    boot::log_panics(&log);
    let reloader = Reloader::new(world, &invocation.cli.global);
    let manager = Arc::new(Manager::of(&world.environment, &log));
    let audience = Audience { manager, meter: meter.clone(), log, levels };
    let outcome = daemon(world, &mut settings, reloader, target.adopt, &audience);
    meter.hide();
    // What is still in the channel is written before the process ends.
    drop((audience, guard));
    outcome
}

fn daemon(
    world: &World,
    settings: &mut Settings,
    reloader: Reloader,
    adopt: Option<Adopt>,
    audience: &Audience,
) -> Result<Exit, Failure> {
    let log = &audience.log;
    audience.manager.starting();
    let ground = boot::prepare(settings, adopt, "run", &world.host, log)?;
    let listener = boot::bind(&settings.config.admin, log)?;
    let metrics = boot::bind_metrics(settings.config.metrics.listen)?;
    boot::make_token(&settings.config, log)?;
    let database = ground.recovery.as_ref().map(|lost| ("database", String::new(), boot::recovered(lost)));
    let files = ground.asides.iter().map(|aside| ("file", aside.name(), aside.words()));
    let recoveries: Vec<Recovered> = database.into_iter().chain(files).collect();
    let (store, audit) = (ground.store, ground.audit);
    let (settings, audience) = (settings.clone(), audience.clone());
    let end = boot::on_a_thread_that_stays(move || {
        let system = actix_rt::System::new();
        let listeners = (listener, metrics);
        let end =
            system.block_on(serve((settings, reloader), store, &audit, recoveries, listeners, &audience));
        std::mem::forget(system);
        end
    })?;
    // Only now may another process start.
    drop(ground.lock);
    match end? {
        End::Stopped => Ok(Exit::Done),
        End::GaveUp(reason) => Err(Failure::new(Exit::GaveUp, format!("the supervisor gave up: {reason}"))),
    }
}

/// State that was damaged: its kind, which of that kind, and what was done.
type Recovered = (&'static str, String, String);

async fn serve(
    (settings, reloader): (Settings, Reloader),
    store: Store,
    audit: &Audit,
    recoveries: Vec<Recovered>,
    (listener, metrics): (TcpListener, Option<TcpListener>),
    audience: &Audience,
) -> Result<End, Failure> {
    let Audience { manager, meter, log, levels } = audience;
    let settings = Arc::new(settings);
    let config = &settings.config;
    let mut signals = Signals::install().map_err(|error| Failure::io("cannot listen for signals", error))?;
    let address_of =
        |listener: &TcpListener| listener.local_addr().map_err(|error| Failure::io("cannot listen", error));
    let address = address_of(&listener)?;
    let metrics_address = metrics.as_ref().map(address_of).transpose()?;
    let door = Data::new(Door::new(
        settings.clone(),
        boot::token_file(config),
        reloader,
        log.clone(),
        levels.clone(),
    ));

    let exporter = Exporter::install()?;
    door.export(exporter.clone(), metrics.is_some());
    let board = Board::new();
    for (kind, place, words) in recoveries {
        board.recovered(kind, &place, &words);
    }
    board.change_configuration(|status| *status = reload::begun(&settings));
    let watchman = watchman(&door, &settings);
    let (tree, control) = root::start(config, &store, &board, audit, Some(watchman), log);
    measure::begin_reloads();
    measure::begin_restores();
    audit.heed(Arc::new(measure::restored));
    if let Origin::File(file) = &settings.origin {
        control.watch_configuration(file.clone());
    }
    let reader = store.reader();
    let jobs = Jobs::open(&config.state_dir, audit, log);
    door.open(Inside { control: control.clone(), reader: reader.clone(), jobs: jobs.clone() });
    let server = http::serve(listener, door.clone())
        .map_err(|error| Failure::io("cannot start the admin interface", error))?;
    let metrics_server = metrics.map(|listener| http::serve_metrics(listener, door.clone())).transpose();
    let metrics_server = metrics_server.map_err(|error| Failure::io("cannot serve the metrics", error))?;
    daemon::announce(
        &config.state_dir,
        &Daemon {
            address: daemon::reachable(address),
            pid: std::process::id(),
            version: VERSION.to_owned(),
            started: Moment::now().to_string(),
            token_file: boot::token_file(config),
            metrics: metrics_address.map(daemon::reachable),
        },
    )?;
    info!(log, "watching"; "admin" => %address, "metrics" => metrics_address.map(|address| address.to_string()));
    actix_rt::spawn(beat(door.clone(), control.clone(), manager.clone()));
    let hang_ups = signals.hang_ups().map_err(|error| Failure::io("cannot listen for signals", error))?;
    let hang_ups = Rc::new(Mutex::new(hang_ups));
    let beside = {
        let (door, manager, board) = (door.clone(), manager.clone(), board.clone());
        let (events, told, changed, hung_up) = (door.clone(), door.clone(), door.clone(), door);
        let its_manager = manager.clone();
        [
            beside::keep("metrics", log, move || exporter.clone().keep()),
            beside::keep("events", log, move || http::tell_events(events.clone())),
            beside::keep("service manager", log, move || keep_told(told.clone(), its_manager.clone())),
            beside::keep("changed file", log, move || reload::follow_file(changed.clone(), board.clone())),
            beside::keep("SIGHUP", log, move || {
                reload_at_hang_up(hung_up.clone(), hang_ups.clone(), manager.clone())
            }),
        ]
    };
    let first_backup = actix_rt::spawn(show_first_backup(control.clone(), meter.clone()));

    let end =
        shutdown::watch_over(tree, &control, &store, &mut signals, config.shutdown_grace, manager, log).await;
    first_backup.abort();
    let _ = first_backup.await;
    jobs.interrupt();
    for task in beside {
        task.end().await;
    }
    meter.hide();
    if let Err(failure) = daemon::withdraw(&config.state_dir) {
        warn!(log, "{}", failure.lines.join("; "));
    }
    door.close();
    if let Some(metrics_server) = metrics_server {
        metrics_server.stop(false).await;
    }
    server.stop(false).await;
    audit.record(Event::new("stop", if end == End::Stopped { "ok" } else { "gave up" }));
    audit.sync();
    if end == End::Stopped {
        shutdown::mark_stopped(&store, log);
    }
    Ok(end)
}

/// What the alarm goes by: it asks as whoever asks for the status does.
fn watchman(door: &Data<Door>, settings: &Settings) -> Watchman {
    let (config, asked) = (&settings.config, door.clone());
    Watchman {
        instance: config.instance.clone(),
        receivers: Vec::new(),
        file: config.state_dir.join(boot::ALERTS_FILE),
        conditions: Arc::new(move || asked.conditions()),
        known: door.known.clone(),
        delays: hurry().map_or_else(Delays::default, |delay| Delays { warning: delay, clear: delay }),
        calm: hurry().unwrap_or(alarm::CALM),
        pause: hurry().unwrap_or(alarm::PAUSE),
    }
}

/// A test build's delays of alerts, all of them.
fn hurry() -> Option<Duration> {
    if !cfg!(feature = "fault-points") {
        return None;
    }
    let text = std::env::var("BACKUPBOT_FAULT_ALERTS_AFTER_MS").ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// Reloads the configuration at each SIGHUP, as daemons do.
async fn reload_at_hang_up(door: Data<Door>, hang_ups: Rc<Mutex<Signal>>, manager: Arc<Manager>) {
    let mut hang_ups = hang_ups.lock().await;
    while hang_ups.recv().await.is_some() {
        info!(door.log, "asked by SIGHUP"; "to" => "reload");
        // What came of it is in the log already, and in the status.
        manager.reloading();
        let _ = reload::reload(&door, "SIGHUP").await;
        manager.reloaded();
    }
}

/// Shows the probes, which are answered on another thread, and the service manager that this one and the root live.
async fn beat(door: Data<Door>, control: Control, manager: Arc<Manager>) {
    let pause =
        manager.watchdog().map_or(HEARTBEAT, |watchdog| HEARTBEAT.min(watchdog / 4).max(SHORTEST_BEAT));
    loop {
        control.root_comes_round().await;
        door.pulse.beat();
        manager.alive(Instant::now());
        actix_rt::time::sleep(pause).await;
    }
}

/// Tells the service manager when everything was looked at once, and from then on how it stands.
async fn keep_told(door: Data<Door>, manager: Arc<Manager>) {
    if !manager.is_there() {
        return;
    }
    loop {
        match http::first_looks(&door) {
            Ok(Some((looked_at, all))) => {
                manager.still_starting();
                manager.status(&format!("{looked_at} of {all} roots were looked at so far"));
            }
            Ok(None) => break,
            // The end has begun.
            Err(_) => return,
        }
        actix_rt::time::sleep(HEARTBEAT).await;
    }
    manager.ready();
    loop {
        if let Ok(status) = http::status_now(&door).await {
            manager.status(&notify::words(&status));
        }
        actix_rt::time::sleep(SAY_STATUS_EVERY).await;
    }
}

/// A moving line until everything was compared once.
async fn show_first_backup(control: Control, meter: Meter) {
    if !meter.show() {
        return;
    }
    first(press::compared(&control), keep_showing(&control, &meter)).await;
    meter.hide();
}

/// Keeps the moving line up to date for as long as it is polled.
pub async fn keep_showing(control: &Control, meter: &Meter) {
    loop {
        let done = control.seats().into_iter().map(|seat| seat.activity.done());
        let (files, bytes) = done.fold((0, 0), |sum, done| (sum.0 + done.0, sum.1 + done.1));
        meter.say(meter::done_so_far(files, bytes));
        actix_rt::time::sleep(METER_PAUSE).await;
    }
}

/// Runs `work` beside the moving line.
pub async fn beside_meter<T>(control: &Control, meter: &Meter, work: impl Future<Output = T>) -> T {
    let is_shown = meter.show();
    let showing = async {
        if is_shown {
            keep_showing(control, meter).await;
        }
        std::future::pending::<()>().await;
    };
    let done = match first(work, showing).await {
        First::Left(done) => done,
        // It never completes.
        First::Right(()) => std::future::pending().await,
    };
    meter.hide();
    done
}
