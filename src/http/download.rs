//! The content of one file of a snapshot, sent while it is read: two pieces are in memory, whatever its size.
//!
//! A thread of its own reads, decrypts what is encrypted, and its pieces are proven by Git's name for them as they come; when that does not fit in
//! the end, or the repository fails, the connection breaks off before the announced length. A client that takes nothing
//! for a while is cut off.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::{StatusCode, header};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use backupbot_core::crypt::unsealer::{Seal, Unsealer};
use backupbot_core::error::{Error, Kind};
use backupbot_core::git::contents::{Contents, LargeContents, Recorded, Trouble};
use backupbot_core::history::directory::Node;
use backupbot_core::history::form::{self, Form};
use backupbot_core::history::{Oid, Snapshot};
use backupbot_core::metadata::EntryKind;
use backupbot_core::names::RootName;
use backupbot_core::path::RelPath;
use backupbot_core::progress::Progress;
use slog::error;
use tokio::sync::mpsc::{Receiver, channel};

use super::Door;
use super::browse::Inspected;
use super::limits::{Turn, Wire};
use super::problem::Problem;

/// Pieces that wait for the client.
const PIECES: usize = 2;
/// A client that takes nothing for so long is cut off.
pub const STALLED: Duration = Duration::from_secs(20);

/// A file that can be sent.
pub struct File {
    repository: PathBuf,
    large: Arc<dyn LargeContents>,
    unsealer: Option<Arc<Unsealer>>,
    seal: Option<Seal>,
    oid: Oid,
    /// As recorded: tells a pointer from a user's own file that looks like one.
    recorded: Recorded,
    /// If it is known before the end.
    size: Option<u64>,
    name: Vec<u8>,
}

