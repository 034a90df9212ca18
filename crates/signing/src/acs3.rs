//! Alibaba's signature version 3, `ACS3-HMAC-SHA256`: Function Compute 3.0 and the control API of EventBridge.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::key::Key;

const NAME: &str = "ACS3-HMAC-SHA256";

/// What is signed of a call.
#[derive(Clone, Copy, Debug)]
pub struct Acs3Parts<'a> {
    /// In capitals.
    pub method: &'a str,
    /// As it is sent.
    pub path: &'a str,
    /// Decoded, each name once, in any order.
    pub query: &'a [(&'a str, &'a str)],
    /// The headers to be signed: names in small letters, each once, in any order.
    pub headers: &'a [(&'a str, &'a str)],
    /// [`sha256_hex`] of the body; empty towards HTTP triggers.
    pub body_hash: &'a str,
}

/// `Authorization`.
pub fn sign_acs3(parts: &Acs3Parts<'_>, id: &str, key: &Key) -> String {
    let mut headers = parts.headers.to_vec();
    headers.sort_unstable();
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let hash = sha256_hex(canonical_request(parts, &headers, &names).as_bytes());
    let signature = hex(&key.hmac_sha256(format!("{NAME}\n{hash}").as_bytes()));
    format!("{NAME} Credential={id},SignedHeaders={names},Signature={signature}")
}

/// The SHA-256 of a body, in hexadecimal.
pub fn sha256_hex(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

fn canonical_request(parts: &Acs3Parts<'_>, headers: &[(&str, &str)], names: &str) -> String {
    let mut query = parts.query.to_vec();
    query.sort_unstable();
    let mut text = format!("{}\n{}\n", parts.method, parts.path);
    for (at, (name, value)) in query.iter().enumerate() {
        if at > 0 {
            text.push('&');
        }
        encode(name, &mut text);
        text.push('=');
        encode(value, &mut text);
    }
    text.push('\n');
    for (name, value) in headers {
        text.push_str(name);
        text.push(':');
        text.push_str(value.trim());
        text.push('\n');
    }
    text.push('\n');
    text.push_str(names);
    text.push('\n');
    text.push_str(parts.body_hash);
    text
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes any text");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes any text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From alibabacloud_openapi_util 0.2.4, as Function Compute's documentation uses it for HTTP triggers.
    #[test]
    fn the_signature_is_that_of_the_official_library() {
        let parts = Acs3Parts {
            method: "POST",
            path: "/a b/c",
            query: &[("e", ""), ("b", "2"), ("a", "中")],
            headers: &[
                ("x-acs-date", "2026-11-23T00:00:00Z"),
                ("content-type", "text/plain"),
            ],
            body_hash: "",
        };
        assert_eq!(
            sign_acs3(&parts, "AKID0000TEST", &Key::new("SECRET0000TEST")),
            "ACS3-HMAC-SHA256 Credential=AKID0000TEST,SignedHeaders=content-type;x-acs-date,\
             Signature=476239203a65779ba57030739421bfe80956556dc0bd6f4db55cc3d49b7ff412"
        );
    }

    #[test]
    fn hashes_are_hexadecimal() {
        assert_eq!(
            sha256_hex(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
