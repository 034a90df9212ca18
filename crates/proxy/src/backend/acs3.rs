//! Calls of Alibaba's APIs that are signed with version 3: what is called, and the signature over it.

use std::collections::BTreeSet;

use http::{
    HeaderName, HeaderValue, Request,
    header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT},
};
use paifang_signing::{Acs3Parts, Utc, sha256_hex, sign_acs3};

use super::{
    Call,
    head::{authorize, set, text, with_prefix},
    json,
};
use crate::{body::Outgoing, record::RequestId, refusal::Refusal};

/// An action of an API.
pub(super) struct Action {
    pub(super) name: &'static str,
    /// The API's version, a date.
    pub(super) version: &'static str,
}

impl Action {
    /// Signs a call whose body is at hand, and whose other headers are written.
    pub(super) fn sign(
        &self,
        call: &Call<'_>,
        request: &mut Request<Outgoing>,
    ) -> Result<(), Refusal> {
        let hash = match request.body() {
            Outgoing::Whole(body) => sha256_hex(body),
            Outgoing::Empty | Outgoing::Stream(_) => sha256_hex(b""),
        };
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static("paifang"));
        let nonce = RequestId::random();
        for (name, value) in [
            ("x-acs-action", self.name),
            ("x-acs-version", self.version),
            ("x-acs-signature-nonce", nonce.as_str()),
            ("x-acs-content-sha256", &hash),
        ] {
            set(headers, name, value)?;
        }
        let signed = [ACCEPT, CONTENT_TYPE, HOST, USER_AGENT];
        sign(call, request, &signed, &hash)
    }
}

/// Signs a request: the headers that Alibaba gives a meaning, and `also`. `hash` is that of the body, empty towards HTTP triggers.
pub(super) fn sign(
    call: &Call<'_>,
    request: &mut Request<Outgoing>,
    also: &[HeaderName],
    hash: &str,
) -> Result<(), Refusal> {
    let access = call.credentials()?;
    let headers = request.headers_mut();
    set(headers, "x-acs-date", &Utc::from(call.now).to_seconds())?;
    if let Some(token) = &access.security_token {
        set(headers, "x-acs-accesskey-id", &access.id)?;
        set(headers, "x-acs-security-token", token.expose())?;
    }
    let headers = request.headers();
    let mut signed = with_prefix(headers, "x-acs-");
    signed.extend(with_prefix(headers, "x-fc-"));
    let also = also.iter().filter(|name| headers.contains_key(*name));
    signed.extend(also.map(|name| (name.as_str(), text(headers, name))));
    // Of a repeated name the documented client signs the first value.
    let mut seen = BTreeSet::new();
    let query: Vec<_> = json::pairs(request.uri().query().unwrap_or_default())
        .filter(|(name, _)| seen.insert(name.clone()))
        .collect();
    let query: Vec<_> = query
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let parts = Acs3Parts {
        method: request.method().as_str(),
        path: &request.uri().path().replace('$', "%24"),
        query: &query,
        headers: &signed,
        body_hash: hash,
    };
    let signature = sign_acs3(&parts, &access.id, &access.key);
    authorize(request.headers_mut(), &signature)
}
