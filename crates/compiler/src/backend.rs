//! Backends: what is written, what it means, and what a gateway is told to call.
//!
//! One module per type, behind [`Kind`]. A type that is added has a module here with its configuration and what an Api says to it, a
//! key in the unions [`paifang_resources::BackendConfig`], [`Backend`] and [`Target`], and a module in the proxy.

mod event;
mod function;
mod http;
mod mock;
mod object;
mod server;
mod vpc;

use std::sync::Arc;

use paifang_model::ObjectName;
use paifang_resources::{ApiSpec, BackendConfig, BackendType, Kind as ObjectKind};
use paifang_snapshot::wire::{Call, ObjectAction, ObjectDialect, Target};

pub(crate) use self::vpc::{called_by, ready_endpoints};
use self::{event::Event, function::Function, http::Http, mock::Mock, object::Object, vpc::Vpc};
use crate::{
    Problem, Reason,
    certificates::{Certificates, Judged, Judgements, Use},
    graph::{Dep, Trace},
    parse::{Check, api::Sample},
};

/// One type of backend.
pub(crate) trait Kind: Sized {
    /// Its configuration in the union of a BackendService's stage, or of an Api.
    type Written;

    /// What the configuration means. Secrets and Services are names still. Fails only with problems in `check`.
    fn parse(at: At<'_>, written: &Self::Written, check: &mut Check<'_>) -> Option<Self>;

    /// What it means now. Never fails: what is missing makes a target that answers why.
    fn resolve(&self, from: Referrer<'_>, resolver: &mut Resolver<'_, '_>) -> Resolved;
}

/// What a backend's configuration means: the union of all types.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Backend {
    Http(Http),
    Vpc(Vpc),
    Function(Function),
    Object(Object),
    Event(Event),
    Mock(Mock),
}

/// Where a type's configuration stands.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// Its path in the object, with the type's key.
    field: &'a str,
    /// That of the object.
    namespace: &'a str,
}

/// A backend after its references were looked up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    /// What to call. Of a Mock without a body, see [`Resolved::target`].
    base: Target,
    sample_fills: bool,
    /// To show in the status.
    pub(crate) address: String,
    /// What is wrong. A backend with `base` unavailable says why here; with a usable one, what goes on with its last good material.
    pub(crate) problems: Vec<Problem>,
}

/// Who refers, for fields of problems and for ReferenceGrants.
#[derive(Clone, Copy)]
pub(crate) struct Referrer<'a> {
    /// BackendService or Api.
    pub(crate) kind: ObjectKind,
    /// Its namespace.
    pub(crate) namespace: &'a str,
    /// Where the union stands.
    pub(crate) field: &'a str,
}

/// Looks references up, and records which.
pub(crate) struct Resolver<'a, 't> {
    pub(crate) certificates: Certificates<'a>,
    pub(crate) trace: Trace<'t>,
}

// === impl Resolved ===

impl Resolved {
    fn new(base: Target, address: String) -> Self {
        Self {
            base,
            sample_fills: false,
            address,
            problems: Vec::new(),
        }
    }

    fn unavailable(problem: Problem) -> Self {
        let reason = problem.message.clone();
        Self {
            problems: vec![problem],
            ..Self::new(Target::Unavailable { reason }, String::new())
        }
    }

    /// Whether calls reach anything.
    pub(crate) fn is_usable(&self) -> bool {
        !matches!(self.base, Target::Unavailable { .. })
    }

    /// The target, for an Api with this sample: it is the answer of a Mock that has no body of its own.
    pub(crate) fn target(&self, sample: &Sample) -> Target {
        let mut target = self.base.clone();
        if let (true, Target::Mock(mock)) = (self.sample_fills, &mut target) {
            mock.body.clone_from(&sample.body);
            let named = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
            if let Some(content_type) = &sample.content_type
                && !mock.headers.iter().any(named)
            {
                mock.headers
                    .push(("Content-Type".to_owned(), content_type.clone()));
            }
        }
        target
    }
}

// === impl Backend ===

impl Backend {
    /// Parses a union. `field` is where its keys stand; `namespace` is that of the object. `expected` is the type that the object says.
    pub(crate) fn parse(
        field: &str,
        namespace: &str,
        config: &BackendConfig,
        expected: Option<BackendType>,
        check: &mut Check<'_>,
    ) -> Option<Self> {
        let kind = kind_of(field, config, expected, check)?;
        let field = &format!("{field}.{}", kind.key());
        let mark = check.problems.len();
        let parsed = Self::parse_as(kind, At { field, namespace }, config, check);
        parsed.filter(|_| check.clean_since(mark))
    }

    fn parse_as(
        kind: BackendType,
        at: At<'_>,
        config: &BackendConfig,
        check: &mut Check<'_>,
    ) -> Option<Self> {
        fn one<K: Kind>(
            at: At<'_>,
            written: Option<&K::Written>,
            check: &mut Check<'_>,
        ) -> Option<K> {
            K::parse(at, written?, check)
        }
        match kind {
            BackendType::HTTP => one(at, config.http.as_ref(), check).map(Self::Http),
            BackendType::VPC => one(at, config.vpc.as_ref(), check).map(Self::Vpc),
            BackendType::FunctionCompute => {
                one(at, config.function_compute.as_ref(), check).map(Self::Function)
            }
            BackendType::OSS => one(at, config.oss.as_ref(), check).map(Self::Object),
            BackendType::EventBridge => {
                one(at, config.event_bridge.as_ref(), check).map(Self::Event)
            }
            BackendType::Mock => one(at, config.mock.as_ref(), check).map(Self::Mock),
        }
    }
}

