//! An AppSecret made ready for use, and the two algorithms that use it.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

/// The longest signature in Base64: 32 bytes make 44 characters.
const SIGNATURE_MAX_CHARS: usize = 44;

/// An AppSecret as two HMAC states that have already taken the key in, so that a request pays for its own bytes only.
///
/// The secret's UTF-8 bytes are the key, neither hex- nor Base64-decoded (Ref §1.6). Clone and compare nothing else:
/// the secret cannot be read back, and `Debug` prints none of it.
#[derive(Clone)]
pub struct Key {
    sha256: Hmac<Sha256>,
    sha1: Hmac<Sha1>,
    /// 1 for a caller's key, 0 for [`Key::dummy`].
    genuine: u8,
}

/// How the signature was made: `X-Ca-Signature-Method` (Ref §1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `HmacSHA256`, also when the header is absent.
    #[default]
    HmacSha256,
    /// `HmacSHA1`; only for APIs whose `signatureMethods` allow it.
    HmacSha1,
}

/// An `X-Ca-Signature-Method` that is neither of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("X-Ca-Signature-Method must be HmacSHA256 or HmacSHA1")]
pub struct InvalidAlgorithm;

// === impl Key ===

impl Key {
    /// Takes any secret in, of any length; an empty one is the caller's to refuse.
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        let secret = secret.as_ref();
        Self {
            sha256: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"),
            sha1: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"),
            genuine: 1,
        }
    }

    /// The key to verify with when the AppKey is unknown: [`verify`](crate::verify) then does all the work that it
    /// does for a known one and always answers a mismatch, so time does not tell which AppKeys exist.
    pub fn dummy() -> &'static Self {
        static DUMMY: LazyLock<Key> = LazyLock::new(|| Key {
            genuine: 0,
            ..Key::new("")
        });
        &DUMMY
    }

    /// The signature of `text` in Base64: 44 characters with SHA-256, 28 with SHA-1.
    pub fn sign(&self, algorithm: Algorithm, text: impl AsRef<[u8]>) -> String {
        let text = text.as_ref();
        match algorithm {
            Algorithm::HmacSha256 => STANDARD.encode(digest(&self.sha256, text)),
            Algorithm::HmacSha1 => STANDARD.encode(digest(&self.sha1, text)),
        }
    }

    /// The HMAC-SHA256 of `text`, raw.
    pub(crate) fn hmac_sha256(&self, text: &[u8]) -> [u8; 32] {
        digest(&self.sha256, text).into()
    }

    /// Whether `claimed` is the signature of `text`, in time that does not depend on where the bytes differ.
    pub(crate) fn signed(&self, text: &[u8], claimed: &Claimed) -> bool {
        let equal = match claimed.algorithm {
            Algorithm::HmacSha256 => digest(&self.sha256, text).ct_eq(&claimed.bytes[..32]),
            Algorithm::HmacSha1 => digest(&self.sha1, text).ct_eq(&claimed.bytes[..20]),
        };
        bool::from(equal & Choice::from(claimed.well_formed) & Choice::from(self.genuine))
    }
}

fn digest<M: Mac + Clone>(keyed: &M, text: &[u8]) -> hmac::digest::Output<M> {
    let mut mac = keyed.clone();
    mac.update(text);
    mac.finalize().into_bytes()
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

// === impl Algorithm ===

impl Algorithm {
    /// The name as it stands in `X-Ca-Signature-Method`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "HmacSHA256",
            Self::HmacSha1 => "HmacSHA1",
        }
    }

    /// Reads an optional `X-Ca-Signature-Method`; absent means `HmacSHA256` (Ref §1.2).
    pub fn from_header(value: Option<&[u8]>) -> Result<Self, InvalidAlgorithm> {
        match value {
            None => Ok(Self::default()),
            Some(b"HmacSHA256") => Ok(Self::HmacSha256),
            Some(b"HmacSHA1") => Ok(Self::HmacSha1),
            Some(_) => Err(InvalidAlgorithm),
        }
    }

    const fn signature_bytes(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha1 => 20,
        }
    }
}

impl FromStr for Algorithm {
    type Err = InvalidAlgorithm;

    fn from_str(name: &str) -> Result<Self, InvalidAlgorithm> {
        Self::from_header(Some(name.as_bytes()))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An `X-Ca-Signature` out of its Base64. One that is malformed still goes through the comparison, and fails it.
pub(crate) struct Claimed {
    algorithm: Algorithm,
    bytes: [u8; 36],
    well_formed: u8,
}

impl Claimed {
    /// Only padded standard Base64 of exactly the algorithm's length is well formed.
    pub(crate) fn parse(signature: &[u8], algorithm: Algorithm) -> Self {
        let mut bytes = [0; 36];
        let decoded = match signature.len() <= SIGNATURE_MAX_CHARS {
            true => STANDARD.decode_slice(signature, &mut bytes).ok(),
            false => None,
        };
        let well_formed = u8::from(decoded == Some(algorithm.signature_bytes()));
        Self {
            algorithm,
            bytes,
            well_formed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifies(key: &Key, algorithm: Algorithm, signature: &str) -> bool {
        key.signed(b"text", &Claimed::parse(signature.as_bytes(), algorithm))
    }

    #[test]
    fn a_signature_verifies_with_its_own_algorithm_only() {
        let key = Key::new("MySecret");
        for algorithm in [Algorithm::HmacSha256, Algorithm::HmacSha1] {
            let signature = key.sign(algorithm, "text");
            assert!(verifies(&key, algorithm, &signature));
            assert!(!verifies(&Key::new("mySecret"), algorithm, &signature));
        }
        assert!(!verifies(
            &key,
            Algorithm::HmacSha1,
            &key.sign(Algorithm::HmacSha256, "text")
        ));
        assert!(!verifies(
            &key,
            Algorithm::HmacSha256,
            &key.sign(Algorithm::HmacSha1, "text")
        ));
    }

    #[test]
    fn malformed_base64_never_verifies() {
        let key = Key::new("MySecret");
        let signature = key.sign(Algorithm::HmacSha256, "text");
        for broken in [
            "",
            "=",
            "AAAA",
            signature.trim_end_matches('='),
            &format!("{signature}="),
            &format!(" {signature}"),
        ] {
            assert!(!verifies(&key, Algorithm::HmacSha256, broken), "{broken:?}");
        }
        assert!(!verifies(&key, Algorithm::HmacSha256, &"A".repeat(10_000)));
    }

    #[test]
    fn the_dummy_key_verifies_nothing_not_even_its_own_signature() {
        let signature = Key::dummy().sign(Algorithm::HmacSha256, "text");
        assert!(!verifies(Key::dummy(), Algorithm::HmacSha256, &signature));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        assert_eq!(format!("{:?}", Key::new("MySecret")), "Key(redacted)");
    }

    #[test]
    fn algorithm_names_are_exact() {
        assert_eq!(Algorithm::from_header(None), Ok(Algorithm::HmacSha256));
        assert_eq!("HmacSHA1".parse(), Ok(Algorithm::HmacSha1));
        for wrong in ["", "hmacsha1", "HMAC-SHA256", "HmacSHA256 ", "SHA1"] {
            assert_eq!(
                wrong.parse::<Algorithm>(),
                Err(InvalidAlgorithm),
                "{wrong:?}"
            );
        }
    }
}
