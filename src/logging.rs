//! The log: text for a person at a terminal, JSON lines for everybody else, written by a thread of its own.
//!
//! A record is one line whatever a name or an error says: control characters are escaped in both formats.
//! When records come faster than they can be written, some are dropped and their number is logged: the
//! backup never waits for its log. Dropping the guard writes what is left.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;

use backupbot_core::config::{LogConfig, LogFormat, LogLevel};
use backupbot_core::secret::redact;
use slog::{Drain, FnValue, Level, Logger, OwnedKVList, PushFnValue, Record, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};
use slog_term::{Decorator, FullFormat, PlainDecorator, RecordDecorator};

use crate::exit::Failure;
use crate::files::shown;
use crate::meter::{Meter, StderrBeside};

/// Bytes of a record that are looked through as one.
const LONGEST_LINE: usize = 1024 * 1024;
/// Records that may wait to be written.
const WAITING: usize = 4096;

/// Starts logging as `config` says; the guard must be dropped last.
pub fn start(config: &LogConfig, meter: &Meter) -> Result<(Logger, AsyncGuard), Failure> {
    let to_terminal = config.file.is_none() && io::stderr().is_terminal();
    let as_text = match config.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => to_terminal,
    };
    let writer: Box<dyn Write + Send> =
        match &config.file {
            None => Box::new(StderrBeside(meter.clone())),
            Some(path) => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
                Box::new(file.map_err(|error| {
                    Failure::io(format!("cannot open the log file {}", shown(path)), error)
                })?)
            }
        };
    let level = match config.level {
        LogLevel::Error => Level::Error,
        LogLevel::Warning => Level::Warning,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
        LogLevel::Trace => Level::Trace,
    };
    let (drain, guard) = if as_text { asynchronous(text(writer)) } else { asynchronous(json(writer)) };
    // A log that cannot be written (a full disk) must not stop the backup.
    Ok((Logger::root(drain.filter_level(level).ignore_res(), o!()), guard))
}

fn asynchronous<D>(drain: D) -> (Async, AsyncGuard)
where
    D: Drain<Ok = (), Err = io::Error> + Send + 'static,
{
    Async::new(drain.ignore_res())
        .chan_size(WAITING)
        .overflow_strategy(OverflowStrategy::DropAndReport)
        .thread_name("log".to_owned())
        .build_with_guard()
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

/// Passes whole lines on, without any secret that this process has read: whatever a server, a library or a mistake of
/// ours puts into a record.
struct Redacting<W: Write> {
    inner: W,
    line: Vec<u8>,
}

impl<W: Write> Redacting<W> {
    fn new(inner: W) -> Self {
        Self { inner, line: Vec::new() }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        self.inner.write_all(redact(&text).as_bytes())
    }
}

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LONGEST_LINE {
                self.pass_on()?;
            }
        }
        Ok(bytes.len())
    }

    /// Half a line may be half a secret, so it waits for the other half.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Drop for Redacting<W> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // Nobody is left to tell.
            let _ = self.pass_on();
        }
    }
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
        let (log, guard) = start(&config, &Meter::default()).unwrap();
        for number in 0..100 {
            info!(log, "record"; "number" => number);
        }
        slog::debug!(log, "not asked for");
        drop((log, guard));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);
    }
}
