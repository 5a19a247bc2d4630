//! `backupbot ls`: what stood in a directory, under its own names, with what is recorded of it.

use backupbot_core::history::directory::{Directory, Node, Place, Remark, Walk, find, own_record};
use backupbot_core::history::{ObjectDatabase, Snapshot};
use backupbot_core::metadata::{EntryKind, Record};
use backupbot_core::names::RootName;
use backupbot_core::path::RelPath;
use backupbot_core::tree::MODE_EXECUTABLE;
use serde_json::{Map, json};

use crate::cli::Global;
use crate::cli::look::Ls;
use crate::exit::{Exit, Failure};
use crate::looking::{Looking, Remarks, entry, shown};
use crate::output::{self, Lines};
use crate::settings::World;

pub fn ls(world: &World, global: &Global, arguments: &Ls) -> Result<Exit, Failure> {
    let path = arguments.path.as_deref();
    let looking = Looking::open(world, global, arguments.which.repository.as_deref(), path)?;
    let snapshot = looking.snapshot(arguments.at.at.as_deref())?;
    let _keys = looking.unlock(&arguments.unlock, &[&snapshot])?;
    let objects = looking.repository.objects()?;
    let mut listing = Listing {
        looking: &looking,
        objects: &objects,
        json: global.json,
        recursive: arguments.recursive,
        lines: Lines::begin(),
        remarks: Remarks::default(),
        exit: Exit::Done,
    };
    match path {
        None => listing.roots(&snapshot)?,
        Some(path) => {
            let (root, path) = looking.locate(path, &snapshot)?;
            let located = find(&objects, snapshot.tree, &root, &path)?;
            let located = located.ok_or_else(|| looking.absent(&root, &path, &snapshot))?;
            match located.node.place() {
                Some(place) => listing.directory(&root, path, place)?,
                None => {
                    listing.remarks_on(&root, &path, &located.remarks)?;
                    listing.node(&root, &path, &located.node, located.node.record.as_ref())?;
                }
            }
        }
    }
    listing.lines.end()?;
    listing.remarks.end();
    Ok(listing.exit)
}

struct Listing<'l, 'w, 'o> {
    looking: &'l Looking<'w>,
    objects: &'l ObjectDatabase<'o>,
    json: bool,
    recursive: bool,
    lines: Lines,
    remarks: Remarks,
    exit: Exit,
}

