//! The signature that a gateway adds for its backend (Ref §9.3, plugin `backendSignature`). Which parameters and
//! headers are declared, and the three `X-Ca-Proxy-Signature…` headers, are the plugin's.

use std::collections::BTreeMap;

use crate::key::{Algorithm, Key};

/// What a backend signature covers.
#[derive(Clone, Debug, Default)]
pub struct BackendParts<'a> {
    /// The method sent to the backend.
    pub method: &'a str,
    /// The `Content-MD5` that is forwarded; empty if none is.
    pub content_md5: &'a str,
    /// Names and values of the signed headers. Lines are sorted by the name as given and carry it in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The path sent to the backend, decoded.
    pub path: &'a str,
    /// Query and form parameters, decoded; of a repeated name the first counts. Unlike in a caller's signature, an
    /// empty value leaves `name=`.
    pub parameters: &'a [(&'a str, &'a str)],
}

/// The signature in Base64, HMAC-SHA256, and the string it signs.
pub fn sign_backend(parts: &BackendParts<'_>, key: &Key) -> (String, String) {
    let text = string_to_sign(parts);
    (key.sign(Algorithm::HmacSha256, &text), text)
}

fn string_to_sign(parts: &BackendParts<'_>) -> String {
    let mut headers = parts.headers.to_vec();
    headers.sort_by_key(|(name, _)| *name);
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{}:{value}\n", name.to_ascii_lowercase()))
        .collect();
    let mut first_values = BTreeMap::new();
    for (name, value) in parts.parameters {
        first_values.entry(*name).or_insert(*value);
    }
    let pairs: Vec<_> = first_values
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let question = if pairs.is_empty() { "" } else { "?" };
    let (method, md5, path) = (parts.method, parts.content_md5, parts.path);
    format!(
        "{method}\n{md5}\n{lines}{path}{question}{}",
        pairs.join("&")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vector V9 of Ref §1.7.
    const V9: BackendParts<'_> = BackendParts {
        method: "POST",
        content_md5: "",
        headers: &[
            ("HeaderKey2", "HeaderValue2"),
            ("HeaderKey1", "HeaderValue1"),
        ],
        path: "/demo/uri",
        parameters: &[
            ("QueryKey1", "QueryValue1"),
            ("QueryKey2", "QueryValue2"),
            ("FormKey1", "FormValue1"),
            ("FormKey2", "FormValue2"),
        ],
    };
    const SIGNATURE: &str = "C7Lqfn8Spz0DxQTfUJq0NrkEbwNUuTNtC9p3SzRWgv0=";

    fn signature(parts: &BackendParts<'_>) -> String {
        sign_backend(parts, &Key::new("DemoSecret1")).0
    }

    #[test]
    fn v9_has_alibabas_own_signature() {
        assert_eq!(signature(&V9), SIGNATURE);
    }

    #[test]
    fn v9_tampered_has_another() {
        for (element, parts) in [
            (
                "method",
                BackendParts {
                    method: "PUT",
                    ..V9
                },
            ),
            (
                "content_md5",
                BackendParts {
                    content_md5: "u2y1xo30ZSlByvZSo2by2A==",
                    ..V9
                },
            ),
            (
                "header value",
                BackendParts {
                    headers: &[("HeaderKey1", "x"), ("HeaderKey2", "HeaderValue2")],
                    ..V9
                },
            ),
            (
                "header gone",
                BackendParts {
                    headers: &[("HeaderKey1", "HeaderValue1")],
                    ..V9
                },
            ),
            (
                "path",
                BackendParts {
                    path: "/demo/uri/",
                    ..V9
                },
            ),
            (
                "parameter gone",
                BackendParts {
                    parameters: &V9.parameters[1..],
                    ..V9
                },
            ),
        ] {
            assert_ne!(signature(&parts), SIGNATURE, "{element}");
        }
        assert_ne!(sign_backend(&V9, &Key::new("DemoSecret2")).0, SIGNATURE);
    }

    #[test]
    fn an_empty_value_keeps_its_equals_sign() {
        let parts = BackendParts {
            parameters: &[("a", "")],
            headers: &[],
            ..V9
        };
        assert_eq!(
            sign_backend(&parts, &Key::new("s")).1,
            "POST\n\n/demo/uri?a="
        );
    }
}
