//! OSS: one object of a bucket, in a store that speaks OSS or S3 (Ref §6.5).
//!
//! The gateway signs, so whatever it lets through is done with its rights. Path, query and headers are therefore written anew from
//! allow-lists: a caller reaches the object that the Api's key names, by the Api's action, and nothing else of the bucket. Bodies are
//! streamed, with an unsigned payload.

mod allowed;
mod key;
mod trouble;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{self, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, VIA},
    response,
    uri::PathAndQuery,
};
use http_body::Body as _;
use paifang_model::ObjectName;
use paifang_signing::{
    aws4, oss,
    store::{self, DayKey, Stamp},
};
use paifang_snapshot::{
    table::{self, Api},
    wire::{ObjectAction as Action, ObjectDialect as Dialect, ObjectTarget},
};

use super::{
    Call, Credentials, Kind, Remote, Upstream,
    head::{authorize, secret},
};
use crate::{body::Outgoing, refusal::Refusal, settings::Limits};

/// A bucket.
pub(crate) struct Object {
    dialect: Dialect,
    bucket: Box<str>,
    region: Box<str>,
    credentials: ObjectName,
    /// Whether the bucket stands in the path; else it is part of the host.
    by_path: bool,
    /// Made when the first request is signed, and anew for another day or access key: the request path reads it without a lock.
    signer: ArcSwapOption<Signer>,
}

/// The key of a day, and the access key that it comes from.
struct Signer {
    access_key: Credentials,
    key: DayKey,
}

/// The most of an error's body that is read to see whose fault it is.
const MOST_READ: u64 = 64 << 10;

const OSS_DATE: HeaderName = HeaderName::from_static("x-oss-date");
const OSS_PAYLOAD: HeaderName = HeaderName::from_static("x-oss-content-sha256");
const OSS_TOKEN: HeaderName = HeaderName::from_static("x-oss-security-token");
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const AMZ_PAYLOAD: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const AMZ_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const UNSIGNED: HeaderValue = HeaderValue::from_static("UNSIGNED-PAYLOAD");

/// Headers that are sent and not signed by S3's dialect: what is on the way may change them.
const UNSIGNED_HEADERS: [HeaderName; 3] = [VIA, CONTENT_LENGTH, header::ACCEPT_ENCODING];

/// Makes a bucket ready to be asked.
pub(super) fn load(target: &ObjectTarget) -> Result<Remote, String> {
    let mut address = target.origin.address.clone();
    let by_path = target.dialect == Dialect::S3 || !has_names_below(&address.host);
    if !by_path {
        address.host = format!("{}.{}", target.bucket, address.host).into();
    }
    let object = Object {
        dialect: target.dialect,
        bucket: target.bucket.as_str().into(),
        region: target.region.as_str().into(),
        credentials: target.credentials.clone(),
        by_path,
        signer: ArcSwapOption::empty(),
    };
    Remote::new(
        address.authority(),
        Upstream::at(&address, target.origin.tls.as_ref()),
        Some(Box::new(object)),
    )
}

/// Whether a bucket can stand in front of this host: not of an address, and not of a machine by itself.
fn has_names_below(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host != "localhost" && address.parse::<std::net::IpAddr>().is_err()
}

// === impl Object ===

impl Kind for Object {
    fn credentials(&self) -> Option<&ObjectName> {
        Some(&self.credentials)
    }

    fn body_limit(&self, api: &Api, limits: &Limits) -> u64 {
        match action(api) {
            Ok(Action::PutObject | Action::AppendObject | Action::PostObject) => {
                limits.object_bytes
            }
            _ => limits.body_bytes,
        }
    }

    fn pause(&self, api: &Api) -> Option<Duration> {
        Some(api.timeout)
    }

