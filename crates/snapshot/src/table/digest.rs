//! A name for the content of a published group.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use sha2::{Digest as _, Sha256};

use crate::wire;

/// The first 128 bits of a SHA-256 over a group's content. Equal content has equal digests, different content different ones; only
/// within one build of this program, as it is made of values in memory rather than of a text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

/// Gathers the many small writes of [`Hash`].
struct Hashing {
    hash: Sha256,
    buffer: [u8; 1024],
    used: usize,
}

// === impl Digest ===

impl Digest {
    /// The digest of `group`.
    pub fn of(group: &wire::Group) -> Self {
        let mut hashing = Hashing {
            hash: Sha256::new(),
            buffer: [0; 1024],
            used: 0,
        };
        group.hash(&mut hashing);
        hashing.flush();
        Self(head(&hashing.hash.finalize()))
    }
}

// === impl Hashing ===

impl Hashing {
    fn flush(&mut self) {
        self.hash.update(&self.buffer[..self.used]);
        self.used = 0;
    }
}

impl Hasher for Hashing {
    fn write(&mut self, bytes: &[u8]) {
        if bytes.len() > self.buffer.len() - self.used {
            self.flush();
        }
        match self.buffer.get_mut(self.used..self.used + bytes.len()) {
            Some(free) => {
                free.copy_from_slice(bytes);
                self.used += bytes.len();
            }
            None => self.hash.update(bytes),
        }
    }

    /// Nobody asks: the whole hash is taken.
    fn finish(&self) -> u64 {
        0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_any_length_are_hashed_in_order() {
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut hashing = Hashing {
            hash: Sha256::new(),
            buffer: [0; 1024],
            used: 0,
        };
        let mut rest = &bytes[..];
        for length in [1, 1022, 1, 1, 1024, 1025, 3000, 8, 1023, 2]
            .into_iter()
            .cycle()
        {
            let (part, after) = rest.split_at(length.min(rest.len()));
            hashing.write(part);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        hashing.flush();
        assert_eq!(hashing.hash.finalize(), Sha256::digest(&bytes));
    }
}
