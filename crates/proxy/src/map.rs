//! Phase 7: what the backend is asked, made from what the caller sent (Ref §4).
//!
//! Values are read decoded, checked, and written again by us, so that the backend sees exactly what was checked. What the mode
//! forwards untouched stays as it came.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Uri,
    header::{self, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST},
    request::Parts,
    uri::PathAndQuery,
};
use paifang_model::{Location, Method, Stage, SystemParameter};
use paifang_signing::appcode;
use paifang_snapshot::{
    table::{Api, Call, Captures, Parameter, PathPiece, Route},
    wire::{BodyFormat, ContentType, Mode},
};

use crate::{
    authenticate::Permit,
    backend::Backend,
    body::Outgoing,
    clean::head::{self, Cleaned},
    encode,
    locate::Located,
    record::Record,
    refusal::Refusal,
    serve::{Client, Now, Worker},
    trailers::{Trailers, are_taken},
};

/// All that a mapping is made from.
pub(crate) struct Inputs<'r> {
    pub(crate) worker: &'r Worker,
    pub(crate) client: &'r Client,
    pub(crate) cleaned: &'r Cleaned<'r>,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) captures: &'r Captures<'r>,
    pub(crate) located: &'r Located<'r>,
    pub(crate) permit: &'r Permit<'r>,
    pub(crate) backend: &'r Backend,
    /// The whole body, where it was read.
    pub(crate) whole: Option<&'r Bytes>,
    pub(crate) record: &'r Record,
    pub(crate) now: &'r Now,
}

/// The request to the backend, but for its body where that is streamed.
pub(crate) struct Mapped {
    method: HttpMethod,
    target: PathAndQuery,
    headers: Plan,
    /// A body written by us, in place of the client's.
    pub(crate) body: Option<Bytes>,
    /// Values of parameters that go to the path, or that the backend's kind asks for, by their position.
    pub(crate) values: Vec<(u16, String)>,
}

/// How the backend's headers come about.
struct Plan {
    /// A map of its own; absent when the client's is used.
    fresh: Option<HeaderMap>,
    /// Removed from the client's.
    remove: Vec<HeaderName>,
    /// Set, the first of a name replacing what was there.
    set: Vec<(HeaderName, HeaderValue)>,
    aliases: bool,
    trailers: bool,
}

/// A name and a value of a query or form, as they came.
struct Field<'r> {
    name: Option<Cow<'r, str>>,
    value: &'r str,
    raw: &'r str,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ca-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CLIENT_SUBJECT: HeaderName = HeaderName::from_static("x-client-s-dn");
/// What [`Output::set_own`] says, whatever an Api adds under these names.
const OWN: [HeaderName; 6] = [
    HOST,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    REQUEST_ID,
    header::VIA,
    CLIENT_SUBJECT,
];
const VIA: HeaderValue = HeaderValue::from_static("1.1 paifang");
const FORM_TYPE: HeaderValue =
    HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8");

/// Undeclared headers that even `MAPPING` forwards: they describe the body that is forwarded, or negotiate the answer, and dropping
/// them would break it. Which headers the cloud product keeps is not documented (Ref §4.2, unverified); this is the place to change.
const ALWAYS_FORWARDED: [HeaderName; 9] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::USER_AGENT,
];

/// How often a request may pass gateways before it counts as a loop.
const MOST_HOPS: usize = 8;

// === what serve asks before mapping ===

/// Whether the body is an URL-encoded form by its type.
pub(crate) fn is_form(cleaned: &Cleaned<'_>) -> bool {
    cleaned
        .known
        .content_type
        .is_some_and(|value| paifang_signing::is_form(value.as_bytes()))
}

/// Whether this API reads forms field by field.
pub(crate) fn maps_form(api: &Api) -> bool {
    api.mode != Mode::Passthrough && api.body_format == BodyFormat::Form
}

/// The length a request declares for its body.
pub(crate) fn declared_length(cleaned: &Cleaned<'_>) -> Result<Option<u64>, Refusal> {
    cleaned
        .known
        .content_length
        .map(|value| {
            value
                .to_str()
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| Refusal::header("Content-Length", "is not a number"))
        })
        .transpose()
}

