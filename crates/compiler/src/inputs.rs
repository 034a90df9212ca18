//! What compile looks at: every object, gathered beforehand and plain.
//!
//! Whoever calls compile turns YAML or watched objects into these values; nothing here fetches, and nothing here is checked beyond
//! its Rust type.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use paifang_model::{ObjectName, Redacted};
use paifang_resources::{
    ApiGroupSpec, ApiSpec, AppSpec, AuthorizationSpec, BackendServiceSpec, DomainBindingSpec, Kind,
    Time,
};

use crate::Problem;

/// Everything compile looks at.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// The ApiGroups.
    pub groups: BTreeMap<ObjectName, Object<ApiGroupSpec>>,
    /// The BackendServices.
    pub backend_services: BTreeMap<ObjectName, Object<BackendServiceSpec>>,
    /// The Apis.
    pub apis: BTreeMap<ObjectName, Object<ApiSpec>>,
    /// The Apps.
    pub apps: BTreeMap<ObjectName, Object<AppSpec>>,
    /// The Authorizations.
    pub authorizations: BTreeMap<ObjectName, Object<AuthorizationSpec>>,
    /// The DomainBindings.
    pub domain_bindings: BTreeMap<ObjectName, Object<DomainBindingSpec>>,
    /// The Secrets that the six kinds name.
    pub secrets: BTreeMap<ObjectName, Secret>,
    /// The Services that VPC backends name, with their endpoints.
    pub services: BTreeMap<ObjectName, Service>,
    /// Labels by namespace, for `allowedNamespaces`. `kubernetes.io/metadata.name` is added to each.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// The ReferenceGrants, by the namespace they open.
    pub reference_grants: BTreeMap<ObjectName, ReferenceGrant>,
}

/// One object of the six kinds.
#[derive(Debug, Clone)]
pub struct Object<S> {
    /// `metadata.uid`; absent in a folder. An object with another uid is another object, even under the same name.
    pub uid: Option<Arc<str>>,
    /// `metadata.creationTimestamp`: on a conflict the older object wins. Absent counts as newest; then namespace and name decide.
    pub created: Option<Time>,
    /// What was written.
    pub written: Written<S>,
}

/// The spec as the caller could read it.
#[derive(Debug, Clone)]
pub enum Written<S> {
    /// It has the right shape. Behind an [`Arc`], so that a caller that compiles often never copies it.
    Spec(Arc<S>),
    /// It names an object, but its spec is not of the kind's shape: the verdict repeats these problems, and the last good state of
    /// the object stays in force.
    Malformed(Vec<Problem>),
}

/// A Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// `type`, as in `kubernetes.io/tls`.
    pub kind: String,
    /// Decoded data.
    pub data: BTreeMap<String, Redacted<Vec<u8>>>,
}

/// A Service with its ready endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.externalName` of a Service of type ExternalName.
    pub external_name: Option<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; a Service of one port may leave it out.
    pub name: Option<String>,
    /// The Service's port, not the target port.
    pub number: u16,
    /// Its `appProtocol`.
    pub app_protocol: Option<String>,
    /// Addresses that are ready to be called.
    pub ready: Vec<SocketAddr>,
}

/// What a ReferenceGrant in some namespace allows (Gateway API).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantFrom {
    /// API group of the referring object, `paifang.dev`.
    pub group: String,
    /// Kind of the referring object, `BackendService` or `Api`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
}

/// What may be referred to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantTo {
    /// API group, empty for the core group.
    pub group: String,
    /// Kind, `Service`.
    pub kind: String,
    /// One object; absent means every one.
    pub name: Option<String>,
}

/// An object of the six kinds by kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// The kind.
    pub kind: Kind,
    /// Namespace and name.
    pub name: ObjectName,
}

// === impl Object ===

impl<S> Object<S> {
    /// An object of a folder: no uid, no time of creation.
    pub fn new(spec: S) -> Self {
        Self {
            uid: None,
            created: None,
            written: Written::Spec(Arc::new(spec)),
        }
    }

    /// The spec, when it has the right shape.
    pub fn spec(&self) -> Option<&Arc<S>> {
        match &self.written {
            Written::Spec(spec) => Some(spec),
            Written::Malformed(_) => None,
        }
    }
}

// === impl ObjectId ===

impl ObjectId {
    /// Kind and name together.
    pub fn new(kind: Kind, name: &ObjectName) -> Self {
        Self {
            kind,
            name: name.clone(),
        }
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Age for conflicts: the smaller wins, and of two that are equal the name decides. An object without a time of creation comes after
/// those that have one.
pub(crate) type Age = i64;

/// The age of an object.
pub(crate) fn age<S>(object: &Object<S>) -> Age {
    let created = object.created.as_ref();
    created.map_or(Age::MAX, |time| time.0.as_millisecond())
}
