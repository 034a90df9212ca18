//! What is known of a request when it is over: one line of the access log, and the metrics.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use paifang_snapshot::table::{Group, Route};

use crate::{keys::Caller, refusal::Refusal};

/// A request, from its arrival to the last byte of its answer.
#[derive(Clone)]
pub struct Record {
    /// `X-Ca-Request-Id`.
    pub id: RequestId,
    /// When the head was complete.
    pub arrived: SystemTime,
    /// The same, for durations.
    pub started: Instant,
    /// The client's end of the connection.
    pub peer: SocketAddr,
    /// HTTP version.
    pub version: Version,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// The method as sent.
    pub method: Method,
    /// The target as sent. Its query may hold credentials: logs show the path only.
    pub uri: Uri,
    /// The host, once it was understood.
    pub host: Option<String>,
    /// The group, once located.
    pub group: Option<Arc<Group>>,
    /// The route, once located.
    pub route: Option<Arc<Route>>,
    /// The caller, once authenticated.
    pub caller: Option<Arc<Caller>>,
    /// The address of the backend that was asked last.
    pub upstream: Option<SocketAddr>,
    /// How often a backend was asked.
    pub attempts: u32,
    /// How many connections were opened for that.
    pub connections: u32,
    /// When the backend was asked first.
    pub dispatched: Option<Instant>,
    /// When the head of its answer was there.
    pub answered: Option<Instant>,
    /// The status the client got; 499 if it left before there was an answer.
    pub status: StatusCode,
    /// The refusal it got, if the gateway answered by itself.
    pub refusal: Option<Refusal>,
    /// Bytes of the answer's body sent.
    pub sent_bytes: u64,
    /// Bytes that came from the client on an upgraded connection.
    pub received_bytes: Option<u64>,
    /// Whether the answer ended early: the backend broke off, or the client left.
    pub cut: bool,
    /// Whether it was the backend that ended it: it broke off, or took longer than it may.
    pub cut_by_backend: bool,
}

/// Receives every request once it is over.
pub trait Observe {
    /// A request is over.
    fn finished(&self, record: &Record);

    /// Something changed among the connections to backends.
    fn noticed(&self, _change: Change) {}
}

/// What changed among the connections to backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// An endpoint that could not be reached is left out from now on.
    Ejected,
    /// It is not left out any more.
    Returned,
    /// A client and a backend talk past HTTP from now on.
    TunnelOpened,
    /// They do so no more.
    TunnelClosed,
}

/// `X-Ca-Request-Id`: an upper-case UUID of version 4 (Ref §3.1, RFC 9562 §5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

// === impl RequestId ===

impl RequestId {
    /// A new random id.
    pub fn random() -> Self {
        let (high, low) = (fastrand::u64(..), fastrand::u64(..));
        let high = high & !0xf000 | 0x4000;
        let low = low & !(0b11 << 62) | 0b10 << 62;
        let mut text = [b'-'; 36];
        let mut digits = (0..16)
            .map(|at| high >> (60 - 4 * at) & 15)
            .chain((0..16).map(|at| low >> (60 - 4 * at) & 15));
        for (at, slot) in text.iter_mut().enumerate() {
            if !matches!(at, 8 | 13 | 18 | 23) {
                let digit = digits.next().unwrap_or(0);
                *slot = b"0123456789ABCDEF"[digit as usize & 15];
            }
        }
        let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text));
        Self(
            value.unwrap_or_else(|_| {
                HeaderValue::from_static("00000000-0000-4000-8000-000000000000")
            }),
        )
    }

    /// As a header's value; cloning it is cheap.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_upper_case_uuids() {
        let id = RequestId::random();
        let text = id.as_str();
        assert_eq!(text.len(), 36);
        assert_eq!(text.as_bytes()[14], b'4');
        assert!(b"89AB".contains(&text.as_bytes()[19]));
        assert!(
            text.bytes()
                .all(|b| b == b'-' || b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
        );
        assert_ne!(id, RequestId::random());
    }
}
