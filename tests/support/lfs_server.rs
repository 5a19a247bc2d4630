//! A small LFS server of ours on 127.0.0.1, which misbehaves as a test tells it to, request by request. Used by core's
//! own tests; the real server of another make is `giftless.rs`.
//!
//! Without being told anything it is a good server: it keeps what is put, verifies, and gives parts of objects.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The end of whatever hangs.
const LONGEST: Duration = Duration::from_secs(120);

/// The head of a request; its body, where it was read.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it is a batch for an operation.
    pub fn is_batch(&self) -> bool {
        self.path.ends_with("/objects/batch")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Changes an answer to a batch.
pub type Rewrite = Box<dyn FnOnce(&mut Value) + Send>;

/// What becomes of a request.
pub enum Behaviour {
    /// As a good server does.
    Good,
    /// A batch is answered well, but for this.
    But(Rewrite),
    /// It is taken whole, and answered so: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Only its head is read.
    Early(u16, &'static str),
    /// It is done as a good server does, and the answer is lost.
    LoseAnswer,
    /// The connection ends after so many bytes of the body of the request.
    CutRequest(usize),
    /// A good answer, the connection of which ends after so many bytes of its body.
    CutAnswer(usize),
    /// A good answer, the body of which stops after so many bytes for ever.
    HangAnswer(usize),
    /// Nothing is ever answered.
    Hang,
}

impl Behaviour {
    /// A status with a text.
    pub fn status(status: u16, body: &str) -> Self {
        Self::Answer(status, Vec::new(), body.as_bytes().to_vec())
    }

    /// A status with a time to wait.
    pub fn retry_after(status: u16, seconds: u64) -> Self {
        Self::Answer(status, vec![("Retry-After", seconds.to_string())], Vec::new())
    }

    /// A redirect.
    pub fn redirect(status: u16, to: &str) -> Self {
        Self::Answer(status, vec![("Location", to.to_owned())], Vec::new())
    }
}

type Plan = Box<dyn FnMut(&Request) -> Behaviour + Send>;

struct Shared {
    port: u16,
    objects: Mutex<HashMap<String, Vec<u8>>>,
    plan: Mutex<Plan>,
    seen: Mutex<Vec<Request>>,
    has_verify: AtomicBool,
    is_over: AtomicBool,
}

/// A running server; ends with the value.
pub struct LfsServer(Arc<Shared>);

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl LfsServer {
    /// Starts a good one.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            port: listener.local_addr().unwrap().port(),
            objects: Mutex::default(),
            plan: Mutex::new(Box::new(|_| Behaviour::Good)),
            seen: Mutex::default(),
            has_verify: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if server.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        Self(shared)
    }

    /// From here on requests are treated so.
    pub fn behave(&self, plan: impl FnMut(&Request) -> Behaviour + Send + 'static) {
        *held(&self.0.plan) = Box::new(plan);
    }

    /// It names a place for verification, and refuses there what it does not have.
    pub fn verifies(&self) {
        self.0.has_verify.store(true, Ordering::Relaxed);
    }

    /// Address of the repository.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/repo.git", self.0.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// What it has been asked.
    pub fn seen(&self) -> Vec<Request> {
        held(&self.0.seen).clone()
    }

    /// How many requests with this method there were.
    pub fn count(&self, method: &str) -> usize {
        held(&self.0.seen).iter().filter(|request| request.method == method).count()
    }

    /// What it keeps.
    pub fn objects(&self) -> MutexGuard<'_, HashMap<String, Vec<u8>>> {
        held(&self.0.objects)
    }

    /// Keeps a content; returns its name.
    pub fn keep(&self, bytes: &[u8]) -> String {
        let name = hex(&Sha256::digest(bytes));
        self.objects().insert(name.clone(), bytes.to_vec());
        name
    }
}

