//! Phases 2 to 4: which group, stage and API a request is for; whether it may come this way; whether there is room for it.

use std::sync::Arc;

use paifang_model::{Protocol, Stage};
use paifang_snapshot::table::{
    Binding, Captures, Domain, Group, Network, Route, StageIndex, Table, Via,
};

use crate::{
    clean::head::Cleaned,
    refusal::Refusal,
    serve::{Client, Now},
    throttle,
};

/// A group that the host and path lead to. Its limits have been charged: all arriving requests count, refused ones too (Ref §10).
pub(crate) struct Bound<'c> {
    /// Bindings of the host, from the one that matched on.
    bindings: &'c [Binding],
    /// Whether the limits leave room; told only after the phases before have found nothing else to say.
    throttled: Result<(), Refusal>,
}

/// An API that a request is for.
pub(crate) struct Located<'c> {
    pub(crate) binding: &'c Binding,
    pub(crate) route: &'c Arc<Route>,
    throttled: Result<(), Refusal>,
}

/// Finds the group.
pub(crate) fn bind<'c>(
    table: &'c Table,
    client: &Client,
    cleaned: &Cleaned<'_>,
    now: &Now,
) -> Result<Bound<'c>, Refusal> {
    let bindings = table.bindings(&cleaned.host, client.network);
    if bindings.is_empty() {
        return Err(
            if client.network == Network::Public && table.host_is_known(&cleaned.host) {
                Refusal::not_public("the domain is internal")
            } else {
                Refusal::unknown_domain(&cleaned.host)
            },
        );
    }
    let at = bindings
        .iter()
        .position(|binding| binding.group.base_path.strip(&cleaned.path).is_some())
        .ok_or_else(|| Refusal::no_api("no base path of this domain matches"))?;
    let bindings = &bindings[at..];
    Ok(Bound {
        bindings,
        throttled: charge(&bindings[0], cleaned, now),
    })
}

fn charge(binding: &Binding, cleaned: &Cleaned<'_>, now: &Now) -> Result<(), Refusal> {
    let group = &binding.group;
    if !throttle::take_per_second(&group.counters.qps, group.qps_limit, now.monotonic_ns) {
        return Err(Refusal::group_limit());
    }
    let quota = group.daily_quota;
    if matches!(binding.via, Via::PublicSubDomain)
        && !throttle::take_per_day(&group.counters.day, quota, now.day())
    {
        return Err(Refusal::daily_quota(&cleaned.host, quota));
    }
    Ok(())
}

// === impl Bound ===

impl<'c> Bound<'c> {
    pub(crate) fn group(&self) -> &'c Arc<Group> {
        &self.bindings[0].group
    }

    pub(crate) fn on_public_sub_domain(&self) -> bool {
        matches!(self.bindings[0].via, Via::PublicSubDomain)
    }

    fn domain(&self) -> Option<&'c Domain> {
        domain(&self.bindings[0])
    }

    /// Whether plain HTTP is answered with a redirect to HTTPS.
    pub(crate) fn redirects(&self, client: &Client) -> bool {
        client.tls.is_none()
            && self
                .domain()
                .is_some_and(|domain| domain.redirect_http && domain.has_tls)
    }

    /// A domain that asks for client certificates is served only on connections that were opened for it: another domain's handshake
    /// proved nothing here.
    pub(crate) fn check_connection(
        &self,
        client: &Client,
        cleaned: &Cleaned<'_>,
    ) -> Result<(), Refusal> {
        check_connection(&self.bindings[0], client, cleaned)
    }

    /// Finds the API: of the bindings whose base path matches, the longest first. When it is not the first of them that answers, what
    /// the answering one asks of connections and its limits count as well.
    pub(crate) fn route<'p>(
        self,
        client: &Client,
        now: &Now,
        cleaned: &'p Cleaned<'_>,
        captures: &mut Captures<'p>,
    ) -> Result<Located<'c>, Refusal> {
        let mut refusal = None;
        for (at, binding) in self.bindings.iter().enumerate() {
            let Some(path) = binding.group.base_path.strip(&cleaned.path) else {
                continue;
            };
            match stage(binding, cleaned) {
                Ok(stage) => {
                    if let Some(route) = binding.group.find(stage, cleaned.method, path, captures) {
                        let mut throttled = self.throttled;
                        if at > 0 {
                            check_connection(binding, client, cleaned)?;
                            throttled = throttled.and_then(|()| charge(binding, cleaned, now));
                        }
                        return Ok(Located {
                            binding,
                            route,
                            throttled,
                        });
                    }
                    refusal.get_or_insert_with(|| not_found(&binding.group, stage, cleaned, path));
                }
                Err(invalid) => {
                    refusal.get_or_insert(invalid);
                }
            }
        }
        Err(refusal.unwrap_or_else(|| Refusal::no_api("no such path")))
    }
}

fn domain(binding: &Binding) -> Option<&Domain> {
    match &binding.via {
        Via::Domain(domain) => Some(domain),
        Via::PublicSubDomain | Via::InternalSubDomain => None,
    }
}

fn check_connection(
    binding: &Binding,
    client: &Client,
    cleaned: &Cleaned<'_>,
) -> Result<(), Refusal> {
    let Some(domain) = domain(binding).filter(|domain| domain.client_ca_required) else {
        return Ok(());
    };
    match &client.tls {
        None => Err(Refusal::protocol(Protocol::Http)),
        // Without a subject the connection was opened before the domain asked for certificates.
        Some(tls) if tls.domain.as_ref() == Some(&domain.host) && tls.subject.is_some() => Ok(()),
        Some(_) => Err(Refusal::misdirected(&cleaned.host)),
    }
}

/// The domain's stage, else the caller's, else `RELEASE` (Ref §4.1).
fn stage(binding: &Binding, cleaned: &Cleaned<'_>) -> Result<StageIndex, Refusal> {
    if let Via::Domain(domain) = &binding.via
        && let Some((stage, _)) = domain.stage
    {
        return Ok(stage);
    }
    let name = match cleaned.known.stage {
        Some(value) => value.to_str().map_err(|_| Refusal::stage())?.trim(),
        None => Stage::DEFAULT,
    };
    binding.group.stage(name).ok_or_else(Refusal::stage)
}

fn not_found(group: &Group, stage: StageIndex, cleaned: &Cleaned<'_>, path: &str) -> Refusal {
    Refusal::no_api(if group.path_exists(stage, path) {
        match cleaned.method {
            paifang_model::Method::Head => "for method HEAD, define an API for it or use GET",
            _ => "for this method",
        }
    } else {
        "in this stage"
    })
}

// === impl Located ===

impl Located<'_> {
    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.binding.group
    }

    /// The bound domain, unless the request came over a sub-domain.
    pub(crate) fn domain(&self) -> Option<&Domain> {
        domain(self.binding)
    }

    /// Phase 3.
    pub(crate) fn check_protocol(
        &self,
        protocol: Protocol,
        client: &Client,
    ) -> Result<(), Refusal> {
        let api = &self.route.api;
        let open = protocol != Protocol::Websocket
            || self.domain().is_some_and(|domain| domain.web_socket);
        if !api.protocols.contains(protocol) || !open {
            return Err(Refusal::protocol(protocol));
        }
        if api.internal_only && client.network == Network::Public {
            return Err(Refusal::not_public("for this API"));
        }
        Ok(())
    }

    /// Phase 4.
    pub(crate) fn check_limits(&mut self) -> Result<(), Refusal> {
        std::mem::replace(&mut self.throttled, Ok(()))
    }
}
