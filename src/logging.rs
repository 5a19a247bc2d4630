//! The log: text for a person at a terminal, JSON lines for everybody else, written by a thread of its own.
//!
//! A record is one line whatever a name or an error says: control characters are escaped in both formats.
//! When records come faster than they can be written, or cannot be written at all, they are lost and their number is
//! logged: the backup never waits for its log. Which are written is decided in `levels`, how in `writer`.

mod levels;
mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use backupbot_core::config::{LogConfig, LogFormat};
use slog::{Drain, FnValue, Logger, Never, OwnedKVList, PushFnValue, Record, o};
use slog_async::{AsyncCore, AsyncGuard};
use slog_term::{Decorator, FullFormat, PlainDecorator, RecordDecorator};

use crate::exit::Failure;
use crate::files::shown;
use crate::meter::{Meter, StderrBeside};
pub use levels::{LevelName, Levels, MODULES};
pub use writer::LOST;
use writer::{Redacting, Telling};

/// Records that may wait to be written.
const WAITING: usize = 4096;
/// At the end, what is left is written for so long: a reader that takes nothing must not keep the process from ending.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// The log of this process.
pub struct Log {
    /// What records go to.
    pub root: Logger,
    /// Which of them are written.
    pub levels: Arc<Levels>,
    /// Must be dropped last.
    pub guard: Guard,
}

/// When dropped, waits until what was logged is written, though not for ever.
pub struct Guard(Option<AsyncGuard>);

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(guard) = self.0.take() else { return };
        let (tell, told) = mpsc::channel();
        let waiting = std::thread::Builder::new().spawn(move || {
            drop(guard);
            let _ = tell.send(());
        });
        if waiting.is_ok() {
            // If it takes longer, the process ends without the rest.
            let _ = told.recv_timeout(LEAVE_WITHIN);
        }
    }
}

/// Starts logging as `config` says.
pub fn start(config: &LogConfig, meter: &Meter) -> Result<Log, Failure> {
    let to_terminal = config.file.is_none() && io::stderr().is_terminal();
    let as_text = match config.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => to_terminal,
    };
    let writer: Box<dyn Write + Send> = match &config.file {
        None => Box::new(StderrBeside(meter.clone())),
        Some(path) => Box::new(
            open(path)
                .map_err(|error| Failure::io(format!("cannot open the log file {}", shown(path)), error))?,
        ),
    };
    let levels = Arc::new(Levels::new(config.level.into()));
    let (core, guard) = if as_text { asynchronous(text(writer)) } else { asynchronous(json(writer)) };
    let chosen = Chosen { levels: levels.clone(), core };
    Ok(Log { root: Logger::root(chosen, o!()), levels, guard: Guard(Some(guard)) })
}

/// To append to. A pipe is opened for reading as well: otherwise that would wait until somebody reads.
fn open(path: &Path) -> io::Result<File> {
    let is_pipe = path.metadata().is_ok_and(|found| found.file_type().is_fifo());
    OpenOptions::new().append(true).read(is_pipe).create(true).mode(0o600).open(path)
}

fn asynchronous<D>(drain: D) -> (AsyncCore, AsyncGuard)
where
    D: Drain<Ok = (), Err = io::Error> + Send + 'static,
{
    let telling = Telling::new(drain, &LOST);
    AsyncCore::custom(telling).chan_size(WAITING).thread_name("log".to_owned()).build_with_guard()
}

/// Leaves out what nobody asked for, and never waits: what finds no room is counted.
struct Chosen {
    levels: Arc<Levels>,
    core: AsyncCore,
}

impl Drain for Chosen {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if self.levels.allow(record, values) && self.core.log(record, values).is_err() {
            LOST.one_more_crowded();
        }
        Ok(())
    }
}

fn now() -> String {
    let now = backupbot_core::clock::now();
    format!("{now:.3}")
}