impl Drop for LfsServer {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.0.port));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        stream.set_read_timeout(Some(LONGEST)).unwrap();
        let Some((mut request, mut rest)) = read_head(&mut stream) else { return };
        let behaviour = (held(&self.plan))(&request);
        let length: usize = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        match behaviour {
            Behaviour::Early(status, body) => {
                held(&self.seen).push(request);
                respond(&mut stream, status, &[], body.as_bytes(), usize::MAX);
                // A reset would take the answer along.
                let _ = stream.shutdown(Shutdown::Write);
                stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                while stream.read(&mut [0; 65536]).is_ok_and(|read| read > 0) {}
                return;
            }
            Behaviour::CutRequest(most) => {
                while rest.len() < most.min(length) {
                    let mut piece = [0; 4096];
                    match stream.read(&mut piece) {
                        Ok(read) if read > 0 => rest.extend_from_slice(&piece[..read]),
                        _ => break,
                    }
                }
                held(&self.seen).push(request);
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            _ => {}
        }
        while rest.len() < length {
            let mut piece = vec![0; 65536];
            match stream.read(&mut piece) {
                Ok(read) if read > 0 => rest.extend_from_slice(&piece[..read]),
                _ => break,
            }
        }
        let is_whole = rest.len() == length;
        request.body = rest;
        held(&self.seen).push(request.clone());
        if !is_whole {
            return;
        }
        match behaviour {
            Behaviour::Hang => {
                let _ = stream.read(&mut [0]);
            }
            Behaviour::Answer(status, headers, body) => {
                respond(&mut stream, status, &headers, &body, usize::MAX);
            }
            Behaviour::But(rewrite) => {
                let (status, headers, body) = self.good(&request);
                let mut answer: Value = serde_json::from_slice(&body).unwrap();
                rewrite(&mut answer);
                respond(&mut stream, status, &headers, answer.to_string().as_bytes(), usize::MAX);
            }
            other => {
                let (status, headers, body) = self.good(&request);
                match other {
                    Behaviour::LoseAnswer => {}
                    Behaviour::CutAnswer(most) => respond(&mut stream, status, &headers, &body, most),
                    Behaviour::HangAnswer(most) => {
                        respond(&mut stream, status, &headers, &body, most);
                        let _ = stream.read(&mut [0]);
                    }
                    _ => respond(&mut stream, status, &headers, &body, usize::MAX),
                }
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    /// What a good server answers.
    fn good(&self, request: &Request) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
        let kind = ("Content-Type", "application/vnd.git-lfs+json".to_owned());
        let name = request.path.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default();
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", path) if path.ends_with("/objects/batch") => {
                (200, vec![kind], self.batch(&request.json()).to_string().into_bytes())
            }
            ("POST", "/verify") => {
                let oid = request.json()["oid"].as_str().unwrap().to_owned();
                let status = if held(&self.objects).contains_key(&oid) { 200 } else { 404 };
                (status, vec![kind], b"{}".to_vec())
            }
            ("PUT", _) => {
                let is_right = hex(&Sha256::digest(&request.body)) == name;
                if is_right {
                    held(&self.objects).insert(name.to_owned(), request.body.clone());
                }
                (if is_right { 200 } else { 422 }, Vec::new(), Vec::new())
            }
            ("GET", _) => match held(&self.objects).get(name) {
                None => (404, Vec::new(), Vec::new()),
                Some(bytes) => part(bytes, request.header("range")),
            },
            _ => (405, Vec::new(), Vec::new()),
        }
    }

    fn batch(&self, question: &Value) -> Value {
        let operation = question["operation"].as_str().unwrap();
        let objects: Vec<Value> = question["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|object| {
                let oid = object["oid"].as_str().unwrap();
                let is_there = held(&self.objects).contains_key(oid);
                let href =
                    format!("http://127.0.0.1:{}/store/{oid}?signature=very-secret-{}", self.port, &oid[..8]);
                let mut answer = json!({"oid": oid, "size": object["size"]});
                match (operation, is_there) {
                    ("upload", true) => {}
                    ("upload", false) => {
                        answer["actions"] = json!({"upload": {"href": href, "header": {"X-Given": "a"}}});
                        if self.has_verify.load(Ordering::Relaxed) {
                            let verify = format!("http://127.0.0.1:{}/verify", self.port);
                            answer["actions"]["verify"] = json!({"href": verify});
                        }
                    }
                    (_, true) => answer["actions"] = json!({"download": {"href": href}}),
                    (_, false) => answer["error"] = json!({"code": 404, "message": "Object does not exist"}),
                }
                answer
            })
            .collect();
        json!({"transfer": "basic", "objects": objects})
    }
}

/// All of it, or the part from a byte on.
fn part(bytes: &[u8], range: Option<&str>) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) if from < bytes.len() => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            (206, vec![("Content-Range", range)], bytes[from..].to_vec())
        }
        Some(_) => (416, Vec::new(), Vec::new()),
        None => (200, Vec::new(), bytes.to_vec()),
    }
}

/// The head of a request, and what came of its body with it.
fn read_head(stream: &mut TcpStream) -> Option<(Request, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let rest = bytes.split_off(end + 4);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = text.lines();
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Some((Request { method, path, headers, body: Vec::new() }, rest))
}

fn respond(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&'static str, String)],
    body: &[u8],
    most: usize,
) {
    let mut head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..body.len().min(most)]);
    let _ = stream.flush();
}
