//! Api: the draft, or the stored content of a release.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{
    Location, Method, ObjectName, PathTemplate, Protocol, Segment, Stage, SystemParameter,
};
use paifang_resources::{
    ApiSpec, AppCodeAuth, AuthType, BodyFormat, ContentTypePolicy, Method as WrittenMethod,
    Protocol as WrittenProtocol, RequestKind, RequestMode, SignatureMethod, SystemValue,
};
use paifang_snapshot::wire;

use super::{Check, parameter, text, variable};
use crate::{
    Reason,
    backend::{self, Backend},
};

/// What an Api means, but for what its stages, its group and its backend service add.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// The group it belongs to.
    pub(crate) group: ObjectName,
    /// As published; `release` and `hash` are empty, and so is the backend path when `path` has one.
    pub(crate) api: wire::Api,
    /// Backend path that mentions stage variables: it can be parsed only once they have values.
    pub(crate) path: Option<String>,
    /// Stage variables that it mentions.
    pub(crate) variables: BTreeSet<String>,
    /// Where it goes.
    pub(crate) backend: Choice,
    /// What a Mock answers that has no body of its own: content type and body.
    pub(crate) sample: Sample,
    /// Method and path with the names of parameters taken out: two Apis with the same shape answer the same requests.
    pub(crate) shape: String,
}

/// The answer of a Mock without a body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) content_type: Option<String>,
    pub(crate) body: String,
}

/// Where an Api goes.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    Service(ObjectName),
    Inline(Box<Backend>),
}

/// Parses all but `stages` and `revisionHistoryLimit`. Fails only with problems in `check`. Patterns and schemas are left to
/// [`compile_rules`].
pub(crate) fn parse(name: &ObjectName, spec: &ApiSpec, check: &mut Check<'_>) -> Option<Draft> {
    let mark = check.problems.len();
    let group = &spec.group_ref;
    check.reference("spec.groupRef", &group.name, group.namespace.as_deref());
    check.display_name(spec.display_name.as_deref(), 50);
    check.length("spec.description", spec.description.as_deref(), 2000);
    let auth = parse_auth(spec, check);
    let protocols = parse_protocols(spec, check);
    let method = parse_method("spec.request.method", spec.request.method, check);
    check.length("spec.request.path", Some(&spec.request.path), 1024);
    let path: Option<PathTemplate> = check.take(
        "spec.request.path",
        Reason::InvalidPath,
        spec.request.path.parse(),
    );
    let parameters = parse_parameters(spec, path.as_ref(), check);
    let mut variables = BTreeSet::new();
    let constants = parse_constants(spec, &mut variables, check);
    let system = parse_system(spec, check);
    check_targets(spec, check);
    let choice = parse_backend(name, spec, check);
    let backend_path = parse_backend_path(spec, path.as_ref(), &mut variables, check);
    let call = backend::parse_call(spec, check);
    let timeout_ms = parse_timeout(spec, check);
    let content_type = parse_content_type(spec, check);
    let backend_method = match spec.backend.method {
        None | Some(WrittenMethod::ANY) => None,
        Some(method) => parse_method("spec.backend.method", method, check),
    };
    let sample = parse_response(spec, check);
    if !check.clean_since(mark) {
        return None;
    }
    let (path, method) = (path?, method?);
    let (path_text, backend_path) = backend_path?;
    Some(Draft {
        group: ObjectName::new(
            group.namespace.as_deref().unwrap_or(&name.namespace),
            group.name.as_str(),
        ),
        shape: shape(method, &path),
        api: wire::Api {
            name: name.clone(),
            display_name: spec.display_name.clone().unwrap_or_default(),
            release: 0,
            hash: Arc::default(),
            kind: match spec.request.kind {
                RequestKind::Common => wire::ApiKind::Common,
                RequestKind::Register => wire::ApiKind::Register,
                RequestKind::Unregister => wire::ApiKind::Unregister,
                RequestKind::Notify => wire::ApiKind::Notify,
            },
            protocols,
            method,
            path,
            mode: match spec.request.mode {
                RequestMode::Mapping => wire::Mode::Mapping,
                RequestMode::MappingPassthrough => wire::Mode::MappingPassthrough,
                RequestMode::Passthrough => wire::Mode::Passthrough,
            },
            body_format: match spec.request.body_format {
                BodyFormat::Form => wire::BodyFormat::Form,
                BodyFormat::Stream => wire::BodyFormat::Stream,
            },
            parameters,
            auth,
            internal_only: spec.internal_only,
            dispatch: wire::Dispatch {
                method: backend_method,
                path: backend_path,
                timeout_ms: timeout_ms?,
                content_type: content_type?,
                constants,
                system,
                call,
            },
        },
        path: path_text,
        variables,
        backend: choice?,
        sample,
    })
}