fn json<W: Write + Send + 'static>(writer: W) -> impl Drain<Ok = (), Err = io::Error> + Send + 'static {
    slog_json::Json::new(Redacting::new(writer))
        // The last one given is written first.
        .add_key_value(o!(
            "msg" => PushFnValue(|record: &Record<'_>, serializer| serializer.emit(record.msg())),
            "level" => FnValue(|record: &Record<'_>| record.level().as_str().to_lowercase()),
            "ts" => FnValue(|_: &Record<'_>| now()),
        ))
        .build()
}

fn text<W: Write + Send + 'static>(writer: W) -> impl Drain<Ok = (), Err = io::Error> + Send + 'static {
    let decorator = OneLine(PlainDecorator::new(Redacting::new(writer)));
    FullFormat::new(decorator)
        .use_custom_timestamp(|out: &mut dyn Write| out.write_all(now().as_bytes()))
        .use_original_order()
        .build()
}

/// Escapes control characters in messages, keys and values; what the format itself writes passes.
struct OneLine<D>(D);

impl<D: Decorator> Decorator for OneLine<D> {
    fn with_record<F>(&self, record: &Record<'_>, values: &OwnedKVList, print: F) -> io::Result<()>
    where
        F: FnOnce(&mut dyn RecordDecorator) -> io::Result<()>,
    {
        self.0.with_record(record, values, |inner| print(&mut OneLineRecord { inner, is_foreign: false }))
    }
}

struct OneLineRecord<'r> {
    inner: &'r mut dyn RecordDecorator,
    /// Whether what is written now came from somewhere else.
    is_foreign: bool,
}

impl Write for OneLineRecord<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_foreign {
            return self.inner.write(bytes);
        }
        self.inner.write_all(backupbot_core::path::lossy(bytes).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

macro_rules! parts {
    ($($start:ident: $is_foreign:literal),* $(,)?) => {
        $(fn $start(&mut self) -> io::Result<()> {
            self.is_foreign = $is_foreign;
            self.inner.$start()
        })*
    };
}

impl RecordDecorator for OneLineRecord<'_> {
    parts! {
        reset: false,
        start_whitespace: false,
        start_msg: true,
        start_timestamp: false,
        start_level: false,
        start_comma: false,
        start_key: true,
        start_value: true,
        start_location: false,
        start_separator: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::{error, info};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            assert!(text.ends_with('\n'), "{text:?}");
            text.lines().map(str::to_owned).collect()
        }
    }

    fn log_nasty_things(log: &Logger) {
        info!(log, "committed\n{}", "forged level=error"; "path" => "a\nb\u{1b}[2Jc", "n" => 3);
        error!(log, "plain"; "error" => "cannot\r\nread");
    }

    #[test]
    fn a_record_is_one_line_of_text_whatever_it_says() {
        let memory = Memory::default();
        let log = Logger::root(Mutex::new(text(memory.clone())).ignore_res(), o!("actor" => "pusher\nx"));
        log_nasty_things(&log);
        let lines = memory.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].contains("committed\\nforged") && lines[0].contains("a\\nb\\u{1b}[2Jc"),
            "{lines:?}"
        );
        assert!(!lines[0].contains('\u{1b}'));
        assert!(lines[1].contains("ERRO") && lines[1].contains("actor: pusher\\nx"), "{lines:?}");
    }

    #[test]
    fn a_secret_that_was_read_stands_in_no_record_however_it_is_cut() {
        let secret = backupbot_core::secret::Secret::new(b"sesame-\"open".to_vec());
        let memory = Memory::default();
        for log in [
            Logger::root(Mutex::new(json(memory.clone())).ignore_res(), o!()),
            Logger::root(Mutex::new(text(memory.clone())).ignore_res(), o!()),
        ] {
            info!(log, "refused: sesame-\"open"; "header" => "Basic c2VzYW1lLSJvcGVu", "url" => "x?t=sesame-%22open");
        }
        drop(secret);
        let lines = memory.lines().join("\n");
        assert_eq!(lines.matches("[redacted]").count(), 6, "{lines}");
        assert!(!lines.contains("sesame") && !lines.contains("c2VzYW1l"), "{lines}");
        let mut cut = Redacting::new(Memory::default());
        for part in ["sesa", "me-\"op", "en\n"] {
            cut.write_all(part.as_bytes()).unwrap();
            cut.flush().unwrap();
        }
        assert_eq!(cut.inner.lines(), ["[redacted]"]);
    }

    #[test]
    fn a_record_is_one_line_of_json_with_time_level_and_message() {
        let memory = Memory::default();
        let log = Logger::root(Mutex::new(json(memory.clone())).ignore_res(), o!("actor" => "pusher"));
        log_nasty_things(&log);
        let lines = memory.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        let record: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert!(lines[0].starts_with("{\"ts\":"), "{lines:?}");
        assert_eq!(record["level"], "info");
        assert_eq!(record["path"], "a\nb\u{1b}[2Jc");
        assert_eq!((&record["actor"], &record["n"]), (&"pusher".into(), &3.into()));
        assert!(record["ts"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{record}");
    }

    #[test]
    fn what_was_logged_is_in_the_file_once_the_guard_is_gone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        let config = LogConfig { file: Some(path.clone()), ..LogConfig::default() };
        let Log { root: log, guard, .. } = start(&config, &Meter::default()).unwrap();
        for number in 0..100 {
            info!(log, "record"; "number" => number);
        }
        slog::debug!(log, "not asked for");
        drop((log, guard));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);
    }
}
