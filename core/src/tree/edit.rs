//! Editing a tree: edits by path in, a new root out, and only the directories on changed paths are read,
//! rewritten and handed to the sink. A directory is one merge of its sorted bytes with its sorted edits:
//! runs of untouched entries are copied as they stand.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use git2::{ObjectType, Odb, OdbObject, Oid};

use super::parse::{Cursor, append, order};
use super::{
    Entry, MAX_DEPTH, MODE_EXECUTABLE, MODE_FILE, MODE_SYMLINK, MODE_TREE, Malformed, TreeSink, malformed,
    read_tree, too_deep,
};
use crate::error::{Error, Kind, Result};
use crate::path::lossy;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Set(Entry),
    Remove,
    /// A directory was made here and lost what was put into it: a file that stood here before is gone, a
    /// directory stays.
    MakeWay,
}

/// What is to change, by full path in the repository. The result is as if each edit were made at once, in
/// the order of the calls: an edit of a path replaces whatever stood there, so earlier edits below it fall
/// away; setting below a file makes a directory of it; removing below a file, or what is not there, does
/// nothing; a directory that loses its last entry vanishes.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    by_path: BTreeMap<Vec<u8>, Edit>,
}

impl Edits {
    /// No edits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file, link or whole directory at `path`.
    pub fn set(&mut self, path: impl Into<Vec<u8>>, entry: Entry) {
        self.record(path.into(), Edit::Set(entry));
    }

    /// Takes away the file or the whole directory at `path`.
    pub fn remove(&mut self, path: impl Into<Vec<u8>>) {
        self.record(path.into(), Edit::Remove);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// How many paths are named.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    fn record(&mut self, path: Vec<u8>, edit: Edit) {
        // Everything below `path` sorts from `path/` up to `path0`, as `0` is the byte after the slash.
        let (mut first_below, mut first_after) = (path.clone(), path.clone());
        first_below.push(b'/');
        first_after.push(b'/' + 1);
        let mut dropped_a_set = matches!(self.by_path.get(&path), Some(Edit::Set(_)));
        loop {
            let bounds = (Bound::Included(first_below.as_slice()), Bound::Excluded(first_after.as_slice()));
            let Some((below, _)) = self.by_path.range::<[u8], _>(bounds).next() else { break };
            let below = below.clone();
            dropped_a_set |= matches!(self.by_path.remove(&below), Some(Edit::Set(_)));
        }
        match edit {
            Edit::Set(_) => self.clear_the_way(&path),
            _ if dropped_a_set => self.keep_the_way_clear(&path),
            _ => {}
        }
        self.by_path.insert(path, edit);
    }

    /// What was set at `path`, or below it, and is not any more, had made directories of everything above.
    fn keep_the_way_clear(&mut self, path: &[u8]) {
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.by_path.entry(path[..end].to_vec()).or_insert(Edit::MakeWay);
        }
    }

    /// A file that was set where a directory has to be now is replaced for good: whatever happens to the path
    /// below it later, the file does not come back.
    fn clear_the_way(&mut self, path: &[u8]) {
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if let Some(above) = self.by_path.get_mut(&path[..end])
                && matches!(above, Edit::Set(entry) if !entry.is_tree())
            {
                *above = Edit::Remove;
            }
        }
    }
}

