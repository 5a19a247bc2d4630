//! The arguments of `audit`.

use std::str::FromStr;

use backupbot_core::audit::verify::Anchor;
use clap::{Args, Subcommand};

/// Examples of `audit`.
pub const EXAMPLES: &str = "\
What was done lately?         backupbot audit
What happened to one of them? backupbot audit --repository documents --since yesterday
Was the log tampered with?    backupbot audit verify
And since I noted this down?  backupbot audit verify --head 4711:8c1f…";

/// Arguments of `audit`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    /// What else to do with the log.
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// Only lines about this repository
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Only lines from this time on: 2026-11-22, 2026-11-22T13:05:00Z, yesterday, "2 hours ago"
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// So many lines at most, the newest. Without it: 50, and with --since all
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<usize>,
}

/// What else to do with the log.
#[derive(Debug, Clone, Subcommand)]
pub enum AuditCommand {
    /// Check that no line was changed, taken out or left out
    ///
    /// Prints the number and the hash of the last line. Noted down elsewhere, and given with --head the next time, they
    /// prove that nothing up to that line was written anew. Exits with 1 if something is wrong.
    Verify(AuditVerify),
}

/// Arguments of `audit verify`.
#[derive(Debug, Clone, Args)]
pub struct AuditVerify {
    /// A line that an earlier verification named: its number and its hash
    #[arg(long, value_name = "NUMBER:HASH", value_parser = anchor)]
    pub head: Option<Anchor>,
}

fn anchor(text: &str) -> Result<Anchor, String> {
    const FORM: &str = "expected NUMBER:HASH, as an earlier `backupbot audit verify` printed it";
    let (seq, hash) = text.split_once(':').ok_or(FORM)?;
    if hash.len() != 64 || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(FORM.to_owned());
    }
    Ok(Anchor { seq: u64::from_str(seq).map_err(|_| FORM)?, hash: hash.to_owned() })
}
