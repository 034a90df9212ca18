//! VPC: a Service of the cluster, or fixed addresses in it (Ref §6.2).

use std::{collections::BTreeSet, net::SocketAddr};

use paifang_model::{Address, ObjectName, Scheme};
use paifang_resources::{GROUP, HttpVersion, IntOrString, Scheme as WrittenScheme, VpcBackend};
use paifang_snapshot::wire::{Endpoints, Group, Target, VpcTarget};

use super::{
    At, Kind, Referrer, Resolved, Resolver,
    server::{self, Tls, check_allowed, parse_tls},
};
use crate::{
    Objects, Problem, Reason, Service, ServicePort,
    graph::Dep,
    parse::{Check, text},
};

/// `appProtocol` of a port that speaks HTTP/2 by prior knowledge (GEP-1911).
const H2C: &str = "kubernetes.io/h2c";

/// What is written under `vpc`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vpc {
    scheme: Scheme,
    source: Source,
    host: Option<String>,
    tls: Option<Tls>,
    /// As written; otherwise the Service says it.
    http2: Option<bool>,
}

/// Where the endpoints are.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    Fixed(Vec<Address>),
    Service { name: ObjectName, port: String },
}

impl Kind for Vpc {
    type Written = VpcBackend;

    fn parse(at: At<'_>, vpc: &VpcBackend, check: &mut Check<'_>) -> Option<Self> {
        let At { field, namespace } = at;
        let scheme = match vpc.scheme {
            WrittenScheme::HTTP => Scheme::Http,
            WrittenScheme::HTTPS => Scheme::Https,
        };
        let source = match (&vpc.service, vpc.addresses.as_slice()) {
            (Some(service), []) => {
                let at = format!("{field}.service");
                check.reference(&at, &service.name, service.namespace.as_deref());
                parse_port(&format!("{at}.port"), &service.port, check).map(|port| {
                    Source::Service {
                        name: ObjectName::new(
                            service.namespace.as_deref().unwrap_or(namespace),
                            service.name.as_str(),
                        ),
                        port,
                    }
                })
            }
            (None, [_, ..]) => parse_addresses(field, scheme, &vpc.addresses, check),
            _ => {
                check.add(
                    field,
                    Reason::Contradiction,
                    "needs either `service` or `addresses`",
                    "write exactly one of the two",
                );
                None
            }
        };
        if let Some(host) = &vpc.host {
            check.authority(&format!("{field}.host"), host);
        }
        let tls = parse_tls(field, namespace, vpc.tls.as_ref(), scheme, check);
        Some(Self {
            scheme,
            source: source?,
            host: vpc.host.clone(),
            tls,
            http2: vpc
                .http_version
                .map(|version| version == HttpVersion::HTTP2),
        })
    }

    fn resolve(&self, from: Referrer<'_>, resolver: &mut Resolver<'_, '_>) -> Resolved {
        let field = format!("{}.vpc", from.field);
        let found = resolver.endpoints(from, &field, self.scheme, &self.source);
        let (endpoints, default_host) = match found {
            Ok(found) => found,
            Err(problem) => return Resolved::unavailable(problem),
        };
        let host = self.host.clone().unwrap_or(default_host);
        let http2 = self
            .http2
            .unwrap_or_else(|| resolver.says_h2c(self.scheme, &self.source));
        let shown = shown(self.scheme, &self.source);
        server::resolve(&field, self.tls.as_ref(), None, shown, resolver, |tls| {
            Target::Vpc(VpcTarget {
                scheme: self.scheme,
                endpoints,
                host,
                tls,
                http2,
            })
        })
    }
}

// === impl Resolver ===

