//! Where an Api answers: host, path and listener, and who may call it there.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use paifang_model::{HostPattern, Method, ObjectName, PathTemplate, Protocol, Stage};
use paifang_snapshot::wire::{self, Auth, Credential, Proof, Snapshot};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// An Api in one stage.
#[derive(Debug, Clone)]
pub(crate) struct Target<'s> {
    pub(crate) group: &'s wire::Group,
    pub(crate) api: &'s wire::Api,
    pub(crate) stage: &'s Stage,
}

/// A name that an Api answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) host: String,
    pub(crate) listener: Listener,
}

/// Which listener answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Http,
    Https,
    Internal,
}

/// RFC 3986 §3.3: what a segment may hold besides letters and digits stays as it is.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The Apis that some stage serves, by name.
pub(crate) fn published(snapshot: &Snapshot) -> BTreeMap<&ObjectName, Vec<Target<'_>>> {
    let mut all: BTreeMap<&ObjectName, Vec<Target<'_>>> = BTreeMap::new();
    for group in snapshot.groups.values() {
        for route in &group.routes {
            let Some(api) = group.apis.get(route.api as usize) else {
                continue;
            };
            let target = Target {
                group,
                api,
                stage: &route.stage,
            };
            all.entry(&api.name).or_default().push(target);
        }
    }
    all
}

/// Finds `name`, with or without namespace.
pub(crate) fn find<'n>(
    name: &str,
    known: impl Iterator<Item = &'n ObjectName> + Clone,
    what: &str,
) -> anyhow::Result<&'n ObjectName> {
    let mut matching = known.clone().filter(|known| match name.split_once('/') {
        Some((namespace, name)) => *known.namespace == *namespace && *known.name == *name,
        None => *known.name == *name,
    });
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(found),
        (Some(one), Some(other)) => {
            bail!("`{name}` is the name of several: write {one} or {other}")
        }
        (None, _) => {
            let names: Vec<String> = known.take(20).map(|name| name.name.to_string()).collect();
            match names.as_slice() {
                [] => Err(anyhow!("there is no {what} `{name}`, nor any other")),
                names => Err(anyhow!(
                    "there is no {what} `{name}`; there is {}",
                    names.join(", ")
                )),
            }
        }
    }
}

// === impl Target ===