// === mapping ===

/// Makes the backend's request.
pub(crate) fn map(inputs: &Inputs<'_>) -> Result<Mapped, Refusal> {
    check_loop(inputs.cleaned)?;
    let route = inputs.located.route;
    let api = &*route.api;
    let mut out = Output::new(inputs);
    match api.mode {
        Mode::Passthrough => out.pass_path_parameters(inputs)?,
        Mode::Mapping | Mode::MappingPassthrough => out.map_parameters(inputs)?,
    }
    out.add_constants(inputs)?;
    out.add_system(inputs)?;
    let target = out.target(inputs)?;
    let body = out.form.take().map(|form| Bytes::from(form.text));
    out.set_content_type(inputs, body.is_some())?;
    out.set_own(inputs)?;
    Ok(Mapped {
        method: method(inputs),
        target,
        headers: out.plan,
        body,
        values: if inputs.backend.kind().is_some() {
            let values = out.path.into_iter();
            values.map(|(at, value)| (at, value.into_owned())).collect()
        } else {
            Vec::new()
        },
    })
}

fn method(inputs: &Inputs<'_>) -> HttpMethod {
    let method = match inputs.located.route.api.backend_method {
        Some(Method::Any) | None => inputs.cleaned.method,
        Some(method) => method,
    };
    match method {
        Method::Get | Method::Any => HttpMethod::GET,
        Method::Head => HttpMethod::HEAD,
        Method::Post => HttpMethod::POST,
        Method::Put => HttpMethod::PUT,
        Method::Delete => HttpMethod::DELETE,
        Method::Patch => HttpMethod::PATCH,
        Method::Options => HttpMethod::OPTIONS,
    }
}

fn check_loop(cleaned: &Cleaned<'_>) -> Result<(), Refusal> {
    let hops = cleaned
        .known
        .via
        .and_then(|via| via.to_str().ok())
        .map_or(0, |via| {
            via.split(',')
                .filter(|hop| hop.trim().ends_with("paifang"))
                .count()
        });
    if hops >= MOST_HOPS {
        return Err(Refusal::loop_detected());
    }
    Ok(())
}

/// The backend's request while it is being put together.
struct Output<'r> {
    plan: Plan,
    /// Written pairs, without `?`.
    query: String,
    /// Whether the client's query goes first, as it came.
    keep_query: bool,
    form: Option<Form>,
    /// Values of parameters that go to the path, or that the backend's kind asks for, by their position.
    path: Vec<(u16, Cow<'r, str>)>,
    call: &'r Call,
}

#[derive(Default)]
struct Form {
    text: String,
}

impl<'r> Output<'r> {
    fn new(inputs: &Inputs<'r>) -> Self {
        let api = &inputs.located.route.api;
        Self {
            plan: Plan {
                fresh: (api.mode == Mode::Mapping).then(|| forwarded(inputs.headers)),
                remove: Vec::new(),
                set: Vec::with_capacity(8),
                aliases: inputs.cleaned.known.aliases,
                trailers: inputs.cleaned.known.trailers,
            },
            query: String::new(),
            keep_query: api.mode == Mode::Passthrough,
            form: (maps_form(api) && is_form(inputs.cleaned)).then(Form::default),
            path: Vec::new(),
            call: &api.call,
        }
    }

    fn pass_path_parameters(&mut self, inputs: &Inputs<'r>) -> Result<(), Refusal> {
        for (at, parameter) in inputs.located.route.api.parameters.iter().enumerate() {
            if parameter.location == Location::Path {
                let value = path_value(parameter, inputs)?;
                self.put(at, parameter, value)?;
            }
        }
        Ok(())
    }

