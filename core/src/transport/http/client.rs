//! The HTTP client: made for a remote's certificates and proxy, kept while they stay the same, so that connections are
//! used again.

use std::collections::HashMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::{Client, Proxy, Url, redirect};
use rustls::{ClientConfig, RootCertStore};

use crate::config::Remote;
use crate::error::{Error, Kind, Result};
use crate::path::lossy;
use crate::transport::http::reach::{OutOfReach, Reach, Resolver};
use crate::transport::wire::Limits;

/// Idle connections go after this; servers close theirs after about a minute.
const KEPT_IDLE: Duration = Duration::from_secs(50);
/// More remotes than that do not share.
const MOST_KEPT: usize = 32;

/// What a client was made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    authorities: Option<(PathBuf, Option<SystemTime>, u64)>,
    proxy: Option<String>,
    connect: Duration,
    /// Without encryption nobody asks for certificates.
    is_plain: bool,
    /// How far the words of a server may lead; `None` where only the configuration says where to go.
    reach: Option<Reach>,
}

static CLIENTS: Mutex<Option<HashMap<Key, Client>>> = Mutex::new(None);

/// A client for a receiver of messages: no proxy, this system's authorities.
pub(crate) fn plain(scheme: &str, connect: Duration) -> Result<Client> {
    kept(Key { authorities: None, proxy: None, connect, is_plain: scheme == "http", reach: None })
}

/// The client for `remote`: a file of authorities that has changed makes a new one.
pub(crate) fn of(remote: &Remote, base: &Url, limits: Limits) -> Result<Client> {
    for_remote(remote, base, limits, None)
}

/// A client for `place`, which a server has named: it connects to nothing beyond `reach`, and takes bodies as they
/// are. Behind a proxy nobody here sees the addresses; then names are all that can be judged.
pub(crate) fn within(remote: &Remote, place: &Url, limits: Limits, reach: Reach) -> Result<Client> {
    for_remote(remote, place, limits, Some(reach))
}

fn for_remote(remote: &Remote, base: &Url, limits: Limits, reach: Option<Reach>) -> Result<Client> {
    let authorities = match &remote.ca_file {
        Some(path) => {
            let metadata = fs::metadata(path).map_err(|error| unusable(path, &error.to_string()))?;
            Some((path.clone(), metadata.modified().ok(), metadata.len()))
        }
        None => None,
    };
    let key = Key {
        authorities,
        proxy: remote.proxy.clone(),
        connect: limits.connect,
        is_plain: base.scheme() == "http"
            && remote.proxy.as_ref().is_none_or(|proxy| proxy.starts_with("http://")),
        reach,
    };
    kept(key)
}

fn kept(key: Key) -> Result<Client> {
    let known = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(client) = known.as_ref().and_then(|clients| clients.get(&key)) {
        return Ok(client.clone());
    }
    // Reading certificates may take its time, which is nobody else's.
    drop(known);
    let client = make(&key)?;
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let clients = clients.get_or_insert_default();
    if clients.len() >= MOST_KEPT {
        clients.clear();
    }
    clients.insert(key, client.clone());
    Ok(client)
}

fn make(key: &Key) -> Result<Client> {
    let fail = |error: reqwest::Error| Error::with_source(Kind::Config, "cannot prepare for HTTP", error);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::with_source(Kind::Internal, "cannot prepare encryption", error))?
        .with_root_certificates(authorities(key)?)
        .with_no_client_auth();
    let mut builder = Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(key.connect)
        .pool_idle_timeout(KEPT_IDLE)
        .http2_adaptive_window(true)
        .tcp_keepalive(Duration::from_secs(30))
        .referer(false);
    if let Some(proxy) = &key.proxy {
        builder = builder.proxy(Proxy::all(proxy).map_err(fail)?);
    }
    if let Some(reach) = key.reach {
        builder = builder.gzip(false);
        if key.proxy.is_none() {
            builder = builder.dns_resolver(Resolver::shared(reach));
        }
    }
    builder.build().map_err(fail)
}

fn authorities(key: &Key) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match &key.authorities {
        Some((path, _, _)) => {
            let file = fs::File::open(path).map_err(|error| unusable(path, &error.to_string()))?;
            let mut file = BufReader::new(file);
            for certificate in rustls_native_certs_pem(&mut file) {
                let certificate = certificate.map_err(|error| unusable(path, &error))?;
                store.add(certificate).map_err(|error| unusable(path, &error.to_string()))?;
            }
            if store.is_empty() {
                return Err(unusable(path, "there is no certificate in it; PEM is expected"));
            }
        }
        None if key.is_plain => {}
        None => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let text = "this system has no certificates of authorities: install its package for that \
                            (ca-certificates), or name a file under the remote's ca_file";
                return Err(Error::new(Kind::Config, text));
            }
        }
    }
    Ok(store)
}

fn unusable(path: &Path, why: &str) -> Error {
    let place = lossy(path.as_os_str().as_encoded_bytes());
    Error::new(Kind::Config, format!("cannot use the authorities in {place} (ca_file): {why}"))
}

fn rustls_native_certs_pem(
    file: &mut dyn std::io::BufRead,
) -> Vec<std::result::Result<rustls::pki_types::CertificateDer<'static>, String>> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::pem_reader_iter(file).map(|item| item.map_err(|error| error.to_string())).collect()
}

/// A failure of the client in words for an operator.
pub(crate) fn error_of(doing: &str, error: &reqwest::Error) -> Error {
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    // The innermost cause says what happened; the outer ones that something happened.
    let last = causes.pop().unwrap_or_else(|| {
        // Its own words end with the address, the query of which may be all that protects what is there.
        let words = error.to_string();
        words.split(" for url (").next().unwrap_or_default().to_owned()
    });
    let mut text = format!("{doing}: {}", super::super::said(last.as_bytes()));
    if last.contains("certificate") || last.contains("UnknownIssuer") {
        text.push_str(
            "; a server with an authority of its own needs its certificate under the remote's ca_file",
        );
    } else if error.is_timeout() && error.is_connect() {
        text = format!("{doing}: no connection in time");
    }
    // Waiting does not move an address.
    let is_out_of_reach = is_caused_by::<OutOfReach>(error);
    Error::new(if is_out_of_reach { Kind::RemoteRefused } else { Kind::RemoteUnreachable }, text)
}

fn is_caused_by<E: std::error::Error + 'static>(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}
