//! The arguments of `log`.

use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args};

use crate::logging::LevelName;
use crate::spans;

/// Arguments of `log`.
#[derive(Debug, Clone, Default, Args)]
pub struct Log {
    /// Write records down to this level. Without --module: of everything
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<LevelName>,
    /// Only of this part of the program, such as pusher; repeat it for more. The others stay as they are
    #[arg(long, value_name = "MODULE")]
    pub module: Vec<String>,
    /// Back to what is configured after this long, such as 10m. Without it: at the next start
    #[arg(long = "for", value_name = "DURATION", value_parser = spans::parse_long)]
    pub lasting: Option<Duration>,
    /// Back to what is configured now
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    pub reset: bool,
}
