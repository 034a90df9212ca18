//! One object of the six kinds as the API server shows it, read so that no object, however wrong, can stop a watch.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DynamicObject;
use paifang_compiler::{Kind, Object, ObjectId, Objects, Problem, Reason, Written};
use paifang_model::ObjectName;
use serde_json::Value;

/// An object, as far as it matters.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Kind, namespace and name.
    pub(crate) id: ObjectId,
    /// Whose object it is, and which edit of it.
    pub(crate) facts: Facts,
    /// What was written.
    pub(crate) spec: Value,
    /// What stands in its status, as compact JSON.
    pub(crate) status: Value,
}

/// What is known of an object beside its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// `metadata.uid`.
    pub(crate) uid: Arc<str>,
    /// `metadata.generation`: raised by every edit of the spec.
    pub(crate) generation: i64,
    /// `metadata.creationTimestamp`.
    pub(crate) created: Option<Time>,
    /// Whether it is about to go.
    pub(crate) deleting: bool,
}

// === impl Seen ===

impl Seen {
    /// What matters of `object`; `None` when it has no name, which the API server does not let happen.
    pub(crate) fn read(kind: Kind, mut object: DynamicObject) -> Option<Self> {
        let metadata = object.metadata;
        let name = ObjectName::new(metadata.namespace?, metadata.name?);
        let mut take = |key| {
            object
                .data
                .get_mut(key)
                .map(Value::take)
                .unwrap_or_default()
        };
        Some(Self {
            id: ObjectId { kind, name },
            facts: Facts {
                uid: metadata.uid.unwrap_or_default().into(),
                generation: metadata.generation.unwrap_or_default(),
                created: metadata.creation_timestamp,
                deleting: metadata.deletion_timestamp.is_some(),
            },
            spec: take("spec"),
            status: take("status"),
        })
    }

    /// The Secrets that it names, with those that are made for an App.
    pub(crate) fn secrets(&self) -> BTreeSet<ObjectName> {
        secrets_of(&self.id, &self.spec)
    }

    /// Puts it among the objects that are compiled.
    pub(crate) fn insert(&self, objects: &mut Objects) {
        let name = self.id.name.clone();
        match self.id.kind {
            Kind::ApiGroup => drop(objects.groups.insert(name, self.object())),
            Kind::BackendService => drop(objects.backend_services.insert(name, self.object())),
            Kind::Api => drop(objects.apis.insert(name, self.object())),
            Kind::App => drop(objects.apps.insert(name, self.object())),
            Kind::Authorization => drop(objects.authorizations.insert(name, self.object())),
            Kind::DomainBinding => drop(objects.domain_bindings.insert(name, self.object())),
        }
    }

    fn object<S: serde::de::DeserializeOwned>(&self) -> Object<S> {
        Object {
            uid: Some(Arc::clone(&self.facts.uid)),
            created: self.facts.created.clone(),
            written: match S::deserialize(&self.spec) {
                Ok(spec) => Written::Spec(Arc::new(spec)),
                Err(error) => Written::Malformed(vec![Problem::new(
                    "spec",
                    Reason::Malformed,
                    error,
                    "write it as `kubectl explain` shows; the installed definitions may be older than the controller",
                )]),
            },
        }
    }
}

/// The Secrets that a spec names, with those that are made for an App. By the fields' names, so that a spec that is wrong elsewhere
/// counts too.
pub(crate) fn secrets_of(id: &ObjectId, spec: &Value) -> BTreeSet<ObjectName> {
    let mut names = BTreeSet::new();
    collect(spec, &mut |name| {
        names.insert(ObjectName::new(id.name.namespace.clone(), name));
    });
    if id.kind == Kind::App {
        let credentials = spec.get("credentials").and_then(Value::as_array);
        for credential in credentials.into_iter().flatten() {
            let made = credential.get("secretRef").is_none_or(Value::is_null);
            if let (true, Some(name)) = (made, credential.get("name").and_then(Value::as_str)) {
                let secret = format!("{}-{name}", id.name.name);
                names.insert(ObjectName::new(id.name.namespace.clone(), secret));
            }
        }
    }
    names
}

/// Takes an object out.
pub(crate) fn remove(id: &ObjectId, objects: &mut Objects) {
    match id.kind {
        Kind::ApiGroup => drop(objects.groups.remove(&id.name)),
        Kind::BackendService => drop(objects.backend_services.remove(&id.name)),
        Kind::Api => drop(objects.apis.remove(&id.name)),
        Kind::App => drop(objects.apps.remove(&id.name)),
        Kind::Authorization => drop(objects.authorizations.remove(&id.name)),
        Kind::DomainBinding => drop(objects.domain_bindings.remove(&id.name)),
    }
}

/// Every field whose name says that it names a Secret.
const SECRET_FIELDS: [&str; 5] = [
    "secretRef",
    "clientCaSecretRef",
    "caSecretRef",
    "clientCertificateRef",
    "credentialsRef",
];

fn collect<'v>(value: &'v Value, found: &mut impl FnMut(&'v str)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if SECRET_FIELDS.contains(&key.as_str()) {
                    if let Some(name) = value.get("name").and_then(Value::as_str) {
                        found(name);
                    }
                } else {
                    collect(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(kind: Kind, spec: Value) -> Seen {
        let object = json!({
            "apiVersion": "paifang.dev/v1alpha1", "kind": kind.name(),
            "metadata": {"namespace": "demo", "name": "a", "uid": "u1", "generation": 3},
            "spec": spec,
        });
        Seen::read(kind, serde_json::from_value(object).unwrap()).unwrap()
    }

    fn names(seen: &Seen) -> Vec<String> {
        seen.secrets().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_field_that_names_a_secret_is_found() {
        let backend = seen(
            Kind::BackendService,
            json!({"type": "HTTP", "stages": {
                "TEST": {"http": {"address": "https://a", "tls": {"caSecretRef": {"name": "ca"}, "clientCertificateRef": {"name": "pair"}}}},
                "PRE": {"oss": {"credentialsRef": {"name": "keys"}}},
            }}),
        );
        assert_eq!(names(&backend), ["demo/ca", "demo/keys", "demo/pair"]);
        let domain = seen(
            Kind::DomainBinding,
            json!({"tls": {"secretRef": {"name": "tls"}, "clientCaSecretRef": {"name": "partners"}}}),
        );
        assert_eq!(names(&domain), ["demo/partners", "demo/tls"]);
        let app = seen(
            Kind::App,
            json!({"credentials": [{"name": "one", "secretRef": {"name": "mine"}}, {"name": "two"}]}),
        );
        assert_eq!(names(&app), ["demo/a-two", "demo/mine"]);
    }

    #[test]
    fn a_spec_of_another_shape_is_an_object_with_a_problem() {
        let mut objects = Objects::default();
        seen(Kind::Api, json!({"request": 5})).insert(&mut objects);
        let object = objects.apis.values().next().unwrap();
        assert!(matches!(&object.written, Written::Malformed(problems) if problems.len() == 1));
        assert_eq!(object.uid.as_deref(), Some("u1"));
    }
}
