//! A TCP proxy of ours before the web server, which misbehaves as a test tells it to, request by request, and lets a
//! `CONNECT` through to the server wherever it asks to go; and a listener that only notes what it is sent.
//!
//! Each request is answered on a connection of its own (`Connection: close` is added), so that a behaviour is one
//! request's. Every request's head is kept, for tests that count.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// It goes through.
    Pass,
    /// It goes through, and the answer has another header.
    PassWith(&'static str, String),
    /// It is taken, and never answered.
    HangBeforeHead,
    /// Only the head of the answer comes.
    HangAfterHead,
    /// After its head, the answer comes a byte a second.
    Drip,
    /// The connection is torn down when the request has come.
    Reset,
    /// The connection ends after so many bytes of the answer.
    Truncate(usize),
    /// The answer is nothing that HTTP knows.
    Garbage,
    /// A success of the right type, the body of which is this.
    Body(Vec<u8>),
    /// It is answered here.
    Status(u16, Vec<(&'static str, String)>, &'static str),
    /// It is done, and the connection is torn down instead of the answer.
    LoseAnswer,
}

impl Behaviour {
    /// A bare status.
    pub fn status(code: u16) -> Self {
        Self::Status(code, Vec::new(), "")
    }

    /// A redirect to an address.
    pub fn redirect(to: &str) -> Self {
        Self::Status(302, vec![("Location", to.to_owned())], "")
    }
}

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Head {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it carries a pack.
    pub fn is_push(&self) -> bool {
        self.method == "POST" && self.path.ends_with("git-receive-pack")
    }
}

type Plan = Box<dyn FnMut(&Head) -> Behaviour + Send>;

struct Shared {
    upstream: u16,
    plan: Mutex<Plan>,
    seen: Mutex<Vec<Head>>,
    is_over: AtomicBool,
}

/// A running proxy.
pub struct FaultProxy {
    shared: Arc<Shared>,
    port: u16,
}

impl FaultProxy {
    /// Before the server at this port of 127.0.0.1; everything passes at first.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream,
            plan: Mutex::new(Box::new(|_| Behaviour::Pass)),
            seen: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if theirs.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let shared = theirs.clone();
                std::thread::spawn(move || {
                    // Whoever is proxied may go at any moment.
                    let _ = serve(&shared, client);
                });
            }
        });
        Self { shared, port }
    }

    /// The address of a repository through this proxy.
    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/git/{name}.git", self.port)
    }

    /// Its own address.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What is done with each request from now on.
    pub fn behave(&self, plan: impl FnMut(&Head) -> Behaviour + Send + 'static) {
        *self.shared.plan.lock().unwrap() = Box::new(plan);
    }

    /// The same with all.
    pub fn always(&self, behaviour: Behaviour) {
        self.behave(move |_| behaviour.clone());
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Head> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many of them carry a pack.
    pub fn pushes(&self) -> usize {
        self.seen().iter().filter(|head| head.is_push()).count()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Reads up to the end of a head; returns it and what came after it.
fn read_head(stream: &mut TcpStream) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Ok((bytes, rest));
        }
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

fn parse(head: &[u8]) -> Head {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = lines.filter_map(|line| line.split_once(':'));
    Head {
        method,
        path,
        headers: headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(),
    }
}

/// The head of a request as it goes on: without its own word about the connection.
fn closing(head: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(head);
    let kept = text.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let text: Vec<&str> = kept.filter(|line| !line.is_empty()).collect();
    format!("{}\r\nConnection: close\r\n\r\n", text.join("\r\n")).into_bytes()
}

fn serve(shared: &Shared, mut client: TcpStream) -> std::io::Result<()> {
    let (head, rest) = read_head(&mut client)?;
    let parsed = parse(&head);
    shared.seen.lock().unwrap().push(parsed.clone());
    let behaviour = (shared.plan.lock().unwrap())(&parsed);
    match behaviour {
        Behaviour::HangBeforeHead => hold(shared, client),
        Behaviour::Reset => reset(&client),
        Behaviour::Garbage => answer(client, b"\x00\x01\x02 nothing that HTTP knows \xff\xfe\r\n\r\n"),
        Behaviour::Body(body) => {
            let service = if parsed.path.contains("receive-pack") { "receive" } else { "upload" };
            let kind = if parsed.method == "GET" { "advertisement" } else { "result" };
            let mut bytes = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-{service}-pack-{kind}\r\nConnection: close\r\n\r\n"
            )
            .into_bytes();
            bytes.extend_from_slice(&body);
            answer(client, &bytes)
        }
        Behaviour::Status(code, headers, body) => {
            let mut text = format!("HTTP/1.1 {code} As told\r\nConnection: close\r\n");
            for (name, value) in headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
            answer(client, text.as_bytes())
        }
        through => {
            let mut upstream = TcpStream::connect(("127.0.0.1", shared.upstream))?;
            if parsed.method == "CONNECT" {
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
            } else {
                upstream.write_all(&closing(&head))?;
            }
            upstream.write_all(&rest)?;
            let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            give_back(shared, &through, upstream, client)
        }
    }
}

