//! Percent-encoding of what the gateway writes itself, and decoding of what callers wrote.

use std::borrow::Cow;

use paifang_model::percent;

/// Appends `text` to a query or form, escaping everything but unreserved characters (RFC 3986 §2.3).
pub(crate) fn component(text: &str, out: &mut String) {
    percent::escape(text, out, percent::is_unreserved);
}

/// Appends `text` as one path segment: unreserved characters and those sub-delimiters that no server gives a meaning stay.
pub(crate) fn segment(text: &str, out: &mut String) {
    percent::escape(text, out, |byte| {
        percent::is_unreserved(byte) || b"!$'()*,:@".contains(&byte)
    });
}

/// Decodes a component of a query or form: `%XX`, and `+` as a space. `None` when the bytes are not UTF-8 or an escape is
/// incomplete.
pub(crate) fn decode_component(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Some(Cow::Borrowed(text));
    }
    percent::decode(&text.replace('+', " ")).map(Cow::Owned)
}

/// Decodes a path segment: `%XX` only.
pub(crate) fn decode_segment(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    percent::decode(text).map(Cow::Owned)
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
