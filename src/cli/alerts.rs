//! The arguments of `alerts`.

use clap::{Args, Subcommand};

/// Arguments of `alerts`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Alerts {
    /// What else to do.
    #[command(subcommand)]
    pub command: Option<AlertsCommand>,
}

/// What else to do with alerts.
#[derive(Debug, Clone, Subcommand)]
pub enum AlertsCommand {
    /// Send a test message to every receiver of the configuration, and say whether it arrived
    ///
    /// Exits with 1 if one of them was not reached. Whether a person sees it is for that person to say.
    Test(AlertsTest),
}

/// Arguments of `alerts test`.
#[derive(Debug, Clone, Args)]
pub struct AlertsTest {
    /// Only this one, such as `smtp` or `ntfy 2`. Without it: all
    #[arg(long, value_name = "NAME")]
    pub receiver: Option<String>,
}