/// Compiles the patterns and schemas of a new draft; a release has been through this.
pub(crate) fn compile_rules(spec: &ApiSpec, check: &mut Check<'_>) {
    for (at, written) in spec.request.parameters.iter().enumerate() {
        parameter::compile_rules(&format!("spec.request.parameters[{at}]"), written, check);
    }
}

/// What each stage is told to serve. Fails only with problems in `check`.
pub(crate) fn parse_stages(
    spec: &ApiSpec,
    check: &mut Check<'_>,
) -> Option<BTreeMap<Stage, Option<u64>>> {
    let mark = check.problems.len();
    check.stage_count("spec.stages", spec.stages.len());
    let mut stages = BTreeMap::new();
    for (name, wanted) in &spec.stages {
        let field = format!("spec.stages.{}", text::short(name));
        let stage = check.stage(&field, name);
        if wanted.release == Some(0) {
            check.add(
                format!("{field}.release"),
                Reason::OutOfRange,
                "is 0",
                "releases count from 1",
            );
        }
        if let Some(stage) = stage {
            stages.insert(stage, wanted.release);
        }
    }
    check.clean_since(mark).then_some(stages)
}

/// Method and path without names: `GET /a/[]/*`.
fn shape(method: Method, path: &PathTemplate) -> String {
    let mut shape = format!("{method} ");
    for segment in path.segments() {
        shape.push('/');
        match segment {
            // Decoded literals cannot have a slash, so that two shapes are equal only when their segments are.
            Segment::Literal(literal) => {
                shape.push('=');
                shape.push_str(literal);
            }
            Segment::Parameter(_) => shape.push_str("[]"),
        }
    }
    if path.has_tail() {
        shape.push_str("/*");
    }
    shape
}

fn parse_auth(spec: &ApiSpec, check: &mut Check<'_>) -> wire::Auth {
    let auth = &spec.auth;
    let field = "spec.auth.signatureMethods";
    let methods = &auth.signature_methods;
    if methods.is_empty() {
        check.add(
            field,
            Reason::Required,
            "names no method",
            "name HmacSHA256, HmacSHA1 or both",
        );
    }
    unique(field, methods, check);
    match auth.type_ {
        AuthType::Anonymous => wire::Auth::Anonymous,
        AuthType::App => wire::Auth::App(wire::AppAuth {
            app_code: match auth.app_code {
                AppCodeAuth::Disabled => wire::AppCode::Disabled,
                AppCodeAuth::Header => wire::AppCode::Header,
                AppCodeAuth::HeaderAndQuery => wire::AppCode::HeaderAndQuery,
            },
            allow_sha1: methods.contains(&SignatureMethod::HmacSHA1),
            allow_sha256: methods.contains(&SignatureMethod::HmacSHA256),
            require_nonce: auth.require_nonce,
        }),
    }
}

fn unique<T: PartialEq>(field: &str, list: &[T], check: &mut Check<'_>) {
    for (at, value) in list.iter().enumerate() {
        if list[..at].contains(value) {
            check.add(
                format!("{field}[{at}]"),
                Reason::Duplicate,
                "is there twice",
                "remove one",
            );
        }
    }
}

fn parse_protocols(spec: &ApiSpec, check: &mut Check<'_>) -> paifang_model::Protocols {
    let field = "spec.request.protocols";
    let protocols = &spec.request.protocols;
    if protocols.is_empty() {
        check.add(
            field,
            Reason::Required,
            "names no protocol",
            "name HTTP, HTTPS or WEBSOCKET",
        );
    }
    unique(field, protocols, check);
    let channel = matches!(
        spec.request.kind,
        RequestKind::Register | RequestKind::Unregister
    );
    if channel && !protocols.contains(&WrittenProtocol::WEBSOCKET) {
        check.add(
            field,
            Reason::Contradiction,
            "Register and Unregister come over the two-way channel only",
            "add WEBSOCKET",
        );
    }
    protocols
        .iter()
        .map(|protocol| match protocol {
            WrittenProtocol::HTTP => Protocol::Http,
            WrittenProtocol::HTTPS => Protocol::Https,
            WrittenProtocol::WEBSOCKET => Protocol::Websocket,
        })
        .collect()
}

