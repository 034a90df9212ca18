//! Alibaba Cloud OSS: signatures V4 and V1 in the `Authorization` header.
//!
//! Byte for byte what the official SDKs write (PyPI `alibabacloud-oss-v2` and `oss2`, Go SDK v2); `e2e/test_objects.py` compares. Left
//! out: presigned URLs, signed payloads, and V4's additional headers.

use crate::{
    Algorithm, Key,
    lines::header_into,
    store::{DayKey, Family, Request, Stamp},
};

const ALGORITHM: &str = "OSS4-HMAC-SHA256";
const PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// The key for a day's requests with V4. `day` is [`Stamp::day`].
pub fn day_key(secret: &str, day: &str, region: &str) -> DayKey {
    let family = Family {
        prefix: "aliyun_v4",
        service: "oss",
        terminator: "aliyun_v4_request",
    };
    DayKey::derive(&family, secret, day, region)
}

/// The `Authorization` of a request, V4. Its headers must have `x-oss-date` with this stamp and `x-oss-content-sha256:
/// UNSIGNED-PAYLOAD`; signed are `content-type`, `content-md5` and `x-oss-*`.
pub fn sign_v4(request: &Request<'_>, access_key: &str, key: &DayKey, stamp: &Stamp) -> String {
    let signature = key.sign(ALGORITHM, stamp, &canonical(request));
    let (scope, signature) = (key.scope(), signature.as_str());
    [
        ALGORITHM,
        " Credential=",
        access_key,
        "/",
        scope,
        ",Signature=",
        signature,
    ]
    .concat()
}

fn canonical(request: &Request<'_>) -> Vec<u8> {
    let mut text = request.first_lines(false);
    for (name, value) in request.headers {
        if is_own(name) || matches!(*name, "content-md5" | "content-type") {
            header_into(name, value.trim_ascii(), &mut text);
        }
    }
    // An empty list of additional headers.
    text.extend_from_slice(b"\n\n");
    text.extend_from_slice(PAYLOAD.as_bytes());
    text
}

fn is_own(name: &str) -> bool {
    name.starts_with("x-oss-")
}

/// The `Authorization` of a request, V1. Its headers must have `date`; signed are that, `content-type`, `content-md5` and `x-oss-*`.
pub fn sign_v1(request: &Request<'_>, access_key: &str, key: &Key) -> String {
    let signature = key.sign(Algorithm::HmacSha1, string_to_sign(request));
    ["OSS ", access_key, ":", &signature].concat()
}

fn string_to_sign(request: &Request<'_>) -> Vec<u8> {
    let mut text = Vec::with_capacity(256);
    text.extend_from_slice(request.method.as_bytes());
    text.push(b'\n');
    for wanted in ["content-md5", "content-type", "date"] {
        let mut headers = request.headers.iter();
        let value = headers.find(|(name, _)| *name == wanted);
        text.extend_from_slice(value.map_or(b"", |(_, value)| value.trim_ascii()));
        text.push(b'\n');
    }
    for (name, value) in request.headers {
        if is_own(name) {
            header_into(name, value.trim_ascii(), &mut text);
        }
    }
    text.push(b'/');
    text.extend_from_slice(request.bucket.as_bytes());
    text.push(b'/');
    text.extend_from_slice(request.key.as_bytes());
    let mut separator = b'?';
    for (name, value) in request.query.iter().filter(|(name, _)| is_resource(name)) {
        text.push(separator);
        text.extend_from_slice(name.as_bytes());
        if !value.is_empty() {
            text.push(b'=');
            text.extend_from_slice(value.as_bytes());
        }
        separator = b'&';
    }
    text
}

