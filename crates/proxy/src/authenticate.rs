//! Phases 5 and 6: who calls (Ref §1, §2), and whether it may.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use paifang_signing::{
    Algorithm, Headers, Md5, Parts, Scratch, TIMESTAMP_WINDOW_MS, appcode, parse_nonce,
    timestamp_ahead, timestamp_within, verify,
};
use paifang_snapshot::{
    table::Permission,
    wire::{AppAuth, AppCode},
};

use crate::{
    clean::head::Cleaned,
    keys::{AppKey, Caller, Keys},
    locate::Located,
    map,
    nonce::{Nonces, Use},
    refusal::Refusal,
    serve::Now,
};

/// What is authenticated.
pub(crate) struct Request<'r> {
    pub(crate) cleaned: &'r Cleaned<'r>,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) method: &'r str,
    /// The whole body, where it was read.
    pub(crate) body: Option<&'r [u8]>,
}

/// Who claims to call, by what was sent before the body.
pub(crate) enum Claim<'r> {
    /// An App, by a signature that has yet to be verified.
    Signed(Signature<'r>),
    /// An App, by its AppCode: nothing is left to verify.
    Code(Arc<Caller>),
}

/// A signature of somebody known, made lately.
pub(crate) struct Signature<'r> {
    app_key: &'r str,
    entry: &'r AppKey,
    signature: &'r HeaderValue,
    algorithm: Algorithm,
    nonce: Option<&'r str>,
    /// How far its time stamp is ahead of our clock.
    ahead_ms: u64,
}

/// Who calls.
pub(crate) enum Identity<'r> {
    /// Anybody: the API asks for nobody in particular.
    Anonymous,
    /// An App, by its AppKey.
    Key(Arc<Caller>, &'r str),
    /// An App, by its AppCode.
    Code(Arc<Caller>),
}

/// Proof that the caller may call this API in this stage; only [`Identity::authorise`] makes one.
pub(crate) struct Permit<'r> {
    identity: Identity<'r>,
}

/// Header look-ups for the signature.
struct Lookup<'r>(&'r HeaderMap);

impl Headers for Lookup<'_> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(HeaderValue::as_bytes)
    }
}

/// Who claims to call. A signature goes before an AppCode when both are sent. Everything that can be refused without the body is
/// refused here, so that nobody unknown makes us hold one.
pub(crate) fn claim<'r>(
    cleaned: &Cleaned<'r>,
    rules: &AppAuth,
    keys: &'r Keys,
    now: &Now,
) -> Result<Claim<'r>, Refusal> {
    if let Some(key) = cleaned.known.key {
        return signature(cleaned, key, rules, keys, now).map(Claim::Signed);
    }
    let code = cleaned
        .known
        .authorization
        .and_then(|value| appcode::parse(value.as_bytes()));
    if let Some(code) = code {
        if rules.app_code == AppCode::Disabled {
            return Err(Refusal::app_code("not allowed for this API"));
        }
        return by_code(code, keys, now);
    }
    match cleaned.query.and_then(appcode::in_query) {
        None => Err(Refusal::no_credential()),
        Some(code) if rules.app_code == AppCode::HeaderAndQuery => by_code(&code, keys, now),
        Some(_) => Err(Refusal::app_code("not allowed in the query of this API")),
    }
}

fn by_code<'r>(code: &str, keys: &Keys, now: &Now) -> Result<Claim<'r>, Refusal> {
    keys.app_code(code, now.unix_ms)
        .map(|caller| Claim::Code(Arc::clone(caller)))
        .ok_or_else(|| Refusal::app_code("not exists"))
}

fn signature<'r>(
    cleaned: &Cleaned<'r>,
    key: &'r HeaderValue,
    rules: &AppAuth,
    keys: &'r Keys,
    now: &Now,
) -> Result<Signature<'r>, Refusal> {
    let known = &cleaned.known;
    let signature = known
        .signature
        .ok_or_else(|| Refusal::missing_header("X-Ca-Signature"))?;
    let algorithm = Algorithm::from_header(known.signature_method.map(HeaderValue::as_bytes))
        .map_err(|_| Refusal::header("X-Ca-Signature-Method", "must be HmacSHA256 or HmacSHA1"))?;
    let allowed = match algorithm {
        Algorithm::HmacSha256 => rules.allow_sha256,
        Algorithm::HmacSha1 => rules.allow_sha1,
    };
    if !allowed {
        return Err(Refusal::header(
            "X-Ca-Signature-Method",
            "is not allowed for this API",
        ));
    }
    let mut ahead_ms = 0;
    if let Some(timestamp) = known.timestamp {
        let now_ms = u64::try_from(now.unix_ms).unwrap_or(0);
        ahead_ms = timestamp_ahead(timestamp.as_bytes(), now_ms);
        timestamp_within(timestamp.as_bytes(), now_ms, TIMESTAMP_WINDOW_MS)
            .map_err(|error| Refusal::timestamp().detail(error))?;
    }
    let nonce = known
        .nonce
        .map(|value| {
            parse_nonce(value.as_bytes())
                .map_err(|error| Refusal::header("X-Ca-Nonce", "is malformed").detail(error))
        })
        .transpose()?;
    if rules.require_nonce {
        if nonce.is_none() {
            return Err(Refusal::no_nonce());
        }
        // One that is not signed could be exchanged by whoever repeats the request.
        if !lists_nonce(known.signature_headers) {
            return Err(Refusal::header(
                "X-Ca-Nonce",
                "must be listed in X-Ca-Signature-Headers",
            ));
        }
    }
    let app_key = key.to_str().map_err(|_| Refusal::app_key())?;
    let entry = keys
        .app_key(app_key, now.unix_ms)
        .ok_or_else(Refusal::app_key)?;
    Ok(Signature {
        app_key,
        entry,
        signature,
        algorithm,
        nonce,
        ahead_ms,
    })
}

