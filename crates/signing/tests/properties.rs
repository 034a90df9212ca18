//! What holds for any request: signing and verifying agree, any change of a signed element is refused, the fast
//! canonicalisation writes what a slow and obvious one writes, and no bytes at all make it panic.

use std::collections::BTreeMap;

use paifang_signing::{
    Algorithm, Key, Parts, Scratch, Signer, Unsigned, appcode, doctor, is_form, verify,
};
use proptest::collection::vec;
use proptest::prelude::*;

const NONCE: &str = "11111111-2222-3333-4444-555555555555";

/// Pieces that queries and forms are made of, awkward ones often.
fn urlencoded() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("&".to_owned()),
        Just("=".to_owned()),
        Just("+".to_owned()),
        Just("%".to_owned()),
        Just("%41".to_owned()),
        Just("%26".to_owned()),
        Just("%E5%BC%A0".to_owned()),
        Just("%e5".to_owned()),
        "[a-c]{1,2}",
        "[!-~]",
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat().replace(['#', ' '], "_"))
}

fn path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("a"),
        Just("%20"),
        Just("%2F"),
        Just("%5c"),
        Just("%E5%BC%A0"),
        Just("%"),
        Just("+")
    ];
    vec(piece, 0..8).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn header() -> impl Strategy<Value = (String, String)> {
    ("(X-Ca-|x-ca-|X-|x-)[a-cA-C]{1,3}", "[!-~]{0,8}")
}

#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    query: Option<String>,
    form: Option<String>,
    headers: Vec<(String, String)>,
    list: String,
}

prop_compose! {
    fn request()(
        method in "GET|POST|PUT",
        path in path(),
        query in proptest::option::of(urlencoded()),
        form in proptest::option::of(urlencoded()),
        mut headers in vec(header(), 0..5),
        fixed in vec(("Accept|content-md5|Content-Type|Date", "[!-~]{0,8}"), 0..3),
        separator in " ?, ?",
        extra in proptest::option::of("X-None|date|X-Ca-Signature| |,"),
    ) -> Request {
        let mut names: Vec<_> = headers.iter().map(|(name, _)| name.clone()).collect();
        names.extend(extra);
        headers.extend(fixed);
        Request { method, path, query, form, headers, list: names.join(&separator) }
    }
}

impl Request {
    fn parts(&self) -> Parts<'_, [(String, String)]> {
        Parts {
            method: &self.method,
            raw_path: &self.path,
            query: self.query.as_deref(),
            form: self.form.as_deref().map(str::as_bytes),
            headers: &self.headers,
        }
    }

    fn string_to_sign(&self) -> Vec<u8> {
        Scratch::new()
            .string_to_sign(&self.parts(), Some(self.list.as_bytes()))
            .to_vec()
    }

    fn verifies(&self, signature: &str) -> bool {
        let list = Some(self.list.as_bytes());
        let (key, algorithm) = (Key::new("s"), Algorithm::HmacSha256);
        verify(
            &self.parts(),
            signature.as_bytes(),
            list,
            algorithm,
            &key,
            &mut Scratch::new(),
        )
        .is_ok()
    }
}

/// Ref §1.3 and §1.4, sentence by sentence, with every intermediate value spelt out.
fn slow_string_to_sign(request: &Request) -> Vec<u8> {
    let value = |wanted: &str| -> Vec<u8> {
        let found = request
            .headers
            .iter()
            .find(|(name, _)| name.to_lowercase() == wanted.to_lowercase());
        found
            .map(|(_, value)| value.clone().into_bytes())
            .unwrap_or_default()
    };
    let mut lines = vec![request.method.clone().into_bytes()];
    lines.extend(["accept", "content-md5", "content-type", "date"].map(value));

    let never = [
        "x-ca-signature",
        "x-ca-signature-headers",
        "accept",
        "content-md5",
        "content-type",
        "date",
    ];
    let mut names: Vec<&str> = request.list.split(',').map(str::trim).collect();
    names.retain(|name| !name.is_empty() && !never.contains(&name.to_lowercase().as_str()));
    names.sort();
    for name in names {
        lines.push([name.as_bytes(), b":", &value(name)].concat());
    }

    let mut first_values = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    for (text, in_form) in [(&request.query, false), (&request.form, true)] {
        for pair in text
            .as_deref()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) => (slow_decode(name), slow_decode(value)),
                None if in_form => (pair.as_bytes().to_vec(), vec![]),
                None => (slow_decode(pair), vec![]),
            };
            first_values.entry(name).or_insert(value);
        }
    }
    let pairs: Vec<Vec<u8>> = first_values
        .into_iter()
        .map(|(name, value)| {
            if value.is_empty() {
                name
            } else {
                [name, value].join(&b'=')
            }
        })
        .collect();
    let mut last = slow_path(&request.path);
    if !pairs.is_empty() {
        last.push(b'?');
        last.extend(pairs.join(&b'&'));
    }
    lines.push(last);
    lines.join(&b'\n')
}

