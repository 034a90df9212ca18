//! What the signer signs verifies, and what was changed afterwards does not; strangers' bytes never verify.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use paifang_signing::{Algorithm, Key, Parts, Scratch, Signer, Unsigned, is_form, verify};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    post: bool,
    target: &'a str,
    content_type: Option<&'a str>,
    extra: Option<&'a str>,
    body: &'a [u8],
    stage: Option<&'a str>,
    sha1: bool,
    noise: &'a [u8],
    change: u8,
}

fuzz_target!(|input: Input<'_>| {
    let key = Key::new("secret");
    let algorithm = if input.sha1 { Algorithm::HmacSha1 } else { Algorithm::HmacSha256 };
    let signer = Signer { app_key: "203700001", key: &key, algorithm, stage: input.stage, also_sign: &[] };
    let mut headers: Vec<(String, String)> = Vec::new();
    headers.extend(input.content_type.map(|t| ("content-type".into(), t.into())));
    headers.extend(input.extra.map(|t| ("x-ca-extra".into(), t.into())));
    let method = if input.post { "POST" } else { "GET" };
    let request = Unsigned { method, target: input.target, headers: &headers, body: input.body };
    let Ok(signed) = signer.sign(&request, 1_700_000_000_000, "11111111-2222-3333-4444-555555555555") else { return };

    let pairs: Vec<(&str, &[u8])> = signed.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    let find = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let form = is_form(find("content-type").unwrap_or_default()).then_some(input.body);
    let (path, query) = input.target.split_once('?').map_or((input.target, None), |(p, q)| (p, Some(q)));
    let parts = Parts { method, raw_path: path, query, form, headers: &pairs[..] };
    let signature = find("x-ca-signature").expect("the signer adds it");
    let list = find("x-ca-signature-headers");
    let mut scratch = Scratch::new();
    if verify(&parts, signature, list, algorithm, &key, &mut scratch).is_err() {
        panic!("our own signature was refused");
    }

    // Changed after signing.
    let mut hint = None;
    let mut refused = |parts: &Parts<'_, [(&str, &[u8])]>, signature: &[u8], key: &Key| match verify(parts, signature, list, algorithm, key, &mut scratch) {
        Ok(()) => panic!("a changed request was accepted"),
        Err(mismatch) => hint = Some(mismatch.hint()),
    };
    let longer = format!("{path}x");
    match input.change % 5 {
        0 => refused(&Parts { method: if input.post { "GET" } else { "POST" }, ..parts }, signature, &key),
        1 => refused(&Parts { raw_path: &longer, ..parts }, signature, &key),
        2 => refused(&parts, signature, &Key::new("another")),
        3 => refused(&parts, signature, Key::dummy()),
        _ if input.noise != signature => refused(&parts, input.noise, &key),
        _ => {}
    }
    // What travels in a header fits into one.
    if let Some(hint) = hint {
        assert!(hint.bytes().all(|b| (b >= 0x20 && b != 0x7f) || b == b'\t'), "{hint:?}");
        assert!(!hint.contains("secret"), "{hint:?}");
    }
});
