//! What the signatures of object stores share: a request as borrowed parts, the time as they write it, and the key of a day.
//!
//! [`crate::oss`] and [`crate::aws4`] sign with it. Which headers and which query a request has is the caller's: it signs what it
//! sends. Whatever is signed with an unsigned payload says so in its headers; hashing bodies is left out, as they are streamed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

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
        let (year, month, day) = civil(unix_seconds / 86_400);
        let second = unix_seconds % 86_400;
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

/// Year, month and day of a day since the epoch (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year + era * 400 + u64::from(month <= 2), month, day)
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

/// 32 bytes in hexadecimal, in lower case.
pub(crate) struct Hex([u8; 64]);

impl Hex {
    fn new(bytes: &[u8; 32]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal is ASCII")
    }
}

// === what is written ===

impl Request<'_> {
    /// Appends bucket and key as a path, encoded as both dialects sign it: unreserved characters (RFC 3986 §2.3) and `/` stay.
    pub fn path_into(&self, out: &mut Vec<u8>) {
        out.push(b'/');
        out.extend_from_slice(self.bucket.as_bytes());
        out.push(b'/');
        encode(self.key, |byte| is_unreserved(byte) || byte == b'/', out);
    }

    /// Appends the query, encoded. `equals` says whether a name without a value keeps its `=`.
    pub fn query_into(&self, equals: bool, out: &mut Vec<u8>) {
        for (at, (name, value)) in self.query.iter().enumerate() {
            if at > 0 {
                out.push(b'&');
            }
            encode(name, is_unreserved, out);
            if equals || !value.is_empty() {
                out.push(b'=');
            }
            encode(value, is_unreserved, out);
        }
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn encode(text: &str, keep: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if keep(byte) {
            out.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
        }
    }
}

/// Appends `name:value` and a line feed.
pub(crate) fn header_into(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    out.extend_from_slice(value);
    out.push(b'\n');
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