/// Looks whether there is a content to send.
pub fn prepare(
    inspected: &Inspected,
    snapshot: &Snapshot,
    root: &RootName,
    path: &RelPath,
    node: &Node,
) -> Result<File, Problem> {
    let entry = match (node.kind, node.entry) {
        (EntryKind::File, Some(entry)) => entry,
        (kind, _) => {
            let detail = format!("this is a {} and has no content of its own", kind.as_str());
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
    };
    let internal = |error: Error| inspected.internal(&error);
    let unsealer =
        Unsealer::of(&inspected.repository, snapshot.tree).map_err(|error| match error.kind() {
            Kind::EncryptionKey => Problem::new(
                StatusCode::CONFLICT,
                "it is encrypted, and this daemon does not have the key: `backupbot cat` says which",
            ),
            _ => internal(error),
        })?;
    let contents = Contents::open_with(inspected.repository.path(), Some(inspected.large.clone()));
    let contents = contents.map_err(internal)?.opened_by(unsealer.clone());
    let seal = contents.seal_of(&path.to_git_path(root));
    contents.must_open(seal).map_err(|_| {
        Problem::new(
            StatusCode::CONFLICT,
            "it is encrypted with OpenPGP, and this daemon has no private key that opens it: `backupbot cat` says whose does",
        )
    })?;
    let mut reader = contents.reader();
    let missing =
        |_| Problem::new(StatusCode::CONFLICT, "its content is missing in the repository, or damaged");
    let found = reader.find(entry.oid).map_err(missing)?;
    let recorded = Recorded::by(node.record.as_ref());
    let found = reader.behind(found, seal, recorded, &Progress::new()).map_err(missing)?;
    if !reader.can_be_had(&found).map_err(internal)? {
        let detail =
            "its content is a large object (Git LFS) that is not here and at no remote that can be asked";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let form = match found.is_led_to() {
        true => Form::Content,
        false => {
            let head = reader.beginning(&found, &Progress::new()).map_err(missing)?;
            form::of(&head, found.size, node.record.as_ref(), |bytes| contents.checksum(bytes))
        }
    };
    if form != Form::Content {
        let detail = format!(
            "it is stored as {}, not as itself, and this version cannot turn that back",
            form.as_str()
        );
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let name = path.file_name().unwrap_or(root.as_str().as_bytes()).to_vec();
    Ok(File {
        repository: inspected.repository.path().to_path_buf(),
        large: inspected.large.clone(),
        unsealer,
        seal,
        oid: entry.oid,
        recorded,
        size: found.exact_size().or(recorded.size),
        name,
    })
}

/// Sends it.
pub fn send(door: &Data<Door>, request: &HttpRequest, file: File) -> Result<HttpResponse, Problem> {
    let turn = door.turns.download()?;
    let (sender, pieces) = channel::<io::Result<Bytes>>(PIECES);
    let (log, oid, recorded) = (door.log.clone(), file.oid, file.recorded);
    let (place, large, unsealer, seal, size) =
        (file.repository, file.large, file.unsealer, file.seal, file.size);
    let read = move || {
        let _turn: Turn = turn;
        let mut is_gone = false;
        let sent = Contents::open_with(&place, Some(large)).and_then(|contents| {
            let contents = contents.opened_by(unsealer);
            let mut reader = contents.reader();
            let found = reader.find(oid)?;
            let found = reader.behind(found, seal, recorded, &Progress::new())?;
            let mut left = size.unwrap_or(u64::MAX);
            let mut send = |piece: &[u8]| {
                // What was announced of an OpenPGP message was only recorded: a part of it is never sent as the whole.
                left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or_else(|| Error::new(Kind::Git, "it is longer than what is recorded of it"))?;
                let piece = Ok(Bytes::copy_from_slice(piece));
                is_gone = sender.blocking_send(piece).is_err();
                if is_gone { Err(Error::cancelled()) } else { Ok(()) }
            };
            let sent = reader.stream(&found, &Progress::new(), &mut send);
            sent.map_err(|trouble| match trouble {
                Trouble::Object(error) | Trouble::Elsewhere(error) => error,
            })?;
            match size.is_some() && left > 0 {
                true => Err(Error::new(Kind::Git, "it is shorter than what is recorded of it")),
                false => Ok(()),
            }
        });
        if let Err(error) = sent
            && !is_gone
        {
            error!(log, "a download broke off"; "object" => %oid, "error" => %error);
            let _ = sender.blocking_send(Err(io::Error::other("the content cannot be read")));
        }
    };
    let thread = std::thread::Builder::new().name("download".to_owned()).spawn(read);
    thread.map_err(|error| Problem::internal(&door.log, &error))?;
    let progress = Arc::new(Taken::default());
    if let Some(wire) = request.conn_data::<Wire>() {
        actix_web::rt::spawn(watch(progress.clone(), wire.clone()));
    }
    let response = HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/octet-stream"))
        .insert_header((header::CONTENT_DISPOSITION, disposition(&file.name)))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .insert_header(("Content-Security-Policy", "sandbox; default-src 'none'"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::ETAG, format!("\"{oid}\"")))
        .body(Body { size: file.size, pieces, taken: progress });
    Ok(response)
}

#[derive(Debug, Default)]
struct Taken {
    pieces: AtomicU64,
    is_over: AtomicBool,
}

/// Cuts the connection when nothing was taken for a while.
async fn watch(taken: Arc<Taken>, wire: Wire) {
    let mut before = u64::MAX;
    while !taken.is_over.load(Ordering::Relaxed) {
        let now = taken.pieces.load(Ordering::Relaxed);
        if now == before {
            return wire.cut();
        }
        before = now;
        // Short steps, so that nothing of a download that is over waits here for long.
        for _ in 0..STALLED.as_secs() {
            actix_web::rt::time::sleep(Duration::from_secs(1)).await;
            if taken.is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

struct Body {
    size: Option<u64>,
    pieces: Receiver<io::Result<Bytes>>,
    taken: Arc<Taken>,
}

impl MessageBody for Body {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        self.size.map_or(BodySize::Stream, BodySize::Sized)
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let piece = self.pieces.poll_recv(cx);
        if piece.is_ready() {
            self.taken.pieces.fetch_add(1, Ordering::Relaxed);
        }
        piece
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.taken.is_over.store(true, Ordering::Relaxed);
    }
}

/// The name for whoever saves it: nothing in it can end the header or lead out of a directory.
fn disposition(name: &[u8]) -> String {
    let lossy = String::from_utf8_lossy(name);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ');
    let plain: String = lossy.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let mut exact = String::new();
    for byte in lossy.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => exact.push(char::from(byte)),
            other => exact.push_str(&format!("%{other:02X}")),
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_within_its_header() {
        assert_eq!(disposition(b"a.txt"), "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt");
        assert_eq!(
            disposition("ü\"\r\nX: /../".as_bytes()),
            "attachment; filename=\"____X_ _.._\"; filename*=UTF-8''%C3%BC%22%0D%0AX%3A%20%2F..%2F"
        );
        assert!(disposition(b"\xff").is_ascii());
    }
}
