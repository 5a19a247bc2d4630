//! Doing what was decided: several threads that write files, links and special files, and what they report.
//!
//! In go [`Job`]s, each one step with all it needs; they wait in a short queue, so that memory stays flat whatever the
//! size of a tree. Each is done whole or leaves nothing: written under a temporary name, proven, dressed, put in place.
//! What concerns one path becomes a problem in the report; what concerns all (a full or read-only target, a stop from
//! outside) ends the run.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::content::{fits, stands_in};
use super::finish::{Open, release};
use super::report::{Named, Report};
use super::step::Step;
use super::target::{Clothes, Dressed, Owners, Place, Placed, Temporary, is_same_content};
use super::{Existing, Policies, Request};
use crate::beneath::Look;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::git::contents::{ContentReader, Contents, Found, Trouble};
use crate::metadata::Record;
use crate::names::RootName;
use crate::path::RelPath;
use crate::progress::Progress;

/// Steps that are handed over at once: waking a thread costs as much as a small file.
const BATCH: usize = 32;
/// A batch with so many bytes in it is not kept waiting for more.
const BATCH_BYTES: u64 = 1024 * 1024;
/// Batches that wait: enough to keep the threads busy while a directory is read.
const QUEUE: usize = 8;
/// No system has a longer link.
const LONGEST_LINK: u64 = 64 * 1024;

/// One step with all that it needs.
pub struct Job {
    /// The directory.
    pub open: Arc<Open>,
    /// The name in it.
    pub name: Vec<u8>,
    /// The step.
    pub step: Step,
    /// What it takes.
    pub work: Work,
    /// What stood there when it was decided; it is replaced.
    pub over: Option<Look>,
    /// As recorded.
    pub record: Option<Record>,
    /// The low twelve bits of the mode.
    pub mode: u32,
}

/// What a step takes.
pub enum Work {
    /// A file is written.
    File(Found),
    /// A symbolic link is made.
    Symlink(Found),
    /// A pipe, socket or device is made.
    Special,
    /// What stands there, as it was seen, gets its metadata.
    Adjust(Look),
    /// Another name for what stands under this path of the target, as it was seen.
    Link(RelPath, Look),
}

/// What is on its way to the threads.
struct Queue {
    send: SyncSender<Vec<Job>>,
    batch: Vec<Job>,
    bytes: u64,
}

impl Queue {
    fn hand_over(&mut self) -> Result<()> {
        self.bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        self.send.send(batch).map_err(|_| Error::new(Kind::Internal, "nobody takes jobs any more"))
    }
}

/// The threads, and what they share.
pub struct Hands<'h> {
    policies: &'h Policies,
    contents: &'h Contents,
    owners: Owners,
    as_root: bool,
    report: Mutex<Report>,
    fatal: Mutex<Option<Error>>,
    is_stopped: AtomicBool,
    queue: Mutex<Option<Queue>>,
    progress: &'h Progress,
}

