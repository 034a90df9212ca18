//! Authorization.

use std::collections::BTreeSet;

use paifang_model::{ObjectName, Stage};
use paifang_resources::{AuthorizationSpec, LocalRef, NamespacedRef};

use super::Check;
use crate::Reason;

/// What an Authorization means.
#[derive(Debug, Clone)]
pub(crate) struct Authorization {
    pub(crate) opens: Opens,
    pub(crate) apps: Vec<ObjectName>,
    pub(crate) stage: Stage,
    pub(crate) expires_at_ms: Option<i64>,
}

/// What it opens, in its own namespace.
#[derive(Debug, Clone)]
pub(crate) enum Opens {
    /// These Apis.
    Apis(Vec<ObjectName>),
    /// Every Api of the namespace that belongs to this group.
    Group(ObjectName),
}

/// Fails only with problems in `check`.
pub(crate) fn parse(
    name: &ObjectName,
    spec: &AuthorizationSpec,
    check: &mut Check<'_>,
) -> Option<Authorization> {
    let mark = check.problems.len();
    check.length("spec.description", spec.description.as_deref(), 180);
    let opens = parse_opens(name, spec, check);
    let apps = parse_apps(name, spec, check);
    let stage = check.stage("spec.stage", &spec.stage);
    let expires_at_ms = spec.expires_at.as_ref().map(|time| time.0.as_millisecond());
    check.clean_since(mark).then_some(Authorization {
        opens: opens?,
        apps,
        stage: stage?,
        expires_at_ms,
    })
}

fn parse_opens(
    name: &ObjectName,
    spec: &AuthorizationSpec,
    check: &mut Check<'_>,
) -> Option<Opens> {
    match (&spec.group, spec.apis.as_slice()) {
        (Some(group), []) => {
            check.reference("spec.group", &group.name, group.namespace.as_deref());
            Some(Opens::Group(full(name, group)))
        }
        (None, [_, ..]) => {
            check.count("spec.apis", spec.apis.len(), 100);
            let mut seen = BTreeSet::new();
            for (at, api) in spec.apis.iter().enumerate() {
                let field = format!("spec.apis[{at}].name");
                check.object_name(&field, &api.name);
                if !seen.insert(&api.name) {
                    check.add(
                        field,
                        Reason::Duplicate,
                        format!("`{}` is there twice", api.name),
                        "remove one",
                    );
                }
            }
            let full = |api: &LocalRef| ObjectName::new(name.namespace.clone(), api.name.as_str());
            Some(Opens::Apis(spec.apis.iter().map(full).collect()))
        }
        _ => {
            check.add(
                "spec",
                Reason::Contradiction,
                "needs either `apis` or `group`",
                "write exactly one of the two",
            );
            None
        }
    }
}

fn parse_apps(
    name: &ObjectName,
    spec: &AuthorizationSpec,
    check: &mut Check<'_>,
) -> Vec<ObjectName> {
    check.count("spec.apps", spec.apps.len(), 100);
    if spec.apps.is_empty() {
        check.add(
            "spec.apps",
            Reason::Required,
            "names no App",
            "name at least one",
        );
    }
    for (at, app) in spec.apps.iter().enumerate() {
        check.reference(
            &format!("spec.apps[{at}]"),
            &app.name,
            app.namespace.as_deref(),
        );
    }
    spec.apps.iter().map(|app| full(name, app)).collect()
}

fn full(from: &ObjectName, reference: &NamespacedRef) -> ObjectName {
    let namespace = reference.namespace.as_deref().unwrap_or(&from.namespace);
    ObjectName::new(namespace, reference.name.as_str())
}
