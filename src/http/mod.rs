//! The HTTP interface: what is where, who may come in, and the server on a thread of its own.
//!
//! | address | needs |
//! |---|---|
//! | `/livez`, `/readyz`, `/metrics` (if it has a listener of its own: all three there, and the probes here): GET, HEAD | nothing |
//! | below `/api/v1`: the table in [`access`] | own host, token of the role that is named there |
//!
//! Every error is a problem document. There are no CORS headers, so browsers keep other origins out, and an
//! `Origin` that is not ours is refused besides. The tree is reached through a [`Door`] that is closed before
//! the process ends, so that no request keeps the database open.

mod access;
mod admin;
pub mod auth;
mod body;
mod browse;
mod download;
pub mod events;
mod large;
mod limits;
mod log;
mod metrics;
mod openapi;
mod probes;
mod problem;
mod remembered;
mod restores;
pub mod shapes;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpRequest, HttpServer};
use backupbot_actors::alarm::Known;
use backupbot_actors::control::{Control, ControlError};
use backupbot_core::alert::Condition;
use backupbot_core::store::StoreReader;
use slog::{Logger, error};

use crate::alerts::{self, Alert};
use crate::logging::Levels;
use crate::reload::Reloader;
use crate::restoring::Jobs;
use crate::settings::Settings;
pub use admin::{paused_answer, status_now};
pub use body::decoded;
use limits::{Guesses, Turns, Wire};
pub use probes::{Pulse, first_looks};
use problem::Problem;

use crate::metrics::Exporter;

/// Time for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// An idle connection is kept so long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Connections at once; more wait. Those that send nothing are closed soon, so many may come without keeping probes out.
const CONNECTIONS: usize = 8192;
/// Connections that are waiting to be accepted.
const BACKLOG: u32 = 2048;
/// How often alerts are looked at while somebody listens to events.
const LOOK_AT_ALERTS: Duration = Duration::from_secs(15);

/// What requests need of the running tree.
#[derive(Clone)]
pub struct Inside {
    /// The tree.
    pub control: Control,
    /// The store.
    pub reader: StoreReader,
    /// Restores that were asked for here.
    pub jobs: Jobs,
}

/// What `/metrics` gives, and where.
struct Served {
    exporter: Arc<Exporter>,
    /// Not on the admin listener.
    elsewhere: bool,
}

/// The way from a request to the tree, and what decides who goes it.
pub struct Door {
    /// Where the token is read, at each use.
    pub token_file: PathBuf,
    /// Where to log.
    pub log: Logger,
    /// Which records are written.
    pub levels: Arc<Levels>,
    /// Who hears what happens.
    pub events: events::Hub,
    /// Reads the configuration again.
    pub reloader: Reloader,
    /// What the alarm knows.
    pub known: Known,
    turns: Turns,
    guesses: Guesses,
    remembered: remembered::Remembered,
    /// Whether every root has been looked at once.
    is_ready: AtomicBool,
    /// The configuration in force.
    settings: Mutex<Arc<Settings>>,
    /// By which the probes see that the main loop lives.
    pub pulse: Pulse,
    metrics: OnceLock<Served>,
    inside: Mutex<Option<Inside>>,
}

impl Door {
    /// A closed one, to be given a tree.
    pub fn new(
        settings: Arc<Settings>,
        token_file: PathBuf,
        reloader: Reloader,
        log: Logger,
        levels: Arc<Levels>,
    ) -> Self {
        Self {
            token_file,
            log,
            levels,
            events: events::Hub::default(),
            reloader,
            known: Known::default(),
            turns: Turns::default(),
            guesses: Guesses::default(),
            remembered: Default::default(),
            is_ready: AtomicBool::new(false),
            settings: Mutex::new(settings),
            pulse: Pulse::default(),
            metrics: OnceLock::new(),
            inside: Mutex::new(None),
        }
    }

    /// The configuration in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this one is in force.
    pub fn obey(&self, settings: Arc<Settings>) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        self.remembered.forget_status();
    }

    /// A wish that was not fulfilled.
    fn refused(&self, error: ControlError, refused: StatusCode) -> Problem {
        Problem::of_control(error, refused, &self.log).without(&self.settings().config.state_dir)
    }

    /// Has `/metrics` served, on the admin listener or `elsewhere`; the first word counts.
    pub fn export(&self, exporter: Arc<Exporter>, elsewhere: bool) {
        let _ = self.metrics.set(Served { exporter, elsewhere });
    }

    /// Lets requests in.
    pub fn open(&self, inside: Inside) {
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = Some(inside);
    }

    /// From now on requests are answered with 503.
    pub fn close(&self) {
        *self.inside.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What is wrong now, for the alarm. Nothing is known to be wrong before the door opens and after it was closed.
    pub fn conditions(&self) -> Vec<Condition> {
        let Ok(inside) = self.enter() else { return Vec::new() };
        let settings = self.settings();
        let looked = alerts::look(&inside.control, &inside.reader, &settings.config, &self.known);
        looked.alerts.iter().map(Alert::condition).collect()
    }

    /// The tree, as long as the door is open.
    pub(crate) fn enter(&self) -> Result<Inside, Problem> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(Problem::stopping)
    }
}

