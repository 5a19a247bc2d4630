//! `GET /api/v1/repositories/{r}/snapshots` and `…/{id}/files`: looking into what was backed up.
//!
//! Snapshots and directories come in pages. The content of a file goes to [`download`]. Everything is read from the
//! bare repository, on the blocking pool, and not more than a few at a time.

use actix_web::http::StatusCode;
use actix_web::web::{self, Data};
use actix_web::{HttpMessage, HttpRequest};
use backupbot_actors::control::{Control, exact_if_lossy};
use backupbot_actors::seat::RepositorySeat;
use backupbot_core::audit::Event;
use backupbot_core::clock;
use backupbot_core::error::{Error, Kind};
use backupbot_core::git::contents::LargeContents;
use backupbot_core::git::repository::Repository;
use backupbot_core::history::directory::{Directory, Node, find, own_record};
use backupbot_core::history::log::Log;
use backupbot_core::history::{ObjectDatabase, Oid, Snapshot, moment};
use backupbot_core::lfs::fetched::Fetched;
use backupbot_core::metadata::{EntryKind, Record};
use backupbot_core::names::RootName;
use backupbot_core::path::RelPath;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use slog::Logger;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::access::Role;
use super::admin::{Answer, answer};
use super::problem::Problem;
use super::{Door, auth, body, download};
use crate::looking::{entry, shown};

/// Snapshots in a page.
const SNAPSHOTS: usize = 100;
/// Names in a page.
const NAMES: usize = 1000;
/// The longest page.
pub const LONGEST_PAGE: usize = 1000;

/// A repository that is looked into.
pub struct Inspected {
    /// It.
    pub repository: Repository,
    /// Who has its large contents.
    pub large: Arc<dyn LargeContents>,
    tip: Oid,
    roots: Vec<(RootName, PathBuf)>,
    log: Logger,
}

/// What a path means.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Meant {
    /// All roots.
    Top,
    /// Something in a root.
    Node(RootName, RelPath, Node),
}

impl Inspected {
    /// Opens the repository of that name.
    pub fn open(control: &Control, name: &str, log: &Logger) -> Result<Self, Problem> {
        let unknown = || Problem::new(StatusCode::NOT_FOUND, format!("there is no repository {name:?}"));
        let seats = control.seats();
        let seat: &Arc<RepositorySeat> =
            seats.iter().find(|seat| seat.settings.name.as_str() == name).ok_or_else(unknown)?;
        let nothing = || Problem::new(StatusCode::NOT_FOUND, format!("nothing of {name} was backed up yet"));
        if !seat.path.exists() {
            return Err(nothing());
        }
        let internal = |error: Error| Problem::internal(log, &error);
        let repository = Repository::open(&seat.path).map_err(internal)?;
        let branch = seat.protected_branch().map_err(internal)?;
        // A branch that is named after the month may not have begun yet; HEAD is where the last one was.
        let tip = match repository.reference(&branch).map_err(internal)? {
            Some(tip) => Some(tip),
            None => repository.reference("HEAD").map_err(internal)?,
        };
        let tip = tip.ok_or_else(nothing)?;
        let roots = seat.settings.roots.iter().map(|root| (root.name.clone(), root.path.clone())).collect();
        let large = Arc::new(Fetched::new(&seat.path, &seat.path, seat.settings.remotes.clone(), &seat.path));
        Ok(Self { repository, large, tip, roots, log: log.clone() })
    }

    /// Our own trouble.
    pub fn internal(&self, error: &Error) -> Problem {
        Problem::internal(&self.log, error)
    }

    /// Its objects.
    pub fn objects(&self) -> Result<ObjectDatabase<'_>, Problem> {
        self.repository.objects().map_err(|error| self.internal(&error))
    }

    /// The snapshot that is meant, in any way that `--at` takes.
    pub fn snapshot(&self, at: &str) -> Result<Snapshot, Problem> {
        let now = clock::now().to_zoned(TimeZone::system());
        moment::resolve(&self.repository, self.tip, at, &now).map_err(|error| match error.kind() {
            Kind::Config | Kind::Git => {
                Problem::new(StatusCode::NOT_FOUND, error.to_string()).without(self.repository.path())
            }
            _ => self.internal(&error),
        })
    }

    /// What `path` means: absolute below a watched directory, or `<root>/rel`; nothing means all roots.
    pub fn find(&self, snapshot: &Snapshot, path: &[u8]) -> Result<Meant, Problem> {
        let absent = || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path in this snapshot");
        if path.is_empty() {
            return Ok(Meant::Top);
        }
        let objects = self.objects()?;
        let (root, path) = self.locate(path).ok_or_else(absent)?;
        let located = find(&objects, snapshot.tree, &root, &path).map_err(|error| self.internal(&error))?;
        let node = located.ok_or_else(absent)?.node;
        Ok(Meant::Node(root, path, node))
    }

    fn locate(&self, path: &[u8]) -> Option<(RootName, RelPath)> {
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        let below = |root: &[u8]| match trimmed.strip_prefix(root)? {
            [] => Some(Vec::new()),
            [b'/', rest @ ..] => Some(rest.to_vec()),
            _ => None,
        };
        if path.first() == Some(&b'/') {
            return self.roots.iter().find_map(|(name, place)| {
                Some((name.clone(), RelPath::new(below(place.as_os_str().as_bytes())?).ok()?))
            });
        }
        let (root, rest) = match trimmed.iter().position(|byte| *byte == b'/') {
            Some(at) => (&trimmed[..at], trimmed[at + 1..].to_vec()),
            None => (trimmed, Vec::new()),
        };
        let root = RootName::new(std::str::from_utf8(root).ok()?).ok()?;
        Some((root, RelPath::new(rest).ok()?))
    }
}

