//! What canonical requests towards backends are made of: lines of headers, queries, hexadecimal.

use crate::percent::encode_into;

/// A 32-byte digest in hexadecimal.
pub(crate) struct Hex([u8; 64]);

impl Hex {
    pub(crate) fn new(bytes: &[u8; 32]) -> Self {
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

/// Room for what is signed of most requests, so that it is written without being moved.
pub(crate) const MOST_TEXTS: usize = 1024;

/// A line.
pub(crate) fn line_into(line: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

/// `name:value` and a line end.
pub(crate) fn header_into(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The pairs of a query in the order given, encoded. `equals`: whether an empty value keeps its `=`.
pub(crate) fn query_into(query: &[(&str, &str)], equals: bool, out: &mut Vec<u8>) {
    for (at, (name, value)) in query.iter().enumerate() {
        if at > 0 {
            out.push(b'&');
        }
        encode_into(name, b"", out);
        if equals || !value.is_empty() {
            out.push(b'=');
        }
        encode_into(value, b"", out);
    }
}
