//! The caller's half: from a request to the headers that make it verify.
//!
//! For `paifang sign` and `paifang call`, and for tests. It signs the way the official clients do, lower-case names and
//! every `x-ca-*` header included, and writes the same string that [`verify`](crate::verify) reads first. It sends
//! nothing and invents nothing: time and nonce are arguments.

use crate::canonical::{Headers, Parts, Scratch, is_form};
use crate::digest::content_md5;
use crate::key::{Algorithm, Key};
use crate::nonce::{InvalidNonce, parse_nonce};

/// An app's credentials and what it puts into every request.
#[derive(Clone, Debug)]
pub struct Signer<'a> {
    /// The AppKey, sent as `x-ca-key`.
    pub app_key: &'a str,
    /// The AppSecret.
    pub key: &'a Key,
    /// Named in `x-ca-signature-method`.
    pub algorithm: Algorithm,
    /// The stage for `x-ca-stage`; None sends no such header, which means RELEASE.
    pub stage: Option<&'a str>,
    /// Names of further headers to sign, beside every `x-ca-*`.
    pub also_sign: &'a [&'a str],
}

/// A request that is not signed yet.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// The method in upper case.
    pub method: &'a str,
    /// Path and query as they will be on the wire: percent-encoded, beginning with `/`, without a fragment.
    pub target: &'a str,
    /// Every header that will be sent and that the signature may cover: at least Accept, Content-Type and Date if the
    /// HTTP client is going to send them.
    pub headers: &'a [(String, String)],
    /// The body; empty for none.
    pub body: &'a [u8],
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Every header of the request, the given ones first and unchanged. Added: `accept: application/json` if there was
    /// none, because HTTP libraries would add their own after signing; `content-md5` for a body that is not a form;
    /// `x-ca-*`.
    pub headers: Vec<(String, String)>,
    /// What was signed. Bytes that are not UTF-8 (an odd `%XX` in the query) show as U+FFFD here; the signature covers
    /// the real ones.
    pub string_to_sign: String,
}

/// A request that cannot be signed as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotSign {
    /// The target is not `/path?query`.
    #[error("the target must be a path that begins with `/`, with its query and without `#`")]
    Target,
    /// A given header is one that signing adds.
    #[error("header {0} is set by signing: leave it out")]
    Reserved(String),
    /// A header name or value that no request can carry.
    #[error(
        "header {0} has characters that a request cannot carry: remove line breaks and control characters"
    )]
    Header(String),
    /// A header to sign is not in the request.
    #[error(
        "header {0} is to be signed but the request does not have it: add it, or do not list it"
    )]
    Missing(String),
    /// The nonce is not one.
    #[error(transparent)]
    Nonce(#[from] InvalidNonce),
}

/// Set by signing, so not by the caller.
const RESERVED: [&str; 7] = [
    "x-ca-key",
    "x-ca-nonce",
    "x-ca-signature",
    "x-ca-signature-headers",
    "x-ca-signature-method",
    "x-ca-stage",
    "x-ca-timestamp",
];

/// Lines of their own, so never header lines (Ref §1.3).
const FIXED: [&str; 4] = ["accept", "content-md5", "content-type", "date"];

// === impl Signer ===

