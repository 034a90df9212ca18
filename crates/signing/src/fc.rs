//! The signature of Alibaba Function Compute 2.0: `FC <id>:<Base64 of HMAC-SHA256>`, equal to what its SDKs send.

use crate::{
    key::{Algorithm, Key},
    lines::{MOST_TEXTS, header_into, line_into},
};

/// What is signed of a call.
#[derive(Clone, Copy, Debug)]
pub struct FcParts<'a> {
    /// In capitals.
    pub method: &'a str,
    /// Empty when there is none.
    pub content_md5: &'a str,
    /// Empty when there is none.
    pub content_type: &'a str,
    /// As in the header `Date`.
    pub date: &'a str,
    /// All headers whose names begin with `x-fc-`: names in small letters, in any order.
    pub headers: &'a [(&'a str, &'a str)],
    /// Path, decoded.
    pub path: &'a str,
    /// Of a call to an HTTP trigger its query, decoded, in any order, and empty when it has none; `None` for an invocation.
    pub query: Option<&'a [(&'a str, &'a str)]>,
}

/// `Authorization`.
pub fn sign_fc(parts: &FcParts<'_>, id: &str, key: &Key) -> String {
    let signature = key.sign(Algorithm::HmacSha256, string_to_sign(parts));
    ["FC ", id, ":", &signature].concat()
}

fn string_to_sign(parts: &FcParts<'_>) -> Vec<u8> {
    let mut headers = parts.headers.to_vec();
    headers.sort_unstable();
    let mut text = Vec::with_capacity(MOST_TEXTS);
    for line in [
        parts.method,
        parts.content_md5,
        parts.content_type,
        parts.date,
    ] {
        line_into(line, &mut text);
    }
    for (name, value) in headers {
        header_into(name, value.as_bytes(), &mut text);
    }
    text.extend_from_slice(parts.path.as_bytes());
    if let Some(query) = parts.query {
        // Sorted as they are written, with the `=`.
        let pairs = query
            .iter()
            .map(|(name, value)| [*name, "=", *value].concat());
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        text.push(b'\n');
        text.extend_from_slice(pairs.join("\n").as_bytes());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: FcParts<'_> = FcParts {
        method: "POST",
        content_md5: "",
        content_type: "application/json",
        date: "Mon, 23 Nov 2026 00:00:00 GMT",
        headers: &[],
        path: "/2016-08-15/services/svc/functions/fn/invocations",
        query: None,
    };

    fn signed(parts: &FcParts<'_>) -> String {
        sign_fc(parts, "AKID0000TEST", &Key::new("SECRET0000TEST"))
    }

    /// From aliyun-fc2 2.5.2.
    #[test]
    fn signatures_are_those_of_the_official_client() {
        let cases = [
            (
                FcParts {
                    headers: &[("x-fc-log-type", "Tail"), ("x-fc-invocation-type", "Sync")],
                    path: "/2016-08-15/services/svc.LATEST/functions/fn/invocations",
                    ..PARTS
                },
                "FC AKID0000TEST:1WZbBqPbhNPmLZ1Vlpj5AXLvB0TOZ7I6dGFs3vp5eq4=",
            ),
            (
                PARTS,
                "FC AKID0000TEST:l8qMYnos9/FA5/BlY8KGvaro+AJIxckNIrNY+BWPcuU=",
            ),
            (
                FcParts {
                    content_type: "text/plain",
                    headers: &[("x-fc-test", "1")],
                    path: "/2016-08-15/proxy/svc/fn/a b/c",
                    query: Some(&[("b", "2"), ("a", "中"), ("m", "1"), ("m", "2")]),
                    ..PARTS
                },
                "FC AKID0000TEST:0pVI9hHpiXTcwSH5CtHn6uhZZcUm4F3Td8w5ryoNdOk=",
            ),
            (
                FcParts {
                    method: "GET",
                    path: "/2016-08-15/proxy/svc.LATEST/fn/p",
                    query: Some(&[]),
                    ..PARTS
                },
                "FC AKID0000TEST:uOVm6PRKYSWo/oemIUnL/PEdfgJTBiEvwBLlrKAruOQ=",
            ),
        ];
        for (parts, expected) in cases {
            assert_eq!(signed(&parts), expected, "{parts:?}");
        }
    }
}
