//! The signature of Alibaba EventBridge's data API: `acs:<id>:<Base64 of HMAC-SHA1>`, equal to what its SDKs send. It does not cover the
//! body.

use crate::key::{Algorithm, Key};

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
    let mut text = format!("POST\n\n{content_type}\n{date}\n");
    text.extend(
        headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n")),
    );
    text.push_str(path);
    format!("acs:{id}:{}", key.sign(Algorithm::HmacSha1, text))
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
