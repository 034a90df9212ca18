//! The parsed head: whatever passes has one host and one path, in the one form that every later phase uses.

#![no_main]

use http::{Request, Version};
use libfuzzer_sys::fuzz_target;
use paifang_proxy::clean::head::{clean, normalise_path};

// The bytes of a request as on the wire, or else of a path.
fuzz_target!(|bytes: &[u8]| {
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut read = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(_)) = read.parse(bytes) else {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(path) = normalise_path(text)
        {
            check_path(text, &path);
        }
        return;
    };
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut request = Request::builder().method(read.method.unwrap_or_default()).uri(read.path.unwrap_or_default()).version(version);
        for header in read.headers.iter() {
            request = request.header(header.name, header.value);
        }
        let Ok(request) = request.body(()) else { return };
        let (parts, ()) = request.into_parts();
        let Ok(cleaned) = clean(&parts) else { continue };
        check_path(cleaned.raw_path, &cleaned.path);
        let host = &*cleaned.host;
        let odd = |b: u8| b.is_ascii_uppercase() || b.is_ascii_whitespace() || b"/@#?\\".contains(&b);
        assert!(!host.is_empty() && !host.ends_with('.') && !host.bytes().any(odd), "{host:?}");
        assert!(cleaned.authority.to_ascii_lowercase().starts_with(host), "{host:?} of {:?}", cleaned.authority);
    }
});

fn check_path(raw: &str, path: &str) {
    assert_eq!(normalise_path(path).ok().as_deref(), Some(path), "normalising twice differs from once: {raw:?}");
    if raw.starts_with('/') {
        assert!(path.starts_with('/'), "{raw:?} became {path:?}");
        assert!(!path.split('/').any(|s| s == "." || s == ".."), "{raw:?} became {path:?}");
        let read_again = path.replace("%2F", "/").replace("%5C", "/");
        assert!(raw.contains("/.") || !read_again.split('/').any(|s| s == "." || s == ".."), "{raw:?} became {path:?}, which climbs when its slashes are decoded");
        // Every escape that is left is whole and in upper case, so no two spellings of one path remain.
        for (at, _) in path.match_indices('%') {
            assert!(path[at + 1..].bytes().take(2).filter(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')).count() == 2, "{path:?}");
        }
    }
}