fn lists_nonce(listed: Option<&HeaderValue>) -> bool {
    let mut names = listed
        .into_iter()
        .flat_map(|list| list.as_bytes().split(|&b| b == b','));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"x-ca-nonce"))
}

/// Of a header, the signature covers the first value: a second one would be forwarded uncovered. Those of the protocol were found to
/// be single when the head was cleaned.
fn check_single(headers: &HeaderMap, listed: Option<&HeaderValue>) -> Result<(), Refusal> {
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    let listed = listed
        .into_iter()
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim);
    match listed
        .chain(["accept", "date"])
        .find(|&name| headers.get_all(name).iter().nth(1).is_some())
    {
        Some(name) => Err(Refusal::header(name, "is signed and appears twice")),
        None => Ok(()),
    }
}

/// Content-MD5 against what was received (Ref §1.4 step 8).
fn check_digest(sent: &HeaderValue, body: Option<&[u8]>) -> Result<(), Refusal> {
    let mut digest = Md5::new();
    digest.update(body.unwrap_or_default());
    if digest.matches(sent.as_bytes()) {
        Ok(())
    } else {
        Err(Refusal::content_md5("differs from the body received"))
    }
}

// === impl Claim ===

impl<'r> Claim<'r> {
    /// Identifies the App, given all that was sent.
    pub(crate) fn prove(
        self,
        request: &Request<'_>,
        nonces: &Nonces,
        now: &Now,
        scratch: &mut Scratch,
    ) -> Result<Identity<'r>, Refusal> {
        match self {
            Self::Code(caller) => Ok(Identity::Code(caller)),
            Self::Signed(signature) => signature.prove(request, nonces, now, scratch),
        }
    }
}

// === impl Signature ===

impl<'r> Signature<'r> {
    fn prove(
        self,
        request: &Request<'_>,
        nonces: &Nonces,
        now: &Now,
        scratch: &mut Scratch,
    ) -> Result<Identity<'r>, Refusal> {
        let known = &request.cleaned.known;
        check_single(request.headers, known.signature_headers)?;
        let form = request.body.filter(|_| map::is_form(request.cleaned));
        let parts = Parts {
            method: request.method,
            raw_path: request.cleaned.raw_path,
            query: request.cleaned.query,
            form,
            headers: &Lookup(request.headers),
        };
        let listed = known.signature_headers.map(HeaderValue::as_bytes);
        verify(
            &parts,
            self.signature.as_bytes(),
            listed,
            self.algorithm,
            &self.entry.key,
            scratch,
        )
        .map_err(|mismatch| Refusal::signature(&mismatch.hint()))?;
        if let Some(sent) = known.content_md5 {
            check_digest(sent, request.body)?;
        }
        // Only a sound signature uses up a nonce: nobody else can spend it.
        if let Some(nonce) = self.nonce {
            let counts_from = now.monotonic_s() + self.ahead_ms.div_ceil(1000);
            match nonces.take(self.app_key, nonce, now.monotonic_s(), counts_from) {
                Use::Fresh => {}
                Use::Repeated => return Err(Refusal::nonce_used()),
                Use::Full => {
                    return Err(
                        Refusal::overload().detail("no room for more nonces: raise the limit")
                    );
                }
            }
        }
        Ok(Identity::Key(Arc::clone(&self.entry.caller), self.app_key))
    }
}

// === impl Identity ===

impl<'r> Identity<'r> {
    pub(crate) fn caller(&self) -> Option<&Arc<Caller>> {
        match self {
            Self::Anonymous => None,
            Self::Key(caller, _) | Self::Code(caller) => Some(caller),
        }
    }

    /// Phase 6: app × API × stage, not expired, app not disabled.
    pub(crate) fn authorise(self, located: &Located<'_>, now: &Now) -> Result<Permit<'r>, Refusal> {
        if let Some(caller) = self.caller() {
            if caller.disabled {
                return Err(Refusal::unauthorized().detail("the App is disabled"));
            }
            match located.group().grant(caller.id, located.route, now.unix_ms) {
                Permission::Granted => {}
                Permission::Expired => return Err(Refusal::authorization_expired()),
                Permission::None => return Err(Refusal::unauthorized()),
            }
        }
        Ok(Permit { identity: self })
    }
}

// === impl Permit ===

impl Permit<'_> {
    /// The caller; `None` on an anonymous API.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.identity.caller().map(|caller| &**caller)
    }

    /// The AppKey, if the request was signed.
    pub(crate) fn app_key(&self) -> Option<&str> {
        match self.identity {
            Identity::Key(_, key) => Some(key),
            Identity::Anonymous | Identity::Code(_) => None,
        }
    }
}