impl Target<'_> {
    /// Names that lead here, best first: own names before wildcards before the sub-domain, plain HTTP before TLS.
    pub(crate) fn doors(&self) -> Vec<Door> {
        let mut doors = Vec::new();
        let mut domains: Vec<&wire::Domain> = self.group.domains.iter().collect();
        domains.sort_by_key(|domain| (domain.stage.is_some(), domain.host.clone()));
        for domain in domains {
            if domain
                .stage
                .as_ref()
                .is_some_and(|stage| stage != self.stage)
            {
                continue;
            }
            let redirected = domain.tls.as_ref().is_some_and(|tls| tls.redirect_http);
            let mutual = domain
                .tls
                .as_ref()
                .is_some_and(|tls| tls.client_ca.is_some());
            let host = concrete(&domain.host);
            if domain.intranet {
                self.add(&mut doors, &host, Listener::Internal);
                continue;
            }
            if !redirected {
                self.add(&mut doors, &host, Listener::Http);
            }
            if domain.tls.is_some() && !mutual {
                self.add(&mut doors, &host, Listener::Https);
            }
        }
        if let Some(host) = &self.group.sub_domain.public {
            self.add(&mut doors, &concrete(host), Listener::Http);
        }
        if let Some(host) = &self.group.sub_domain.internal {
            self.add(&mut doors, &concrete(host), Listener::Internal);
        }
        doors
    }

    fn add(&self, doors: &mut Vec<Door>, host: &str, listener: Listener) {
        let protocol = match listener {
            Listener::Https => Protocol::Https,
            Listener::Http | Listener::Internal => Protocol::Http,
        };
        let open = !self.api.internal_only || listener == Listener::Internal;
        if open && self.api.protocols.contains(protocol) {
            doors.push(Door {
                host: host.to_owned(),
                listener,
            });
        }
    }

    /// The path with these values in the places of its parameters; `*` is what follows the rest.
    pub(crate) fn path(&self, values: &BTreeMap<&str, &str>) -> anyhow::Result<String> {
        let template = &self.api.path;
        let wanted: Vec<&str> = template.parameters().collect();
        let missing: Vec<&str> = wanted
            .iter()
            .copied()
            .filter(|name| !values.contains_key(name))
            .collect();
        if !missing.is_empty() {
            let options: Vec<String> = missing
                .iter()
                .map(|name| format!("--path {name}=VALUE"))
                .collect();
            bail!(
                "the path {template} needs {}: add {}",
                missing.join(" and "),
                options.join(" ")
            );
        }
        if let Some(unknown) = values
            .keys()
            .find(|name| !wanted.contains(*name) && (**name != "*" || !template.has_tail()))
        {
            bail!("--path {unknown}: the path {template} has no such parameter");
        }
        let base = self.group.base_path.to_string();
        let mut path = base.trim_end_matches('/').to_owned();
        for segment in template.segments() {
            path.push('/');
            let text = match segment {
                paifang_model::Segment::Literal(text) => text,
                paifang_model::Segment::Parameter(name) => {
                    values.get(&**name).copied().unwrap_or_default()
                }
            };
            path.extend(utf8_percent_encode(text, SEGMENT));
        }
        if template.has_tail() {
            for segment in values
                .get("*")
                .copied()
                .unwrap_or_default()
                .trim_start_matches('/')
                .split('/')
            {
                path.push('/');
                path.extend(utf8_percent_encode(segment, SEGMENT));
            }
        }
        Ok(path)
    }

    /// The method to call it with.
    pub(crate) fn method(&self, has_body: bool) -> &'static str {
        match self.api.method {
            Method::Any if has_body => "POST",
            Method::Any => "GET",
            method => method.as_str(),
        }
    }

    /// Apps that may call it now, by name.
    pub(crate) fn callers(&self, now_ms: i64) -> Vec<&ObjectName> {
        let grants = self.group.grants.iter().filter(|grant| {
            grant.stage == *self.stage
                && grant.api.as_ref().is_none_or(|api| *api == self.api.name)
                && grant.expires_at_ms.is_none_or(|end| end > now_ms)
        });
        let mut apps: Vec<&ObjectName> = grants.map(|grant| &grant.app).collect();
        apps.sort();
        apps.dedup();
        apps
    }

    /// How callers prove who they are, in words.
    pub(crate) fn auth(&self) -> &'static str {
        match &self.api.auth {
            Auth::Anonymous => "open",
            Auth::App(auth) if auth.app_code == wire::AppCode::Disabled => "signed",
            Auth::App(_) => "signed or AppCode",
        }
    }
}

/// A name that matches.
fn concrete(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Wildcard(suffix) => format!("www.{suffix}"),
    }
}

/// Credentials of an App that are live now.
pub(crate) fn credentials<'s>(
    snapshot: &'s Snapshot,
    app: &ObjectName,
    now_ms: i64,
) -> impl Iterator<Item = &'s Proof> {
    let app = app.clone();
    let live = move |credential: &&Credential| {
        credential.app == app
            && credential.not_before_ms.is_none_or(|start| start <= now_ms)
            && credential.expires_at_ms.is_none_or(|end| end > now_ms)
    };
    snapshot
        .credentials
        .iter()
        .filter(live)
        .map(|credential| &credential.proof)
}

/// The template as one writes it in a URL for people.
pub(crate) fn shown(base: &wire::Group, template: &PathTemplate) -> String {
    let base = base.base_path.to_string();
    format!("{}{template}", base.trim_end_matches('/'))
}
