//! A name for the content of a published group.

use std::{
    fmt,
    io::{self, BufWriter, Write},
};

use sha2::{Digest as _, Sha256};

use crate::wire;

/// The first 128 bits of the SHA-256 of a group's JSON. Equal content has equal digests, in every process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

struct Hashing(Sha256);

// === impl Digest ===

impl Digest {
    /// The digest of `group`.
    ///
    /// # Errors
    /// When it cannot be written as JSON, in words for people. No group that came from JSON fails.
    pub fn of(group: &wire::Group) -> Result<Self, String> {
        let unwritable =
            |error: &dyn fmt::Display| format!("it cannot be written as JSON ({error})");
        let mut out = BufWriter::with_capacity(16 * 1024, Hashing(Sha256::new()));
        serde_json::to_writer(&mut out, group).map_err(|error| unwritable(&error))?;
        let Hashing(hash) = out.into_inner().map_err(|error| unwritable(&error))?;
        Ok(Self(head(&hash.finalize())))
    }
}

/// The first 16 bytes of a SHA-256.
pub(super) fn head(hash: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(hash) {
        *to = *from;
    }
    out
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
