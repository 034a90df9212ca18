//! Percent-decoding and encoding into a buffer that is already there.

/// True if decoding `text` would change it.
pub(crate) fn is_encoded(text: &[u8]) -> bool {
    memchr::memchr2(b'%', b'+', text).is_some()
}

/// Appends `text` percent-encoded, but for unreserved characters (RFC 3986 §2.3) and those in `also`.
pub(crate) fn encode_into(text: &str, also: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            out.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
        }
    }
}

/// Appends a name or value of a query or a form decoded, `+` as a space. A `%` that two hex digits do not follow stays
/// as it is; the result may be invalid UTF-8.
pub(crate) fn decode_into(text: &[u8], out: &mut Vec<u8>) {
    if !is_encoded(text) {
        out.extend_from_slice(text);
        return;
    }
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, escaped(tail)) {
            (b'+', _) => out.push(b' '),
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &tail[2..];
            }
            (other, _) => out.push(*other),
        }
    }
}

/// Appends a path decoded once, as the classic gateway does (Ref §1.3): `%2F` and `%5C` stay as they are spelt, `+`
/// stays `+`. False, with `out` as it was, if an escape is malformed or the result is not UTF-8: no client of the
/// protocol signs such a path decoded.
pub(crate) fn decode_path_into(path: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let decoded = try_decode_path(path, out) && str::from_utf8(&out[start..]).is_ok();
    if !decoded {
        out.truncate(start);
    }
    decoded
}

fn try_decode_path(path: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        match escaped(tail) {
            None => return false,
            Some(b'/' | b'\\') => out.extend_from_slice(&[b'%', tail[0], tail[1]]),
            Some(byte) => out.push(byte),
        }
        rest = &tail[2..];
    }
    true
}

/// The byte that the two hex digits at the start of `tail` spell.
fn escaped(tail: &[u8]) -> Option<u8> {
    let [high, low, ..] = tail else { return None };
    Some(hex(*high)? << 4 | hex(*low)?)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        decode_into(text.as_bytes(), &mut out);
        out
    }

    fn path(text: &str) -> Option<String> {
        let mut out = b"kept".to_vec();
        let decoded = decode_path_into(text.as_bytes(), &mut out);
        assert!(out.starts_with(b"kept") && (decoded || out.len() == 4));
        decoded.then(|| String::from_utf8(out[4..].to_vec()).unwrap())
    }

    #[test]
    fn a_query_value_is_decoded_leniently() {
        assert_eq!(query("%E5%BC%A0+%e4%b8%89"), "张 三".as_bytes());
        assert_eq!(query("100%"), b"100%");
        assert_eq!(query("%4"), b"%4");
        assert_eq!(query("%zz%41"), b"%zzA");
        assert_eq!(query("%ff"), b"\xff");
        assert_eq!(query("%%34"), b"%4");
        assert_eq!(query(""), b"");
    }

    #[test]
    fn a_path_is_decoded_once_and_keeps_encoded_separators() {
        assert_eq!(
            path("/users/%E5%BC%A0/a%20b").as_deref(),
            Some("/users/张/a b")
        );
        assert_eq!(
            path("/a%2Fb%2fc%5Cd%5ce").as_deref(),
            Some("/a%2Fb%2fc%5Cd%5ce")
        );
        assert_eq!(path("/a+b").as_deref(), Some("/a+b"));
        assert_eq!(path("/a%2541").as_deref(), Some("/a%41"));
    }

    #[test]
    fn a_path_that_cannot_be_decoded_is_left_alone() {
        assert_eq!(path("/a%"), None);
        assert_eq!(path("/a%4"), None);
        assert_eq!(path("/a%g0"), None);
        assert_eq!(path("/a%ff"), None);
    }
}