/// A page of the snapshots of a repository, newest first
#[utoipa::path(
    get, path = "/repositories/{repository}/snapshots", tag = "history",
    params(
        ("repository" = String, Path, description = "A repository by its name"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "At most so many; 100 if not said"),
        ("before" = Option<String>, Query, min_length = 1, max_length = 200,
         description = "Only those before this one: `next` of the page before, or anything that `--at` takes"),
    ),
    responses((status = 200, description = "A page", body = super::shapes::Snapshots))
)]
pub async fn snapshots(door: Data<Door>, request: HttpRequest, path: web::Path<String>) -> Answer {
    let query = body::Query::of(&request)?;
    let (limit, before) = (query.number("limit", SNAPSHOTS, 1, LONGEST_PAGE)?, query.text("before")?);
    let inside = door.enter()?;
    let turn = door.turns.heavy().await?;
    let (name, log) = (path.into_inner(), door.log.clone());
    let page = web::block(move || {
        let _turn = turn;
        page_of_snapshots(&Inspected::open(&inside.control, &name, &log)?, &name, limit, before.as_deref())
    });
    Ok(answer(&page.await.map_err(|_| Problem::stopping())??))
}

fn page_of_snapshots(
    inspected: &Inspected,
    name: &str,
    limit: usize,
    before: Option<&str>,
) -> Result<Value, Problem> {
    let first = match before {
        None => Some(inspected.tip),
        Some(before) => inspected.snapshot(before)?.parents.first().copied(),
    };
    let mut snapshots = Vec::new();
    let mut next = None;
    if let Some(first) = first {
        let mut tags = std::collections::HashMap::<Oid, Vec<String>>::new();
        for (commit, tag) in inspected.repository.tags().map_err(|error| inspected.internal(&error))? {
            tags.entry(commit).or_default().push(tag);
        }
        for snapshot in Log::new(&inspected.repository, first).take(limit) {
            let snapshot = snapshot.map_err(|error| inspected.internal(&error))?;
            next = snapshot.parents.first().map(|_| snapshot.id.to_string());
            let tags = tags.get(&snapshot.id).map(Vec::as_slice).unwrap_or_default();
            snapshots.push(shown::snapshot(&snapshot, tags));
        }
    }
    Ok(json!({"repository": name, "snapshots": snapshots, "next": next}))
}

/// A directory of a snapshot, or the content of a file
///
/// A directory, or all roots if no path is given, is listed page by page. Of anything else than a directory its content
/// is sent, as an attachment, to whoever may operate.
#[utoipa::path(
    get, path = "/repositories/{repository}/snapshots/{id}/files", tag = "history",
    params(
        ("repository" = String, Path, description = "A repository by its name"),
        ("id" = String, Path, description = "A snapshot: a commit, a tag, `latest`, a time; anything that `--at` takes"),
        ("path" = Option<String>, Query, description = "`<root>/rel`, or absolute below a watched directory"),
        ("path_b64" = Option<String>, Query, description = "The same in base64, for names that are not UTF-8"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "At most so many names"),
        ("offset" = Option<usize>, Query, minimum = 0, description = "Without the first so many: `next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of a directory, or the bytes of a file", content(
            (super::shapes::Files = "application/json"),
            (Vec<u8> = "application/octet-stream"),
        )),
        (status = 409, description = "What is stored stands for the file and is not its content", body = super::shapes::ProblemDocument,
         content_type = "application/problem+json"),
    )
)]
pub async fn files(door: Data<Door>, request: HttpRequest, path: web::Path<(String, String)>) -> Answer {
    let query = body::Query::of(&request)?;
    let limit = query.number("limit", NAMES, 1, LONGEST_PAGE)?;
    let offset = query.number("offset", 0, 0, usize::MAX)?;
    let wanted = query.path()?.unwrap_or_default();
    let may_read_contents = request.extensions().get::<Role>() == Some(&Role::Operate);
    let inside = door.enter()?;
    let turn = door.turns.heavy().await?;
    let ((name, at), log) = (path.into_inner(), door.log.clone());
    let control = inside.control.clone();
    let looked = web::block(move || {
        let _turn = turn;
        let inspected = Inspected::open(&control, &name, &log)?;
        let snapshot = inspected.snapshot(&at)?;
        let page = Page { inspected: &inspected, snapshot: &snapshot, offset, limit };
        match inspected.find(&snapshot, &wanted)? {
            Meant::Top => page.roots(&name).map(Looked::Listed),
            Meant::Node(root, path, node) if node.kind == EntryKind::Directory => {
                page.directory(&name, &root, &path, &node).map(Looked::Listed)
            }
            Meant::Node(..) if !may_read_contents => Err(Problem::not_allowed("the content of a file")),
            Meant::Node(root, path, node) => {
                download::prepare(&inspected, &snapshot, &root, &path, &node).map(Looked::Content)
            }
        }
    });
    match looked.await.map_err(|_| Problem::stopping())?? {
        Looked::Listed(page) => Ok(answer(&page)),
        Looked::Content(file) => {
            // What leaves the backup is worth a line, as what changes it.
            let who = auth::words(request.peer_addr());
            let event = Event::new("download", "ok").by(&who).with("file", request.uri().to_string());
            inside.control.audit().record(event);
            download::send(&door, &request, file)
        }
    }
}

