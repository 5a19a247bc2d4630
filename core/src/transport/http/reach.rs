//! Which addresses a server may send us to.
//!
//! An LFS server names the places that objects are stored at, and a server may be anybody's. So that its words cannot
//! make this machine talk to what only this machine reaches (its own services, the router, a cloud's metadata), a
//! place has to be on the public network, or as near as the remote itself is: in comes where the remote's own
//! hosts resolve to, out comes a resolver that gives the client no other addresses. The client connects to what was
//! looked at, so a name that changes its address in between gains nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Addresses of one name that are looked at.
const MOST_ADDRESSES: usize = 16;
/// Where clouds tell a machine its secrets.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// What an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Public,
    /// Networks of one's own, and those that have no place on the public one.
    Private,
    LinkLocal,
    Loopback,
    /// Many receivers, nobody, or a cloud's metadata.
    Never,
}

/// How far a server's words may lead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reach {
    private: bool,
    link_local: bool,
    loopback: bool,
}

impl Reach {
    /// As near as `addresses`, the remote's own. A server on this machine may know its own networks, too.
    pub(crate) fn of(addresses: &[IpAddr]) -> Self {
        let mut reach = Self::default();
        for address in addresses {
            match class_of(*address) {
                Class::Private => reach.private = true,
                Class::LinkLocal => reach.link_local = true,
                Class::Loopback => (reach.loopback, reach.private) = (true, true),
                Class::Public | Class::Never => {}
            }
        }
        reach
    }

    /// Whether an address is within.
    pub(crate) fn has(self, address: IpAddr) -> bool {
        match class_of(address) {
            Class::Public => true,
            Class::Private => self.private,
            Class::LinkLocal => self.link_local,
            Class::Loopback => self.loopback,
            Class::Never => false,
        }
    }

    /// Whether a name is within, as far as it tells: for a proxy, which resolves it where nobody here can look.
    pub(crate) fn has_name(self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.loopback || !(name == "localhost" || name.ends_with(".localhost"))
    }
}

fn class_of(address: IpAddr) -> Class {
    if METADATA.contains(&address) {
        return Class::Never;
    }
    match address {
        IpAddr::V4(address) => class_of_v4(address),
        IpAddr::V6(address) => class_of_v6(address),
    }
}

fn class_of_v4(address: Ipv4Addr) -> Class {
    match address.octets() {
        [0 | 127, ..] => Class::Loopback,
        [169, 254, ..] => Class::LinkLocal,
        [224..=255, ..] => Class::Never,
        [10, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [192, 0, 0 | 2, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Class::Private,
        _ => Class::Public,
    }
}

fn class_of_v6(address: Ipv6Addr) -> Class {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        class_of(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Class::Loopback,
        // An address of the old kind inside one of the new: mapped, compatible, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xff00..=0xffff, ..] => Class::Never,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..]
        | [0x64, 0xff9b, 1, ..]
        | [0x100, 0, 0, 0, ..]
        | [0x2001, 0 | 0xdb8, ..] => Class::Private,
        _ => Class::Public,
    }
}

/// Every address of a name lies where the server may not send us.
#[derive(Debug)]
pub(crate) struct OutOfReach(String);

impl OutOfReach {
    pub(crate) fn new(host: &str) -> Self {
        Self(host.to_owned())
    }
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = crate::transport::said(self.0.as_bytes());
        write!(
            f,
            "{host} is an address inside this machine or its network, and the remote itself is not there"
        )
    }
}

impl std::error::Error for OutOfReach {}

/// Gives a client only addresses that are within a reach.
pub(crate) struct Resolver(pub Reach);

impl Resolver {
    /// For a client.
    pub(crate) fn shared(reach: Reach) -> Arc<Self> {
        Arc::new(Self(reach))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> =
                found.take(MOST_ADDRESSES).filter(|address| reach.has(address.ip())).collect();
            if found.is_empty() {
                return Err(OutOfReach::new(name.as_str()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(addresses: &[&str]) -> Reach {
        Reach::of(&addresses.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn a_server_may_send_us_to_the_public_network_and_as_near_as_it_is_itself() {
        let public = reach(&["140.82.121.3", "2606:50c0::1"]);
        let private = reach(&["192.168.1.5"]);
        let loopback = reach(&["127.0.0.1"]);
        let link_local = reach(&["169.254.7.7"]);
        for (address, allowed) in [
            ("1.1.1.1", [true, true, true, true]),
            ("2606:4700::1", [true, true, true, true]),
            ("192.168.7.7", [false, true, true, false]),
            ("10.0.0.1", [false, true, true, false]),
            ("172.31.0.1", [false, true, true, false]),
            ("172.32.0.1", [true, true, true, true]),
            ("100.64.0.1", [false, true, true, false]),
            ("fd12::1", [false, true, true, false]),
            ("::ffff:10.0.0.1", [false, true, true, false]),
            ("64:ff9b::a00:1", [false, true, true, false]),
            ("2002:a00:1::", [false, true, true, false]),
            ("127.0.0.1", [false, false, true, false]),
            ("0.0.0.0", [false, false, true, false]),
            ("::1", [false, false, true, false]),
            ("::", [false, false, true, false]),
            ("::ffff:127.0.0.1", [false, false, true, false]),
            ("169.254.1.1", [false, false, false, true]),
            ("fe80::1", [false, false, false, true]),
            ("169.254.169.254", [false; 4]),
            ("::ffff:169.254.169.254", [false; 4]),
            ("fd00:ec2::254", [false; 4]),
            ("100.100.100.200", [false; 4]),
            ("255.255.255.255", [false; 4]),
            ("224.0.0.1", [false; 4]),
            ("ff02::1", [false; 4]),
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            let got = [public, private, loopback, link_local].map(|reach| reach.has(parsed));
            assert_eq!(got, allowed, "{address}");
        }
        assert!(!public.has_name("LocalHost.") && !private.has_name("x.localhost"));
        assert!(public.has_name("localhost.example.org") && loopback.has_name("localhost"));
    }

    #[test]
    fn a_name_is_resolved_to_what_is_within_reach_only() {
        let resolve = |reach: Reach| {
            crate::transport::runtime::runtime()
                .unwrap()
                .block_on(Resolver(reach).resolve("localhost".parse().unwrap()))
        };
        let error = resolve(Reach::default()).err().unwrap();
        assert!(error.downcast_ref::<OutOfReach>().is_some(), "{error}");
        assert!(resolve(reach(&["::1"])).unwrap().count() > 0);
    }
}