fn kind_of(
    field: &str,
    config: &BackendConfig,
    expected: Option<BackendType>,
    check: &mut Check<'_>,
) -> Option<BackendType> {
    match (config.types().as_slice(), expected) {
        ([kind], None) => return Some(*kind),
        ([kind], Some(expected)) if *kind == expected => return Some(*kind),
        (_, Some(expected)) => check.add(
            field,
            Reason::Contradiction,
            format!(
                "must have the key `{}` and no other type's, as spec.type is {}",
                expected.key(),
                expected.name()
            ),
            "write that one",
        ),
        (_, None) => check.add(
            field,
            Reason::Contradiction,
            "must have exactly one type of backend",
            "keep one of http, vpc, functionCompute, oss and mock",
        ),
    }
    None
}

/// What an Api says to the type of its backend: `function`, `object` or `event`.
pub(crate) fn parse_call(spec: &ApiSpec, check: &mut Check<'_>) -> Call {
    let object = object::parse_call(spec, check);
    let event = event::parse_call(spec, check);
    function::parse_call(spec)
        .or(object)
        .or(event)
        .unwrap_or_default()
}

/// Whether what an Api says fits the type of its backend.
pub(crate) fn fit(call: &Call, target: &Target) -> Result<(), Problem> {
    let misfit = |key: &str, what: &str, fix: &str| {
        Err(Problem::new(
            format!("spec.backend.{key}"),
            Reason::BackendTypeMismatch,
            what.to_owned(),
            fix,
        ))
    };
    match (target, call) {
        (
            Target::Object(store),
            Call::Object {
                action: ObjectAction::AppendObject,
            },
        ) if store.dialect == ObjectDialect::S3 => misfit(
            "object.action",
            "AppendObject is OSS's alone, and the store speaks S3",
            "write PutObject, or name a backend whose dialect is OSS",
        ),
        (Target::Object(_), Call::Object { .. })
        | (Target::Event(_), Call::Event { .. } | Call::Plain)
        | (Target::Function(_), Call::Function { .. } | Call::Plain)
        | (Target::Http(_) | Target::Vpc(_) | Target::Mock(_), Call::Plain)
        | (Target::Unavailable { .. }, _) => Ok(()),
        (Target::Object(_), _) => misfit(
            "object",
            "the backend is an object store, which needs an action and a key",
            "write object: {action: GetObject, key: /…}",
        ),
        (_, Call::Object { .. }) => misfit(
            "object",
            "the backend is no object store",
            "remove it, or name an OSS backend",
        ),
        (_, Call::Event { .. }) => misfit(
            "event",
            "the backend takes no events",
            "remove it, or name an EventBridge backend",
        ),
        (_, Call::Function { .. }) => misfit(
            "function",
            "the backend is no function",
            "remove it, or name a FunctionCompute backend",
        ),
    }
}

// === impl Resolver ===

impl<'a, 't> Resolver<'a, 't> {
    pub(crate) fn new(certificates: Certificates<'a>, judgements: &'t mut Judgements) -> Self {
        Self {
            certificates,
            trace: Trace::new(judgements),
        }
    }

    /// What is known of the Secret `name` for this use.
    pub(crate) fn judge(&mut self, name: &ObjectName, usage: Use) -> Arc<Judged> {
        self.trace.reads(Dep::Secret(name.clone()));
        let known = &mut *self.trace.judgements;
        self.certificates.judge(name, usage, known)
    }

    /// What `backend` means now.
    pub(crate) fn resolve(&mut self, from: Referrer<'_>, backend: &Backend) -> Resolved {
        match backend {
            Backend::Http(http) => http.resolve(from, self),
            Backend::Vpc(vpc) => vpc.resolve(from, self),
            Backend::Function(function) => function.resolve(from, self),
            Backend::Object(object) => object.resolve(from, self),
            Backend::Event(event) => event.resolve(from, self),
            Backend::Mock(mock) => mock.resolve(from, self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appending_takes_a_store_that_can() {
        let store = |dialect: &str| -> Target {
            let target = serde_json::json!({"type": "object", "origin": {"address": "http://o.example.com"}, "dialect": dialect,
                "bucket": "abc", "region": "r", "credentials": "demo/c"});
            serde_json::from_value(target).expect("it is a target")
        };
        let fit = |action, dialect| fit(&Call::Object { action }, &store(dialect));
        let problem = fit(ObjectAction::AppendObject, "S3").unwrap_err();
        assert_eq!(problem.reason, Reason::BackendTypeMismatch);
        assert_eq!(problem.field, "spec.backend.object.action");
        for dialect in ["OssV4", "OssV1"] {
            assert!(fit(ObjectAction::AppendObject, dialect).is_ok());
        }
        assert!(fit(ObjectAction::PutObject, "S3").is_ok());
    }
}
