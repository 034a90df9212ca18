//! Headers that the gateway itself writes on a request to a backend, and those that signatures are made over, whatever the backend's type.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, HOST, VIA},
};

use crate::refusal::Refusal;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ca-request-id");

/// Takes over what the gateway said of itself, for a request of which nothing else of the caller's is to stand in headers. `Via` is
/// what ends a loop of gateways.
pub(super) fn keep_own(from: &HeaderMap, to: &mut HeaderMap) {
    for name in [HOST, VIA, REQUEST_ID] {
        if let Some(value) = from.get(&name) {
            to.insert(name, value.clone());
        }
    }
}

/// A header's value; empty when there is none.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// The headers whose names begin so.
pub(super) fn with_prefix<'h>(headers: &'h HeaderMap, prefix: &str) -> Vec<(&'h str, &'h str)> {
    let named = headers
        .keys()
        .filter(|name| name.as_str().starts_with(prefix));
    named
        .map(|name| (name.as_str(), text(headers, name)))
        .collect()
}

/// Sets a header that signatures are made over.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), Refusal> {
    let value = HeaderValue::from_str(value)
        .map_err(|_| Refusal::unusable_api().detail(format_args!("{name} cannot be a header")))?;
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}

/// Sets the signature, in the place of what the caller had there.
pub(super) fn authorize(headers: &mut HeaderMap, signature: &str) -> Result<(), Refusal> {
    headers.insert(AUTHORIZATION, secret(signature, "accessKeyId")?);
    Ok(())
}

/// A value that no log may show; `field` is the key of the Secret that it comes from.
pub(super) fn secret(value: &str, field: &str) -> Result<HeaderValue, Refusal> {
    let mut value = HeaderValue::try_from(value).map_err(|_| {
        Refusal::unusable_api().detail(format_args!("{field} has a control character"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}
