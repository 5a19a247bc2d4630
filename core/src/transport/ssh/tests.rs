//! The wire against a real sshd.

use crate::config::{NetworkUrl, Remote, RemoteUrl, Timeouts};
use crate::names::RemoteName;

/// A remote called `nas` at an address.
pub(super) fn remote_at(address: &str) -> (Remote, NetworkUrl) {
    let url = RemoteUrl::parse(address).unwrap();
    let RemoteUrl::Ssh(parts) = url.clone() else { panic!("{address} is no SSH address") };
    let remote = Remote {
        name: RemoteName::new("nas").unwrap(),
        url,
        credentials: None,
        quota: None,
        provider: None,
        region: None,
        lfs_url: None,
        bandwidth: None,
        ca_file: None,
        proxy: None,
        timeouts: Timeouts::default(),
    };
    (remote, parts)
}
