//! Alibaba's signature version 3, `ACS3-HMAC-SHA256`: Function Compute 3.0 and the control API of EventBridge.

use sha2::{Digest as _, Sha256};

use crate::{
    key::Key,
    lines::{Hex, MOST_TEXTS, header_into, line_into, query_into},
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
    let names = names(&headers);
    let hash = hex(&canonical_request(parts, &headers, &names));
    let signature = key.hmac_sha256([NAME, "\n", hash.as_str()].concat().as_bytes());
    let signature = Hex::new(&signature);
    [
        NAME,
        " Credential=",
        id,
        ",SignedHeaders=",
        &names,
        ",Signature=",
        signature.as_str(),
    ]
    .concat()
}

/// The SHA-256 of a body, in hexadecimal.
pub fn sha256_hex(body: &[u8]) -> String {
    hex(body).as_str().to_owned()
}

fn hex(bytes: &[u8]) -> Hex {
    Hex::new(&Sha256::digest(bytes).into())
}

fn names(headers: &[(&str, &str)]) -> String {
    let mut names = String::with_capacity(MOST_TEXTS / 4);
    for (name, _) in headers {
        if !names.is_empty() {
            names.push(';');
        }
        names.push_str(name);
    }
    names
}

fn canonical_request(parts: &Acs3Parts<'_>, headers: &[(&str, &str)], names: &str) -> Vec<u8> {
    let mut query = parts.query.to_vec();
    query.sort_unstable();
    let mut text = Vec::with_capacity(MOST_TEXTS);
    line_into(parts.method, &mut text);
    line_into(parts.path, &mut text);
    query_into(&query, true, &mut text);
    text.push(b'\n');
    for (name, value) in headers {
        header_into(name, value.trim().as_bytes(), &mut text);
    }
    text.push(b'\n');
    line_into(names, &mut text);
    text.extend_from_slice(parts.body_hash.as_bytes());
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

    /// An action, called by an official client whose nonce and clock were fixed. Its user agent is signed as it stands.
    fn action(parts: &Acs3Parts<'_>, own: &[(&str, &str)]) -> String {
        let mut headers = vec![
            ("accept", "application/json"),
            ("host", "127.0.0.1:19111"),
            (
                "user-agent",
                "AlibabaCloud (Linux; x86_64) Python/3.11.7 Core/0.4.3 TeaDSL/2",
            ),
            ("x-acs-content-sha256", parts.body_hash),
            ("x-acs-credentials-provider", "static_ak"),
            ("x-acs-date", "2026-11-23T00:00:00Z"),
            ("x-acs-signature-nonce", "nonce-0001"),
        ];
        headers.extend_from_slice(own);
        let parts = Acs3Parts {
            headers: &headers,
            ..*parts
        };
        sign_acs3(&parts, "AKID0000TEST", &Key::new("SECRET0000TEST"))
    }

    /// From alibabacloud_fc20230330 4.8.3.
    #[test]
    fn an_invocation_of_function_compute_3_is_signed_as_by_the_official_client() {
        let parts = Acs3Parts {
            method: "POST",
            path: "/2023-03-30/functions/fn/invocations",
            query: &[("qualifier", "LATEST")],
            headers: &[],
            body_hash: &sha256_hex(br#"{"path":"/a"}"#),
        };
        let own = [
            ("content-type", "application/octet-stream"),
            ("x-acs-action", "InvokeFunction"),
            ("x-acs-version", "2023-03-30"),
            ("x-fc-invocation-type", "Sync"),
            ("x-fc-log-type", "None"),
        ];
        assert_eq!(
            action(&parts, &own),
            "ACS3-HMAC-SHA256 Credential=AKID0000TEST,SignedHeaders=accept;content-type;host;user-agent;x-acs-action;\
             x-acs-content-sha256;x-acs-credentials-provider;x-acs-date;x-acs-signature-nonce;x-acs-version;\
             x-fc-invocation-type;x-fc-log-type,\
             Signature=a22fcc7c5c1d99ee9ca88a9600d20c52bc6d9e82073ed0ef2adbe686cbbf9dc6"
        );
    }

    /// From alibabacloud_eventbridge20200401 8.7.0, with the form that it writes.
    #[test]
    fn put_events_of_the_control_api_is_signed_as_by_the_official_client() {
        let form = "EventBusName=bus1&EventList=%5B%7B%22Data%22%3A%7B%22a%22%3A%22%2B+%E4%B8%AD%22%7D%2C%22DataContentType%22%3A\
            %22application%2Fjson%22%2C%22Id%22%3A%22id-1%22%2C%22Source%22%3A%22my.app%22%2C%22SpecVersion%22%3A%221.0%22%2C\
            %22Subject%22%3A%22a+b%22%2C%22Time%22%3A%222026-11-23T00%3A00%3A00.000Z%22%2C%22Type%22%3A%22com.example.order%22%7D%5D";
        let parts = Acs3Parts {
            method: "POST",
            path: "/",
            query: &[],
            headers: &[],
            body_hash: &sha256_hex(form.as_bytes()),
        };
        let own = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-acs-action", "PutEvents"),
            ("x-acs-version", "2020-04-01"),
        ];
        let signed = action(&parts, &own);
        assert!(
            signed.ends_with(
                "Signature=52eed53f1c73fabcd20af9cdfa24214ea17b215919a83fb2be48b29a95409c33"
            ),
            "{signed}"
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