    fn map_parameters(&mut self, inputs: &Inputs<'r>) -> Result<(), Refusal> {
        let api = &*inputs.located.route.api;
        let limit = inputs.worker.settings().limits.fields;
        let query = fields(inputs.cleaned.query.unwrap_or_default(), limit)
            .ok_or_else(|| Refusal::body("the query has too many fields"))?;
        let form_text = match &self.form {
            Some(_) => form_text(inputs)?,
            None => "",
        };
        let form = fields(form_text, limit)
            .ok_or_else(|| Refusal::body("the form has too many fields"))?;
        for (at, parameter) in api.parameters.iter().enumerate() {
            match parameter.location {
                Location::Path => {
                    let value = path_value(parameter, inputs)?;
                    self.put(at, parameter, value)?;
                }
                Location::Query => self.map_fields(at, parameter, &query)?,
                Location::Form => self.map_fields(at, parameter, &form)?,
                Location::Header => self.map_header(at, parameter, inputs.headers)?,
            }
        }
        if api.mode == Mode::MappingPassthrough {
            keep_undeclared(&query, Location::Query, inputs, &mut self.query);
            if let Some(out) = &mut self.form {
                keep_undeclared(&form, Location::Form, inputs, &mut out.text);
            }
        }
        Ok(())
    }

