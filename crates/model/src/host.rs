//! Host names: of requests, and the patterns that groups bind.

use std::{fmt, str::FromStr};

/// A host name that a group answers to: `api.example.com`, or `*.api.example.com` for every name with exactly one more label.
/// Exact patterns order before wildcards, which is also their precedence.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This name, lower case.
    Exact(Box<str>),
    /// One label in front of this name, lower case, without the `*.`.
    Wildcard(Box<str>),
}

/// Why a text is not a host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// Longer than 253 bytes, or empty (RFC 1035 §2.3.4).
    #[error("a host name has 1 to 253 characters")]
    Length,
    /// A label that is empty, too long, or has a character a host name may not have (RFC 1123 §2.1).
    #[error(
        "`{0}` is not a host name: labels have 1 to 63 letters, digits or `-`, and neither begin nor end with `-`"
    )]
    Label(String),
    /// A `*` elsewhere than as the whole first label.
    #[error("`*` may only be the whole first label, as in `*.api.example.com`")]
    Wildcard,
    /// A wildcard with fewer than two labels behind it.
    #[error("a wildcard needs at least two labels behind it, as in `*.example.com`")]
    WildcardTooWide,
}

// === impl HostPattern ===

impl HostPattern {
    /// Whether a normalised host (see [`normalise_host`]) matches. A wildcard stands for exactly one label (RFC 6125 §6.4.3).
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Wildcard(suffix) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == &**suffix),
        }
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        if text.is_empty() || text.len() > 253 {
            return Err(InvalidHost::Length);
        }
        let lower = text.to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (lower.as_str(), false),
        };
        if name.contains('*') {
            return Err(InvalidHost::Wildcard);
        }
        if let Some(label) = name.split('.').find(|label| !is_label(label)) {
            return Err(InvalidHost::Label(label.to_owned()));
        }
        if wildcard && !name.contains('.') {
            return Err(InvalidHost::WildcardTooWide);
        }
        Ok(if wildcard {
            Self::Wildcard(name.into())
        } else {
            Self::Exact(name.into())
        })
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHost;

    fn try_from(text: String) -> Result<Self, InvalidHost> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(host: HostPattern) -> Self {
        host.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The host of a request's authority: without port, without a trailing dot. `None` when it is not a host name, an IPv4 address or a
/// bracketed IPv6 address, optionally followed by `:port` (RFC 9110 §7.2). The caller lower-cases; this borrows.
pub fn normalise_host(authority: &str) -> Option<&str> {
    let host = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, tail) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            is_port(tail).then_some(())?;
            return Some(&authority[..address.len() + 2]);
        }
        None => match authority.split_once(':') {
            Some((host, port)) => {
                port.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
                (port.len() <= 5).then_some(())?;
                host
            }
            None => authority,
        },
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let well_formed = !host.is_empty() && host.len() <= 253 && host.split('.').all(is_host_label);
    well_formed.then_some(host)
}

fn is_port(tail: &str) -> bool {
    tail.is_empty()
        || tail
            .strip_prefix(':')
            .is_some_and(|port| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()))
}

/// A label of a name that is bound: letters, digits, inner `-`.
fn is_label(label: &str) -> bool {
    is_host_label(label) && !label.starts_with('-') && !label.ends_with('-') && !label.contains('_')
}

/// A label of a name that is looked up: `_` is tolerated, as internal names of services may have it.
fn is_host_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_parse_and_match() {
        let rows = [
            ("api.example.com", "api.example.com", true),
            ("API.Example.com", "api.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("api.example.com", "api.example.org", false),
        ];
        for (pattern, host, expected) in rows {
            assert_eq!(
                pattern.parse::<HostPattern>().unwrap().matches(host),
                expected,
                "{pattern} {host}"
            );
        }
        for bad in [
            "",
            "*",
            "*.com",
            "a.*.com",
            "a b.com",
            "-a.com",
            "a..com",
            "a_b.com",
            "http://a.com",
            "a.com:80",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn authorities_lose_their_port_and_trailing_dot() {
        let rows = [
            ("a.com", Some("a.com")),
            ("a.com:8080", Some("a.com")),
            ("a.com.", Some("a.com")),
            ("a.com:", Some("a.com")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("[::1]x", None),
            ("a@b", None),
            ("a/b", None),
            ("a.com:80:80", None),
            ("a.com:123456", None),
            ("", None),
            (".", None),
            ("a..b", None),
        ];
        for (authority, expected) in rows {
            assert_eq!(normalise_host(authority), expected, "{authority}");
        }
    }
}
