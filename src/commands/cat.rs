//! `backupbot cat`: a file as it was, in constant memory, its hash checked on the way.
//!
//! What is written before an error is found cannot be taken back: a script must look at the exit code.

use backupbot_core::crypt::unsealer::Unsealer;
use backupbot_core::error::Error;
use backupbot_core::git::contents::{ContentReader, Contents, Found, Recorded, Trouble};
use backupbot_core::history::directory::{Node, find};
use backupbot_core::history::form::{self, Form, HEAD_BYTES};
use backupbot_core::history::{ObjectDatabase, Oid};
use backupbot_core::metadata::EntryKind;
use backupbot_core::progress::Progress;

use crate::cli::Global;
use crate::cli::look::Cat;
use crate::exit::{Exit, Failure};
use crate::looking::{Looking, shown};
use crate::output::{self, Lines};
use crate::settings::World;

pub fn cat(world: &World, global: &Global, arguments: &Cat) -> Result<Exit, Failure> {
    let looking = Looking::open(world, global, arguments.which.repository.as_deref(), Some(&arguments.path))?;
    let snapshot = looking.snapshot(arguments.at.at.as_deref())?;
    // Whoever wants what is stored needs no key.
    let _keys =
        if arguments.raw { None } else { looking.unlock_contents(&arguments.unlock, &[&snapshot])? };
    let unsealer = match arguments.raw {
        true => None,
        false => Unsealer::of(&looking.repository, snapshot.tree)?,
    };
    let objects = looking.repository.objects()?;
    let (root, path) = looking.locate(&arguments.path, &snapshot)?;
    let located = find(&objects, snapshot.tree, &root, &path)?;
    let node = located.ok_or_else(|| looking.absent(&root, &path, &snapshot))?.node;
    let shown = shown::path(&root, &path);
    let oid = content_of(&node, &objects, &shown, arguments.raw)?;
    let contents = Contents::open_with(looking.repository.path(), Some(looking.large()))?.opened_by(unsealer);
    let mut reader = contents.reader();
    let wrong = |error: Error| Failure::failed(format!("{shown}: {error}"));
    let recorded = Recorded::by(node.record.as_ref());
    let mut found = reader.find(oid).map_err(wrong)?;
    if !arguments.raw {
        let seal = contents.seal_of(&path.to_git_path(&root));
        contents.must_open(seal)?;
        found = reader.behind(found, seal, recorded, &Progress::new()).map_err(wrong)?;
    }
    if !arguments.raw && !found.is_led_to() {
        refuse_stand_ins(&mut reader, &found, &node, &shown)?;
    }
    let expected = recorded.blake3.filter(|_| !arguments.raw);
    let mut lines = Lines::begin();
    // A reader that went away ends the stream as an error; what it was is kept here.
    let mut unwritten: Option<Failure> = None;
    let streamed = reader.stream(&found, &Progress::new(), &mut |piece| {
        lines.bytes(piece).map_err(|failure| {
            unwritten = Some(failure);
            Error::cancelled()
        })
    });
    if let Some(failure) = unwritten {
        return Err(failure);
    }
    let ended = lines.end();
    let proof = streamed.map_err(|trouble| {
        let (Trouble::Object(error) | Trouble::Elsewhere(error)) = trouble;
        Failure::failed(format!("{shown}: what was written is not the file: {error}"))
    })?;
    ended?;
    if expected.is_some_and(|expected| expected != proof.blake3) {
        let text = "its checksum is not the recorded one: it is what Git holds, changed by another program";
        output::complain(&format!("backupbot: {shown}: {text}"));
    }
    Ok(Exit::Done)
}

/// The object to write, or why there is none.
fn content_of(node: &Node, objects: &ObjectDatabase<'_>, shown: &str, raw: bool) -> Result<Oid, Failure> {
    let refused = |why: String| Err(Failure::failed(format!("{shown} {why}")));
    match (node.kind, node.entry) {
        (EntryKind::File, Some(entry)) => Ok(entry.oid),
        (EntryKind::Symlink, Some(entry)) if raw => Ok(entry.oid),
        (EntryKind::Symlink, Some(entry)) => {
            let target = objects.read(entry.oid).ok().filter(|object| object.len() <= HEAD_BYTES);
            let target =
                target.map_or_else(String::new, |object| format!(" to {}", shown::name(object.data())));
            refused(format!("is a symbolic link{target}; links are not followed, --raw writes the target"))
        }
        (EntryKind::Directory, _) => refused("is a directory: `backupbot ls` shows what is in it".to_owned()),
        (kind, _) => refused(format!("is a {} and has no content", kind.as_str())),
    }
}

/// Ends with a failure where Git holds something that stands for the file.
fn refuse_stand_ins(
    reader: &mut ContentReader<'_>,
    found: &Found,
    node: &Node,
    shown: &str,
) -> Result<(), Failure> {
    let head = reader
        .beginning(found, &Progress::new())
        .map_err(|error| Failure::failed(format!("{shown}: {error}")))?;
    let form = form::of(&head, found.size, node.record.as_ref(), |bytes| reader.contents().checksum(bytes));
    if form == Form::Content {
        return Ok(());
    }
    let text = format!(
        "{shown} is stored as {}, not as itself, and this version cannot turn that back; --raw writes it as it is",
        form.as_str()
    );
    Err(Failure::failed(text))
}
