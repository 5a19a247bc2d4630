//! A remote behind a wire: pushes and fetches in Git's smart protocol.

use git2::Oid;

use super::advertisement::{self, Advertised};
use super::memory::Memory;
use super::receive_pack::{self, Pack, Verdict};
use super::upload_pack::{self, Wanted};
use super::wire::{Outgoing, Service, Wire};
use super::{Abilities, Advertisement, Description, Messages, Notes, Part, ReferenceUpdate, Sent, Transport};
use crate::disk::Room;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::pack::{CommitSeeker, Completeness, IncomingPack, OutgoingPack, Sync, Written};
use crate::git::reachable::PushSet;
use crate::git::repository::Repository;
use crate::progress::Progress;

/// Large hosts take 2 GB in one push (GitHub), others what their proxy was told to.
const SLICE_BYTES: u64 = 1024 * 1024 * 1024;
/// Objects that one request names: some 4 MB of it.
const MOST_WANTED: usize = 80_000;
/// The largest pack that is taken to look at one commit.
const LARGEST_LOOK: u64 = 64 * 1024 * 1024;

/// A remote that is reached over a network.
pub struct SmartTransport {
    wire: Box<dyn Wire>,
    /// Whose references count: pushes and fetches may be shown different ones.
    service: Service,
    /// What was last advertised, without the references, for the push that follows.
    advertised: Option<Advertised>,
    messages: Messages,
    /// It could not make objects out of differences, so it is sent whole ones.
    takes_whole_only: bool,
    /// What is looked at from now on is only looked at.
    has_pushed: bool,
    /// What is taken from it counts for the first look only.
    memory: Option<Memory>,
    has_looked: bool,
    went_by_memory: bool,
    progress: Progress,
}

impl SmartTransport {
    /// A remote to push to, or one only to read from.
    pub fn new(wire: Box<dyn Wire>, service: Service, progress: &Progress) -> Self {
        Self {
            wire,
            service,
            advertised: None,
            messages: Messages::default(),
            takes_whole_only: false,
            has_pushed: false,
            memory: None,
            has_looked: false,
            went_by_memory: false,
            progress: progress.clone(),
        }
    }

    /// Goes by what an earlier push left there, and leaves what it sees.
    pub fn remembering(mut self, memory: Memory) -> Self {
        self.memory = Some(memory);
        self
    }

    /// What the remote has, remembered or looked at.
    fn look_or_recall(&mut self) -> Result<Advertised> {
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        let memory = self.memory.as_ref().filter(|_| self.wire.may_push_unasked());
        let recalled = memory.filter(|_| is_first).and_then(Memory::take);
        self.went_by_memory |= recalled.is_some();
        if let Some(advertised) = recalled {
            return Ok(advertised);
        }
        let advertised = self.look(self.service)?;
        if let Some(memory) = self.memory.as_ref().filter(|_| !is_first && self.wire.may_push_unasked()) {
            memory.keep(&advertised);
        }
        Ok(advertised)
    }

    fn look(&mut self, service: Service) -> Result<Advertised> {
        let mut conversation = self.wire.open(service)?;
        let read = advertisement::read(conversation.advertisement(), service);
        let aside = conversation.aside();
        match read {
            // A push follows, most likely.
            Ok(_) if service == Service::ReceivePack && !self.has_pushed => conversation.park(),
            _ => conversation.close(),
        }
        self.messages.add(&aside);
        read.map_err(|error| self.messages.explain(error))
    }

    fn fetch_into(&mut self, wanted: Wanted<'_>, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut conversation = self.wire.open(Service::UploadPack)?;
        let advertised = advertisement::read(conversation.advertisement(), Service::UploadPack)?;
        upload_pack::fetch(
            conversation,
            &advertised,
            wanted,
            &agent(),
            &mut self.messages,
            &self.progress.clone(),
            sink,
        )
    }

    /// Takes a pack in. Every object is hashed; of a whole history, whatever one of them needs has to be there.
    fn take_in(
        &mut self,
        target: &Repository,
        wanted: Wanted<'_>,
        sync: Sync,
        progress: &Progress,
    ) -> Result<()> {
        progress.check()?;
        let is_whole = wanted.depth.is_none() && wanted.filter.is_none() && wanted.objects.len() == 1;
        let completeness = if is_whole { Completeness::Closed } else { Completeness::Parts };
        let mut incoming = IncomingPack::create(&target.pack_directory(), completeness)?;
        let mut room = Room::of(target.path())?.spare();
        self.fetch_into(wanted, &mut |bytes| {
            // A remote that sends without end must not fill the disk that the backup is made on.
            room = room.saturating_sub(bytes.len() as u64);
            if room < bytes.len() as u64 {
                room = Room::of(target.path())?.spare();
                Room::of(target.path())?.must_hold(bytes.len() as u64, target.path())?;
            }
            progress.bytes_done(bytes.len() as u64);
            incoming.take(bytes)
        })?;
        match incoming.finish(sync, progress)? {
            Some(pack) => pack.install().map(|_| ()),
            None => Ok(()),
        }
    }
}

/// The text of a commit after its header.
fn message_of(commit: &[u8]) -> String {
    let header = commit.windows(2).position(|pair| pair == b"\n\n").map_or(commit.len(), |at| at + 2);
    String::from_utf8_lossy(&commit[header..]).into_owned()
}

/// What we call ourselves.
pub(super) fn agent() -> String {
    concat!("backupbot/", env!("CARGO_PKG_VERSION")).to_owned()
}

struct Objects<'o> {
    pack: OutgoingPack<'o>,
    estimate: u64,
    sent: Option<Written>,
}