impl Resolver<'_, '_> {
    /// Where the endpoints are, and the `Host` to send by default.
    fn endpoints(
        &mut self,
        from: Referrer<'_>,
        field: &str,
        scheme: Scheme,
        source: &Source,
    ) -> Result<(Endpoints, String), Problem> {
        let (name, port) = match source {
            Source::Fixed(addresses) => {
                let host = addresses.first().map(Address::authority);
                return Ok((
                    Endpoints::Fixed(addresses.clone()),
                    host.unwrap_or_default(),
                ));
            }
            Source::Service { name, port } => (name, port),
        };
        if *name.namespace != *from.namespace && !self.is_granted(from, name) {
            return Err(Problem::new(
                format!("{field}.service.namespace"),
                Reason::ReferenceNotGranted,
                format!(
                    "no ReferenceGrant in namespace {} lets a {} of {} name Service {}",
                    name.namespace, from.kind, from.namespace, name.name
                ),
                format!(
                    "create one there: from group {GROUP}, kind {}, namespace {}; to kind Service",
                    from.kind, from.namespace
                ),
            ));
        }
        self.trace.reads(Dep::Service(name.clone()));
        let services = &self.certificates.objects.services;
        let service = services.get(name).ok_or_else(|| {
            Problem::new(
                format!("{field}.service.name"),
                Reason::ServiceNotFound,
                format!("there is no Service {name}"),
                "create it",
            )
        })?;
        let refused = |message: String, fix: &str| {
            let field = format!("{field}.service.port");
            Problem::new(field, Reason::ServicePortNotFound, message, fix)
        };
        let (number, port_name) = service_port(service, port).ok_or_else(|| {
            refused(
                format!("Service {name} has no port `{port}`"),
                "write the number or the name of one of its ports",
            )
        })?;
        if let Some(external) = &service.external_name {
            return self.external(field, scheme, name, external, number);
        }
        // Endpoints are found by the name of the port alone, as in an EndpointSlice.
        let named = |known: &&ServicePort| known.name.as_deref().unwrap_or("") == port_name;
        if service.ports.iter().filter(named).count() > 1 {
            return Err(refused(
                format!("Service {name} has several ports called `{port_name}`"),
                "give each port of the Service a name of its own",
            ));
        }
        let host = Address {
            scheme,
            host: format!("{}.{}.svc", name.name, name.namespace).into(),
            port: number,
        };
        let endpoints = Endpoints::Service {
            name: name.clone(),
            port: port_name.to_owned(),
        };
        Ok((endpoints, host.authority()))
    }

    /// Whether the Service says that its port speaks HTTP/2 without TLS (GEP-1911). [`Self::endpoints`] has recorded that it was read.
    fn says_h2c(&self, scheme: Scheme, source: &Source) -> bool {
        let Source::Service { name, port } = source else {
            return false;
        };
        let services = &self.certificates.objects.services;
        let known = services
            .get(name)
            .and_then(|service| known_port(service, port));
        scheme == Scheme::Http
            && known.is_some_and(|port| port.app_protocol.as_deref() == Some(H2C))
    }

    fn external(
        &self,
        field: &str,
        scheme: Scheme,
        name: &ObjectName,
        external: &str,
        port: u16,
    ) -> Result<(Endpoints, String), Problem> {
        let refused = |reason, message: String| {
            Problem::new(
                format!("{field}.service.name"),
                reason,
                format!("Service {name} is the external name `{external}`: {message}"),
                "change the Service",
            )
        };
        let address = Address::from_host_port(scheme, &format!("{external}:{port}"))
            .map_err(|error| refused(Reason::ServiceNotFound, error.to_string()))?;
        if let Some(what) = self.certificates.settings.addresses.refusal(&address.host) {
            return Err(refused(Reason::AddressNotAllowed, format!("it is {what}")));
        }
        let host = address.authority();
        Ok((Endpoints::Fixed(vec![address]), host))
    }

    fn is_granted(&mut self, from: Referrer<'_>, service: &ObjectName) -> bool {
        let namespace = &service.namespace;
        self.trace.reads(Dep::Grants(namespace.clone()));
        let grants = &self.certificates.objects.reference_grants;
        grants
            .range(ObjectName::new(namespace.clone(), "")..)
            .take_while(|(grant, _)| grant.namespace == *namespace)
            .any(|(_, grant)| {
                let who = grant.from.iter().any(|who| {
                    who.group == GROUP
                        && who.kind == from.kind.name()
                        && who.namespace == from.namespace
                });
                let what = grant.to.iter().any(|what| {
                    (what.group.is_empty() || what.group == "core")
                        && what.kind == "Service"
                        && what
                            .name
                            .as_deref()
                            .is_none_or(|name| *name == *service.name)
                });
                who && what
            })
    }
}

