//! What an `X-Ca-Nonce` may look like. Whether it was seen before is a store's to know, not ours.

/// The longest nonce accepted, in bytes. Clients send a UUID, 36; the bound keeps the store of seen ones small.
pub const NONCE_MAX_BYTES: usize = 128;

/// An `X-Ca-Nonce` that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNonce {
    /// The header is there and empty.
    #[error("X-Ca-Nonce is empty: send a new UUID with each request")]
    Empty,
    /// More than [`NONCE_MAX_BYTES`].
    #[error("X-Ca-Nonce is longer than {NONCE_MAX_BYTES} bytes: send a UUID")]
    TooLong,
    /// Not UTF-8, or with control characters.
    #[error("X-Ca-Nonce holds characters that are not printable text: send a UUID")]
    NotText,
}

/// Reads a nonce: 1 to [`NONCE_MAX_BYTES`] bytes of UTF-8 without control characters, compared byte for byte.
pub fn parse_nonce(value: &[u8]) -> Result<&str, InvalidNonce> {
    if value.is_empty() {
        return Err(InvalidNonce::Empty);
    }
    if value.len() > NONCE_MAX_BYTES {
        return Err(InvalidNonce::TooLong);
    }
    match str::from_utf8(value) {
        Ok(nonce) if !nonce.contains(char::is_control) => Ok(nonce),
        _ => Err(InvalidNonce::NotText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_and_any_short_text_pass() {
        let uuid = "11111111-2222-3333-4444-555555555555";
        assert_eq!(parse_nonce(uuid.as_bytes()), Ok(uuid));
        assert_eq!(parse_nonce("随机 1".as_bytes()), Ok("随机 1"));
        assert!(parse_nonce(&[b'a'; NONCE_MAX_BYTES]).is_ok());
    }

    #[test]
    fn empty_long_and_unprintable_ones_are_refused() {
        assert_eq!(parse_nonce(b""), Err(InvalidNonce::Empty));
        assert_eq!(
            parse_nonce(&[b'a'; NONCE_MAX_BYTES + 1]),
            Err(InvalidNonce::TooLong)
        );
        assert_eq!(parse_nonce(b"a\tb"), Err(InvalidNonce::NotText));
        assert_eq!(parse_nonce(b"\xff"), Err(InvalidNonce::NotText));
    }
}