    fn prepare(
        &self,
        call: &Call<'_>,
        request: Request<Outgoing>,
    ) -> Result<Request<Outgoing>, Refusal> {
        let action = action(call.api())?;
        let (parts, body) = request.into_parts();
        if action == Action::PostObject {
            return self.form(&parts.headers, body);
        }
        if action == Action::AppendObject && self.dialect == Dialect::S3 {
            return Err(Refusal::unusable_api().detail("S3 knows no AppendObject"));
        }
        let key = key::of_path(parts.uri.path())?;
        let written = |name: &str| {
            crate::map::written(call.route, paifang_model::Location::Query).any(|own| own == name)
        };
        let query = parts.uri.query().unwrap_or_default();
        let query = allowed::query(action, self.dialect, query, written)?;
        let query: Vec<(&str, &str)> = query.iter().map(|(n, v)| (&**n, &**v)).collect();
        let mut headers = allowed::headers(action, self.dialect, &parts.headers);
        let body = match action {
            Action::PutObject | Action::AppendObject => body,
            _ => Outgoing::Empty,
        };
        if matches!(action, Action::PutObject | Action::AppendObject) {
            self.set_length(&body, &mut headers)?;
        }
        let mut asked = store::Request {
            method: parts.method.as_str(),
            bucket: &self.bucket,
            key: &key,
            query: &query,
            headers: &[],
        };
        self.sign(call, &mut asked, &mut headers)?;
        let target = self.target(&asked)?;
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = target;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn reads(&self, call: &Call<'_>, answer: &response::Parts) -> Option<usize> {
        let action = action(call.api()).ok()?;
        let told = match answer.status {
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => true,
            StatusCode::NOT_FOUND => self.dialect == Dialect::S3,
            _ => false,
        };
        // A form carries its caller's own signature; an S3 store gives no reason without a body.
        let ours = match action {
            Action::PostObject => false,
            Action::HeadObject | Action::GetObjectMeta => self.dialect != Dialect::S3,
            _ => true,
        };
        let length = answer.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let small = length.is_none_or(|length| length <= MOST_READ) || is_head(action);
        (told && ours && small).then_some(usize::try_from(MOST_READ).unwrap_or(usize::MAX))
    }

    fn finish(
        &self,
        call: &Call<'_>,
        answer: response::Parts,
        body: Bytes,
    ) -> Result<Response<Bytes>, Refusal> {
        match trouble::of(&answer, &body) {
            Some(trouble) => Err(Refusal::object_store().detail(trouble.explain(
                call.now,
                &answer,
                &self.credentials,
                &self.region,
            ))),
            None => Ok(Response::from_parts(answer, body)),
        }
    }
}

impl Object {
    /// Path and query at the store.
    fn target(&self, asked: &store::Request<'_>) -> Result<Uri, Refusal> {
        let mut target = Vec::with_capacity(128);
        asked.path_into(&mut target);
        if !self.by_path {
            target.drain(..=asked.bucket.len());
        }
        if !asked.query.is_empty() {
            target.push(b'?');
            asked.query_into(true, &mut target);
        }
        uri(target)
    }

    /// A form that its caller has signed: it goes to the bucket as it came, without a signature of ours.
    fn form(&self, sent: &HeaderMap, body: Outgoing) -> Result<Request<Outgoing>, Refusal> {
        let is_form = sent.get(CONTENT_TYPE).is_some_and(|value| {
            let form = b"multipart/form-data";
            let start = value.as_bytes().get(..form.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(form))
        });
        if !is_form {
            return Err(Refusal::content_type(
                "PostObject takes multipart/form-data",
            ));
        }
        let mut headers = allowed::headers(Action::PostObject, self.dialect, sent);
        self.set_length(&body, &mut headers)?;
        let path = if self.by_path {
            format!("/{}", self.bucket)
        } else {
            "/".to_owned()
        };
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri(path.into_bytes())?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Says how long the body is. OSS takes one whose length is not known; S3 does not.
    fn set_length(&self, body: &Outgoing, headers: &mut HeaderMap) -> Result<(), Refusal> {
        match body.size_hint().exact() {
            Some(length) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
                Ok(())
            }
            None if self.dialect == Dialect::S3 => Err(Refusal::missing_header("Content-Length")),
            None => Ok(()),
        }
    }

