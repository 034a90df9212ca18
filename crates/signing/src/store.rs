//! What the signatures of object stores share: a request as borrowed parts, the time as they write it, and the key of a day.
//!
//! [`crate::oss`] and [`crate::aws4`] sign with it. Which headers and which query a request has is the caller's: it signs what it
//! sends. Whatever is signed with an unsigned payload says so in its headers; hashing bodies is left out, as they are streamed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::{
    Utc,
    lines::{Hex, query_into},
    percent::encode_into,
};

/// What a request to an object store says, as far as it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// In upper case.
    pub method: &'a str,
    /// The bucket.
    pub bucket: &'a str,
    /// The object's key, decoded; empty for the bucket itself.
    pub key: &'a str,
    /// Names and values of the query, decoded, sorted by name. An empty value is none.
    pub query: &'a [(&'a str, &'a str)],
    /// Names in lower case and values, sorted by name; each name once.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// A second of UTC, as signatures write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u8; 16]);

/// The key that requests of one day are signed with, for one access key, region and service.
///
/// To derive it costs four HMACs; to sign with it, one. `Debug` prints none of it.
#[derive(Clone)]
pub struct DayKey {
    /// `20261123/cn-hangzhou/oss/aliyun_v4_request`.
    scope: String,
    keyed: Hmac<Sha256>,
}

/// What the members of the V4 family differ in when a key is derived.
pub(crate) struct Family {
    /// Written before the secret.
    pub(crate) prefix: &'static str,
    pub(crate) service: &'static str,
    /// The end of the scope.
    pub(crate) terminator: &'static str,
}

// === impl Stamp ===

impl Stamp {
    /// The time that is so many seconds after the epoch; from the year 10,000 on, the year's last four digits.
    pub fn new(unix_seconds: u64) -> Self {
        let Utc {
            year,
            month,
            day,
            second,
            ..
        } = Utc::at(unix_seconds, 0);
        let mut text = *b"00000000T000000Z";
        digits(&mut text[..4], year);
        digits(&mut text[4..6], month);
        digits(&mut text[6..8], day);
        digits(&mut text[9..11], second / 3600);
        digits(&mut text[11..13], second / 60 % 60);
        digits(&mut text[13..15], second % 60);
        Self(text)
    }

    /// `20261123T000000Z`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it is made of digits and letters")
    }

    /// `20261123`.
    pub fn day(&self) -> &str {
        &self.as_str()[..8]
    }
}

/// Writes a number to fill the place, its last digits if there are more.
fn digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit is small");
        number /= 10;
    }
}

// === impl DayKey ===

impl DayKey {
    pub(crate) fn derive(family: &Family, secret: &str, day: &str, region: &str) -> Self {
        let Family {
            prefix,
            service,
            terminator,
        } = family;
        let mut key = keyed(format!("{prefix}{secret}").as_bytes());
        for step in [day, region, service, terminator] {
            key.update(step.as_bytes());
            key = keyed(&key.finalize().into_bytes());
        }
        Self {
            scope: format!("{day}/{region}/{service}/{terminator}"),
            keyed: key,
        }
    }

    /// Whether requests of this time are signed with it.
    pub fn serves(&self, stamp: &Stamp) -> bool {
        self.scope.starts_with(stamp.day())
    }

    /// Day, region, service and terminator, as in `Credential`.
    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    /// The signature, in hexadecimal, of a canonical request.
    pub(crate) fn sign(&self, algorithm: &str, stamp: &Stamp, canonical: &[u8]) -> Hex {
        let mut mac = self.keyed.clone();
        for piece in [algorithm, "\n", stamp.as_str(), "\n", &self.scope, "\n"] {
            mac.update(piece.as_bytes());
        }
        mac.update(
            Hex::new(&Sha256::digest(canonical).into())
                .as_str()
                .as_bytes(),
        );
        Hex::new(&mac.finalize().into_bytes().into())
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

impl std::fmt::Debug for DayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DayKey({}, redacted)", self.scope)
    }
}

// === what is written ===

impl Request<'_> {
    /// How every canonical request begins: method, path and query, a line each.
    pub(crate) fn first_lines(&self, equals: bool) -> Vec<u8> {
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(self.method.as_bytes());
        text.push(b'\n');
        self.path_into(&mut text);
        text.push(b'\n');
        self.query_into(equals, &mut text);
        text.push(b'\n');
        text
    }

    /// Appends bucket and key as a path, encoded as both dialects sign it: unreserved characters (RFC 3986 §2.3) and `/` stay.
    pub fn path_into(&self, out: &mut Vec<u8>) {
        out.push(b'/');
        out.extend_from_slice(self.bucket.as_bytes());
        out.push(b'/');
        encode_into(self.key, b"/", out);
    }

    /// Appends the query, encoded. `equals` says whether a name without a value keeps its `=`.
    pub fn query_into(&self, equals: bool, out: &mut Vec<u8>) {
        query_into(self.query, equals, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_utc() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_795_392_000, "20261123T000000Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(Stamp::new(seconds).as_str(), expected);
        }
    }

    #[test]
    fn a_key_serves_its_day_and_shows_no_secret() {
        let family = Family {
            prefix: "P",
            service: "s",
            terminator: "end",
        };
        let key = DayKey::derive(&family, "MySecret", "20261123", "r");
        assert!(key.serves(&Stamp::new(1_795_392_000)));
        assert!(key.serves(&Stamp::new(1_795_392_000 + 86_399)));
        assert!(!key.serves(&Stamp::new(1_795_392_000 + 86_400)));
        assert!(!key.serves(&Stamp::new(1_795_392_000 - 1)));
        assert_eq!(format!("{key:?}"), "DayKey(20261123/r/s/end, redacted)");
    }
}