fn parse_method(field: &str, written: WrittenMethod, check: &mut Check<'_>) -> Option<Method> {
    Some(match written {
        WrittenMethod::GET => Method::Get,
        WrittenMethod::HEAD => Method::Head,
        WrittenMethod::POST => Method::Post,
        WrittenMethod::PUT => Method::Put,
        WrittenMethod::PATCH => Method::Patch,
        WrittenMethod::DELETE => Method::Delete,
        WrittenMethod::OPTIONS => Method::Options,
        WrittenMethod::ANY => Method::Any,
        WrittenMethod::TRACE => {
            check.add(
                field,
                Reason::InvalidValue,
                "TRACE would show a caller's credentials to whoever listens, and the gateway refuses it",
                "use GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS or ANY",
            );
            return None;
        }
    })
}

fn parse_parameters(
    spec: &ApiSpec,
    path: Option<&PathTemplate>,
    check: &mut Check<'_>,
) -> Vec<wire::Parameter> {
    let written = &spec.request.parameters;
    check.count("spec.request.parameters", written.len(), 100);
    let mut names = BTreeSet::new();
    let mut parsed = Vec::with_capacity(written.len());
    for (at, parameter) in written.iter().enumerate() {
        let field = format!("spec.request.parameters[{at}]");
        let location = parameter::location(parameter.in_);
        let known = match location {
            Location::Header => parameter.name.to_ascii_lowercase(),
            _ => parameter.name.clone(),
        };
        if !names.insert(known) {
            check.add(
                format!("{field}.name"),
                Reason::Duplicate,
                format!("another parameter is called `{}`", text::short(&parameter.name)),
                "give each its own name, whatever its place; `backend.name` may say another one there",
            );
        }
        check_place(&field, spec, location, check);
        if location == Location::Path
            && path.is_some_and(|path| !path.parameters().any(|name| name == parameter.name))
        {
            check.add(
                format!("{field}.name"),
                Reason::PathParameterMismatch,
                format!(
                    "`[{}]` is not in spec.request.path",
                    text::short(&parameter.name)
                ),
                "add it to the path, or put the parameter elsewhere",
            );
        }
        parsed.extend(parameter::parse(&field, parameter, check));
    }
    for name in path.iter().flat_map(|path| path.parameters()) {
        let declared = |parameter: &paifang_resources::Parameter| {
            parameter.name == name && parameter.in_ == paifang_resources::Location::Path
        };
        if !written.iter().any(declared) {
            check.add(
                "spec.request.path",
                Reason::PathParameterMismatch,
                format!("`[{name}]` has no parameter"),
                format!("add {{name: {name}, in: Path}} to spec.request.parameters"),
            );
        }
    }
    parsed
}

/// Where a parameter can never be read, its rules would never be checked.
fn check_place(field: &str, spec: &ApiSpec, location: Location, check: &mut Check<'_>) {
    let request = &spec.request;
    if request.mode == RequestMode::Passthrough && location != Location::Path {
        check.add(
            format!("{field}.in"),
            Reason::Contradiction,
            format!(
                "mode Passthrough never reads a parameter in {}",
                location.as_str()
            ),
            "use Mapping or MappingPassthrough, or remove the parameter",
        );
    } else if request.body_format == BodyFormat::Stream && location == Location::Form {
        check.add(
            format!("{field}.in"),
            Reason::Contradiction,
            "bodyFormat Stream never reads the body",
            "write `bodyFormat: Form`, or put the parameter elsewhere",
        );
    }
}

fn parse_constants(
    spec: &ApiSpec,
    variables: &mut BTreeSet<String>,
    check: &mut Check<'_>,
) -> Vec<wire::Constant> {
    let written = &spec.backend.constants;
    check.count("spec.backend.constants", written.len(), 50);
    let mut constants = Vec::with_capacity(written.len());
    for (at, constant) in written.iter().enumerate() {
        let field = format!("spec.backend.constants[{at}]");
        let location = parameter::location(constant.in_);
        check_added(&field, &constant.name, location, check);
        check.length(&format!("{field}.value"), Some(&constant.value), 2048);
        if location == Location::Header {
            check.header_value(&format!("{field}.value"), &constant.value);
        }
        variable::mentioned(&constant.value, variables);
        constants.push(wire::Constant {
            name: constant.name.clone(),
            location,
            value: constant.value.clone(),
        });
    }
    constants
}