    /// Adds what is signed to the headers, and the signature.
    fn sign(
        &self,
        call: &Call<'_>,
        asked: &mut store::Request<'_>,
        headers: &mut HeaderMap,
    ) -> Result<(), Refusal> {
        let access_key = call.credentials()?;
        let seconds = call.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp = Stamp::new(seconds.as_secs());
        self.set_signed(call, &stamp, access_key, headers)?;
        let signed = signed(self.dialect, headers);
        let asked = store::Request {
            headers: &signed,
            ..*asked
        };
        let id = &access_key.id;
        let signature = match self.dialect {
            Dialect::OssV1 => oss::sign_v1(&asked, id, &access_key.key),
            Dialect::OssV4 => self.with_day_key(access_key, &stamp, oss::day_key, |key| {
                oss::sign_v4(&asked, id, key, &stamp)
            }),
            Dialect::S3 => self.with_day_key(access_key, &stamp, aws4::day_key, |key| {
                aws4::sign(&asked, id, key, &stamp)
            }),
        };
        authorize(headers, &signature)?;
        Ok(())
    }

    fn set_signed(
        &self,
        call: &Call<'_>,
        stamp: &Stamp,
        access_key: &Credentials,
        headers: &mut HeaderMap,
    ) -> Result<(), Refusal> {
        let (stamp_name, payload_name, token_name) = match self.dialect {
            Dialect::S3 => (AMZ_DATE, AMZ_PAYLOAD, AMZ_TOKEN),
            Dialect::OssV4 | Dialect::OssV1 => (OSS_DATE, OSS_PAYLOAD, OSS_TOKEN),
        };
        if self.dialect != Dialect::S3 {
            let date = HeaderValue::try_from(httpdate::fmt_http_date(call.now));
            headers.insert(DATE, date.expect("a date is ASCII"));
        }
        if self.dialect != Dialect::OssV1 {
            let stamp = HeaderValue::try_from(stamp.as_str()).expect("a stamp is ASCII");
            headers.insert(stamp_name, stamp);
            headers.insert(payload_name, UNSIGNED);
        }
        if let Some(token) = &access_key.security_token {
            headers.insert(token_name, secret(token.expose(), "securityToken")?);
        }
        Ok(())
    }

    /// Signs with the key of the day, which is derived once a day and access key.
    fn with_day_key(
        &self,
        access_key: &Credentials,
        stamp: &Stamp,
        derive: fn(&str, &str, &str) -> DayKey,
        sign: impl FnOnce(&DayKey) -> String,
    ) -> String {
        let known = self.signer.load();
        if let Some(known) = &*known
            && Arc::ptr_eq(&known.access_key, access_key)
            && known.key.serves(stamp)
        {
            return sign(&known.key);
        }
        let signer = Arc::new(Signer {
            access_key: Credentials::clone(access_key),
            key: derive(access_key.secret.expose(), stamp.day(), &self.region),
        });
        self.signer.store(Some(Arc::clone(&signer)));
        sign(&signer.key)
    }
}

/// What the Api does to its object.
fn action(api: &Api) -> Result<Action, Refusal> {
    match api.call {
        table::Call::Object { action } => Ok(action),
        _ => Err(Refusal::unusable_api().detail("it says no action for an object store")),
    }
}

fn is_head(action: Action) -> bool {
    matches!(action, Action::HeadObject | Action::GetObjectMeta)
}

fn uri(target: Vec<u8>) -> Result<Uri, Refusal> {
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target))
        .map_err(|error| Refusal::internal(format_args!("an object's path: {error}")))?;
    Ok(Uri::from(target))
}

/// Headers as they are signed, by name. All have one value: [`allowed::headers`] sees to it.
fn signed(dialect: Dialect, headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    let mut signed: Vec<(&str, &[u8])> = headers
        .iter()
        .filter(|(name, _)| dialect != Dialect::S3 || !UNSIGNED_HEADERS.contains(name))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    signed.sort_unstable_by_key(|(name, _)| *name);
    signed
}

/// A name and a value of a query, decoded.
type Pair<'q> = (Cow<'q, str>, Cow<'q, str>);

/// Where a request goes, whatever is sent along.
fn copied(name: &HeaderName) -> bool {
    *name == HOST || *name == VIA
}
