//! How the process ends: the exit codes of the contract, and failures that carry one with what to say.

use std::fmt::Display;
use std::process::ExitCode;

use backupbot_core::config::Problem;
use backupbot_core::error::{Error, Kind};

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// It was not done.
    Failed = 1,
    /// The command line or the configuration cannot be obeyed.
    Usage = 2,
    /// Done, but some files could not be read; they are named.
    SomeSkipped = 3,
    /// The time given was over first.
    TimedOut = 4,
    /// Another process works in the state directory.
    InUse = 5,
    /// The supervisor gave up; whoever started the process is to start it afresh.
    GaveUp = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why something was not done, and the exit code that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What to print, one line each.
    pub lines: Vec<String>,
}

impl Failure {
    /// A failure with one line.
    pub fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, lines: vec![line.into()] }
    }

    /// Not done.
    pub fn failed(line: impl Into<String>) -> Self {
        Self::new(Exit::Failed, line)
    }

    /// Cannot be obeyed.
    pub fn usage(line: impl Into<String>) -> Self {
        Self::new(Exit::Usage, line)
    }

    /// A configuration with mistakes.
    pub fn config(problems: &[Problem]) -> Self {
        Self { exit: Exit::Usage, lines: problems.iter().map(ToString::to_string).collect() }
    }

    /// A failed system call, with what was attempted.
    pub fn io(attempt: impl Display, error: impl Display) -> Self {
        Self::failed(format!("{attempt}: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            Kind::InUse => Exit::InUse,
            Kind::Config | Kind::EncryptionKey => Exit::Usage,
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_that_scripts_rely_on() {
        let codes = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::SomeSkipped, 3),
            (Exit::TimedOut, 4),
            (Exit::InUse, 5),
            (Exit::GaveUp, 6),
        ];
        for (exit, code) in codes {
            assert_eq!(ExitCode::from(exit), ExitCode::from(code), "{exit:?}");
        }
    }

    #[test]
    fn the_kind_of_an_error_decides_its_code() {
        let exit = |kind| Failure::from(Error::new(kind, "x")).exit;
        assert_eq!(exit(Kind::InUse), Exit::InUse);
        assert_eq!(exit(Kind::Config), Exit::Usage);
        assert_eq!(exit(Kind::EncryptionKey), Exit::Usage, "it is for the operator to name the key");
        assert_eq!(exit(Kind::DiskFull), Exit::Failed);
    }
}
