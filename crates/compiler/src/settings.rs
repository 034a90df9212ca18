//! What the platform team decides: suffixes, allowed domains and addresses, limits.

use std::{collections::BTreeMap, net::IpAddr};

use paifang_snapshot::wire::Certificate;

/// The platform team's settings, as far as compile needs them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Behind the group id of a public sub-domain, without a leading dot.
    pub public_suffix: String,
    /// Behind the group id of an internal sub-domain, without a leading dot.
    pub internal_suffix: String,
    /// Domain suffixes that a namespace may bind (`example.com` allows itself and every name below). A namespace that is not here
    /// may bind what [`Settings::default_domain_suffixes`] says.
    pub domain_suffixes: BTreeMap<String, Vec<String>>,
    /// Suffixes of the other namespaces; `None` means any domain.
    pub default_domain_suffixes: Option<Vec<String>>,
    /// Addresses that a backend may have when it is written as an IP address. The gateway checks again after DNS.
    pub addresses: AddressPolicy,
    /// Limits of Ref §10.
    pub limits: Limits,
    /// Checks PEM material: that chain, key and CA can be read, and that key and leaf belong together. Only the parts that are
    /// present are to be checked. Cryptography stays outside of this crate; without a check nothing could be accepted.
    pub check_certificate: fn(&Certificate) -> Result<CertificateFacts, String>,
}

/// What is known about a checked certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// DNS names of the leaf, lower case, wildcards as `*.example.com`. Empty means unknown: names are not compared.
    pub names: Vec<String>,
    /// End of the leaf's validity, milliseconds since the epoch.
    pub not_after_ms: Option<i64>,
}

/// Special addresses that backends may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressPolicy {
    /// 127.0.0.0/8, ::1 and `localhost`.
    pub loopback: bool,
    /// Link-local and cloud metadata addresses.
    pub link_local: bool,
}

/// Counts and sizes, with the defaults of Ref §10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Domains of one group, wildcards included.
    pub domains_per_group: usize,
    /// Apis of one group.
    pub apis_per_group: usize,
    /// Stage variables of one stage of a group.
    pub variables_per_stage: usize,
    /// A certificate chain, a key, a CA bundle: bytes each.
    pub pem_bytes: usize,
    /// Longest timeout of an Api's backend, milliseconds.
    pub backend_timeout_ms: u32,
}

// === impl Settings ===

impl Settings {
    /// The defaults of Ref §10 and product.md, with this check of certificates.
    pub fn new(check_certificate: fn(&Certificate) -> Result<CertificateFacts, String>) -> Self {
        Self {
            public_suffix: "api.localtest".to_owned(),
            internal_suffix: "internal.localtest".to_owned(),
            domain_suffixes: BTreeMap::new(),
            default_domain_suffixes: None,
            addresses: AddressPolicy::default(),
            limits: Limits::default(),
            check_certificate,
        }
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            domains_per_group: 5,
            apis_per_group: 1_000,
            variables_per_stage: 50,
            pem_bytes: 20 * 1024,
            backend_timeout_ms: 30_000,
        }
    }
}

// === impl AddressPolicy ===

impl AddressPolicy {
    /// Why `host` (a name, an IPv4 address, or an IPv6 address in brackets) may not be a backend's, as words; `None` when it may.
    pub fn refusal(self, host: &str) -> Option<&'static str> {
        if !self.loopback && (host == "localhost" || host.ends_with(".localhost")) {
            return Some("a loopback address");
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        self.refusal_of_ip(bare.parse().ok()?)
    }

    /// The same for an IP address. An IPv4 address inside an IPv6 one counts as itself.
    pub fn refusal_of_ip(self, address: IpAddr) -> Option<&'static str> {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() {
            return Some("not an address of a host");
        }
        if address.is_loopback() {
            return (!self.loopback).then_some("a loopback address");
        }
        let special = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.octets() == [100, 100, 100, 200],
            IpAddr::V6(v6) => {
                v6.is_unicast_link_local() || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
            }
        };
        (special && !self.link_local).then_some("a link-local or cloud metadata address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_need_a_setting() {
        let closed = AddressPolicy::default();
        let open = AddressPolicy {
            loopback: true,
            link_local: true,
        };
        for host in [
            "127.0.0.1",
            "[::1]",
            "localhost",
            "a.localhost",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "100.100.100.200",
            "[fe80::1]",
            "[fd00:ec2::254]",
        ] {
            assert!(closed.refusal(host).is_some(), "{host}");
            assert!(open.refusal(host).is_none(), "{host}");
        }
        for host in ["0.0.0.0", "[::]", "224.0.0.1"] {
            assert!(open.refusal(host).is_some(), "{host}");
        }
        for host in [
            "10.0.0.1",
            "a.example.com",
            "[2001:db8::1]",
            "localhost.example.com",
        ] {
            assert!(closed.refusal(host).is_none(), "{host}");
        }
    }
}
