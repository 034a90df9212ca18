//! `Content-MD5`: the one thing that covers a body which is not a form (Ref §1.3).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Digest as _;

/// A body's MD5, taken while the body passes by.
///
/// MD5 is what the protocol asks for. It finds damage and careless changes; against a forger the value is as good as
/// the signature over the header that carries it.
#[derive(Clone, Default)]
pub struct Md5 {
    state: md5::Md5,
    seen_any: bool,
}

/// Base64 of the 16 raw MD5 bytes, always 24 characters (Ref §1.3). The Java SDK cuts anything longer to 24, which
/// this never is.
pub fn content_md5(body: &[u8]) -> String {
    STANDARD.encode(md5::Md5::digest(body))
}

// === impl Md5 ===

impl Md5 {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the body in.
    pub fn update(&mut self, piece: &[u8]) {
        self.seen_any |= !piece.is_empty();
        self.state.update(piece);
    }

    /// Whether the bytes read are those that a `Content-MD5` value names. An empty body matches no value, not even
    /// its own digest, as Ref §1.4 step 8 says.
    pub fn matches(self, content_md5: &[u8]) -> bool {
        let mut claimed = [0; 18];
        let decoded = match content_md5.len() == 24 {
            true => STANDARD.decode_slice(content_md5, &mut claimed).ok(),
            false => None,
        };
        self.seen_any && decoded == Some(16) && claimed[..16] == self.state.finalize()[..]
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Md5").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"hello":"世界"}"#;
    const VALUE: &str = "Aulw/A6cvXyhaQxbZTIGCQ==";

    fn read(pieces: &[&[u8]]) -> Md5 {
        let mut md5 = Md5::new();
        pieces.iter().for_each(|piece| md5.update(piece));
        md5
    }

    #[test]
    fn the_value_of_the_official_vectors() {
        assert_eq!(content_md5(BODY.as_bytes()), VALUE);
        assert_eq!(content_md5(br#"{"a":1}"#), "u2y1xo30ZSlByvZSo2by2A==");
    }

    #[test]
    fn pieces_make_the_same_value_as_the_whole() {
        let (head, tail) = BODY.as_bytes().split_at(7);
        assert!(read(&[head, b"", tail]).matches(VALUE.as_bytes()));
        assert!(!read(&[tail, head]).matches(VALUE.as_bytes()));
    }

    #[test]
    fn any_other_value_is_refused() {
        for wrong in [
            "",
            "Aulw/A6cvXyhaQxbZTIGCQ",
            "aulw/A6cvXyhaQxbZTIGCQ==",
            "Aulw/A6cvXyhaQxbZTIGCQ== ",
            "02e970fc0e9cbd7ca1690c5b65320609",
        ] {
            assert!(
                !read(&[BODY.as_bytes()]).matches(wrong.as_bytes()),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn an_empty_body_matches_nothing() {
        assert!(!read(&[b""]).matches(content_md5(b"").as_bytes()));
    }
}
