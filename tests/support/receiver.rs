//! A receiver of messages over HTTP, that remembers what came and answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What came: the path and the body.
pub type Message = (String, String);

#[derive(Default)]
struct State {
    status: u16,
    seen: Vec<Message>,
}

/// The receiver. Its thread ends with the process.
pub struct Receiver {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    /// Takes everything.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { status: 200, seen: Vec::new() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(stream, &shared);
            }
        });
        Self { address, state }
    }

    /// Where a path of it is.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Answers with this from now on; what is not taken is not remembered.
    #[cfg(feature = "fault-points")]
    pub fn answer(&self, status: u16) {
        self.state.lock().unwrap().status = status;
    }

    /// What was taken so far.
    pub fn taken(&self) -> Vec<Message> {
        self.state.lock().unwrap().seen.clone()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = request.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut state = state.lock().unwrap();
    if state.status < 300 {
        state.seen.push((path, String::from_utf8_lossy(&body).into_owned()));
    }
    let head = format!("HTTP/1.1 {} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", state.status);
    reader.get_mut().write_all(head.as_bytes())
}
