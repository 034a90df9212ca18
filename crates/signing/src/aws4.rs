//! AWS signature V4 for S3, in the `Authorization` header.
//!
//! Byte for byte what PyPI `botocore` writes; `e2e/test_objects.py` compares. Left out: presigned URLs and signed chunks.

use crate::store::{DayKey, Family, Request, Stamp};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const PAYLOAD: &str = "x-amz-content-sha256";

/// The key for a day's requests to S3. `day` is [`Stamp::day`].
pub fn day_key(secret: &str, day: &str, region: &str) -> DayKey {
    let family = Family {
        prefix: "AWS4",
        service: "s3",
        terminator: "aws4_request",
    };
    DayKey::derive(&family, secret, day, region)
}

/// The `Authorization` of a request whose path is `/bucket/key`. Every header it is given is signed; `host`, `x-amz-date` with this
/// stamp and `x-amz-content-sha256` must be among them. The last is `UNSIGNED-PAYLOAD`, or the body's SHA-256 in hexadecimal.
pub fn sign(request: &Request<'_>, access_key: &str, key: &DayKey, stamp: &Stamp) -> String {
    let names = names(request);
    let signature = key.sign(ALGORITHM, stamp, &canonical(request, &names));
    let (scope, signature) = (key.scope(), signature.as_str());
    [
        ALGORITHM,
        " Credential=",
        access_key,
        "/",
        scope,
        ", SignedHeaders=",
        &names,
        ", Signature=",
        signature,
    ]
    .concat()
}

fn names(request: &Request<'_>) -> String {
    let mut names = String::with_capacity(128);
    for (name, _) in request.headers {
        if !names.is_empty() {
            names.push(';');
        }
        names.push_str(name);
    }
    names
}

fn canonical(request: &Request<'_>, names: &str) -> Vec<u8> {
    let mut text = request.first_lines(true);
    for (name, value) in request.headers {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        value_into(value, &mut text);
        text.push(b'\n');
    }
    text.push(b'\n');
    text.extend_from_slice(names.as_bytes());
    text.push(b'\n');
    let payload = request.headers.iter().find(|(name, _)| *name == PAYLOAD);
    text.extend_from_slice(payload.map_or(b"", |(_, payload)| payload));
    text
}

/// Appends a value without the space around it, and with one space for each run of them inside.
fn value_into(value: &[u8], out: &mut Vec<u8>) {
    let words = value.split(u8::is_ascii_whitespace);
    for (at, word) in words.filter(|word| !word.is_empty()).enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AKID0000TEST";
    /// 2026-11-23T00:00:00Z.
    const NOW: u64 = 1_795_392_000;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn signed(method: &str, payload: &str, query: Pairs<'_>, headers: Pairs<'_>) -> String {
        let stamp = Stamp::new(NOW);
        let mut all: Vec<(&str, &[u8])> = vec![
            ("host", b"127.0.0.1:9000"),
            ("x-amz-content-sha256", payload.as_bytes()),
            ("x-amz-date", b"20261123T000000Z"),
        ];
        all.extend(headers.iter().map(|(n, v)| (*n, v.as_bytes())));
        all.sort_unstable();
        let request = Request {
            method,
            bucket: "examplebucket",
            key: "a b/中.txt",
            query,
            headers: &all,
        };
        let key = day_key("SECRET0000TEST", stamp.day(), "us-east-1");
        sign(&request, ID, &key, &stamp)
    }

    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

    /// A vector: name, method, payload, query, headers beside the signature's, and the signature.
    type Vector<'a> = (&'a str, &'a str, &'a str, Pairs<'a>, Pairs<'a>, &'a str);

    const VECTORS: &[Vector<'_>] = &[
        (
            "PutObject, its body signed",
            "PUT",
            HELLO,
            &[],
            &[("content-type", "text/plain"), ("x-amz-meta-who", "me")],
            "f77f9fb654b4618e1a2c2dcb11805f6b77679945df0fb699cdb745d80f4d8178",
        ),
        (
            "GetObject, a range, no body signed",
            "GET",
            EMPTY,
            &[],
            &[("range", "bytes=0-3")],
            "cd550d65c5e1b4cadd34f34ed1da6c417346a7ffb2ea50a17d64039491f1abff",
        ),
        (
            "DeleteObject, no body signed",
            "DELETE",
            EMPTY,
            &[],
            &[],
            "a6489e1c37b2ce3f72778bd8f3f9a9eb0de4c05700c3ca42dfaec2efc264dd83",
        ),
        (
            "PutObject",
            "PUT",
            UNSIGNED,
            &[],
            &[("content-type", "text/plain"), ("x-amz-meta-who", "me")],
            "ff072c1569a2b567e5937745b3ddc2e2ab4e90713cfaed7b551057b040de8513",
        ),
        (
            "GetObject, a range",
            "GET",
            UNSIGNED,
            &[],
            &[("range", "bytes=0-3")],
            "56ee15744bce5041e105dde885842a9401899c6fd86b6a4e1b14cca216590e07",
        ),
        (
            "HeadObject",
            "HEAD",
            UNSIGNED,
            &[],
            &[],
            "2836dbedcfb343fe09c240b039629b31cf9a8391fcf11e43ab17bbcfddacaaca",
        ),
        (
            "GetObject, a version",
            "GET",
            UNSIGNED,
            &[
                ("response-content-type", "text/plain; a=b"),
                ("versionId", ""),
            ],
            &[],
            "c34450cfef1a8c6056593aca0e7214e322b1fbfa061b9b99a463006325c7c952",
        ),
        (
            "PutObject with a token and much space",
            "PUT",
            UNSIGNED,
            &[],
            &[
                ("content-type", "text/plain;  charset=utf-8"),
                ("x-amz-meta-who", "  you   and me "),
                ("x-amz-security-token", "TOKEN/0000+TEST=="),
            ],
            "5cbddfde539b52620618101a9f7b2c2e81ab911c1e95794a0fed4e8a746c4169",
        ),
    ];

    #[test]
    fn signatures_are_those_of_botocore() {
        for (name, method, payload, query, headers, signature) in VECTORS {
            let got = signed(method, payload, query, headers);
            assert!(
                got.ends_with(&format!(", Signature={signature}")),
                "{name}: {got}"
            );
        }
    }

    #[test]
    fn the_whole_of_the_header() {
        let headers = &[("content-type", "text/plain"), ("x-amz-meta-who", "me")];
        assert_eq!(
            signed("PUT", UNSIGNED, &[], headers),
            "AWS4-HMAC-SHA256 Credential=AKID0000TEST/20261123/us-east-1/s3/aws4_request, \
             SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-meta-who, \
             Signature=ff072c1569a2b567e5937745b3ddc2e2ab4e90713cfaed7b551057b040de8513"
        );
    }
}
