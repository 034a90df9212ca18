//! Functions of Alibaba Function Compute: where they are called, and how calls are signed.
//!
//! A function of 2.0 belongs to a service. An HTTP function of 3.0 is called at its trigger's own address, which has no prefix. The
//! signatures are compared with those of the official clients; the live service was not asked.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Request, header::CONTENT_TYPE};
use paifang_model::{ObjectName, percent};
use paifang_signing::{FcParts, sign_fc};
use paifang_snapshot::wire::AlibabaFunction;

use crate::{
    backend::{
        Call,
        acs3::{self, Action},
        head::{authorize, set, text, with_prefix},
        json,
    },
    body::Outgoing,
    encode,
    refusal::Refusal,
};

const INVOKE: Action = Action {
    name: "InvokeFunction",
    version: "2023-03-30",
};

/// Where a function is called.
pub(super) struct Alibaba {
    is_v2: bool,
    /// Path and query that events are posted to.
    pub(super) invocation: Box<str>,
    /// In front of the Api's path, of an HTTP function.
    pub(super) prefix: Box<str>,
    pub(super) credentials: ObjectName,
}

impl Alibaba {
    pub(super) fn new(function: &AlibabaFunction) -> Self {
        let encoded = |text: &str| {
            let mut out = String::new();
            encode::component(text, &mut out);
            out
        };
        let name = encoded(&function.function);
        let qualifier = encoded(&function.qualifier);
        let (invocation, prefix) = match &function.service {
            Some(service) => {
                let service = encoded(service);
                (
                    format!(
                        "/2016-08-15/services/{service}.{qualifier}/functions/{name}/invocations"
                    ),
                    format!("/2016-08-15/proxy/{service}.{qualifier}/{name}"),
                )
            }
            None => (
                format!("/2023-03-30/functions/{name}/invocations?qualifier={qualifier}"),
                String::new(),
            ),
        };
        Self {
            is_v2: function.service.is_some(),
            invocation: invocation.into(),
            prefix: prefix.into(),
            credentials: function.credentials.clone(),
        }
    }

    /// Signs the post of an event.
    pub(super) fn sign_event(
        &self,
        call: &Call<'_>,
        request: &mut Request<Outgoing>,
    ) -> Result<(), Refusal> {
        set(request.headers_mut(), "x-fc-invocation-type", "Sync")?;
        if self.is_v2 {
            return self.sign_v2(call, request, false);
        }
        let headers = request.headers_mut();
        let binary = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, binary);
        set(headers, "x-fc-log-type", "None")?;
        INVOKE.sign(call, request)
    }

    /// Signs a request to an HTTP function. The caller's `Authorization` makes way for the signature.
    pub(super) fn sign_request(
        &self,
        call: &Call<'_>,
        request: &mut Request<Outgoing>,
    ) -> Result<(), Refusal> {
        if self.is_v2 {
            self.sign_v2(call, request, true)
        } else {
            acs3::sign(call, request, &[CONTENT_TYPE], "")
        }
    }

    fn sign_v2(
        &self,
        call: &Call<'_>,
        request: &mut Request<Outgoing>,
        with_query: bool,
    ) -> Result<(), Refusal> {
        let access = call.credentials()?;
        let date = httpdate::fmt_http_date(call.now);
        set(request.headers_mut(), "date", &date)?;
        if let Some(token) = &access.security_token {
            set(request.headers_mut(), "x-fc-security-token", token.expose())?;
        }
        let path = request.uri().path();
        let path = percent::decode(path).map_or(Cow::Borrowed(path), Cow::Owned);
        let query: Vec<_> = json::pairs(request.uri().query().unwrap_or_default()).collect();
        let query: Vec<_> = query
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let headers = request.headers();
        let parts = FcParts {
            method: request.method().as_str(),
            content_md5: text(headers, &HeaderName::from_static("content-md5")),
            content_type: text(headers, &CONTENT_TYPE),
            date: &date,
            headers: &with_prefix(headers, "x-fc-"),
            path: &path,
            query: with_query.then_some(&*query),
        };
        let signature = sign_fc(&parts, &access.id, &access.key);
        authorize(request.headers_mut(), &signature)
    }
}