fn routes(config: &mut ServiceConfig) {
    let probe = || web::route().to(async || Err::<&str, _>(Problem::method("GET, HEAD")));
    let unknown = || web::route().to(async || Err::<&str, _>(Problem::unknown_address()));
    // Who asks in another way never comes here: the gate knows the ways. Still, a resource needs an answer of its own.
    let other_way = async |request: HttpRequest| {
        let allowed = access::allowed(&request.match_pattern().unwrap_or_default());
        Err::<&str, _>(Problem::method(&allowed))
    };
    let at = |path: &str| web::resource(path.to_owned()).default_service(web::route().to(other_way));
    let api = web::scope(access::BASE)
        .wrap(from_fn(auth::gate))
        .service(at("/status").get(admin::status))
        .service(at("/alerts").get(admin::alerts))
        .service(at("/children").get(admin::children))
        .service(at("/events").get(events::events))
        .service(at("/openapi.json").get(openapi::document))
        .service(at("/why").get(admin::why))
        .service(at("/repositories/{repository}/snapshots").get(browse::snapshots))
        .service(at("/repositories/{repository}/snapshots/{id}/files").get(browse::files))
        .service(at("/repositories/{repository}/lfs").get(large::usage))
        .service(at("/repositories/{repository}/lfs/prune").post(large::prune))
        .service(at("/repositories/{repository}/lfs/scrub").post(large::scrub))
        .service(at("/pause").post(admin::pause))
        .service(at("/resume").post(admin::resume))
        .service(at("/approve").post(admin::approve))
        .service(at("/reject").post(admin::reject))
        .service(at("/flush").post(admin::flush))
        .service(at("/reload").post(admin::reload))
        .service(at("/log").get(log::show).put(log::change))
        .service(at("/restores").get(restores::list).post(restores::start))
        .service(at("/restores/{id}").get(restores::show).delete(restores::remove))
        .service(at("/restores/{id}/cancel").post(restores::cancel))
        .default_service(unknown());
    config
        .service(web::resource("/livez").get(probes::livez).head(probes::livez).default_service(probe()))
        .service(web::resource("/readyz").get(probes::readyz).head(probes::readyz).default_service(probe()))
        .service(
            web::resource("/metrics")
                .get(metrics::beside_admin)
                .head(metrics::beside_admin)
                .default_service(probe()),
        )
        .service(api)
        .default_service(unknown());
}

/// Tells whoever listens what happens, until the door closes.
pub async fn tell_events(door: Data<Door>) {
    let Ok(inside) = door.enter() else { return };
    let control = inside.control.clone();
    drop(inside);
    let alerts = async {
        let mut before = BTreeMap::new();
        loop {
            if door.events.has_listeners()
                && let Ok(status) = status_now(&door).await
            {
                events::tell_alerts(&mut before, status.alerts, &door.events);
            }
            actix_rt::time::sleep(LOOK_AT_ALERTS).await;
        }
    };
    crate::race::first(events::follow(control, door.events.clone()), alerts).await;
}

fn metrics_routes(config: &mut ServiceConfig) {
    let method = || web::route().to(async || Err::<&str, _>(Problem::method("GET, HEAD")));
    let unknown = web::route().to(async || Err::<&str, _>(Problem::unknown_address()));
    config
        .service(web::resource("/livez").get(probes::livez).head(probes::livez).default_service(method()))
        .service(web::resource("/readyz").get(probes::readyz).head(probes::readyz).default_service(method()))
        .service(
            web::resource("/metrics").get(metrics::metrics).head(metrics::metrics).default_service(method()),
        )
        .default_service(unknown);
}

/// Serves `listener` until the handle is told to stop. Must be called within an actix system.
pub fn serve(listener: TcpListener, door: Data<Door>) -> io::Result<ServerHandle> {
    serve_routes(listener, door, routes)
}

/// The same for a listener that has nothing but `/metrics` and the probes: what a stranger may ask. An orchestrator then
/// needs no way to the API.
pub fn serve_metrics(listener: TcpListener, door: Data<Door>) -> io::Result<ServerHandle> {
    serve_routes(listener, door, metrics_routes)
}

fn serve_routes(
    listener: TcpListener,
    door: Data<Door>,
    routes: fn(&mut ServiceConfig),
) -> io::Result<ServerHandle> {
    let log = door.log.clone();
    let server = HttpServer::new(move || App::new().app_data(door.clone()).configure(routes))
        .workers(1)
        // More than the turns that heavy answers have: the rest is for tokens and status.
        .worker_max_blocking_threads(6)
        .max_connections(limits::connections(CONNECTIONS))
        .backlog(BACKLOG)
        .on_connect(Wire::take_hold)
        .client_request_timeout(HEAD_WITHIN)
        .keep_alive(KEEP_ALIVE)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)?
        .run();
    let handle = server.handle();
    actix_rt::spawn(async move {
        if let Err(error) = server.await {
            error!(log, "the HTTP interface ended"; "error" => %error);
        }
    });
    Ok(handle)
}

#[cfg(test)]
mod tests;
