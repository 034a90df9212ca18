//! Which addresses a backend may have, judged after DNS, at every connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Loopback, link-local, the cloud providers' metadata addresses, and what is no host's address at all are refused unless a network
/// that contains them is allowed here.
#[derive(Debug, Clone, Default)]
pub struct BackendPolicy {
    /// Networks allowed in spite of the rule.
    pub allowed: Vec<IpNet>,
}

/// Metadata services outside the link-local networks: Alibaba Cloud's, Azure's, Oracle's, and over IPv6 AWS's and Google's.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

// === impl BackendPolicy ===

impl BackendPolicy {
    /// Loopback allowed, as on a laptop.
    pub fn with_loopback() -> Self {
        let allowed = [
            IpNet::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
            IpNet::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ];
        Self {
            allowed: allowed.into_iter().flatten().collect(),
        }
    }

    /// Whether a connection to `address` may be made. An IPv4 address inside an IPv6 one is judged as IPv4.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = plain(address);
        !is_special(address)
            || self
                .allowed
                .iter()
                .any(|network| network.contains(&address))
    }
}

fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            // IPv4-compatible (RFC 4291 §2.5.5.1) and NAT64 (RFC 6052) forms end in an IPv4 address.
            None => embedded(v6).map_or(address, IpAddr::V4),
        },
        IpAddr::V4(_) => address,
    }
}

fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = v6.segments();
    let compatible = segments[..6] == [0; 6] && segments[6] != 0;
    let nat64 = segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    (compatible || nat64).then(|| {
        let [a, b] = segments[6].to_be_bytes();
        let [c, d] = segments[7].to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    })
}

fn is_special(address: IpAddr) -> bool {
    METADATA.contains(&address)
        || match address {
            IpAddr::V4(v4) => {
                v4.is_loopback()
                    || v4.is_link_local()
                    || v4.is_multicast()
                    || v4.is_broadcast()
                    || v4.octets()[0] == 0
            }
            IpAddr::V6(v6) => {
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused_in_every_spelling() {
        let policy = BackendPolicy::default();
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "168.63.129.16",
            "192.0.0.192",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(!policy.allows(text.parse().unwrap()), "{text}");
        }
        for text in [
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "2001:db8::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(policy.allows(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn loopback_can_be_allowed_alone() {
        let policy = BackendPolicy::with_loopback();
        assert!(policy.allows("127.0.0.1".parse().unwrap()));
        assert!(policy.allows("::1".parse().unwrap()));
        assert!(!policy.allows("169.254.169.254".parse().unwrap()));
    }
}
