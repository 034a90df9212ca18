//! Which object a path names, if any.

use paifang_model::percent;

use crate::{clean::head::is_dot_segment, refusal::Refusal};

/// The longest key, in bytes: OSS's limit; S3's is one more.
const MOST: usize = 1023;

/// The decoded key of the object at a path that the Api's template wrote.
///
/// What stores that keep objects in files could read as another object is refused: dot segments, empty segments but for the last,
/// backslashes, control characters. So is a slash that came escaped: to a store it is a slash, and a parameter is one segment. A
/// path without a key means the bucket itself, which nobody is to reach.
///
/// # Errors
/// The refusal that the caller gets.
pub(super) fn of_path(path: &str) -> Result<String, Refusal> {
    let refuse = |what: &str| Err(Refusal::path(&format!("the object's key {what}")));
    let encoded = path.strip_prefix('/').unwrap_or(path);
    if encoded.is_empty() {
        return refuse("is empty");
    }
    let has_slash = |escape: &[u8]| matches!(escape, [b'%', b'2', b'F' | b'f']);
    if encoded.as_bytes().windows(3).any(has_slash) {
        return refuse("has an escaped slash");
    }
    let Some(key) = percent::decode(encoded) else {
        return refuse("is not percent-encoded UTF-8");
    };
    let mut segments = key.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return refuse("has an empty segment");
        }
        if is_dot_segment(segment) {
            return refuse("has a dot segment");
        }
    }
    if key.contains(|c: char| c == '\\' || c.is_control()) {
        return refuse("has a backslash or control character");
    }
    if key.len() > MOST {
        return refuse("is longer than 1,023 bytes");
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Code;

    #[test]
    fn keys_are_decoded_once() {
        for (path, key) in [
            ("/a", "a"),
            ("/a/b.txt", "a/b.txt"),
            ("/a%20b/%E4%B8%AD.txt", "a b/中.txt"),
            ("/a+b&c=d", "a+b&c=d"),
            ("/a%2Bb%26c%3Dd%3F%23", "a+b&c=d?#"),
            ("/folder/", "folder/"),
            ("/%F0%9F%98%80", "\u{1f600}"),
            ("/...", "..."),
            ("/.hidden/..a/a..", ".hidden/..a/a.."),
            ("/a%2520b", "a%20b"),
            ("/a%252e%252e", "a%2e%2e"),
        ] {
            assert_eq!(of_path(path).unwrap(), key, "{path}");
        }
    }

    #[test]
    fn nothing_climbs_or_names_the_bucket() {
        let long = format!("/{}", "a".repeat(1024));
        let long_decoded = format!("/{}", "%E4%B8%AD".repeat(342));
        for path in [
            "",
            "/",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/a/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e",
            "/a/%2E%2e/b",
            "/a/.%2e/b",
            "/a/..;x/b",
            "/a%2Fb",
            "/a%2f..%2fb",
            "/..%2Fb",
            "/%2F",
            "/a\\b",
            "/a%5Cb",
            "/..%5c..",
            "/a%00",
            "/a%0Ab",
            "/a%7F",
            "/a%C2%85",
            "/%C0%AE%C0%AE/a",
            "/%ff",
            "/a%",
            "/a%4",
            &long,
            &long_decoded,
        ] {
            let refusal = of_path(path).expect_err(path);
            assert_eq!(refusal.code, Code::I400PA, "{path}");
        }
        assert!(of_path(&long[..1024]).is_ok());
        assert!(of_path(&format!("/{}", "%E4%B8%AD".repeat(341))).is_ok());
    }
}