fn parse_system(spec: &ApiSpec, check: &mut Check<'_>) -> Vec<wire::System> {
    let written = &spec.backend.system;
    check.count("spec.backend.system", written.len(), 50);
    let mut system = Vec::with_capacity(written.len());
    for (at, parameter) in written.iter().enumerate() {
        let field = format!("spec.backend.system[{at}]");
        let location = parameter::location(parameter.in_);
        check_added(&field, &parameter.name, location, check);
        system.push(wire::System {
            from: match parameter.from {
                SystemValue::CaClientIp => SystemParameter::CaClientIp,
                SystemValue::CaDomain => SystemParameter::CaDomain,
                SystemValue::CaRequestHandleTime => SystemParameter::CaRequestHandleTime,
                SystemValue::CaAppId => SystemParameter::CaAppId,
                SystemValue::CaAppKey => SystemParameter::CaAppKey,
                SystemValue::CaRequestId => SystemParameter::CaRequestId,
                SystemValue::CaApiName => SystemParameter::CaApiName,
                SystemValue::CaHttpSchema => SystemParameter::CaHttpSchema,
                SystemValue::CaProxy => SystemParameter::CaProxy,
                SystemValue::CaClientUa => SystemParameter::CaClientUa,
                SystemValue::CaStage => SystemParameter::CaStage,
            },
            name: parameter.name.clone(),
            location,
        });
    }
    system
}

/// Name and place of a constant or system parameter.
fn check_added(field: &str, name: &str, location: Location, check: &mut Check<'_>) {
    let at = format!("{field}.name");
    match location {
        Location::Path => check.add(
            format!("{field}.in"),
            Reason::InvalidValue,
            "a constant or system parameter cannot stand in the path",
            "write it into spec.backend.path, or put it into Query, Header or Form",
        ),
        Location::Header => {
            check.header_name(&at, name);
            check.not_managed(&at, name);
            if name.eq_ignore_ascii_case("content-type") {
                check.add(
                    &at,
                    Reason::InvalidValue,
                    "Content-Type has fields of its own",
                    "write spec.backend.contentType: Custom and contentTypeValue",
                );
            }
        }
        _ if !text::is_parameter_name(name) => check.add(
            &at,
            Reason::InvalidValue,
            format!("`{}` is not a parameter's name", text::short(name)),
            "write 1 to 64 characters without spaces",
        ),
        _ => {}
    }
}

/// No two values may go to the same name in the same place of the backend's request, and a body that is forwarded byte for byte
/// takes no field.
fn check_targets(spec: &ApiSpec, check: &mut Check<'_>) {
    let parameters = spec.request.parameters.iter().enumerate().map(|(at, it)| {
        let target = it.backend.as_ref();
        let name = target
            .and_then(|target| target.name.as_ref())
            .unwrap_or(&it.name);
        let place = target.and_then(|target| target.in_).unwrap_or(it.in_);
        let field = format!("spec.request.parameters[{at}]");
        let moved = if target.is_some() { ".backend" } else { "" };
        (format!("{field}{moved}"), name, place)
    });
    let constants = spec.backend.constants.iter().enumerate();
    let constants =
        constants.map(|(at, it)| (format!("spec.backend.constants[{at}]"), &it.name, it.in_));
    let system = spec.backend.system.iter().enumerate();
    let system = system.map(|(at, it)| (format!("spec.backend.system[{at}]"), &it.name, it.in_));
    let mut taken = BTreeSet::new();
    for (field, name, place) in parameters.chain(constants).chain(system) {
        let location = parameter::location(place);
        let known = match location {
            Location::Header => name.to_ascii_lowercase(),
            _ => name.clone(),
        };
        if !taken.insert((location, known)) {
            check.add(
                format!("{field}.name"),
                Reason::Duplicate,
                format!(
                    "`{}` is written twice into the backend's {}",
                    text::short(name),
                    location.as_str()
                ),
                "choose another name at the backend for one of the two",
            );
        }
        let stream = spec.request.body_format == BodyFormat::Stream;
        // One that stays in the form is refused where it is read.
        let reported = field.starts_with("spec.request") && !field.ends_with(".backend");
        if stream && location == Location::Form && !reported {
            check.add(
                format!("{field}.in"),
                Reason::Contradiction,
                "bodyFormat Stream forwards the body as it came",
                "write `bodyFormat: Form`, or another place",
            );
        }
    }
}