enum Looked {
    Listed(Value),
    Content(download::File),
}

struct Page<'p> {
    inspected: &'p Inspected,
    snapshot: &'p Snapshot,
    offset: usize,
    limit: usize,
}

impl Page<'_> {
    fn roots(&self, name: &str) -> Result<Value, Problem> {
        let objects = self.inspected.objects()?;
        let internal = |error: Error| self.inspected.internal(&error);
        let mut entries = Vec::new();
        let roots = self.snapshot.roots(&objects).map_err(internal)?;
        let count = roots.len();
        for root in roots.into_iter().skip(self.offset).take(self.limit) {
            let top = RelPath::root();
            let located = find(&objects, self.snapshot.tree, &root.name, &top).map_err(internal)?;
            if let Some(node) = located.map(|located| located.node) {
                entries.push(self.entry(&objects, &root.name, &top, &node, node.record.as_ref()));
            }
        }
        Ok(self.document(name, b"", &entries, &[], count))
    }

    fn directory(&self, name: &str, root: &RootName, path: &RelPath, node: &Node) -> Result<Value, Problem> {
        let objects = self.inspected.objects()?;
        let Some(place) = node.place() else { return Err(Problem::bad("this is no directory")) };
        let directory =
            Directory::at(&objects, place, root, path).map_err(|error| self.inspected.internal(&error))?;
        let count = directory.nodes.len();
        let page = directory.nodes.iter().skip(self.offset).take(self.limit).map(|node| {
            let at = path.join(&node.name);
            // What cannot be read of a directory's own record is told when somebody looks into it.
            let own = match node.kind {
                EntryKind::Directory => own_record(&objects, node, root, &at).ok().flatten(),
                _ => None,
            };
            self.entry(&objects, root, &at, node, own.as_ref().or(node.record.as_ref()))
        });
        let entries: Vec<_> = page.collect();
        let remarks: Vec<_> =
            directory.remarks.iter().take(self.limit).map(|remark| json!(remark.to_string())).collect();
        let mut full = root.as_str().as_bytes().to_vec();
        if !path.is_root() {
            full.push(b'/');
            full.extend_from_slice(path.as_bytes());
        }
        Ok(self.document(name, &full, &entries, &remarks, count))
    }

    fn entry(
        &self,
        objects: &ObjectDatabase<'_>,
        root: &RootName,
        path: &RelPath,
        node: &Node,
        record: Option<&Record>,
    ) -> Map<String, Value> {
        let (size, target) = (entry::size(objects, node, record), entry::target(objects, node));
        let mut document = entry::document(root, path, node, record, size, target.as_deref());
        let name = path.file_name().unwrap_or(root.as_str().as_bytes());
        shown::put_bytes(&mut document, "name", name);
        document
    }

    fn document(
        &self,
        name: &str,
        path: &[u8],
        entries: &[Map<String, Value>],
        remarks: &[Value],
        count: usize,
    ) -> Value {
        let end = self.offset.saturating_add(self.limit);
        let mut document = json!({
            "repository": name,
            "snapshot": self.snapshot.id.to_string(),
            "path": String::from_utf8_lossy(path),
            "entries": entries,
            "remarks": remarks,
            "count": count,
            "next": (end < count).then_some(end),
        });
        if let (Some(exact), Some(members)) = (exact_if_lossy(path), document.as_object_mut()) {
            members.insert("path_b64".to_owned(), json!(exact));
        }
        document
    }
}
