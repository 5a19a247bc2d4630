//! The HTTP interface: what is where, who may come in, and the server on a thread of its own.
//!
//! | address | method | needs |
//! |---|---|---|
//! | `/livez`, `/readyz`, `/metrics` (unless it has a listener of its own) | GET, HEAD | nothing |
//! | `/api/v1/status`, `/api/v1/alerts`, `/api/v1/why`, `/api/v1/children` | GET | token, own host |
//! | `/api/v1/pause`, `/api/v1/resume`, `/api/v1/approve`, `/api/v1/reject`, `/api/v1/flush` | POST | token, own host |
//!
//! Every error is a problem document. There are no CORS headers, so browsers keep other origins out, and an
//! `Origin` that is not ours is refused besides. The tree is reached through a [`Door`] that is closed before
//! the process ends, so that no request keeps the database open.

mod admin;
pub mod auth;
mod body;
mod metrics;
mod probes;
mod problem;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpServer};
use backupbot_actors::control::Control;
use backupbot_core::config::Alerts;
use backupbot_core::store::StoreReader;
use slog::{Logger, error};

pub use admin::paused_answer;
pub use probes::Pulse;
use problem::Problem;

use crate::metrics::Exporter;

/// Time for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// An idle connection is kept so long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Connections at once; more wait.
const CONNECTIONS: usize = 128;

/// What requests need of the running tree.
#[derive(Clone)]
pub struct Inside {
    /// The tree.
    pub control: Control,
    /// The store.
    pub reader: StoreReader,
}

/// What `/metrics` gives, and where.
struct Served {
    exporter: Arc<Exporter>,
    /// Not on the admin listener.
    elsewhere: bool,
}

/// The way from a request to the tree, and what decides who goes it.
pub struct Door {
    /// Who backs up.
    pub instance: String,
    /// When to raise the alarm.
    pub alerts: Alerts,
    /// Hosts beside loopback.
    pub allowed_hosts: Vec<String>,
    /// Where the token is read, at each use.
    pub token_file: PathBuf,
    /// Where to log.
    pub log: Logger,
    /// Whether every root has been looked at once.
    is_ready: AtomicBool,
    /// By which the probes see that the main loop lives.
    pub pulse: Pulse,
    metrics: OnceLock<Served>,
    inside: Mutex<Option<Inside>>,
}

impl Door {
    /// A closed one, to be given a tree.
    pub fn new(
        instance: String,
        alerts: Alerts,
        allowed_hosts: Vec<String>,
        token_file: PathBuf,
        log: Logger,
    ) -> Self {
        Self {
            instance,
            alerts,
            allowed_hosts,
            token_file,
            log,
            is_ready: AtomicBool::new(false),
            pulse: Pulse::default(),
            metrics: OnceLock::new(),
            inside: Mutex::new(None),
        }
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

    fn enter(&self) -> Result<Inside, Problem> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(Problem::stopping)
    }
}

fn routes(config: &mut ServiceConfig) {
    let get = || web::route().to(async || Err::<&str, _>(Problem::method("GET")));
    let probe = || web::route().to(async || Err::<&str, _>(Problem::method("GET, HEAD")));
    let post = || web::route().to(async || Err::<&str, _>(Problem::method("POST")));
    let unknown = || web::route().to(async || Err::<&str, _>(Problem::unknown_address()));
    let api = web::scope("/api/v1")
        .wrap(from_fn(auth::gate))
        .service(web::resource("/status").get(admin::status).default_service(get()))
        .service(web::resource("/why").get(admin::why).default_service(get()))
        .service(web::resource("/alerts").get(admin::alerts).default_service(get()))
        .service(web::resource("/children").get(admin::children).default_service(get()))
        .service(web::resource("/pause").post(admin::pause).default_service(post()))
        .service(web::resource("/resume").post(admin::resume).default_service(post()))
        .service(web::resource("/approve").post(admin::approve).default_service(post()))
        .service(web::resource("/reject").post(admin::reject).default_service(post()))
        .service(web::resource("/flush").post(admin::flush).default_service(post()))
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

fn metrics_routes(config: &mut ServiceConfig) {
    let method = || web::route().to(async || Err::<&str, _>(Problem::method("GET, HEAD")));
    let unknown = web::route().to(async || Err::<&str, _>(Problem::unknown_address()));
    config
        .service(
            web::resource("/metrics").get(metrics::metrics).head(metrics::metrics).default_service(method()),
        )
        .default_service(unknown);
}

/// Serves `listener` until the handle is told to stop. Must be called within an actix system.
pub fn serve(listener: TcpListener, door: Data<Door>) -> io::Result<ServerHandle> {
    serve_routes(listener, door, routes)
}

/// The same for a listener that has nothing but `/metrics`.
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
        .worker_max_blocking_threads(4)
        .max_connections(CONNECTIONS)
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
