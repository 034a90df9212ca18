//! A part: bytes, and the name that their hash gives them.

use std::{
    fmt,
    io::{Read as _, Write as _},
    str::FromStr,
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The most bytes of a part before compression. With base64 and an object's metadata it stays below the 1 MiB that a ConfigMap or a
/// Secret may hold, even when nothing can be compressed.
pub const PART_BYTES: usize = 512 * 1024;

/// The first 160 bits of a SHA-256 over a part's bytes before compression, as 40 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(Box<str>);

/// A text that is not a [`struct@Hash`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hash of 40 lower-case hexadecimal digits")]
pub struct InvalidHash(pub String);

/// The parts that one piece is made of, in order; most have one.
pub type Piece = Vec<Hash>;

/// Bytes to publish, with their name.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub hash: Hash,
    /// Before compression; at most [`PART_BYTES`] for pieces of a group or of Apps.
    pub raw: Vec<u8>,
}

/// Why published bytes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPart {
    /// A manifest names it, and it is not there (yet).
    #[error("part {0} is not there")]
    Missing(Hash),
    /// Its bytes are not those that its name stands for.
    #[error("part {0} was altered: its content has another hash")]
    Altered(Hash),
    /// It does not decompress, or to more than a part may have.
    #[error("part {0} cannot be decompressed")]
    Compression(Hash),
    /// It is no JSON of the expected form.
    #[error("part {hash} cannot be read: {error}")]
    Unreadable {
        /// The first part of the piece.
        hash: Hash,
        /// What the parser says.
        error: serde_json::Error,
    },
    /// A manifest that is no JSON of the expected form.
    #[error("the manifest cannot be read: {0}")]
    Manifest(serde_json::Error),
    /// Written by a version that this one does not understand.
    #[error("it has format {0}, and this version reads {now} and the one before", now = crate::wire::FORMAT)]
    Format(u32),
    /// Pieces that do not belong together.
    #[error("its pieces do not fit together: {0}")]
    Inconsistent(&'static str),
}

// === impl Hash ===

impl Hash {
    /// The hash of these bytes.
    pub fn of(raw: &[u8]) -> Self {
        let digest = Sha256::digest(raw);
        let hex = digest.iter().take(20).map(|byte| format!("{byte:02x}"));
        Self(hex.collect::<String>().into())
    }

    /// The 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Hash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 40 && text.as_bytes().iter().all(digit) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidHash(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Hash {
    type Error = InvalidHash;

    fn try_from(text: String) -> Result<Self, InvalidHash> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.0.into()
    }
}

// === impl Part ===

impl Part {
    /// A part of these bytes.
    pub fn new(raw: Vec<u8>) -> Self {
        Self {
            hash: Hash::of(&raw),
            raw,
        }
    }
}

/// Never the bytes: they may be a secret's.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({}, {} bytes)", self.hash, self.raw.len())
    }
}

/// Cuts a piece into parts, which are handed to `put`.
pub(super) fn cut_piece(raw: &[u8], put: &mut impl FnMut(Part)) -> Piece {
    let parts = raw.chunks(PART_BYTES.max(1));
    parts
        .map(|bytes| {
            let part = Part::new(bytes.to_vec());
            let hash = part.hash.clone();
            put(part);
            hash
        })
        .collect()
}

/// A piece put together again from its parts, and parsed.
pub(super) fn read_piece<'p, T: serde::de::DeserializeOwned>(
    piece: &Piece,
    find: &impl Fn(&Hash) -> Option<&'p [u8]>,
) -> Result<T, InvalidPart> {
    let mut whole = Vec::new();
    for hash in piece {
        let raw = find(hash).ok_or_else(|| InvalidPart::Missing(hash.clone()))?;
        check(hash, raw)?;
        whole.extend_from_slice(raw);
    }
    serde_json::from_slice(&whole).map_err(|error| match piece.first() {
        Some(hash) => InvalidPart::Unreadable {
            hash: hash.clone(),
            error,
        },
        None => InvalidPart::Inconsistent("a piece without parts"),
    })
}

pub(super) fn check(hash: &Hash, raw: &[u8]) -> Result<(), InvalidPart> {
    if Hash::of(raw) == *hash {
        Ok(())
    } else {
        Err(InvalidPart::Altered(hash.clone()))
    }
}

/// Values of this crate have string keys and finite numbers: they always are JSON.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The bytes as they are stored.
pub fn pack(raw: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(4));
    // Writing to memory cannot fail.
    let _ = encoder.write_all(raw);
    encoder.finish().unwrap_or_default()
}

/// The bytes of part `hash` as they were before [`pack`].
///
/// # Errors
/// When they do not decompress, are longer than 2 × [`PART_BYTES`], or are not those that the name stands for.
pub fn unpack(hash: &Hash, stored: &[u8]) -> Result<Vec<u8>, InvalidPart> {
    let limit = PART_BYTES * 2;
    let mut raw = Vec::new();
    DeflateDecoder::new(stored)
        .take(limit as u64 + 1)
        .read_to_end(&mut raw)
        .map_err(|_| InvalidPart::Compression(hash.clone()))?;
    if raw.len() > limit {
        return Err(InvalidPart::Compression(hash.clone()));
    }
    check(hash, &raw)?;
    Ok(raw)
}