/// Runs `work` with hands to give jobs to, waits for all of them, and makes the target durable.
pub fn with_hands(
    request: &Request<'_>,
    contents: &Contents,
    progress: &Progress,
    work: impl FnOnce(&Hands<'_>) -> Result<()>,
) -> Result<Report> {
    let (send, receive) = sync_channel(QUEUE);
    let receive = Mutex::new(receive);
    let hands = Hands {
        policies: request.policies,
        contents,
        owners: Owners::new(),
        as_root: rustix::process::geteuid().is_root(),
        report: Mutex::default(),
        fatal: Mutex::default(),
        is_stopped: AtomicBool::new(false),
        queue: Mutex::new(Some(Queue { send, batch: Vec::with_capacity(BATCH), bytes: 0 })),
        progress,
    };
    let walked = std::thread::scope(|scope| {
        for _ in 0..request.policies.threads.max(1) {
            scope.spawn(|| hands.labour(&receive));
        }
        // Without its end the threads would wait for ever, also if the walk panics.
        let walked = catch_unwind(AssertUnwindSafe(|| {
            work(&hands)?;
            lock(&hands.queue).as_mut().map_or(Ok(()), Queue::hand_over)
        }));
        *lock(&hands.queue) = None;
        walked
    });
    let walked = match walked {
        Ok(walked) => walked,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    if let Some(error) = lock(&hands.fatal).take() {
        return Err(error);
    }
    walked?;
    Ok(hands.report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hands<'_> {
    /// How things are done.
    pub fn policies(&self) -> &Policies {
        self.policies
    }

    /// Whether this process is above permissions.
    pub fn as_root(&self) -> bool {
        self.as_root
    }

    /// Who is who here.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Fails once the run is over for everybody.
    pub fn check(&self) -> Result<()> {
        self.progress.check()?;
        if self.is_stopped.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Gives a job to whoever is free next.
    pub fn submit(&self, job: Job) -> Result<()> {
        self.check()?;
        let mut queue = lock(&self.queue);
        let Some(queue) = queue.as_mut() else { return Err(Error::cancelled()) };
        queue.bytes += job.step.bytes;
        queue.batch.push(job);
        if queue.batch.len() >= BATCH || queue.bytes >= BATCH_BYTES { queue.hand_over() } else { Ok(()) }
    }

    /// Counts a step that was done.
    pub fn count(&self, step: &Step) {
        lock(&self.report).count(step);
    }

    /// Adds what could not be restored.
    pub fn problem(&self, root: &RootName, path: &RelPath, why: impl Into<String>) {
        lock(&self.report).problem(Named::new(root, path, why));
    }

    /// The same of something outside of all roots.
    pub fn named_problem(&self, problem: Named) {
        lock(&self.report).problem(problem);
    }

    /// Adds something to be known.
    pub fn remark(&self, root: &RootName, path: &RelPath, what: impl Into<String>) {
        lock(&self.report).remark(Named::new(root, path, what));
    }

    /// Counts what the system refused.
    pub fn dressed(&self, root: &RootName, path: &RelPath, dressed: &Dressed) {
        if *dressed == Dressed::default() {
            return;
        }
        let mut report = lock(&self.report);
        report.totals.owners_refused += u64::from(dressed.owner_refused);
        report.totals.set_id += u64::from(dressed.set_id_set);
        report.totals.set_id_dropped += u64::from(dressed.set_id_dropped);
        report.totals.attributes_refused += dressed.attributes_refused.len() as u64;
        for name in &dressed.attributes_refused {
            let what = format!("its attribute {} could not be set", crate::path::lossy(name));
            report.remark(Named::new(root, path, what));
        }
        if let Some(errno) = dressed.failed {
            let why = format!("its mode or time could not be set: {}", std::io::Error::from(errno));
            report.problem(Named::new(root, path, why));
        }
    }

    /// The run is over for everybody.
    fn stop(&self, error: Error) {
        lock(&self.fatal).get_or_insert(error);
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    fn labour(&self, queue: &Mutex<Receiver<Vec<Job>>>) {
        let mut reader = self.contents.reader();
        loop {
            let Ok(batch) = lock(queue).recv() else { return };
            for job in batch {
                if self.is_stopped.load(Ordering::Relaxed) {
                    break;
                }
                if catch_unwind(AssertUnwindSafe(|| self.work(&mut reader, job))).is_err() {
                    let text = "a part of the restore panicked; what was restored stays";
                    self.stop(Error::new(Kind::Internal, text));
                    reader = self.contents.reader();
                }
            }
        }
    }

    /// Does a job, and reports what came of it. What was made, if it was.
    pub fn work(&self, reader: &mut ContentReader<'_>, job: Job) -> Option<Look> {
        let outcome = self.attempt(reader, &job);
        let made = match outcome {
            Ok(Some(look)) => {
                self.count(&job.step);
                self.progress.file_done(0);
                Some(look)
            }
            Ok(None) => None,
            Err(error) if concerns_everybody(&error) => {
                self.stop(error);
                None
            }
            Err(error) => {
                self.problem(&job.step.root, &job.step.path, error.to_string());
                None
            }
        };
        release(job.open, self);
        made
    }

    fn attempt(&self, reader: &mut ContentReader<'_>, job: &Job) -> Result<Option<Look>> {
        self.progress.check()?;
        let Some(place) = job.open.place() else {
            return Err(Error::new(Kind::Internal, "its directory was not made"));
        };
        match &job.work {
            Work::File(found) => self.write_file(reader, job, place, found),
            Work::Symlink(found) => self.make_symlink(reader, job, place, found),
            Work::Special => {
                let kind = job.step.kind;
                let device = job.record.as_ref().and_then(|record| record.device);
                let made = self.opening_up(job, || place.new_special(kind, device))?;
                let dressed =
                    self.clothes(job.record.as_ref(), job.mode).put_on_special(&made, kind, &self.owners);
                self.dressed(&job.step.root, &job.step.path, &dressed);
                self.put_in_place(job, made)
            }
            Work::Adjust(look) => self.adjust(job, place, look),
            Work::Link(path, look) => {
                let from = place.target().place(path.parent().unwrap_or_default());
                let name = path.file_name().unwrap_or_default();
                let made = self.opening_up(job, || place.new_link(&from, name, look))?;
                self.put_in_place(job, made)
            }
        }
    }

    fn write_file(
        &self,
        reader: &mut ContentReader<'_>,
        job: &Job,
        place: &Place,
        found: &Found,
    ) -> Result<Option<Look>> {
        let mut made = self.opening_up(job, || place.new_file())?;
        let Some(file) = made.file.take() else {
            return Err(Error::new(Kind::Internal, "a new file is not open"));
        };
        let mut file = File::from(file);
        let expected = job.record.as_ref().and_then(|record| record.blake3);
        let proof = reader.stream_expecting(found, expected, self.progress, &mut |piece| {
            self.progress.bytes_done(piece.len() as u64);
            file.write_all(piece).map_err(|error| Error::io("write", &place.shown(&job.name), error))
        });
        let proof = match proof {
            Ok(proof) => proof,
            Err(Trouble::Object(error) | Trouble::Elsewhere(error)) => return Err(error),
        };
        let is_as_recorded =
            job.record.as_ref().is_some_and(|record| record.blake3.is_some() && fits(&proof, record));
        if !self.policies().raw
            && !found.is_led_to()
            && let Some(why) = stands_in(&proof, job.record.as_ref(), is_as_recorded)
        {
            return Err(Error::new(Kind::Git, why));
        }
        let fits = job.record.as_ref().is_none_or(|record| fits(&proof, record));
        if !fits {
            let what = "metadata does not fit: its size or checksum is another than that of the content in Git, so only \
                        the content was restored";
            self.remark(&job.step.root, &job.step.path, what);
        }
        let record = job.record.as_ref().filter(|_| fits);
        let mode = if fits { job.mode } else { mode_without_record(job.mode & 0o100 != 0, false) };
        let dressed = self.clothes(record, mode).put_on(file.as_fd(), &self.owners);
        self.dressed(&job.step.root, &job.step.path, &dressed);
        drop(file);
        fault::point("restore:file-written");
        let placed = self.put_in_place(job, made);
        fault::point("restore:file-placed");
        placed
    }

    fn make_symlink(
        &self,
        reader: &mut ContentReader<'_>,
        job: &Job,
        place: &Place,
        found: &Found,
    ) -> Result<Option<Look>> {
        let target = read_link_target(reader, found, self.progress)?;
        let made = self.opening_up(job, || place.new_symlink(&target))?;
        let dressed = self.clothes(job.record.as_ref(), job.mode).put_on_symlink(&made, &self.owners);
        self.dressed(&job.step.root, &job.step.path, &dressed);
        self.put_in_place(job, made)
    }

    /// Nobody's bytes are changed, and nothing that another name leads to as well.
    fn adjust(&self, job: &Job, place: &Place, seen: &Look) -> Result<Option<Look>> {
        let flags = rustix::fs::OFlags::RDONLY;
        let file = place.open_inside(&job.name, flags)?;
        let now = crate::beneath::look_at_open(file.as_fd())
            .map_err(|_| Error::new(Kind::Io, "it is gone by now"))?;
        if !is_same_content(&now, seen) || now.links > 1 {
            return Err(changed_meanwhile());
        }
        let dressed = self.clothes(job.record.as_ref(), job.mode).put_on(file.as_fd(), &self.owners);
        self.dressed(&job.step.root, &job.step.path, &dressed);
        Ok(Some(now))
    }

    fn put_in_place(&self, job: &Job, made: Temporary<'_>) -> Result<Option<Look>> {
        let look = made.look()?;
        let whatever = self.policies().existing == Existing::Always;
        let placed = match &job.over {
            None => made.take(&job.name)?,
            Some(seen) => made.replace(&job.name, seen, whatever)?,
        };
        match placed {
            Placed::Done => Ok(Some(look)),
            Placed::Occupied => Err(changed_meanwhile()),
        }
    }

    /// Tries again after letting ourselves into a directory of our own whose mode keeps even its owner out.
    fn opening_up<T>(&self, job: &Job, attempt: impl Fn() -> Result<T>) -> Result<T> {
        match attempt() {
            Err(error) if os_error(&error) == Some(Errno::ACCESS) && job.open.open_up().unwrap_or(false) => {
                attempt()
            }
            outcome => outcome,
        }
    }

    fn clothes<'r>(&self, record: Option<&'r Record>, mode: u32) -> Clothes<'r> {
        Clothes { record, mode, set_id: self.policies().set_id, as_root: self.as_root }
    }
}

/// The target of a link, proven.
pub fn read_link_target(
    reader: &mut ContentReader<'_>,
    found: &Found,
    progress: &Progress,
) -> Result<Vec<u8>> {
    if found.size > LONGEST_LINK {
        return Err(Error::new(Kind::Git, format!("a symbolic link of {} bytes cannot be made", found.size)));
    }
    let mut target = Vec::new();
    let proof = reader.stream(found, progress, &mut |piece| {
        target.extend_from_slice(piece);
        Ok(())
    });
    match proof {
        Ok(_) if target.is_empty() || target.contains(&0) => {
            Err(Error::new(Kind::Git, "it is a symbolic link to a name that no file can have"))
        }
        Ok(_) => Ok(target),
        Err(Trouble::Object(error) | Trouble::Elsewhere(error)) => Err(error),
    }
}

/// What something gets of which nothing is recorded: it is its owner's alone.
pub fn mode_without_record(is_executable: bool, is_directory: bool) -> u32 {
    if is_executable || is_directory { 0o700 } else { 0o600 }
}

fn changed_meanwhile() -> Error {
    let text = "something else stands there than when this was planned: somebody put it there meanwhile, or the file \
                system takes two names in this directory for one; nothing of it was touched";
    Error::new(Kind::Io, text)
}

/// Whether the trouble is not that of one path: everything else would meet it too.
pub fn concerns_everybody(error: &Error) -> bool {
    matches!(error.kind(), Kind::DiskFull | Kind::Cancelled | Kind::Limit)
        || os_error(error) == Some(Errno::ROFS)
}

/// The system's own reason.
pub fn os_error(error: &Error) -> Option<Errno> {
    let source = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    source.raw_os_error().map(Errno::from_raw_os_error)
}
