//! Protocols an API may be called over, and the HTTPS policies of a group.

use std::fmt;

/// A protocol between client and gateway (Ref §3.3, `I403PT`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// The two-way channel (Ref §7) and WebSocket pass-through.
    Websocket,
}

/// A set of protocols.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(from = "Vec<Protocol>", into = "Vec<Protocol>")]
pub struct Protocols(u8);

/// HTTP versions and TLS floor of a group's custom domains (Ref §8.3). The TLS 1.0 policies are kept apart from the 1.2 one only by
/// name: TLS 1.2 is the floor of all of them here.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum HttpsPolicy {
    /// HTTP/1.1 only; TLS 1.2 and 1.3.
    Http1Tls12,
    /// HTTP/2 and HTTP/1.1; TLS 1.2 only.
    Http2Tls12,
    /// HTTP/2 and HTTP/1.1; TLS 1.2 and 1.3.
    Http2Tls13,
}

// === impl Protocol ===

impl Protocol {
    /// As written in an Api's `request.protocols`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Websocket => "WEBSOCKET",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Protocols ===

impl Protocols {
    /// Whether `protocol` is in the set.
    pub const fn contains(self, protocol: Protocol) -> bool {
        self.0 & (1 << protocol as u8) != 0
    }

    /// The members, in order.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        [Protocol::Http, Protocol::Https, Protocol::Websocket]
            .into_iter()
            .filter(move |&protocol| self.contains(protocol))
    }
}

impl FromIterator<Protocol> for Protocols {
    fn from_iter<I: IntoIterator<Item = Protocol>>(protocols: I) -> Self {
        Self(
            protocols
                .into_iter()
                .fold(0, |set, protocol| set | 1 << protocol as u8),
        )
    }
}

impl From<Vec<Protocol>> for Protocols {
    fn from(protocols: Vec<Protocol>) -> Self {
        protocols.into_iter().collect()
    }
}

impl From<Protocols> for Vec<Protocol> {
    fn from(protocols: Protocols) -> Self {
        protocols.iter().collect()
    }
}

impl fmt::Debug for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
