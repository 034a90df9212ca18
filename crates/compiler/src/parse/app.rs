//! App.

use std::collections::BTreeSet;

use paifang_model::ObjectName;
use paifang_resources::{AppSpec, CredentialType};

use super::Check;
use crate::Reason;

/// What an App means. Secrets are names still.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) disabled: bool,
    pub(crate) credentials: Vec<Credential>,
}

/// One credential of an App.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    pub(crate) name: String,
    pub(crate) kind: CredentialType,
    pub(crate) secret: ObjectName,
    /// Whether the controller makes the Secret.
    pub(crate) made: bool,
    pub(crate) not_before_ms: Option<i64>,
    pub(crate) expires_at_ms: Option<i64>,
}

/// Fails only with problems in `check`.
pub(crate) fn parse(name: &ObjectName, spec: &AppSpec, check: &mut Check<'_>) -> Option<App> {
    let mark = check.problems.len();
    check.display_name(spec.display_name.as_deref(), 26);
    check.length("spec.description", spec.description.as_deref(), 180);
    check.count("spec.credentials", spec.credentials.len(), 20);
    let mut names = BTreeSet::new();
    let mut credentials = Vec::new();
    for (at, written) in spec.credentials.iter().enumerate() {
        let field = format!("spec.credentials[{at}]");
        check.label(&format!("{field}.name"), &written.name);
        if !names.insert(&written.name) {
            check.add(
                format!("{field}.name"),
                Reason::Duplicate,
                format!("another credential is called `{}`", written.name),
                "give each its own name",
            );
        }
        credentials.push(parse_credential(&field, name, written, check));
    }
    check.clean_since(mark).then_some(App {
        disabled: spec.disabled,
        credentials,
    })
}

fn parse_credential(
    field: &str,
    app: &ObjectName,
    written: &paifang_resources::Credential,
    check: &mut Check<'_>,
) -> Credential {
    let secret = match &written.secret_ref {
        Some(reference) => {
            check.object_name(&format!("{field}.secretRef.name"), &reference.name);
            reference.name.clone()
        }
        None => format!("{}-{}", app.name, written.name),
    };
    let not_before_ms = written
        .not_before
        .as_ref()
        .map(|time| time.0.as_millisecond());
    let expires_at_ms = written
        .expires_at
        .as_ref()
        .map(|time| time.0.as_millisecond());
    if let (Some(start), Some(end)) = (not_before_ms, expires_at_ms)
        && start >= end
    {
        check.add(
            format!("{field}.expiresAt"),
            Reason::Contradiction,
            "is not after notBefore",
            "write a later time",
        );
    }
    Credential {
        name: written.name.clone(),
        kind: written.type_,
        secret: ObjectName::new(app.namespace.clone(), secret),
        made: written.secret_ref.is_none(),
        not_before_ms,
        expires_at_ms,
    }
}
