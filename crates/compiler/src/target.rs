//! Backends with their references resolved: what a gateway is told to call.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use paifang_model::{Address, ObjectName, Scheme};
use paifang_resources::{GROUP, Kind};
use paifang_snapshot::wire::{
    BackendTls, Endpoints, Group, HttpTarget, MockTarget, Target, VpcTarget,
};

use crate::{
    Objects, Problem, Reason, Service, ServicePort,
    certificates::{Certificates, Judged, Judgements, Use},
    graph::{Dep, Trace},
    parse::{
        api::Sample,
        backend::{Backend, Source, Tls},
    },
};

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
    pub(crate) kind: Kind,
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

    /// What `backend` means now. Never fails: what is missing makes a target that answers why.
    pub(crate) fn resolve(&mut self, from: Referrer<'_>, backend: &Backend) -> Resolved {
        match backend {
            Backend::Mock {
                status,
                headers,
                body,
            } => Resolved {
                sample_fills: body.is_none(),
                ..Resolved::new(
                    Target::Mock(MockTarget {
                        status: *status,
                        headers: headers.clone(),
                        body: body.clone().unwrap_or_default(),
                    }),
                    "mock".to_owned(),
                )
            },
            Backend::NotServed(kind) => Resolved::unavailable(Problem::new(
                format!("{}.{}", from.field, kind.key()),
                Reason::BackendNotServed,
                format!("{} backends are not served by this version", kind.name()),
                "calls are refused until a later version serves them",
            )),
            Backend::Http { address, host, tls } => {
                let target = |tls| {
                    Target::Http(HttpTarget {
                        address: address.clone(),
                        host: host.clone(),
                        tls,
                    })
                };
                let field = format!("{}.http", from.field);
                self.with_tls(&field, tls.as_ref(), address.to_string(), target)
            }
            Backend::Vpc {
                scheme,
                source,
                host,
                tls,
            } => {
                let field = format!("{}.vpc", from.field);
                match self.endpoints(from, &field, *scheme, source) {
                    Err(problem) => Resolved::unavailable(problem),
                    Ok((endpoints, default_host)) => {
                        let host = host.clone().unwrap_or(default_host);
                        let shown = shown(*scheme, source);
                        let target = |tls| {
                            Target::Vpc(VpcTarget {
                                scheme: *scheme,
                                endpoints: endpoints.clone(),
                                host: host.clone(),
                                tls,
                            })
                        };
                        self.with_tls(&field, tls.as_ref(), shown, target)
                    }
                }
            }
        }
    }

    /// A backend whose CA or client certificate is not there is not called: without it, something would go unchecked.
    fn with_tls(
        &mut self,
        field: &str,
        tls: Option<&Tls>,
        address: String,
        target: impl Fn(Option<BackendTls>) -> Target,
    ) -> Resolved {
        let Some(tls) = tls else {
            return Resolved::new(target(None), address);
        };
        let uses = [
            ("caSecretRef", tls.ca.as_ref(), Use::Ca),
            (
                "clientCertificateRef",
                tls.client_certificate.as_ref(),
                Use::Pair,
            ),
        ];
        let mut problems = Vec::new();
        let mut usable = true;
        for (key, secret, usage) in uses {
            let Some(secret) = secret else { continue };
            let judged = self.judge(secret, usage);
            usable &= judged.is_usable();
            problems.extend(judged.problem(&format!("{field}.tls.{key}")));
        }
        let base = if usable {
            target(Some(BackendTls {
                ca: tls.ca.clone(),
                server_name: tls.server_name.clone(),
                client_certificate: tls.client_certificate.clone(),
            }))
        } else {
            let reason = problems
                .first()
                .map_or_else(String::new, |problem| problem.message.clone());
            Target::Unavailable { reason }
        };
        Resolved {
            problems,
            ..Resolved::new(base, address)
        }
    }

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

/// Number and name of a port that is named by number or name. An ExternalName may list no ports; then any number will do.
fn service_port<'s>(service: &'s Service, port: &str) -> Option<(u16, &'s str)> {
    let number: Option<u16> = port.parse().ok();
    let known = service.ports.iter().find(|known| match number {
        Some(number) => known.number == number,
        None => known.name.as_deref() == Some(port),
    });
    match known {
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