/// Applies `edits` to the tree `base` (`None`: the empty tree) and returns the new root, `None` if nothing is
/// left. A directory that comes out as it was keeps its id and is not written. Trees that are named in an
/// edit and edited further below must be readable from `objects`.
///
/// Errors: a tree on a changed path that is missing or not Git's format (`Kind::Git`); a path that is empty
/// or has an empty component, or a mode that is never written (`Kind::Internal`).
pub fn apply(
    objects: &Odb<'_>,
    sink: &dyn TreeSink,
    base: Option<Oid>,
    edits: &Edits,
) -> Result<Option<Oid>> {
    let list: Vec<(&[u8], Edit)> =
        edits.by_path.iter().map(|(path, edit)| (path.as_slice(), *edit)).collect();
    for (path, edit) in &list {
        check(path, *edit)?;
    }
    let mut frames = vec![Frame::open(objects, &list, base, 0..list.len(), 0)?];
    let mut finished: Option<Option<Oid>> = None;
    loop {
        let depth = frames.len();
        let Some(frame) = frames.last_mut() else {
            return Ok(finished.flatten());
        };
        if let Some(child) = finished.take() {
            frame.take_child(child);
        }
        match frame.next_descent() {
            Some(descent) if depth >= MAX_DEPTH => {
                return Err(too_deep(list.get(descent.edits.start).map_or(b"", |(path, _)| path)));
            }
            Some(descent) => {
                frames.push(Frame::open(objects, &list, descent.base, descent.edits, descent.prefix)?);
            }
            None => {
                finished = Some(frame.close(sink)?);
                frames.pop();
            }
        }
    }
}

fn check(path: &[u8], edit: Edit) -> Result<()> {
    let sound =
        path.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b"..") && !part.contains(&0));
    if !sound {
        return Err(Error::new(Kind::Internal, format!("no path for a tree: {:?}", lossy(path))));
    }
    match edit {
        Edit::Set(Entry { mode, .. })
            if !matches!(mode, MODE_FILE | MODE_EXECUTABLE | MODE_SYMLINK | MODE_TREE) =>
        {
            Err(Error::new(Kind::Internal, format!("no mode for a tree: {mode:o} for {:?}", lossy(path))))
        }
        _ => Ok(()),
    }
}

/// A name in one directory that edits speak of.
struct Touch<'e> {
    name: &'e [u8],
    own: Option<Edit>,
    /// The edits below this name, as a range of the whole list.
    below: Range<usize>,
    base: Option<Entry>,
    result: Option<Entry>,
}

/// One of the two places where a touched name can stand in the bytes: among the files or as a directory.
struct Slot {
    touch: usize,
    is_tree: bool,
    /// The bytes that stand there; empty, at the place of insertion, if there are none.
    bytes: Range<usize>,
}

