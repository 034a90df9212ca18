//! What may stand in a header (RFC 9110 §5).

/// Whether `text` is a field name: one or more `tchar` (RFC 9110 §5.6.2).
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether `text` may be sent as a field value: no control characters but the tab, and no space at either end (RFC 9110 §5.5).
pub(super) fn is_value(text: &str) -> bool {
    text.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f))
        && !text.starts_with([' ', '\t'])
        && !text.ends_with([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_and_values_have_no_controls() {
        for good in ["a", "X-Ca-Key", "x_y", "!#$%&'*+-.^_`|~"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a b", "a:", "é", "a\r\nb"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        for good in ["", "a b", "a\tb", "天气"] {
            assert!(is_value(good), "{good}");
        }
        for bad in ["a\r\nX: y", "\0", "\x7f", " a", "a\t"] {
            assert!(!is_value(bad), "{bad:?}");
        }
    }
}