fn parse_backend(name: &ObjectName, spec: &ApiSpec, check: &mut Check<'_>) -> Option<Choice> {
    let inline = spec.backend.inline();
    check_calls(spec, check);
    match (&spec.backend.service_ref, inline) {
        (Some(service), None) => {
            check.object_name("spec.backend.serviceRef.name", &service.name);
            let service = ObjectName::new(name.namespace.clone(), service.name.as_str());
            Some(Choice::Service(service))
        }
        (None, Some(config)) => {
            Backend::parse("spec.backend", &name.namespace, &config, None, check)
                .map(|backend| Choice::Inline(Box::new(backend)))
        }
        _ => {
            check.add(
                "spec.backend",
                Reason::Contradiction,
                "needs either `serviceRef` or one type of backend (EventBridge by `serviceRef` only)",
                "write exactly one",
            );
            None
        }
    }
}

/// `function`, `object` and `event` belong to one type each.
fn check_calls(spec: &ApiSpec, check: &mut Check<'_>) {
    let backend = &spec.backend;
    let inline = backend.inline().is_some();
    let rows = [
        (
            "function",
            backend.function.is_some(),
            backend.function_compute.is_some(),
        ),
        ("object", backend.object.is_some(), backend.oss.is_some()),
        ("event", backend.event.is_some(), false),
    ];
    for (key, written, fits) in rows {
        if inline && written && !fits {
            check.add(
                format!("spec.backend.{key}"),
                Reason::Contradiction,
                "belongs to another type of backend",
                "remove it",
            );
        }
    }
    if rows.iter().filter(|(_, written, _)| *written).count() > 1 {
        check.add(
            "spec.backend",
            Reason::Contradiction,
            "function, object and event belong to different types of backend",
            "keep one",
        );
    }
    if backend.oss.is_some() && backend.object.is_none() {
        check.add(
            "spec.backend.object",
            Reason::Required,
            "an object store needs an action and a key",
            "write object: {action: GetObject, key: /…}",
        );
    }
}

type BackendPath = (Option<String>, Option<PathTemplate>);

/// The text when it mentions variables, else the template.
fn parse_backend_path(
    spec: &ApiSpec,
    request: Option<&PathTemplate>,
    variables: &mut BTreeSet<String>,
    check: &mut Check<'_>,
) -> Option<BackendPath> {
    let (field, written) = match (&spec.backend.object, &spec.backend.path) {
        (Some(object), _) => ("spec.backend.object.key", &object.key),
        (None, Some(path)) => ("spec.backend.path", path),
        (None, None) => {
            check_filled(spec, request?, "spec.backend.path", false, check);
            return Some((None, None));
        }
    };
    check.length(field, Some(written), 1024);
    let mut mentioned = BTreeSet::new();
    variable::mentioned(written, &mut mentioned);
    // Any value will do to see whether the rest is a path.
    let tried = variable::substitute(written, |_| Some("x")).unwrap_or_default();
    let template: PathTemplate = check.take(field, Reason::InvalidPath, tried.parse())?;
    if template.has_tail() && request.is_some_and(|request| !request.has_tail()) {
        check.add(
            field,
            Reason::InvalidPath,
            "`/*` appends what the request's `/*` matched, and spec.request.path has none",
            "remove it, or end the request's path in `/*` too",
        );
    }
    check_filled(spec, &template, field, true, check);
    if mentioned.is_empty() {
        Some((None, Some(template)))
    } else {
        variables.extend(mentioned);
        Some((Some(written.clone()), None))
    }
}

