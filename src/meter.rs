//! The moving line on a terminal during long work: files and bytes that are safe so far.
//!
//! How much there is in total is not known before everything was read, so nothing is promised. Log lines on
//! the same terminal go through [`Meter::beside`], which moves the line out of their way.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backupbot_core::wording;
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};

/// The line, shown or not; clones are the same one.
#[derive(Clone, Default)]
pub struct Meter(Arc<Mutex<Option<ProgressBar>>>);

impl Meter {
    fn bar(&self) -> Option<ProgressBar> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, bar: Option<ProgressBar>) -> Option<ProgressBar> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), bar)
    }

    /// Shows it, if stderr is a terminal. Returns whether it is shown.
    pub fn show(&self) -> bool {
        if !io::stderr().is_terminal() {
            return false;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        self.replace(Some(bar));
        true
    }

    /// Shows a bar for `bytes` in all, if stderr is a terminal, with rate and remaining time.
    pub fn show_bar(&self, bytes: u64) {
        if !io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new(bytes);
        let template =
            "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        self.replace(Some(bar));
    }

    /// How far it is.
    pub fn reach(&self, bytes: u64, text: String) {
        if let Some(bar) = self.bar() {
            bar.set_position(bytes);
            bar.set_message(text);
        }
    }

    /// What stands in it.
    pub fn say(&self, text: String) {
        if let Some(bar) = self.bar() {
            bar.set_message(text);
        }
    }

    /// Takes it away.
    pub fn hide(&self) {
        if let Some(bar) = self.replace(None) {
            bar.finish_and_clear();
        }
    }

    /// Runs `print`, which writes to the terminal, with the line out of the way.
    fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        match self.bar() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// The text for so much done.
pub fn done_so_far(files: u64, bytes: u64) -> String {
    format!("{}, {} committed", wording::files(files), ByteSize::b(bytes).display().iec())
}

/// stderr, beside the line.
pub struct StderrBeside(pub Meter);

impl Write for StderrBeside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.beside(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
