//! Percent-encoding of what the gateway writes itself, and decoding of what callers wrote.

use std::borrow::Cow;

/// Appends `text` to a query or form, escaping everything but unreserved characters (RFC 3986 §2.3).
pub(crate) fn component(text: &str, out: &mut String) {
    escape(text, out, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
    });
}

/// Appends `text` as one path segment: unreserved characters and those sub-delimiters that no server gives a meaning stay.
pub(crate) fn segment(text: &str, out: &mut String) {
    escape(text, out, |b| {
        b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b','
                    | b':'
                    | b'@'
            )
    });
}

fn escape(text: &str, out: &mut String, keep: impl Fn(u8) -> bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in text.as_bytes() {
        if keep(b) {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(b >> 4)]));
            out.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
}

/// Decodes a component of a query or form: `%XX`, and `+` as a space. `None` when the bytes are not UTF-8 or an escape is
/// incomplete.
pub(crate) fn decode_component(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Some(Cow::Borrowed(text));
    }
    decode(text, true).map(Cow::Owned)
}

/// Decodes a path segment: `%XX` only.
pub(crate) fn decode_segment(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    decode(text, false).map(Cow::Owned)
}

fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["", "a b", "张三", "a+b&c=d%", "~-._", "/?#[]@", "\u{1f600}"] {
            let mut query = String::new();
            component(text, &mut query);
            assert_eq!(decode_component(&query).unwrap(), text);
            let mut path = String::new();
            segment(text, &mut path);
            assert_eq!(decode_segment(&path).unwrap(), text);
            assert!(!path.contains('/'));
        }
    }

    #[test]
    fn malformed_text_does_not_decode() {
        for text in ["%", "%2", "%zz", "%ff", "a%e5%bc"] {
            assert!(decode_component(text).is_none(), "{text}");
        }
        assert_eq!(decode_component("a+b").unwrap(), "a b");
        assert_eq!(decode_segment("a+b").unwrap(), "a+b");
    }
}