fn give_back(
    shared: &Shared,
    behaviour: &Behaviour,
    mut upstream: TcpStream,
    mut client: TcpStream,
) -> std::io::Result<()> {
    match behaviour {
        Behaviour::PassWith(name, value) => {
            let (head, rest) = read_head(&mut upstream)?;
            client.write_all(&head[..head.len() - 2])?;
            client.write_all(format!("{name}: {value}\r\n\r\n").as_bytes())?;
            client.write_all(&rest)?;
            std::io::copy(&mut upstream, &mut client)?;
            client.shutdown(Shutdown::Both)
        }
        Behaviour::HangAfterHead => {
            let (head, _) = read_head(&mut upstream)?;
            client.write_all(&head)?;
            hold(shared, client)
        }
        Behaviour::Drip => {
            let (head, mut rest) = read_head(&mut upstream)?;
            client.write_all(&head)?;
            upstream.read_to_end(&mut rest)?;
            for byte in rest {
                if shared.is_over.load(Ordering::Relaxed) {
                    break;
                }
                client.write_all(&[byte])?;
                std::thread::sleep(Duration::from_secs(1));
            }
            Ok(())
        }
        Behaviour::Truncate(bytes) => {
            let (head, mut rest) = read_head(&mut upstream)?;
            upstream.read_to_end(&mut rest)?;
            client.write_all(&head)?;
            client.write_all(&rest[..rest.len().min(*bytes)])?;
            client.shutdown(Shutdown::Both)
        }
        Behaviour::LoseAnswer => {
            let mut all = Vec::new();
            upstream.read_to_end(&mut all)?;
            reset(&client)
        }
        _ => {
            std::io::copy(&mut upstream, &mut client)?;
            client.shutdown(Shutdown::Both)
        }
    }
}

/// Says something and takes in what is still being sent, so that it is read.
fn answer(mut client: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    client.write_all(bytes)?;
    client.shutdown(Shutdown::Write)?;
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = [0; 65536];
    while client.read(&mut buffer)? > 0 {}
    Ok(())
}

fn reset(client: &TcpStream) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
    Ok(())
}

/// Keeps a connection open until the other side closes it.
fn hold(shared: &Shared, mut client: TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut buffer = [0; 65536];
    while !shared.is_over.load(Ordering::Relaxed) {
        match client.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A listener that answers nothing and keeps every byte that it gets.
pub struct Recorder {
    bytes: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<usize>>,
    port: u16,
}

impl Recorder {
    /// At a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (bytes, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (theirs, count) = (bytes.clone(), connections.clone());
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                *count.lock().unwrap() += 1;
                let mut got = Vec::new();
                let _ = client.set_read_timeout(Some(Duration::from_millis(500)));
                let _ = client.read_to_end(&mut got);
                theirs.lock().unwrap().extend_from_slice(&got);
            }
        });
        Self { bytes, connections, port }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Connections made and bytes received.
    pub fn heard(&self) -> (usize, Vec<u8>) {
        (*self.connections.lock().unwrap(), self.bytes.lock().unwrap().clone())
    }
}