struct Frame<'o, 'e> {
    base: Option<(Oid, OdbObject<'o>)>,
    touches: Vec<Touch<'e>>,
    slots: Vec<Slot>,
    /// The length of this directory's path, with its slash, in each edit's path.
    prefix: usize,
    /// The next touch to look at; the one before it is the child being worked on.
    next: usize,
}

struct Descent {
    base: Option<Oid>,
    edits: Range<usize>,
    prefix: usize,
}

impl<'o, 'e> Frame<'o, 'e> {
    fn open(
        objects: &'o Odb<'_>,
        list: &[(&'e [u8], Edit)],
        base: Option<Oid>,
        edits: Range<usize>,
        prefix: usize,
    ) -> Result<Self> {
        let path = list.get(edits.start).and_then(|(path, _)| path.get(..prefix)).unwrap_or_default();
        let mut touches = touches_of(list, edits, prefix);
        let mut slots: Vec<Slot> = (0..touches.len())
            .flat_map(|touch| [false, true].map(|is_tree| Slot { touch, is_tree, bytes: 0..0 }))
            .collect();
        slots.sort_unstable_by(|a, b| {
            order(touches[a.touch].name, a.is_tree, touches[b.touch].name, b.is_tree)
        });

        let base = match base {
            None => None,
            Some(oid) => {
                let object = read_tree(objects, oid, path)?;
                locate(object.data(), &mut slots, &mut touches).map_err(|e| malformed(oid, path, e))?;
                Some((oid, object))
            }
        };
        for touch in &mut touches {
            touch.result = match touch.own {
                None => touch.base,
                Some(Edit::Set(entry)) => Some(entry),
                Some(Edit::Remove) => None,
                Some(Edit::MakeWay) => touch.base.filter(|entry| entry.is_tree()),
            };
        }
        Ok(Self { base, touches, slots, prefix, next: 0 })
    }

    fn next_descent(&mut self) -> Option<Descent> {
        while let Some(touch) = self.touches.get(self.next) {
            self.next += 1;
            if !touch.below.is_empty() {
                return Some(Descent {
                    base: touch.result.filter(|entry| entry.is_tree()).map(|entry| entry.oid),
                    edits: touch.below.clone(),
                    prefix: self.prefix + touch.name.len() + 1,
                });
            }
        }
        None
    }

    fn take_child(&mut self, child: Option<Oid>) {
        let Some(touch) = self.next.checked_sub(1).and_then(|current| self.touches.get_mut(current)) else {
            return;
        };
        match child {
            Some(oid) => touch.result = Some(Entry::tree(oid)),
            // A file stays when all that was done below it was removing.
            None => touch.result = touch.result.filter(|entry| !entry.is_tree()),
        }
    }

    fn close(&self, sink: &dyn TreeSink) -> Result<Option<Oid>> {
        let data = self.base.as_ref().map_or(&[][..], |(_, object)| object.data());
        if self.touches.iter().all(|touch| touch.result == touch.base) {
            return Ok(self.base.as_ref().map(|(oid, _)| *oid).filter(|_| !data.is_empty()));
        }
        let added: usize = self.touches.iter().map(|touch| touch.name.len() + 28).sum();
        let mut out = Vec::with_capacity(data.len() + added);
        let mut copied = 0;
        for slot in &self.slots {
            let touch = &self.touches[slot.touch];
            if touch.result == touch.base {
                continue;
            }
            out.extend_from_slice(&data[copied..slot.bytes.start]);
            copied = slot.bytes.end;
            if let Some(entry) = touch.result
                && entry.is_tree() == slot.is_tree
            {
                append(&mut out, touch.name, entry);
            }
        }
        out.extend_from_slice(&data[copied..]);
        if out.is_empty() { Ok(None) } else { sink.write(ObjectType::Tree, &out).map(Some) }
    }
}

/// Groups the edits of one directory by the name they touch in it.
fn touches_of<'e>(list: &[(&'e [u8], Edit)], edits: Range<usize>, prefix: usize) -> Vec<Touch<'e>> {
    let mut touches: Vec<Touch<'e>> = Vec::new();
    for index in edits {
        let (path, edit) = list[index];
        let rest = path.get(prefix..).unwrap_or_default();
        match rest.iter().position(|b| *b == b'/') {
            None => {
                touches.push(Touch { name: rest, own: Some(edit), below: 0..0, base: None, result: None });
            }
            Some(slash) => {
                let name = &rest[..slash];
                match touches.last_mut() {
                    Some(last) if last.name == name && !last.below.is_empty() => last.below.end = index + 1,
                    _ => {
                        let below = index..index + 1;
                        touches.push(Touch { name, own: None, below, base: None, result: None });
                    }
                }
            }
        }
    }
    // The edit of `a` and those below `a/` can be apart, with `a-b` between them.
    touches.sort_by(|a, b| a.name.cmp(b.name));
    touches.dedup_by(|later, first| {
        let same = later.name == first.name;
        if same {
            first.own = first.own.or(later.own);
            if first.below.is_empty() {
                first.below = later.below.clone();
            }
        }
        same
    });
    touches
}

/// Finds every slot's place in the bytes and what stands there, in one pass that checks the whole tree.
fn locate(data: &[u8], slots: &mut [Slot], touches: &mut [Touch<'_>]) -> std::result::Result<(), Malformed> {
    let mut cursor = Cursor::default();
    let mut waiting = slots.iter_mut().peekable();
    while let Some(raw) = cursor.next(data)? {
        while let Some(slot) = waiting.peek_mut() {
            let touch = &mut touches[slot.touch];
            let side = order(touch.name, slot.is_tree, raw.name, raw.entry.is_tree());
            if side == Ordering::Greater {
                break;
            }
            slot.bytes = raw.start..raw.start;
            if side == Ordering::Equal {
                slot.bytes.end = raw.end;
                touch.base = Some(raw.entry);
            }
            waiting.next();
            if side == Ordering::Equal {
                break;
            }
        }
    }
    for slot in waiting {
        slot.bytes = data.len()..data.len();
    }
    Ok(())
}
