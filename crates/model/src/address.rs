//! Addresses of backends.

use std::{fmt, str::FromStr};

use crate::short;

/// How a backend is spoken to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Plain HTTP; port 80 when none is written.
    Http,
    /// HTTP over TLS; port 443 when none is written.
    Https,
}

/// Scheme, host and port of a backend; never a path (Ref §6.1). Written `https://host:port`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// How to speak.
    pub scheme: Scheme,
    /// Lower-case host name, IPv4 address, or IPv6 address in brackets.
    pub host: Box<str>,
    /// TCP port, never 0.
    pub port: u16,
}

/// Why a text is not a backend address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Neither `http://` nor `https://` in front.
    #[error("`{0}` must begin with http:// or https://")]
    Scheme(String),
    /// A path, query or fragment behind the port.
    #[error("`{0}` must end after host and port: the path belongs to the Api's backend.path")]
    Path(String),
    /// User and password in front of the host.
    #[error("an address may not carry a user or password")]
    Userinfo,
    /// The host is not a name or an address.
    #[error("`{0}` is not a host name or IP address")]
    Host(String),
    /// The port is not between 1 and 65535.
    #[error("`{0}` is not a port between 1 and 65535")]
    Port(String),
}

// === impl Scheme ===

impl Scheme {
    /// Port used when none is written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

// === impl Address ===

impl Address {
    /// `host`, or `host:port` when the port is not the scheme's own: the default `Host` header.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// `host:port` as written in a VPC backend's `addresses`.
    ///
    /// # Errors
    /// When host or port is missing or malformed.
    pub fn from_host_port(scheme: Scheme, text: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = split_port(text)?;
        let port = port.ok_or_else(|| InvalidAddress::Port(String::new()))?;
        Ok(Self {
            scheme,
            host: host.to_ascii_lowercase().into(),
            port,
        })
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else if let Some(rest) = text.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else {
            return Err(InvalidAddress::Scheme(short(text)));
        };
        if rest.contains('@') {
            return Err(InvalidAddress::Userinfo);
        }
        if rest.contains(['/', '?', '#']) {
            return Err(InvalidAddress::Path(short(text)));
        }
        let (host, port) = split_port(rest)?;
        Ok(Self {
            scheme,
            host: host.to_ascii_lowercase().into(),
            port: port.unwrap_or(scheme.default_port()),
        })
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), InvalidAddress> {
    let port_at = match text.rfind(']') {
        Some(end) => text[end..].find(':').map(|at| end + at),
        None => text.find(':'),
    };
    let (host, port) = match port_at {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let host = crate::normalise_host(host)
        .filter(|checked| checked.len() == host.trim_end_matches('.').len())
        .ok_or_else(|| InvalidAddress::Host(short(host)))?;
    let port = port
        .map(|port| {
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            digits
                .then(|| port.parse::<u16>().ok().filter(|&p| p != 0))
                .flatten()
                .ok_or_else(|| InvalidAddress::Port(short(port)))
        })
        .transpose()?;
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_scheme_host_and_port_only() {
        let rows = [
            ("http://a.com", "http://a.com"),
            ("https://A.com:443", "https://a.com"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ];
        for (text, shown) in rows {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in [
            "a.com",
            "ftp://a.com",
            "http://",
            "http://a.com/",
            "http://a.com/x",
            "http://u:p@a.com",
            "http://a.com:0",
            "http://a.com:x",
            "http://a.com:99999",
            "http://a b.com",
            "http://::1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        assert_eq!(
            Address::from_host_port(Scheme::Http, "10.1.2.3:80")
                .unwrap()
                .to_string(),
            "http://10.1.2.3"
        );
        assert!(Address::from_host_port(Scheme::Http, "10.1.2.3").is_err());
    }
}
