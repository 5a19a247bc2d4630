//! What the documents about large contents look like.

use serde::Deserialize;
use utoipa::ToSchema;

/// A look at the large contents of a remote, or of what is here.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct Scrubbed {
    /// The repository
    repository: String,
    /// The remote; absent: what is here
    remote: Option<String>,
    /// When it ended
    at: String,
    /// The number of the order, if somebody gave one
    order: Option<u64>,
    /// How much was to be read: `whole`, a share, or so many
    sample: String,
    /// Contents that the remote was asked for, or that lie here
    asked: u64,
    /// Their bytes
    bytes: u64,
    /// Contents that were read and hashed
    read: u64,
    /// Their bytes
    read_bytes: u64,
    /// Contents that the remote had lost, and was brought again
    brought: u64,
    /// Contents that were damaged, and were replaced
    replaced: u64,
    /// Contents that the remote has lost and could not be brought
    lost: u64,
    /// Contents that are damaged and could not be replaced
    damaged: u64,
    /// Contents of which nothing could be found out
    unsure: u64,
    /// The first of what was wrong
    #[serde(default)]
    named: Vec<String>,
    /// Which are damaged
    #[serde(default)]
    suspects: Vec<String>,
}

/// Contents and bytes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct Amount {
    /// Contents
    objects: u64,
    /// Their bytes
    bytes: u64,
}

/// Large contents that stay, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct Kept {
    /// In words
    why: String,
    /// Contents
    objects: u64,
    /// Their bytes
    bytes: u64,
}

/// A large content.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct LargeFile {
    /// `<root>/path`, the latest name that it had, lossy
    path: String,
    /// The exact bytes in base64, if something was lost
    path_b64: Option<String>,
    /// Its SHA-256
    object: String,
    /// Its bytes
    bytes: u64,
    /// Whether the latest snapshot has it
    is_current: bool,
    /// The remotes that are known to have it
    remotes: Vec<String>,
}

/// A directory with large contents.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it documents a type of core")]
pub struct LargeDirectory {
    /// `<root>/path`, lossy
    path: String,
    /// The exact bytes in base64, if something was lost
    path_b64: Option<String>,
    /// Large contents directly in it, of all snapshots
    objects: u64,
    /// Their bytes
    bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::super::tests::fits;
    use super::*;
    use backupbot_core::keeping;

    #[test]
    fn the_shapes_are_those_of_what_core_says() {
        let mut scrubbed = keeping::scrubs::Scrubbed::begin("documents", Some("usb"), "1%");
        scrubbed.named.push("x".into());
        scrubbed.suspects.push("y".into());
        scrubbed.order = Some(7);
        fits::<Scrubbed>(scrubbed);
        let amount = keeping::prune::Amount::default();
        fits::<Amount>(amount);
        fits::<Kept>(keeping::prune::Kept { why: "x".into(), amount });
        let path_b64 = Some("eA==".to_owned());
        fits::<LargeFile>(keeping::report::LargeFile {
            path: "x".into(),
            path_b64: path_b64.clone(),
            object: "y".into(),
            bytes: 1,
            is_current: true,
            remotes: Vec::new(),
        });
        fits::<LargeDirectory>(keeping::report::LargeDirectory { path: "x".into(), path_b64, amount });
    }
}
