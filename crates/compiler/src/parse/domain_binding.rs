//! DomainBinding.

use paifang_model::{HostPattern, ObjectName, Stage};
use paifang_resources::{DomainBindingSpec, DomainTls, Network};

use super::Check;
use crate::Reason;

/// What a DomainBinding means. Its group and Secrets are names still.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) group: ObjectName,
    pub(crate) host: HostPattern,
    pub(crate) stage: Option<Stage>,
    pub(crate) intranet: bool,
    pub(crate) tls: Option<Tls>,
    pub(crate) web_socket: bool,
}

/// TLS of a bound domain.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) certificate: ObjectName,
    pub(crate) client_ca: Option<ObjectName>,
    pub(crate) pass_client_subject: bool,
    pub(crate) redirect_http: bool,
}

/// Fails only with problems in `check`.
pub(crate) fn parse(
    name: &ObjectName,
    spec: &DomainBindingSpec,
    check: &mut Check<'_>,
) -> Option<Binding> {
    let mark = check.problems.len();
    check.object_name("spec.groupRef.name", &spec.group_ref.name);
    let host: Option<HostPattern> =
        check.take("spec.domain", Reason::InvalidHost, spec.domain.parse());
    if let Some(host) = &host {
        check_suffix(name, host, check);
    }
    let stage = spec
        .stage
        .as_deref()
        .filter(|stage| !stage.is_empty())
        .and_then(|stage| check.stage("spec.stage", stage));
    let tls = spec.tls.as_ref().map(|tls| parse_tls(name, tls, check));
    check.clean_since(mark).then_some(Binding {
        group: ObjectName::new(name.namespace.clone(), spec.group_ref.name.as_str()),
        host: host?,
        stage,
        intranet: spec.network == Network::Intranet,
        tls,
        web_socket: spec.web_socket,
    })
}

/// A namespace binds only what the platform team allows it, and nobody binds the sub-domains that groups get by themselves.
fn check_suffix(name: &ObjectName, host: &HostPattern, check: &mut Check<'_>) {
    let settings = check.settings;
    let bare = match host {
        HostPattern::Exact(name) | HostPattern::Wildcard(name) => name,
    };
    for suffix in [&settings.public_suffix, &settings.internal_suffix] {
        if is_below(bare, suffix) {
            check.add(
                "spec.domain",
                Reason::DomainNotAllowed,
                format!("names at and below `{suffix}` are the groups' own sub-domains"),
                "bind another name",
            );
        }
    }
    let allowed = settings
        .domain_suffixes
        .get(&*name.namespace)
        .or(settings.default_domain_suffixes.as_ref());
    if let Some(allowed) = allowed
        && !allowed.iter().any(|suffix| is_below(bare, suffix))
    {
        check.add(
            "spec.domain",
            Reason::DomainNotAllowed,
            format!("namespace `{}` may not bind `{host}`", name.namespace),
            format!("bind a name below one of: {}", allowed.join(", ")),
        );
    }
}

fn is_below(host: &str, suffix: &str) -> bool {
    let suffix = suffix.trim_start_matches("*.").trim_start_matches('.');
    !suffix.is_empty()
        && host
            .strip_suffix(suffix)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn parse_tls(name: &ObjectName, written: &DomainTls, check: &mut Check<'_>) -> Tls {
    let secret = |secret: &str| ObjectName::new(name.namespace.clone(), secret);
    check.object_name("spec.tls.secretRef.name", &written.secret_ref.name);
    if let Some(ca) = &written.client_ca_secret_ref {
        check.object_name("spec.tls.clientCaSecretRef.name", &ca.name);
    } else if written.pass_client_subject {
        check.add(
            "spec.tls.passClientSubject",
            Reason::Contradiction,
            "no client certificate is asked for",
            "write clientCaSecretRef, or remove it",
        );
    }
    Tls {
        certificate: secret(&written.secret_ref.name),
        client_ca: written
            .client_ca_secret_ref
            .as_ref()
            .map(|ca| secret(&ca.name)),
        pass_client_subject: written.pass_client_subject,
        redirect_http: written.redirect_http,
    }
}
