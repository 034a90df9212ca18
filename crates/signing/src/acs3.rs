//! Alibaba's signature version 3, `ACS3-HMAC-SHA256`: Function Compute 3.0 and the control API of EventBridge.

use sha2::{Digest as _, Sha256};

use crate::{
    key::Key,
    lines::{Hex, header_into, query_into},
};

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
    let hash = sha256_hex(&canonical_request(parts, &headers, &names));
    let signature = Hex::new(&key.hmac_sha256(format!("{NAME}\n{hash}").as_bytes()));
    let signature = signature.as_str();
    format!("{NAME} Credential={id},SignedHeaders={names},Signature={signature}")
}

/// The SHA-256 of a body, in hexadecimal.
pub fn sha256_hex(body: &[u8]) -> String {
    Hex::new(&Sha256::digest(body).into()).as_str().to_owned()
}

fn canonical_request(parts: &Acs3Parts<'_>, headers: &[(&str, &str)], names: &str) -> Vec<u8> {
    let mut query = parts.query.to_vec();
    query.sort_unstable();
    let mut text = format!("{}\n{}\n", parts.method, parts.path).into_bytes();
    query_into(&query, true, &mut text);
    text.push(b'\n');
    for (name, value) in headers {
        header_into(name, value.trim().as_bytes(), &mut text);
    }
    text.extend_from_slice(format!("\n{names}\n{}", parts.body_hash).as_bytes());
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
