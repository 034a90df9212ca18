//! The string to sign against a slow reading of the rules (Ref §1.3), written here without looking at the fast one.

#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use paifang_signing::{Parts, Scratch};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    form: Option<&'a [u8]>,
    list: Option<&'a [u8]>,
    headers: Vec<(&'a str, &'a [u8])>,
}

fuzz_target!(|input: Input<'_>| {
    let parts = Parts {
        method: input.method,
        raw_path: input.path,
        query: input.query,
        form: input.form,
        headers: &input.headers[..],
    };
    let mut scratch = Scratch::new();
    let fast = scratch.string_to_sign(&parts, input.list).to_vec();
    // The same buffers again: nothing of the first may be left in them.
    assert_eq!(scratch.string_to_sign(&parts, input.list), fast);
    // The reference decodes well-formed input only; what a broken escape means is the fast one's to say, and to say again.
    if well_formed(&input) {
        let slow = reference(&input);
        assert!(
            fast == slow,
            "fast: {:?}\nslow: {:?}",
            String::from_utf8_lossy(&fast),
            String::from_utf8_lossy(&slow)
        );
    }
});

/// Escapes are whole and decode to UTF-8, names in the list are names.
fn well_formed(input: &Input<'_>) -> bool {
    let text = |bytes: &[u8]| decode(bytes, false).is_some_and(|b| String::from_utf8(b).is_ok());
    input.path.starts_with('/')
        && !input.path.contains(['?', '#'])
        && text(input.path.as_bytes())
        && input.query.is_none_or(|q| !q.contains('#') && text(q.as_bytes()))
        && input.form.is_none_or(text)
        && input.list.unwrap_or_default().iter().all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'-' | b','))
        && input.headers.iter().all(|(n, v)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') && v.trim_ascii() == *v)
}

fn decode(bytes: &[u8], plus: bool) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let hex = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
                if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                out.push(u8::from_str_radix(hex, 16).ok()?);
                at += 2;
            }
            b'+' if plus => out.push(b' '),
            other => out.push(other),
        }
        at += 1;
    }
    Some(out)
}

fn header<'a>(input: &'a Input<'_>, name: &str) -> &'a [u8] {
    input.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v).unwrap_or_default()
}

fn reference(input: &Input<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let content_type = if input.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("x-ca-signed-content-type")) {
        "x-ca-signed-content-type"
    } else {
        "content-type"
    };
    let lines = [input.method.as_bytes(), header(input, "accept"), header(input, "content-md5"), header(input, content_type), header(input, "date")];
    for line in lines {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    let never = ["x-ca-signature", "x-ca-signature-headers", "accept", "content-md5", "content-type", "date"];
    let list = std::str::from_utf8(input.list.unwrap_or_default()).unwrap();
    let mut names: Vec<&str> = list.split(',').map(str::trim).filter(|n| !n.is_empty() && !never.contains(&n.to_ascii_lowercase().as_str())).collect();
    // A name listed twice is signed twice.
    names.sort_unstable();
    for name in names {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        out.extend_from_slice(header(input, name));
        out.push(b'\n');
    }
    out.extend_from_slice(&path(input.path));
    let mut parameters: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut add = |pairs: &[u8], bare_is_decoded: bool| {
        for pair in pairs.split(|&b| b == b'&') {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = match pair.iter().position(|&b| b == b'=') {
                Some(at) => (decode(&pair[..at], true).unwrap(), decode(&pair[at + 1..], true).unwrap()),
                None if bare_is_decoded => (decode(pair, true).unwrap(), Vec::new()),
                None => (pair.to_vec(), Vec::new()),
            };
            parameters.entry(name).or_insert(value);
        }
    };
    add(input.query.unwrap_or_default().as_bytes(), true);
    add(input.form.unwrap_or_default(), false);
    for (number, (name, value)) in parameters.iter().enumerate() {
        out.push(if number == 0 { b'?' } else { b'&' });
        out.extend_from_slice(name);
        if !value.is_empty() {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out
}

/// Decoded once, but `%2F` and `%5C` stay as they are spelt.
fn path(raw: &str) -> Vec<u8> {
    let bytes = raw.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let byte = decode(&bytes[at..at + 3], false).unwrap()[0];
            if byte == b'/' || byte == b'\\' {
                out.extend_from_slice(&bytes[at..at + 3]);
            } else {
                out.push(byte);
            }
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}