fn parse_addresses(
    field: &str,
    scheme: Scheme,
    written: &[String],
    check: &mut Check<'_>,
) -> Option<Source> {
    check.count(&format!("{field}.addresses"), written.len(), 100);
    let mut addresses: Vec<Address> = Vec::new();
    for (at, text) in written.iter().enumerate() {
        let field = format!("{field}.addresses[{at}]");
        let address = Address::from_host_port(scheme, text);
        if let Some(address) = check.take(&field, Reason::InvalidAddress, address) {
            check_allowed(&field, &address, check);
            if addresses.contains(&address) {
                check.add(
                    &field,
                    Reason::Duplicate,
                    format!("`{}` is there twice", text::short(text)),
                    "remove one",
                );
            }
            addresses.push(address);
        }
    }
    (addresses.len() == written.len()).then_some(Source::Fixed(addresses))
}

/// A number of a port, or its name (RFC 6335 §5.1), as text.
fn parse_port(field: &str, port: &IntOrString, check: &mut Check<'_>) -> Option<String> {
    let name = |name: &str| {
        (1..=15).contains(&name.len())
            && text::is_object_name(name)
            && name.bytes().any(|b| b.is_ascii_lowercase())
    };
    let number = |number: i64| (1..=65_535).contains(&number);
    match port {
        IntOrString::Int(written) if number(i64::from(*written)) => Some(written.to_string()),
        IntOrString::String(written) if name(written) => Some(written.clone()),
        IntOrString::String(written) if written.parse().is_ok_and(number) => {
            Some(written.trim_start_matches(['+', '0']).to_owned())
        }
        _ => {
            check.add(
                field,
                Reason::OutOfRange,
                "is not a port",
                "write a number from 1 to 65535, or the name of the Service's port",
            );
            None
        }
    }
}

fn known_port<'s>(service: &'s Service, port: &str) -> Option<&'s ServicePort> {
    let number: Option<u16> = port.parse().ok();
    service.ports.iter().find(|known| match number {
        Some(number) => known.number == number,
        None => known.name.as_deref() == Some(port),
    })
}

/// Number and name of a port that is named by number or name. An ExternalName may list no ports; then any number will do.
fn service_port<'s>(service: &'s Service, port: &str) -> Option<(u16, &'s str)> {
    let number: Option<u16> = port.parse().ok();
    match known_port(service, port) {
        Some(known) => Some((known.number, known.name.as_deref().unwrap_or(""))),
        None if service.external_name.is_some() && service.ports.is_empty() => {
            number.map(|number| (number, ""))
        }
        None => None,
    }
}

fn shown(scheme: Scheme, source: &Source) -> String {
    match source {
        Source::Fixed(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            addresses.join(", ")
        }
        Source::Service { name, port } => format!(
            "{}://{}.{}.svc:{port}",
            scheme.as_str(),
            name.name,
            name.namespace
        ),
    }
}

/// The Services whose endpoints a group calls, each with the name of its port.
pub(crate) fn called_by(group: &Group) -> BTreeSet<(&ObjectName, &str)> {
    let mut called = BTreeSet::new();
    for backend in &group.backends {
        if let Target::Vpc(VpcTarget {
            endpoints: Endpoints::Service { name, port },
            ..
        }) = &backend.target
        {
            called.insert((name, port.as_str()));
        }
    }
    called
}

/// Ready endpoints of a Service's port with this name; none when there is no such Service.
pub(crate) fn ready_endpoints(
    objects: &Objects,
    name: &ObjectName,
    port: &str,
) -> Option<Vec<SocketAddr>> {
    let service = objects.services.get(name)?;
    let mut ready: Vec<_> = service
        .ports
        .iter()
        .filter(|known| known.name.as_deref().unwrap_or("") == port)
        .flat_map(|known| known.ready.iter().copied())
        .collect();
    ready.sort();
    ready.dedup();
    Some(ready)
}