impl Signer<'_> {
    /// Signs a request for `timestamp_ms`, milliseconds since the epoch, and a nonce that was never used before.
    ///
    /// # Errors
    ///
    /// [`CannotSign`] names the header or part and what to do.
    pub fn sign(
        &self,
        request: &Unsigned<'_>,
        timestamp_ms: u64,
        nonce: &str,
    ) -> Result<Signed, CannotSign> {
        parse_nonce(nonce.as_bytes())?;
        check_target(request.target)?;
        let mut headers = request.headers.to_vec();
        self.add_headers(request, timestamp_ms, nonce, &mut headers);
        headers[request.headers.len()..]
            .iter()
            .chain(request.headers)
            .try_for_each(check_header)?;
        check_reserved(request.headers)?;
        let list = self.list(&headers)?;
        let text = string_to_sign(request, &headers, &list);
        headers.push(("x-ca-signature-headers".into(), list));
        headers.push((
            "x-ca-signature".into(),
            self.key.sign(self.algorithm, &text),
        ));
        Ok(Signed {
            headers,
            string_to_sign: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    fn add_headers(
        &self,
        request: &Unsigned<'_>,
        timestamp_ms: u64,
        nonce: &str,
        headers: &mut Vec<(String, String)>,
    ) {
        let form = is_form(value(headers, "content-type").unwrap_or_default());
        if value(headers, "accept").is_none() {
            headers.push(("accept".into(), "application/json".into()));
        }
        if value(headers, "content-md5").is_none() && !request.body.is_empty() && !form {
            headers.push(("content-md5".into(), content_md5(request.body)));
        }
        headers.push(("x-ca-key".into(), self.app_key.into()));
        headers.push(("x-ca-nonce".into(), nonce.into()));
        headers.push((
            "x-ca-signature-method".into(),
            self.algorithm.as_str().into(),
        ));
        if let Some(stage) = self.stage {
            headers.push(("x-ca-stage".into(), stage.into()));
        }
        headers.push(("x-ca-timestamp".into(), timestamp_ms.to_string()));
    }

    /// The value of `x-ca-signature-headers`: names in lower case, sorted, each once.
    fn list(&self, headers: &[(String, String)]) -> Result<String, CannotSign> {
        for name in self.also_sign {
            if value(headers, name).is_none() {
                return Err(CannotSign::Missing((*name).to_owned()));
            }
        }
        let own = headers
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .filter(|name| name.starts_with("x-ca-"));
        let further = self.also_sign.iter().map(|name| name.to_ascii_lowercase());
        let mut names: Vec<_> = own
            .chain(further)
            .filter(|name| !FIXED.contains(&name.as_str()))
            .collect();
        names.sort();
        names.dedup();
        Ok(names.join(","))
    }
}

fn value<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h [u8]> {
    Headers::first(headers, name)
}

fn string_to_sign(request: &Unsigned<'_>, headers: &[(String, String)], list: &str) -> Vec<u8> {
    let (raw_path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target, None),
    };
    let form = is_form(value(headers, "content-type").unwrap_or_default()).then_some(request.body);
    let parts = Parts {
        method: request.method,
        raw_path,
        query,
        form,
        headers,
    };
    Scratch::new()
        .string_to_sign(&parts, Some(list.as_bytes()))
        .to_vec()
}

fn check_target(target: &str) -> Result<(), CannotSign> {
    match target.starts_with('/') && !target.contains('#') {
        true => Ok(()),
        false => Err(CannotSign::Target),
    }
}

fn check_reserved(headers: &[(String, String)]) -> Result<(), CannotSign> {
    match headers
        .iter()
        .find(|(name, _)| RESERVED.contains(&name.to_ascii_lowercase().as_str()))
    {
        Some((name, _)) => Err(CannotSign::Reserved(name.clone())),
        None => Ok(()),
    }
}

fn check_header((name, value): &(String, String)) -> Result<(), CannotSign> {
    let bad_name = name.is_empty()
        || name.contains(|char: char| !char.is_ascii_graphic() || ",:".contains(char));
    let bad_value = value.contains(|char: char| char.is_ascii_control() && char != '\t')
        || value.trim() != value;
    match bad_name || bad_value {
        true => Err(CannotSign::Header(name.clone())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "11111111-2222-3333-4444-555555555555";

    fn sign(
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
        also_sign: &[&str],
    ) -> Result<Signed, CannotSign> {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let key = Key::new("MySecret");
        let signer = Signer {
            app_key: "203753385",
            key: &key,
            algorithm: Algorithm::HmacSha256,
            stage: Some("TEST"),
            also_sign,
        };
        let request = Unsigned {
            method: "POST",
            target,
            headers: &headers,
            body: body.as_bytes(),
        };
        signer.sign(&request, 1_700_000_000_000, NONCE)
    }

    #[test]
    fn a_json_body_gets_its_content_md5() {
        let signed = sign(
            "/orders?b=%20",
            &[("Content-Type", "application/json"), ("X-Biz", "1")],
            "{}",
            &["X-Biz"],
        );
        assert_eq!(
            signed.unwrap().string_to_sign,
            "POST\napplication/json\nmZFLkyvTelC5g8XnyQrpOw==\napplication/json\n\nx-biz:1\nx-ca-key:203753385\n\
             x-ca-nonce:11111111-2222-3333-4444-555555555555\nx-ca-signature-method:HmacSHA256\nx-ca-stage:TEST\n\
             x-ca-timestamp:1700000000000\n/orders?b= "
        );
    }

    #[test]
    fn a_form_is_signed_as_parameters_and_has_no_content_md5() {
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        let signed = sign("/orders?b=2", &[form], "a=%E5%BC%A0", &[]).unwrap();
        assert!(
            signed.string_to_sign.ends_with("\n/orders?a=张&b=2"),
            "{}",
            signed.string_to_sign
        );
        assert_eq!(value(&signed.headers, "content-md5"), None);
    }

    #[test]
    fn what_cannot_be_signed_is_named() {
        assert_eq!(sign("orders", &[], "", &[]), Err(CannotSign::Target));
        assert_eq!(sign("/a#b", &[], "", &[]), Err(CannotSign::Target));
        assert_eq!(
            sign("/", &[("X-Ca-Key", "1")], "", &[]),
            Err(CannotSign::Reserved("X-Ca-Key".into()))
        );
        assert_eq!(
            sign("/", &[("X-Biz", "a\nb")], "", &[]),
            Err(CannotSign::Header("X-Biz".into()))
        );
        assert_eq!(
            sign("/", &[("X,Biz", "a")], "", &[]),
            Err(CannotSign::Header("X,Biz".into()))
        );
        assert_eq!(
            sign("/", &[], "", &["X-Biz"]),
            Err(CannotSign::Missing("X-Biz".into()))
        );
    }
}