impl Pack for Objects<'_> {
    fn estimate(&self) -> u64 {
        self.estimate
    }

    fn write(&mut self, output: &mut dyn Outgoing) -> Result<()> {
        self.sent = Some(self.pack.write(&mut |bytes| output.write(bytes))?);
        Ok(())
    }
}

impl Transport for SmartTransport {
    fn advertise(&mut self) -> Result<Advertisement> {
        let mut advertised = self.look_or_recall()?;
        // There may be a hundred thousand of them: what the push needs is what the other end can do.
        let references = std::mem::take(&mut advertised.references);
        let haves = std::mem::take(&mut advertised.haves);
        self.advertised = Some(advertised);
        Ok(Advertisement { references, haves })
    }

    fn push(
        &mut self,
        source: &Repository,
        set: &PushSet,
        updates: &[ReferenceUpdate],
        progress: &Progress,
    ) -> Result<Sent> {
        // A reference that is to stay where it is was read there: the other end has made it as durable as it does.
        let updates: Vec<ReferenceUpdate> =
            updates.iter().filter(|update| update.expected != Some(update.new)).cloned().collect();
        if updates.is_empty() {
            return Ok(Sent::default());
        }
        let mut objects_out =
            Objects { pack: OutgoingPack::new(source, &set.objects, progress)?, estimate: 0, sent: None };
        objects_out.estimate = objects_out.pack.estimate()?;
        self.has_pushed = true;
        let mut conversation = self.wire.resume(Service::ReceivePack)?;
        let advertised = match self.advertised.take().filter(|_| !conversation.has_to_be_read_first()) {
            Some(advertised) => advertised,
            None => advertisement::read(conversation.advertisement(), Service::ReceivePack)?,
        };
        let may_be_thin = !self.takes_whole_only && !advertised.can("no-thin");
        if may_be_thin {
            objects_out.pack.rest_on(&set.formers);
        }
        fault::point("push:request");
        let verdict = receive_pack::push(
            conversation,
            &advertised,
            &updates,
            &mut objects_out,
            &agent(),
            &mut self.messages,
        )?;
        fault::point("push:answered");
        let (bytes, deltas) = objects_out.sent.map_or((0, 0), |sent| (sent.bytes, sent.deltas));
        match verdict {
            Verdict::Taken => Ok(Sent { objects: set.objects.len() as u64, bytes, ..Sent::default() }),
            // It may have lost what the differences rest on; whole objects do not depend on it.
            Verdict::NotStored(_) if may_be_thin && deltas > 0 => {
                self.takes_whole_only = true;
                self.push(source, set, &updates, progress)
            }
            Verdict::NotStored(error) => Err(error),
        }
    }

    fn commit_message(&mut self, commit: Oid) -> Result<String> {
        let mut seeker = CommitSeeker::new(commit, LARGEST_LOOK);
        // One that is cut off at once costs the same with and without a filter, which few servers allow.
        let wanted = Wanted { objects: &[commit], depth: Some(1), filter: Some("tree:0") };
        let fetched = self.fetch_into(wanted, &mut |bytes| seeker.take(bytes));
        match (seeker.found(), fetched) {
            (Some(data), _) => Ok(message_of(&data)),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => {
                let text = format!("the remote sent a pack without {commit}, which it advertises");
                Err(Error::new(Kind::RemoteRefused, text))
            }
        }
    }

    fn fetch(&mut self, target: &Repository, want: Oid, progress: &Progress) -> Result<()> {
        let wanted = Wanted { objects: &[want], depth: None, filter: None };
        self.take_in(target, wanted, Sync::Durable, progress)?;
        if !target.has_commit(want) {
            let text = format!("the remote sent a pack without {want}, which it advertises");
            return Err(Error::new(Kind::RemoteRefused, text));
        }
        Ok(())
    }

    fn abilities(&self) -> Abilities {
        let can = |word: &str| self.advertised.as_ref().is_some_and(|advertised| advertised.can(word));
        let earlier_commits = can("allow-reachable-sha1-in-want");
        // Git has no word of its own for a server that gives any object: it says both of these then.
        let single_objects = earlier_commits && can("allow-tip-sha1-in-want");
        Abilities { shallow: can("shallow"), leaves_out: can("filter"), earlier_commits, single_objects }
    }

    fn fetch_part(
        &mut self,
        target: &Repository,
        want: &[Oid],
        part: Part,
        progress: &Progress,
    ) -> Result<()> {
        let (depth, filter) = match part {
            Part::Snapshot => (Some(1), None),
            Part::Names => (Some(1), Some("blob:none")),
            Part::Commits => (None, Some("tree:0")),
            Part::Objects => (None, None),
        };
        // A part is no history: it is looked at and thrown away.
        want.chunks(MOST_WANTED).try_for_each(|objects| {
            self.take_in(target, Wanted { objects, depth, filter }, Sync::Relaxed, progress)
        })
    }

    fn describe(&mut self) -> Result<Description> {
        let lfs = self.wire.has_lfs()?;
        let Some(advertised) = &self.advertised else {
            return Ok(Description { lfs, ..Description::default() });
        };
        let agent = advertised.agent().map(|agent| super::said(agent.as_bytes()));
        let capabilities = advertised.capabilities.iter();
        let words = capabilities.filter(|word| !word.contains('=')).map(|word| super::said(word.as_bytes()));
        Ok(Description { agent, capabilities: words.collect(), lfs })
    }

    fn went_by_memory(&self) -> bool {
        self.went_by_memory
    }

    fn slice_bytes(&self) -> Option<u64> {
        Some(SLICE_BYTES)
    }

    fn notes(&mut self) -> Notes {
        let mut notes = self.wire.notes();
        notes.messages = std::mem::take(&mut self.messages).into_lines();
        notes
    }
}
