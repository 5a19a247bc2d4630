//! The flags that say how to get into a remote that is named by its address.

use std::path::PathBuf;

use clap::Args;

/// How to get in.
#[derive(Debug, Clone, Default, Args)]
pub struct Access {
    /// With --from: which branch. Without it: the only one, or main
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// With --from: the user to log in as, over HTTP
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// With --from: a file with the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// With --from: a file with a token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// With --from: a file with the key to log in with over SSH
    #[arg(long, value_name = "FILE")]
    pub ssh_key_file: Option<PathBuf>,
    /// With --from: a file with that key's passphrase
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// With --from: the keys of SSH servers that are trusted, such as ~/.ssh/known_hosts
    #[arg(long, value_name = "FILE")]
    pub known_hosts_file: Option<PathBuf>,
    /// With --from: certificates that are trusted instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}
