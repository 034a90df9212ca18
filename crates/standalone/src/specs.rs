//! A spec of any of the six kinds.

use std::sync::Arc;

use paifang_compiler::{Object, Objects, Written};
use paifang_model::ObjectName;
use paifang_resources::{
    ApiGroupSpec, ApiSpec, AppSpec, AuthorizationSpec, BackendServiceSpec, DomainBindingSpec, Kind,
};
use serde_json::Value;

/// A spec of any of the six kinds.
#[derive(Debug, Clone)]
pub(crate) enum Spec {
    ApiGroup(Arc<ApiGroupSpec>),
    BackendService(Arc<BackendServiceSpec>),
    Api(Arc<ApiSpec>),
    App(Arc<AppSpec>),
    Authorization(Arc<AuthorizationSpec>),
    DomainBinding(Arc<DomainBindingSpec>),
}

impl PartialEq for Spec {
    /// Most comparisons are between a step and the one before it, where nearly every spec is the very same.
    fn eq(&self, other: &Self) -> bool {
        fn same<S: PartialEq>(one: &Arc<S>, other: &Arc<S>) -> bool {
            Arc::ptr_eq(one, other) || one == other
        }
        match (self, other) {
            (Self::ApiGroup(one), Self::ApiGroup(other)) => same(one, other),
            (Self::BackendService(one), Self::BackendService(other)) => same(one, other),
            (Self::Api(one), Self::Api(other)) => same(one, other),
            (Self::App(one), Self::App(other)) => same(one, other),
            (Self::Authorization(one), Self::Authorization(other)) => same(one, other),
            (Self::DomainBinding(one), Self::DomainBinding(other)) => same(one, other),
            _ => false,
        }
    }
}

impl Spec {
    /// From the JSON of a spec.
    pub(crate) fn read(kind: Kind, spec: Value) -> serde_json::Result<Self> {
        fn typed<S: serde::de::DeserializeOwned>(spec: Value) -> serde_json::Result<Arc<S>> {
            serde_json::from_value(spec).map(Arc::new)
        }
        Ok(match kind {
            Kind::ApiGroup => Self::ApiGroup(typed(spec)?),
            Kind::BackendService => Self::BackendService(typed(spec)?),
            Kind::Api => Self::Api(typed(spec)?),
            Kind::App => Self::App(typed(spec)?),
            Kind::Authorization => Self::Authorization(typed(spec)?),
            Kind::DomainBinding => Self::DomainBinding(typed(spec)?),
        })
    }

    /// Back to JSON.
    pub(crate) fn write(&self) -> serde_json::Result<Value> {
        match self {
            Self::ApiGroup(spec) => serde_json::to_value(&**spec),
            Self::BackendService(spec) => serde_json::to_value(&**spec),
            Self::Api(spec) => serde_json::to_value(&**spec),
            Self::App(spec) => serde_json::to_value(&**spec),
            Self::Authorization(spec) => serde_json::to_value(&**spec),
            Self::DomainBinding(spec) => serde_json::to_value(&**spec),
        }
    }

    /// Puts it among the objects.
    pub(crate) fn insert(&self, name: ObjectName, objects: &mut Objects) {
        fn object<S>(spec: &Arc<S>) -> Object<S> {
            Object {
                uid: None,
                created: None,
                written: Written::Spec(Arc::clone(spec)),
            }
        }
        match self {
            Self::ApiGroup(spec) => {
                objects.groups.insert(name, object(spec));
            }
            Self::BackendService(spec) => {
                objects.backend_services.insert(name, object(spec));
            }
            Self::Api(spec) => {
                objects.apis.insert(name, object(spec));
            }
            Self::App(spec) => {
                objects.apps.insert(name, object(spec));
            }
            Self::Authorization(spec) => {
                objects.authorizations.insert(name, object(spec));
            }
            Self::DomainBinding(spec) => {
                objects.domain_bindings.insert(name, object(spec));
            }
        }
    }
}

/// Puts an object among the objects of which only its mistakes are known.
pub(crate) fn insert_malformed(
    kind: Kind,
    name: ObjectName,
    problems: Vec<paifang_compiler::Problem>,
    objects: &mut Objects,
) {
    fn object<S>(problems: Vec<paifang_compiler::Problem>) -> Object<S> {
        Object {
            uid: None,
            created: None,
            written: Written::Malformed(problems),
        }
    }
    match kind {
        Kind::ApiGroup => {
            objects.groups.insert(name, object(problems));
        }
        Kind::BackendService => {
            objects.backend_services.insert(name, object(problems));
        }
        Kind::Api => {
            objects.apis.insert(name, object(problems));
        }
        Kind::App => {
            objects.apps.insert(name, object(problems));
        }
        Kind::Authorization => {
            objects.authorizations.insert(name, object(problems));
        }
        Kind::DomainBinding => {
            objects.domain_bindings.insert(name, object(problems));
        }
    }
}