impl Listing<'_, '_, '_> {
    fn roots(&mut self, snapshot: &Snapshot) -> Result<(), Failure> {
        for root in snapshot.roots(self.objects)? {
            let located = find(self.objects, snapshot.tree, &root.name, &RelPath::root())?;
            let Some(located) = located else { continue };
            self.remarks_on(&root.name, &RelPath::root(), &located.remarks)?;
            self.node(&root.name, &RelPath::root(), &located.node, located.node.record.as_ref())?;
            if self.recursive {
                self.directory(&root.name, RelPath::root(), root.place)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, root: &RootName, path: RelPath, place: Place) -> Result<(), Failure> {
        if self.recursive {
            return self.everything(root, path, place);
        }
        let directory = Directory::at(self.objects, place, root, &path)?;
        self.remarks_on(root, &path, &directory.remarks)?;
        for node in &directory.nodes {
            let at = path.join(&node.name);
            // What cannot be read of a directory's own record is told when somebody looks into it.
            let own = match node.kind {
                EntryKind::Directory => own_record(self.objects, node, root, &at).ok().flatten(),
                _ => None,
            };
            self.node(root, &at, node, own.as_ref().or(node.record.as_ref()))?;
        }
        Ok(())
    }

    fn everything(&mut self, root: &RootName, path: RelPath, place: Place) -> Result<(), Failure> {
        let top = path.clone();
        for (at, read) in Walk::new(self.objects, root, path, place) {
            let directory = match read {
                Ok(directory) => directory,
                Err(error) => {
                    self.exit = Exit::SomeSkipped;
                    self.problem(root, &at, &error.to_string())?;
                    continue;
                }
            };
            if at != top {
                let name = at.file_name().unwrap_or_default().to_vec();
                let kind = EntryKind::Directory;
                let itself = Node { name, kind, entry: None, record: None, metadata: None };
                self.node(root, &at, &itself, directory.own.as_ref())?;
            }
            self.remarks_on(root, &at, &directory.remarks)?;
            for node in directory.nodes.iter().filter(|node| node.kind != EntryKind::Directory) {
                self.node(root, &at.join(&node.name), node, node.record.as_ref())?;
            }
        }
        Ok(())
    }

    fn remarks_on(&mut self, root: &RootName, path: &RelPath, remarks: &[Remark]) -> Result<(), Failure> {
        for remark in remarks {
            if self.json {
                let at = if remark.name.is_empty() { path.clone() } else { path.join(&remark.name) };
                self.problem(root, &at, &remark.problem.to_string())?;
            } else {
                self.remarks.tell(root, path, remark);
            }
        }
        Ok(())
    }

    fn problem(&mut self, root: &RootName, path: &RelPath, words: &str) -> Result<(), Failure> {
        if !self.json {
            output::complain(&format!("backupbot: {}: {words}", shown::path(root, path)));
            return Ok(());
        }
        let mut document = Map::new();
        shown::put_path(&mut document, "path", root, path);
        document.insert("problem".to_owned(), json!(words));
        self.lines.json(&document)
    }

    fn node(
        &mut self,
        root: &RootName,
        path: &RelPath,
        node: &Node,
        record: Option<&Record>,
    ) -> Result<(), Failure> {
        let target = entry::target(self.objects, node);
        let size = entry::size(self.objects, node, record);
        if self.json {
            return self.lines.json(&entry::document(root, path, node, record, size, target.as_deref()));
        }
        let owner = record.map_or_else(|| "-".to_owned(), owner);
        let zone = self.looking.now.time_zone();
        let time = record.map_or_else(
            || "-".to_owned(),
            |record| match shown::timestamp(record.mtime) {
                Some(mtime) => shown::time(mtime, zone),
                None => format!("@{}", record.mtime.seconds),
            },
        );
        let name = match self.recursive || path.is_root() {
            true => shown::path(root, path),
            false => shown::name(&node.name),
        };
        let end = match (node.kind, target) {
            (EntryKind::Directory, _) => "/".to_owned(),
            (_, Some(target)) => format!(" -> {}", shown::name(&target)),
            _ => String::new(),
        };
        let mode = mode(node, record);
        self.lines.line(&format!(
            "{mode}  {owner:<17} {size:>12}  {time:<19}  {name}{end}",
            size = match (size, record.and_then(|record| record.device)) {
                (_, Some((major, minor))) => format!("{major},{minor}"),
                (Some(size), _) => size.to_string(),
                _ => "-".to_owned(),
            }
        ))
    }
}

fn owner(record: &Record) -> String {
    let name = |name: &Option<String>, number: u32| {
        name.as_ref().map_or_else(|| number.to_string(), |name| shown::name(name.as_bytes()))
    };
    format!("{}:{}", name(&record.user, record.uid), name(&record.group, record.gid))
}

/// As `ls -l` has it; question marks where nothing is recorded.
fn mode(node: &Node, record: Option<&Record>) -> String {
    let mut text = String::from(match node.kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::Socket => 's',
        EntryKind::CharDevice => 'c',
        EntryKind::BlockDevice => 'b',
    });
    let Some(mode) = record.map(|record| record.mode) else {
        let is_executable = node.entry.is_some_and(|entry| entry.mode == MODE_EXECUTABLE);
        text.push_str(if is_executable { "??x??????" } else { "?????????" });
        return text;
    };
    for (shift, special, marks) in [(6, 0o4000, ['s', 'S']), (3, 0o2000, ['s', 'S']), (0, 0o1000, ['t', 'T'])]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, executable) => marks[usize::from(!executable)],
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_ls_shows_them() {
        let shown = |kind: EntryKind, bits: u32| {
            let node = Node { name: b"x".to_vec(), kind, entry: None, record: None, metadata: None };
            let record = Record {
                name: b"x".to_vec(),
                kind,
                mode: bits,
                uid: 0,
                gid: 0,
                user: None,
                group: None,
                mtime: Default::default(),
                size: None,
                blake3: None,
                xattrs: Default::default(),
                xattrs_omitted: false,
                hard_link: None,
                device: None,
                is_mount: false,
            };
            mode(&node, Some(&record))
        };
        assert_eq!(shown(EntryKind::File, 0o644), "-rw-r--r--");
        assert_eq!(shown(EntryKind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(shown(EntryKind::File, 0o6755), "-rwsr-sr-x");
        assert_eq!(shown(EntryKind::File, 0o7000), "---S--S--T");
        assert_eq!(shown(EntryKind::Fifo, 0o600), "prw-------");
        let node =
            Node { name: b"x".to_vec(), kind: EntryKind::File, entry: None, record: None, metadata: None };
        assert_eq!(mode(&node, None), "-?????????");
    }
}