    fn map_fields(
        &mut self,
        at: usize,
        parameter: &Parameter,
        fields: &[Field<'r>],
    ) -> Result<(), Refusal> {
        let values = fields
            .iter()
            .filter(|field| field.name.as_deref() == Some(&*parameter.name))
            .map(|field| {
                encode::decode_component(field.value).ok_or_else(|| {
                    Refusal::parameter(&parameter.name, "is not percent-encoded UTF-8")
                })
            });
        self.map_values(at, parameter, values)
    }

    fn map_header(
        &mut self,
        at: usize,
        parameter: &Parameter,
        headers: &'r HeaderMap,
    ) -> Result<(), Refusal> {
        let values = headers.get_all(&*parameter.name).iter().map(|value| {
            std::str::from_utf8(value.as_bytes())
                .map(Cow::Borrowed)
                .map_err(|_| Refusal::parameter(&parameter.name, "is not UTF-8"))
        });
        let name = header_name(&parameter.name)?;
        if self.plan.fresh.is_none() {
            self.plan.remove.push(name);
        }
        self.map_values(at, parameter, values)
    }

    fn map_values(
        &mut self,
        at: usize,
        parameter: &Parameter,
        values: impl Iterator<Item = Result<Cow<'r, str>, Refusal>>,
    ) -> Result<(), Refusal> {
        let mut present = false;
        for value in values {
            let value = value?;
            present = true;
            check(parameter, &value)?;
            self.put(at, parameter, value)?;
            if !parameter.array {
                break;
            }
        }
        if present {
            return Ok(());
        }
        match &parameter.default {
            Some(default) => self.put(at, parameter, Cow::Owned(default.to_string())),
            None if parameter.required => Err(Refusal::missing_parameter(&parameter.name)),
            None if parameter.backend_location == Location::Header => {
                self.drop_header(&parameter.backend_name)
            }
            None => Ok(()),
        }
    }

    /// Puts a checked value where the backend wants it.
    fn put(
        &mut self,
        at: usize,
        parameter: &Parameter,
        value: Cow<'r, str>,
    ) -> Result<(), Refusal> {
        let at = u16::try_from(at).unwrap_or(u16::MAX);
        if parameter.backend_location != Location::Path && self.call.mentions(at) {
            self.path.push((at, value.clone()));
        }
        match parameter.backend_location {
            Location::Path => {
                if !is_segment(&value) {
                    return Err(Refusal::parameter(
                        &parameter.name,
                        "cannot be a path segment",
                    ));
                }
                self.path.push((at, value));
                Ok(())
            }
            location => self.add(&parameter.backend_name, location, &value),
        }
    }

    fn add(&mut self, name: &str, location: Location, value: &str) -> Result<(), Refusal> {
        match location {
            Location::Query => pair(name, value, &mut self.query),
            Location::Form => {
                if let Some(form) = &mut self.form {
                    pair(name, value, &mut form.text);
                }
            }
            Location::Header => {
                let value = HeaderValue::from_bytes(value.as_bytes())
                    .map_err(|_| Refusal::parameter(name, "has a control character"))?;
                self.plan.set.push((header_name(name)?, value));
            }
            Location::Path => {}
        }
        Ok(())
    }

    /// Nothing is written under this name, so nobody else may write there either.
    fn drop_header(&mut self, name: &str) -> Result<(), Refusal> {
        self.plan.remove.push(header_name(name)?);
        Ok(())
    }

    fn add_constants(&mut self, inputs: &Inputs<'_>) -> Result<(), Refusal> {
        for constant in &*inputs.located.route.constants {
            self.add(&constant.name, constant.location, &constant.value)?;
        }
        Ok(())
    }

    fn add_system(&mut self, inputs: &Inputs<'_>) -> Result<(), Refusal> {
        for system in &*inputs.located.route.api.system {
            match system_value(system.from, inputs) {
                Some(value) => self.add(&system.name, system.location, &value)?,
                None if system.location == Location::Header => self.drop_header(&system.name)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Path and query at the backend.
    fn target(&mut self, inputs: &Inputs<'_>) -> Result<PathAndQuery, Refusal> {
        let cleaned = inputs.cleaned;
        let query = match (self.keep_query, cleaned.query) {
            (true, Some(query)) => passed_query(query, inputs),
            _ => Cow::Borrowed(""),
        };
        let mut target =
            String::with_capacity(cleaned.path.len() + query.len() + self.query.len() + 16);
        self.path_into(inputs, &mut target)?;
        if !query.is_empty() || !self.query.is_empty() {
            target.push('?');
            target.push_str(&query);
            if !query.is_empty() && !self.query.is_empty() {
                target.push('&');
            }
            target.push_str(&self.query);
        }
        PathAndQuery::from_maybe_shared(Bytes::from(target))
            .map_err(|error| Refusal::uri_characters().detail(error))
    }

    fn path_into(&self, inputs: &Inputs<'_>, target: &mut String) -> Result<(), Refusal> {
        let route = inputs.located.route;
        let Some(path) = &route.backend_path else {
            let below = inputs.located.group().base_path.strip(&inputs.cleaned.path);
            target.push_str(below.unwrap_or("/"));
            return Ok(());
        };
        for piece in &path.pieces {
            match piece {
                PathPiece::Text(text) => target.push_str(text),
                PathPiece::Parameter(at) => {
                    let (_, value) = self
                        .path
                        .iter()
                        .find(|(position, _)| position == at)
                        .ok_or_else(|| missing_path_value(&route.api, *at))?;
                    encode::segment(value, target);
                }
            }
        }
        if path.tail {
            target.push_str(inputs.captures.tail().unwrap_or_default());
        }
        Ok(())
    }

    fn set_content_type(&mut self, inputs: &Inputs<'_>, rewritten: bool) -> Result<(), Refusal> {
        let value = match &inputs.located.route.api.content_type {
            ContentType::Custom(value) => Some(
                HeaderValue::from_str(value)
                    .map_err(|error| Refusal::unusable_api().detail(error))?,
            ),
            ContentType::Default if rewritten => Some(FORM_TYPE),
            ContentType::Default | ContentType::Client => None,
        };
        if rewritten {
            self.plan.remove.push(header::CONTENT_LENGTH);
            self.plan
                .remove
                .push(HeaderName::from_static("content-md5"));
            if let Some(fresh) = &mut self.plan.fresh {
                fresh.remove(CONTENT_LENGTH);
            }
        }
        if let Some(value) = value {
            self.plan.set.push((CONTENT_TYPE, value));
        }
        Ok(())
    }

    /// What the gateway says of itself and of the client. Set last: nothing before can pretend to it.
    fn set_own(&mut self, inputs: &Inputs<'_>) -> Result<(), Refusal> {
        let group = inputs.located.group();
        let domain = inputs.located.domain();
        let code_in_header = inputs
            .cleaned
            .known
            .authorization
            .is_some_and(|value| appcode::parse(value.as_bytes()).is_some());
        if group.filter_app_code && code_in_header {
            self.plan.remove.push(AUTHORIZATION);
        }
        self.plan.remove.push(CLIENT_SUBJECT);
        if inputs.cleaned.known.tells_origin && !is_trusted(inputs, peer(inputs)) {
            let names = inputs.headers.keys();
            let untrue = names.filter(|name| head::tells_origin(name.as_str()));
            self.plan.remove.extend(untrue.cloned());
        }
        self.plan.set.retain(|(name, _)| !OWN.contains(name));
        self.plan.set.push((HOST, inputs.backend.host()));
        self.plan.set.push((FORWARDED_FOR, forwarded_for(inputs)));
        let scheme = if inputs.client.tls.is_some() {
            "https"
        } else {
            "http"
        };
        self.plan
            .set
            .push((FORWARDED_PROTO, HeaderValue::from_static(scheme)));
        self.plan.set.push((REQUEST_ID, inputs.record.id.header()));
        self.plan.set.push((header::VIA, via(inputs)));
        if domain.is_some_and(|domain| domain.pass_client_subject)
            && let Some(subject) = inputs
                .client
                .tls
                .as_ref()
                .and_then(|tls| tls.subject.clone())
        {
            self.plan.set.push((CLIENT_SUBJECT, subject));
        }
        Ok(())
    }
}

// === reading ===

fn path_value<'r>(parameter: &Parameter, inputs: &Inputs<'r>) -> Result<Cow<'r, str>, Refusal> {
    let raw = parameter
        .capture
        .and_then(|at| inputs.captures.get(usize::from(at)))
        .ok_or_else(|| Refusal::missing_parameter(&parameter.name))?;
    let value = encode::decode_segment(raw)
        .ok_or_else(|| Refusal::parameter(&parameter.name, "is not percent-encoded UTF-8"))?;
    check(parameter, &value)?;
    Ok(value)
}

fn check(parameter: &Parameter, value: &str) -> Result<(), Refusal> {
    parameter
        .check(value)
        .map_err(|violation| Refusal::parameter(&parameter.name, violation))
}

/// The fields of a query or form; `None` when there are more than `limit`. Pairs without a name are ignored (Ref §4.3).
fn fields(text: &str, limit: usize) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    for raw in text.split('&').filter(|raw| !raw.is_empty()) {
        let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
        if name.is_empty() {
            continue;
        }
        if fields.len() == limit {
            return None;
        }
        fields.push(Field {
            name: encode::decode_component(name),
            value,
            raw,
        });
    }
    Some(fields)
}

fn form_text<'r>(inputs: &Inputs<'r>) -> Result<&'r str, Refusal> {
    let charset = inputs
        .cleaned
        .known
        .content_type
        .and_then(|value| value.to_str().ok())
        .and_then(|text| {
            text.to_ascii_lowercase()
                .split_once("charset=")
                .map(|(_, rest)| rest.to_owned())
        });
    if let Some(charset) = charset {
        let charset = charset
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .trim_matches('"');
        if !matches!(charset, "utf-8" | "utf8" | "us-ascii" | "ascii") {
            return Err(Refusal::content_type("the charset of a form must be UTF-8"));
        }
    }
    std::str::from_utf8(inputs.whole.map_or(&[], |bytes| bytes))
        .map_err(|_| Refusal::body("the form is not UTF-8"))
}