fn slow_decode(text: &str) -> Vec<u8> {
    slow_unescape(&text.replace('+', " "), &[]).0
}

fn slow_path(path: &str) -> Vec<u8> {
    let (decoded, well_formed) = slow_unescape(path, b"/\\");
    if well_formed && String::from_utf8(decoded.clone()).is_ok() {
        decoded
    } else {
        path.as_bytes().to_vec()
    }
}

/// Replaces `%XX` but for the bytes in `kept`; and whether every `%` was followed by two hex digits.
fn slow_unescape(text: &str, kept: &[u8]) -> (Vec<u8>, bool) {
    let (bytes, mut out, mut at, mut well_formed) = (text.as_bytes(), vec![], 0, true);
    while at < bytes.len() {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (
            bytes[at],
            hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        ) {
            (b'%', Some(byte)) if !kept.contains(&byte) => {
                out.push(byte);
                at += 3;
            }
            (b'%', Some(_)) => {
                out.extend_from_slice(&bytes[at..at + 3]);
                at += 3;
            }
            (byte, _) => {
                well_formed &= byte != b'%';
                out.push(byte);
                at += 1;
            }
        }
    }
    (out, well_formed)
}

fn with_one_reading(request: Request) -> Request {
    let plain = |text: &str| text.replace('%', "x").replace('+', "y");
    let query = request.query.as_deref().map(plain);
    let form = if query.is_some() { None } else { request.form };
    Request {
        path: plain(&request.path),
        query,
        form,
        ..request
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_fast_way_writes_what_the_slow_way_writes(request in request()) {
        let (fast, slow) = (request.string_to_sign(), slow_string_to_sign(&request));
        prop_assert_eq!(String::from_utf8_lossy(&fast), String::from_utf8_lossy(&slow));
        prop_assert_eq!(fast, slow);
    }

    #[test]
    fn a_scratch_remembers_nothing(first in request(), second in request()) {
        let mut scratch = Scratch::new();
        let _ = verify(&first.parts(), b"", Some(first.list.as_bytes()), Algorithm::HmacSha256, Key::dummy(), &mut scratch);
        prop_assert_eq!(scratch.string_to_sign(&second.parts(), Some(second.list.as_bytes())), second.string_to_sign());
    }

    #[test]
    fn what_the_signer_signs_verifies(
        path in path(), query in proptest::option::of(urlencoded()), body in urlencoded(),
        content_type in proptest::option::of("application/json|application/x-www-form-urlencoded"),
        headers in vec(header(), 0..4), sha1 in any::<bool>(), stage in proptest::option::of("[A-Z]{2,10}"),
    ) {
        let algorithm = if sha1 { Algorithm::HmacSha1 } else { Algorithm::HmacSha256 };
        let key = Key::new("s");
        let signer = Signer { app_key: "203753385", key: &key, algorithm, stage: stage.as_deref(), also_sign: &[] };
        let mut headers = headers;
        headers.extend(content_type.clone().map(|value| ("Content-Type".to_owned(), value)));
        let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let unsigned = Unsigned { method: "POST", target: &target, headers: &headers, body: body.as_bytes() };
        let signed = signer.sign(&unsigned, 1_700_000_000_000, NONCE).unwrap();

        let get = |name: &str| signed.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_bytes());
        let form = content_type.is_some_and(|value| is_form(value.as_bytes())).then_some(body.as_bytes());
        let parts = Parts { method: "POST", raw_path: &path, query: query.as_deref(), form, headers: &signed.headers[..] };
        let (signature, list) = (get("x-ca-signature").unwrap(), get("x-ca-signature-headers"));
        prop_assert!(verify(&parts, signature, list, algorithm, &key, &mut Scratch::new()).is_ok());
        let other = Key::new("t");
        prop_assert!(verify(&parts, signature, list, algorithm, &other, &mut Scratch::new()).is_err());
    }

    /// One byte of the string that the client signed is another one. The request has one reading only: of one with
    /// several, the changed string may be another reading, and rightly verify.
    #[test]
    fn any_other_byte_in_the_signed_string_is_refused(request in request(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let request = with_one_reading(request);
        let mut text = request.string_to_sign();
        prop_assert!(request.verifies(&Key::new("s").sign(Algorithm::HmacSha256, &text)));
        let at = at.index(text.len());
        text[at] ^= flip;
        prop_assert!(!request.verifies(&Key::new("s").sign(Algorithm::HmacSha256, &text)));
    }

    /// And on the wire: one byte of path, query, form or a signed header's value is another one.
    #[test]
    fn any_other_letter_on_the_wire_is_refused(at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_.~-]") {
        let request = Request {
            method: "POST".into(),
            path: "/orders/42".into(),
            query: Some("a=one&b=two".into()),
            form: Some("c=three&d=four".into()),
            headers: vec![
                ("Accept".into(), "json".into()),
                ("Content-Type".into(), "form".into()),
                ("Content-MD5".into(), "digest".into()),
                ("Date".into(), "today".into()),
                ("X-Ca-Key".into(), "203753385".into()),
                ("X-Ca-Nonce".into(), "nonce".into()),
            ],
            list: "X-Ca-Key,X-Ca-Nonce".into(),
        };
        let signature = Key::new("s").sign(Algorithm::HmacSha256, request.string_to_sign());
        prop_assert!(request.verifies(&signature));
        let mut changed = request.clone();
        let mut elements: Vec<&mut String> = vec![&mut changed.method, &mut changed.path, &mut changed.list];
        elements.extend([changed.query.as_mut().unwrap(), changed.form.as_mut().unwrap()]);
        elements.extend(changed.headers.iter_mut().map(|(_, value)| value));
        let mut at = at.index(elements.iter().map(|element| element.len()).sum());
        for element in elements {
            if at < element.len() {
                prop_assume!(element[at..=at] != letter);
                element.replace_range(at..=at, &letter);
                break;
            }
            at -= element.len();
        }
        prop_assert!(!changed.verifies(&signature));
    }

    #[test]
    fn any_other_signature_is_refused(at in 0..44usize, letter in "[A-Za-z0-9+/=]") {
        let request = Request { method: "GET".into(), path: "/".into(), query: None, form: None, headers: vec![], list: String::new() };
        let signature = Key::new("s").sign(Algorithm::HmacSha256, request.string_to_sign());
        prop_assume!(signature[at..=at] != letter);
        let mut changed = signature.clone();
        changed.replace_range(at..=at, &letter);
        prop_assert!(request.verifies(&signature) && !request.verifies(&changed));
    }

    #[test]
    fn no_bytes_make_it_panic(
        method in any::<String>(), path in any::<String>(), query in any::<String>(), form in any::<Vec<u8>>(),
        headers in vec((any::<String>(), any::<Vec<u8>>()), 0..4), list in any::<Vec<u8>>(), signature in any::<Vec<u8>>(),
    ) {
        let parts = Parts { method: &method, raw_path: &path, query: Some(&query), form: Some(&form), headers: &headers[..] };
        for list in [&list[..], b"X-Ca-Key"] {
            let mut scratch = Scratch::new();
            let refused = verify(&parts, &signature, Some(list), Algorithm::HmacSha1, &Key::new(&form), &mut scratch);
            let hint = refused.unwrap_err().hint();
            prop_assert!(!hint.contains(|char: char| char.is_ascii_control()));
            let _ = doctor::compare(&hint, &path).to_string();
        }
        let _ = (is_form(&signature), appcode::parse(&signature), appcode::in_query(&query));
    }

    /// The doctor reads our own hints: against the string they were made of it finds no difference.
    #[test]
    fn a_hint_equals_the_string_it_shows(request in request()) {
        let text = String::from_utf8(request.string_to_sign());
        prop_assume!(text.is_ok());
        let text = text.unwrap();
        let hint = format!("Invalid Signature, Server StringToSign:`{}`", text.replace('\n', "#"));
        prop_assert_eq!(doctor::compare(&hint, &text), doctor::Diagnosis::SameText);
    }
}