/// Every `[name]` of the backend's path is the backend name of a parameter that goes to Path, and the other way round.
fn check_filled(
    spec: &ApiSpec,
    path: &PathTemplate,
    field: &str,
    written: bool,
    check: &mut Check<'_>,
) {
    let backend = &spec.backend;
    let pathless = backend.mock.is_some() || backend.event.is_some();
    if pathless && !written {
        return;
    }
    let mut given = BTreeSet::new();
    for (at, parameter) in spec.request.parameters.iter().enumerate() {
        let target = parameter.backend.as_ref();
        let place = target
            .and_then(|target| target.in_)
            .unwrap_or(parameter.in_);
        if place != paifang_resources::Location::Path {
            continue;
        }
        let name = target
            .and_then(|target| target.name.as_ref())
            .unwrap_or(&parameter.name);
        given.insert(name.as_str());
        let undeclared =
            parameter.in_ == paifang_resources::Location::Path && target.is_none() && !written;
        if !undeclared && !path.parameters().any(|known| known == name) {
            check.add(
                format!("spec.request.parameters[{at}].backend"),
                Reason::PathParameterMismatch,
                format!("`[{}]` is not in the backend's path", text::short(name)),
                format!("add it to {field}, or send the parameter elsewhere with `backend.in`"),
            );
        }
    }
    for name in path.parameters().filter(|name| !given.contains(name)) {
        // Without a path of its own, what the request's path lacks has been said there.
        let declared = spec.request.parameters.iter().any(|it| it.name == name);
        if written || declared {
            check.add(
                field,
                Reason::PathParameterMismatch,
                format!("`[{name}]` is filled by no parameter"),
                if written {
                    "send a parameter there with `backend: {in: Path}`"
                } else {
                    "write a path: by default it is the request's"
                },
            );
        }
    }
}

fn parse_timeout(spec: &ApiSpec, check: &mut Check<'_>) -> Option<u32> {
    let field = "spec.backend.timeout";
    let most = check.settings.limits.backend_timeout_ms;
    let written = spec.backend.timeout.as_str();
    match text::duration_ms(written) {
        Some(timeout) if (1..=most).contains(&timeout) => Some(timeout),
        Some(_) => {
            check.add(
                field,
                Reason::OutOfRange,
                format!("is {}", text::short(written)),
                format!("write 1ms to {most}ms"),
            );
            None
        }
        None => {
            check.add(
                field,
                Reason::InvalidValue,
                format!(
                    "`{}` is not a duration in whole milliseconds",
                    text::short(written)
                ),
                "write for example 500ms or 10s",
            );
            None
        }
    }
}

fn parse_content_type(spec: &ApiSpec, check: &mut Check<'_>) -> Option<wire::ContentType> {
    let field = "spec.backend.contentTypeValue";
    let value = spec.backend.content_type_value.as_ref();
    match (spec.backend.content_type, value) {
        (ContentTypePolicy::Default, None) => Some(wire::ContentType::Default),
        (ContentTypePolicy::Client, None) => Some(wire::ContentType::Client),
        (ContentTypePolicy::Custom, Some(value)) if !value.is_empty() => {
            check.header_value(field, value);
            check.length(field, Some(value), 256);
            Some(wire::ContentType::Custom(value.clone()))
        }
        (ContentTypePolicy::Custom, _) => {
            check.add(
                field,
                Reason::Required,
                "contentType is Custom",
                "write which",
            );
            None
        }
        (_, Some(_)) => {
            check.add(
                field,
                Reason::Contradiction,
                "has no meaning unless contentType is Custom",
                "remove it, or write `contentType: Custom`",
            );
            None
        }
    }
}

fn parse_response(spec: &ApiSpec, check: &mut Check<'_>) -> Sample {
    let Some(response) = &spec.response else {
        return Sample::default();
    };
    if let Some(content_type) = &response.content_type {
        check.header_value("spec.response.contentType", content_type);
        check.length("spec.response.contentType", Some(content_type), 256);
    }
    let success = response.success_sample.as_deref();
    check.length("spec.response.successSample", success, 32_768);
    let failure = response.failure_sample.as_deref();
    check.length("spec.response.failureSample", failure, 16_384);
    check.count("spec.response.errorCodes", response.error_codes.len(), 100);
    for (at, error) in response.error_codes.iter().enumerate() {
        let same = |other: &paifang_resources::ErrorCode| other.code == error.code;
        if response.error_codes[..at].iter().any(same) {
            check.add(
                format!("spec.response.errorCodes[{at}].code"),
                Reason::Duplicate,
                format!("`{}` is there twice", text::short(&error.code)),
                "remove one",
            );
        }
    }
    Sample {
        content_type: response.content_type.clone(),
        body: success.unwrap_or_default().to_owned(),
    }
}
