//! The arguments of `verify`.

use backupbot_core::verify::Sample;
use clap::Args;

use super::access::Access;
use super::look::{At, Which};
use super::unlock::Unlock;

/// Examples of `verify`.
pub const EXAMPLES: &str = "\
Is what is here sound?             backupbot verify
Is it what the remote would give?  backupbot verify --remote usb
A hundredth of it, by lot:         backupbot verify --remote usb --sample 1%
As it was last month:              backupbot verify --at 2026-10-31
From a machine that knows nothing: backupbot verify --from https://git.example.org/me/docs.git";

/// Arguments of `verify`.
#[derive(Debug, Clone, Args)]
pub struct Verify {
    /// Which repository.
    #[command(flatten)]
    pub which: Which,
    /// Which snapshot.
    #[command(flatten)]
    pub at: At,
    /// Verify what this configured remote holds: it is fetched as on a new machine, and read from there. Only counts on
    /// the command line
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub remote: Option<String>,
    /// The same for any address, configured or not
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// How to get in there.
    #[command(flatten)]
    pub access: Access,
    /// Read the contents of a share of the files, such as 1%, or of so many, drawn by lot. Names and records are read all
    /// the same. Without it: everything is read
    #[arg(long, value_name = "SHARE")]
    pub sample: Option<Sample>,
    /// With --sample: the number that an earlier verification named, to draw the same files again
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// What opens it.
    #[command(flatten)]
    pub unlock: Unlock,
}