/// Appends the fields that the API does not declare. Left out are also those under a name that it writes at the backend, as they
/// would be taken for what was checked or for what the gateway says, and an AppCode that the group keeps to itself.
fn keep_undeclared(
    fields: &[Field<'_>],
    location: Location,
    inputs: &Inputs<'_>,
    out: &mut String,
) {
    let route = inputs.located.route;
    let declared = |name: &str| {
        let mut parameters = route.api.parameters.iter();
        parameters.any(|parameter| parameter.location == location && *parameter.name == *name)
    };
    let kept = |name: &str| {
        let taken = declared(name) || written(route, location).any(|own| own == name);
        let is_code = location == Location::Query && is_filtered_code(name, inputs);
        !(taken || is_code)
    };
    for field in fields {
        if field.name.as_deref().is_some_and(kept) {
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(field.raw);
        }
    }
}

/// Names that the API writes at the backend, in one place.
pub(crate) fn written(route: &Route, location: Location) -> impl Iterator<Item = &str> {
    let passes = route.api.mode == Mode::Passthrough;
    let parameters = route.api.parameters.iter();
    let mapped = parameters
        .filter(move |it| !passes || it.location == Location::Path)
        .map(|it| (it.backend_location, &*it.backend_name));
    let constants = route.constants.iter().map(|it| (it.location, &*it.name));
    let system = route.api.system.iter().map(|it| (it.location, &*it.name));
    mapped
        .chain(constants)
        .chain(system)
        .filter(move |(place, _)| *place == location)
        .map(|(_, name)| name)
}

fn is_filtered_code(name: &str, inputs: &Inputs<'_>) -> bool {
    inputs.located.group().filter_app_code && name == appcode::QUERY_NAME
}

/// The client's query as it came, without the names that the API writes and without an AppCode the group keeps to itself.
fn passed_query<'r>(query: &'r str, inputs: &Inputs<'_>) -> Cow<'r, str> {
    let route = inputs.located.route;
    let has_code = inputs.located.group().filter_app_code && query.contains(appcode::QUERY_NAME);
    if !has_code && written(route, Location::Query).next().is_none() {
        return Cow::Borrowed(query);
    }
    let passes = |raw: &&str| {
        let name = raw.split_once('=').map_or(*raw, |(name, _)| name);
        encode::decode_component(name).is_none_or(|name| {
            !is_filtered_code(&name, inputs)
                && !written(route, Location::Query).any(|own| own == name)
        })
    };
    Cow::Owned(
        query
            .split('&')
            .filter(passes)
            .collect::<Vec<_>>()
            .join("&"),
    )
}

fn missing_path_value(api: &Api, at: u16) -> Refusal {
    match api.parameters.get(usize::from(at)) {
        Some(parameter) => Refusal::missing_parameter(&parameter.name),
        None => Refusal::unusable_api(),
    }
}

// === writing ===

/// Whether a value may be a path segment, by the rules for paths that callers write ([`head::normalise_path`]): no dot segment, also
/// not behind an escaped slash or in front of `;`, no backslash and no control character.
fn is_segment(value: &str) -> bool {
    !value.is_empty()
        && !value.split('/').any(head::is_dot_segment)
        && !value.contains(|c: char| c == '\\' || c.is_ascii_control())
}

fn pair(name: &str, value: &str, out: &mut String) {
    if !out.is_empty() {
        out.push('&');
    }
    encode::component(name, out);
    out.push('=');
    encode::component(value, out);
}

fn header_name(name: &str) -> Result<HeaderName, Refusal> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|error| Refusal::unusable_api().detail(error))
}

fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut fresh = HeaderMap::with_capacity(16);
    for name in &ALWAYS_FORWARDED {
        if let Some(value) = headers.get(name) {
            fresh.insert(name, value.clone());
        }
    }
    fresh
}

fn peer(inputs: &Inputs<'_>) -> IpAddr {
    inputs.client.peer.ip().to_canonical()
}

/// Addresses that a trusted peer tells, the nearest last, from all lines: some proxies add one of their own below their client's.
fn told<'r>(inputs: &Inputs<'r>) -> impl DoubleEndedIterator<Item = &'r str> {
    let trusted = inputs.cleaned.known.forwarded_for.is_some() && is_trusted(inputs, peer(inputs));
    let lines = trusted.then(|| inputs.headers.get_all(FORWARDED_FOR).iter());
    lines
        .into_iter()
        .flatten()
        .flat_map(|line| line.to_str().unwrap_or("unknown").split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// The client's address, behind those of the proxies that are trusted to tell it.
fn forwarded_for(inputs: &Inputs<'_>) -> HeaderValue {
    if inputs.worker.settings().trusted_proxies.is_empty() {
        return inputs.client.forwarded_for.clone();
    }
    let mut text = String::new();
    for address in told(inputs) {
        text.push_str(address);
        text.push_str(", ");
    }
    text.push_str(&peer(inputs).to_string());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

fn is_trusted(inputs: &Inputs<'_>, address: IpAddr) -> bool {
    let trusted = &inputs.worker.settings().trusted_proxies;
    trusted.iter().any(|network| network.contains(&address))
}

/// The address of the client itself: the last one that no trusted proxy has. What is not an address ends the search: whoever wrote it
/// is not to be believed about what stands before it.
fn client_address(inputs: &Inputs<'_>) -> IpAddr {
    let mut nearest = peer(inputs);
    for item in told(inputs).rev() {
        let Some(address) = address(item) else {
            return peer(inputs);
        };
        nearest = address;
        if !is_trusted(inputs, address) {
            break;
        }
    }
    nearest
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

fn via(inputs: &Inputs<'_>) -> HeaderValue {
    let Some(before) = inputs
        .cleaned
        .known
        .via
        .and_then(|value| value.to_str().ok())
    else {
        return VIA;
    };
    HeaderValue::try_from(format!("{before}, 1.1 paifang")).unwrap_or(VIA)
}

/// Ref §4.6. `None` when there is nothing to tell: an anonymous caller has no App.
fn system_value(from: SystemParameter, inputs: &Inputs<'_>) -> Option<Cow<'static, str>> {
    let route = inputs.located.route;
    Some(Cow::Owned(match from {
        SystemParameter::CaClientIp => client_address(inputs).to_string(),
        SystemParameter::CaDomain => inputs.cleaned.host.to_string(),
        SystemParameter::CaRequestHandleTime => httpdate::fmt_http_date(inputs.now.wall),
        SystemParameter::CaAppId => inputs.permit.caller()?.number.to_string(),
        SystemParameter::CaAppKey => inputs.permit.app_key()?.to_owned(),
        SystemParameter::CaRequestId => inputs.record.id.as_str().to_owned(),
        SystemParameter::CaApiName if route.api.display_name.is_empty() => {
            route.api.name.name.to_string()
        }
        SystemParameter::CaApiName => route.api.display_name.to_string(),
        SystemParameter::CaHttpSchema => {
            return Some(Cow::Borrowed(if inputs.client.tls.is_some() {
                "HTTPS"
            } else {
                "HTTP"
            }));
        }
        SystemParameter::CaProxy => return Some(Cow::Borrowed("AliCloudApiGateway")),
        SystemParameter::CaClientUa => {
            let agent = inputs.cleaned.known.user_agent?;
            String::from_utf8_lossy(agent.as_bytes()).into_owned()
        }
        SystemParameter::CaStage => Stage::as_str(&route.stage).to_owned(),
    }))
}

// === impl Mapped ===

impl Mapped {
    /// The request itself, on top of the client's head.
    pub(crate) fn into_request(
        self,
        parts: Parts,
        body: Outgoing,
        trailers: &Trailers,
    ) -> Result<Request<Outgoing>, Refusal> {
        let of_trailers = self.headers.trailers.then(|| {
            (
                are_taken(&parts.headers),
                trailers.announced(&parts.headers),
            )
        });
        let mut headers = match self.headers.fresh {
            Some(fresh) => fresh,
            None => {
                let mut headers = parts.headers;
                head::strip_hop_by_hop(&mut headers, &[header::EXPECT]);
                if self.headers.aliases {
                    head::strip_aliases(&mut headers);
                }
                headers
            }
        };
        if let Some((taken, announced)) = of_trailers {
            if taken {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("TE"));
            }
            if let Some(names) = announced {
                headers.insert(header::TRAILER, names);
            }
        }
        for name in &self.headers.remove {
            headers.remove(name);
        }
        // An array may have thousands of values, but all under one name.
        let mut begun: Vec<HeaderName> = Vec::new();
        for (name, value) in self.headers.set {
            if begun.contains(&name) {
                headers.append(name, value);
            } else {
                begun.push(name.clone());
                headers.insert(name, value);
            }
        }
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(self.target);
        let uri = Uri::from_parts(uri).map_err(|error| Refusal::uri_characters().detail(error))?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }
}