/// Names of the query that belong to what V1 signs, as far as an object's actions have any.
fn is_resource(name: &str) -> bool {
    matches!(name, "append" | "objectMeta" | "position" | "versionId")
        || name.starts_with("response-")
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    const KEY: &str = "a b/中.txt";
    const ID: &str = "AKID0000TEST";
    const SECRET: &str = "SECRET0000TEST";
    /// 2026-11-23T00:00:00Z.
    const NOW: u64 = 1_795_392_000;
    const TOKEN: &[u8] = b"TOKEN/0000+TEST==";

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    /// A vector: name, method, key, query, headers beside those of the signature, V1, SHA-256 of V4's canonical request, V4.
    type Vector<'a> = (
        &'a str,
        &'a str,
        &'a str,
        Pairs<'a>,
        Pairs<'a>,
        &'a str,
        &'a str,
        &'a str,
    );

    const VECTORS: &[Vector<'_>] = &[
        (
            "PutObject",
            "PUT",
            KEY,
            &[],
            &[("content-type", "text/plain"), ("x-oss-meta-who", "me")],
            "70IV7xlTA//qz9Nw0+IrQnfhY9c=",
            "7de25956d96e832d18e0d397b8c2ee931a98d04914bf06ddaf71a22de8187779",
            "0d2f32567a6b8273f687c53fb8e37fe0b7f3ec29fd24e000e12f00904a005559",
        ),
        (
            "GetObject, a range",
            "GET",
            KEY,
            &[],
            &[("range", "bytes=0-3")],
            "pZcu96AJL0GHN/yPfRPY7iK4sZ4=",
            "c0d489885fc8091edcddf0c845af038513cdcfb9131236b432008c02266dae2d",
            "1ecf9d315c7b6323145a21653ad8838679ead438f3d53114078058f552af05f0",
        ),
        (
            "AppendObject",
            "POST",
            "log.txt",
            &[("append", ""), ("position", "0")],
            &[("content-type", "text/plain")],
            "E9otBgZtYXMj7j0QF7VbaT9EtWY=",
            "0f20d616272751b77874a8e0447b37d5c396f527974347510a40cf6c52073ccc",
            "59fe76375f24abbc0865c1213f4e43b9fe56d72eadba5e6eb5a7f6315bf10813",
        ),
        (
            "DeleteObject",
            "DELETE",
            KEY,
            &[],
            &[],
            "MA0FLvOhhdIa8593MWaDpyU+X5c=",
            "bcd8ffec176980466526de56751f377deb35f8dfc26e5100b2c804f0965b2e71",
            "2facd5b78faa4a7283d8e13c097120a52c0ba55f06f3fb90c8dee197d2de0226",
        ),
        (
            "HeadObject",
            "HEAD",
            KEY,
            &[],
            &[],
            "YZl+jDWf3BxoCyVgRFc+UXqy/yQ=",
            "316e6ba71c1ea1a1655b3c8b3e0b1acfe5276de5e2fa651340b78b72ede7f8ff",
            "6d6bdcddae426872bb3411ad7877462b9b104579782e5a012151e9fa081497b6",
        ),
        (
            "GetObjectMeta",
            "HEAD",
            KEY,
            &[("objectMeta", "")],
            &[],
            "QS3BW/UXD1PGeA0ksXOVKd1nikI=",
            "ba93ecfb15221fd49973da9e4013aa6016e99b7083ade931ff8aa7a5ae03fdff",
            "260d82da3f7fc6fef031a62306e0de97bdf2acc2afaa1fbe6d6348c43ed185b9",
        ),
    ];

    /// Both signatures of a request, and V4's canonical request.
    fn sign(
        method: &str,
        key: &str,
        query: Pairs<'_>,
        headers: Pairs<'_>,
        token: Option<&[u8]>,
    ) -> (String, String, Vec<u8>) {
        let stamp = Stamp::new(NOW);
        let own: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        let token = token.map(|token| ("x-oss-security-token", token));
        let signed = |more: &[(&'static str, &'static [u8])]| {
            let more = more.iter().copied();
            let mut all: Vec<(&str, &[u8])> =
                own.iter().copied().chain(more).chain(token).collect();
            all.sort_unstable();
            all
        };
        let date: (&str, &[u8]) = ("date", b"Mon, 23 Nov 2026 00:00:00 GMT");
        let v1 = signed(&[date]);
        let v4 = signed(&[
            date,
            ("x-oss-content-sha256", b"UNSIGNED-PAYLOAD"),
            ("x-oss-date", b"20261123T000000Z"),
        ]);
        let request = |headers| Request {
            method,
            bucket: "examplebucket",
            key,
            query,
            headers,
        };
        let (v1, v4) = (request(&v1[..]), request(&v4[..]));
        let key = day_key(SECRET, stamp.day(), "cn-hangzhou");
        (
            sign_v1(&v1, ID, &Key::new(SECRET)),
            sign_v4(&v4, ID, &key, &stamp),
            canonical(&v4),
        )
    }

    #[test]
    fn signatures_are_those_of_the_official_sdks() {
        for (name, method, key, query, headers, v1, hash, v4) in VECTORS {
            let (got_v1, got_v4, canonical) = sign(method, key, query, headers, None);
            let got_hash: String = Sha256::digest(&canonical)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(got_v1, format!("OSS {ID}:{v1}"), "{name}");
            assert_eq!(
                &got_hash,
                hash,
                "{name}: {}",
                String::from_utf8_lossy(&canonical)
            );
            let scope = "20261123/cn-hangzhou/oss/aliyun_v4_request";
            let expected = format!("OSS4-HMAC-SHA256 Credential={ID}/{scope},Signature={v4}");
            assert_eq!(got_v4, expected, "{name}");
        }
    }

    #[test]
    fn every_part_counts() {
        let (method, key, query) = ("PUT", KEY, &[("versionId", "1")][..]);
        let headers = &[("content-type", "text/plain"), ("x-oss-meta-a", "1")][..];
        let whole = sign(method, key, query, headers, Some(TOKEN));
        for (what, other) in [
            ("method", sign("POST", key, query, headers, Some(TOKEN))),
            (
                "key",
                sign(method, "a b/中.tx", query, headers, Some(TOKEN)),
            ),
            (
                "query",
                sign(method, key, &[("versionId", "2")], headers, Some(TOKEN)),
            ),
            ("query gone", sign(method, key, &[], headers, Some(TOKEN))),
            (
                "header",
                sign(method, key, query, &headers[..1], Some(TOKEN)),
            ),
            ("token", sign(method, key, query, headers, Some(b"other"))),
            ("token gone", sign(method, key, query, headers, None)),
        ] {
            assert_ne!(other.0, whole.0, "V1: {what}");
            assert_ne!(other.1, whole.1, "V4: {what}");
        }
    }

    #[test]
    fn what_is_not_a_subresource_is_not_signed_by_v1() {
        let with = sign("GET", KEY, &[("other", "1")], &[], None);
        let without = sign("GET", KEY, &[], &[], None);
        assert_eq!(with.0, without.0);
        assert_ne!(with.1, without.1);
    }
}
