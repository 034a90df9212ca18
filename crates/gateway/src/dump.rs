//! What is in service, as JSON for people: hosts, APIs and where they lead. Made from what the gateway serves, which refers to secrets
//! by name and holds none here.

use std::time::Duration;

use paifang_snapshot::{
    table::{Domain, Group, Route, Table},
    wire::{Endpoints, Target},
};
use serde_json::{Value, json};

use crate::{gateway::Problem, tls::TlsTable};

/// What the tables do not know themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct InService {
    pub(crate) version: String,
    /// Since the epoch.
    pub(crate) since: Duration,
    pub(crate) apps: usize,
    pub(crate) problems: Vec<Problem>,
}

/// The whole of it.
pub(crate) fn dump(table: &Table, tls: &TlsTable, in_service: &InService) -> String {
    let mut certificates: Vec<(String, Value)> = tls
        .bounds()
        .map(|(host, bound)| {
            let shown = json!({
                "domain": host.to_string(),
                "certificate": bound.certificate.to_string(),
                "notAfter": time(bound.not_after_ms),
            });
            (host.to_string(), shown)
        })
        .collect();
    certificates.sort_by(|left, right| left.0.cmp(&right.0));
    let certificates: Vec<Value> = certificates.into_iter().map(|(_, shown)| shown).collect();
    let dump = json!({
        "version": in_service.version,
        "since": time(i64::try_from(in_service.since.as_millis()).unwrap_or(i64::MAX)),
        "apps": in_service.apps,
        "certificates": certificates,
        "problems": in_service.problems.iter().map(problem).collect::<Vec<_>>(),
        "groups": table.groups().map(|group| self::group(group)).collect::<Vec<_>>(),
    });
    format!("{dump:#}\n")
}

fn time(ms: i64) -> String {
    let Ok(ms) = u64::try_from(ms) else {
        return "before 1970".to_owned();
    };
    let text = crate::access_log::second(ms / 1_000);
    format!("{}Z", String::from_utf8_lossy(&text))
}

fn problem(problem: &Problem) -> Value {
    json!({
        "group": problem.group.to_string(),
        "api": problem.api.as_ref().map(ToString::to_string),
        "certificate": problem.certificate.as_ref().map(ToString::to_string),
        "message": problem.message,
    })
}

fn group(group: &Group) -> Value {
    json!({
        "name": group.name.to_string(),
        "id": group.id,
        "digest": group.digest.to_string(),
        "basePath": group.base_path.as_str(),
        "qpsLimit": group.qps_limit,
        "dailyQuota": group.daily_quota,
        "publicSubDomain": group.public_sub_domain.as_ref().map(ToString::to_string),
        "internalSubDomain": group.internal_sub_domain.as_ref().map(ToString::to_string),
        "domains": group.domains.iter().map(|domain| self::domain(domain)).collect::<Vec<_>>(),
        "routes": group.routes().map(|route| self::route(route)).collect::<Vec<_>>(),
    })
}

fn domain(domain: &Domain) -> Value {
    json!({
        "host": domain.host.to_string(),
        "binding": domain.name.to_string(),
        "stage": domain.stage.as_ref().map(|(_, stage)| stage.as_str()),
        "intranet": domain.intranet,
        "tls": domain.has_tls,
        "clientCertificate": domain.client_ca_required,
        "redirectHttp": domain.redirect_http,
    })
}

fn route(route: &Route) -> Value {
    let api = &route.api;
    json!({
        "stage": route.stage.as_str(),
        "api": api.name.to_string(),
        "release": api.release,
        "hash": &*api.hash,
        "method": api.method.as_str(),
        "path": &*api.path,
        "backend": &*route.backend.label,
        "address": address(&route.backend.target),
    })
}

fn address(target: &Target) -> String {
    match target {
        Target::Http(http) => http.address.to_string(),
        Target::Vpc(vpc) => match &vpc.endpoints {
            Endpoints::Fixed(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                addresses.join(", ")
            }
            Endpoints::Service { name, port } => format!("service {name} port {port}"),
        },
        Target::Function(function) => {
            format!("function {}{}", function.origin.address, function.path)
        }
        Target::Object(object) => format!("bucket {} at {}", object.bucket, object.origin.address),
        Target::Event(event) => format!("events to {}{}", event.origin.address, event.path),
        Target::Mock(mock) => format!("mock {}", mock.status),
        Target::Unavailable { reason } => format!("unavailable: {reason}"),
    }
}
