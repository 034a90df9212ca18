//! The signature of Alibaba EventBridge's data API: `acs:<id>:<Base64 of HMAC-SHA1>`, equal to what its SDKs send. It does not cover the
//! body.

use crate::{
    key::{Algorithm, Key},
    lines::{MOST_TEXTS, header_into, line_into},
};

/// `Authorization` of a `POST` without a query. `headers` are all whose names begin with `x-acs`: names in small letters, in any order.
pub fn sign_eventbridge(
    path: &str,
    content_type: &str,
    date: &str,
    headers: &[(&str, &str)],
    id: &str,
    key: &Key,
) -> String {
    let mut headers = headers.to_vec();
    headers.sort_unstable();
    let mut text = Vec::with_capacity(MOST_TEXTS);
    for line in ["POST", "", content_type, date] {
        line_into(line, &mut text);
    }
    for (name, value) in headers {
        header_into(name, value.as_bytes(), &mut text);
    }
    text.extend_from_slice(path.as_bytes());
    ["acs:", id, ":", &key.sign(Algorithm::HmacSha1, text)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From alibabacloud_eventbridge 1.3.8.
    #[test]
    fn the_signature_is_that_of_the_official_client() {
        let headers = [
            ("x-acs-signature-version", "1.0"),
            ("x-acs-signature-nonce", "nonce-0001"),
            ("x-acs-signature-method", "HMAC-SHA1"),
        ];
        let signed = sign_eventbridge(
            "/openapi/putEvents",
            "application/cloudevents-batch+json; charset=utf-8",
            "Mon, 23 Nov 2026 00:00:00 GMT",
            &headers,
            "AKID0000TEST",
            &Key::new("SECRET0000TEST"),
        );
        assert_eq!(signed, "acs:AKID0000TEST:55myDepTXbeORFCmu8gVLMYMXaI=");
    }
}
