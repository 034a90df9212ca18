//! Watches of the API server: what comes, in the form that the rest understands, and what goes wrong, which ends nothing.
//!
//! A watch that breaks is taken up again where it was; when that is too long ago everything is listed again. An error is told and
//! changes nothing else: only an object that was deleted, or that a complete list does not have, is gone.

use std::{fmt::Debug, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::watcher::{self, Event, watcher},
};
use paifang_model::{ObjectName, Redacted};
use paifang_snapshot::{published::Hash, wire::Certificate};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    endpoints::{Endpoint, Slice},
    store::{Content, Object, Source},
};

/// The pause after a first error, and the longest; half of it and what chance adds.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The API server ends a watch after so many seconds and it is taken up again, which finds a connection that has died without a word.
const WATCH_SECONDS: u32 = 60;

/// The label that says whose an object is.
pub(super) const INSTANCE: &str = "paifang.dev/instance";
const PART: &str = "paifang.dev/part";
const MANIFEST: &str = "paifang.dev/manifest";
const GROUP: &str = "paifang.dev/group";
const SERVICE: &str = "kubernetes.io/service-name";

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Told<T> {
    /// Everything that there is.
    Listed(Vec<T>),
    Put(T),
    Gone(T),
    /// It broke, and is tried again.
    Failed(String),
}

/// An object of the gateway's own namespace.
#[derive(Debug)]
pub(super) enum Own {
    /// Something published.
    Published(Object),
    /// What the report port shows and believes.
    ReportTls(Box<Certificate>),
    /// Nothing of ours.
    Other,
}

/// Follows what `selector` selects, until the handle says otherwise. `read` trims an object to what matters.
pub(super) fn follow<K, T, I>(
    api: Api<K>,
    selector: &str,
    read: fn(K) -> T,
    tell: impl Fn(Told<T>) -> I + Send + 'static,
    inputs: mpsc::Sender<I>,
) -> AbortHandle
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Send + 'static,
    I: Send + 'static,
{
    let config = watcher::Config::default()
        .labels(selector)
        .timeout(WATCH_SECONDS);
    let follow = async move {
        let mut events = pin!(watcher(api, config));
        let mut listing = Vec::new();
        let mut pause = PAUSES.0;
        while let Some(event) = events.next().await {
            let told = match event {
                Ok(Event::Init) => {
                    listing = Vec::new();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    listing.push(read(object));
                    continue;
                }
                Ok(Event::InitDone) => Told::Listed(std::mem::take(&mut listing)),
                Ok(Event::Apply(object)) => Told::Put(read(object)),
                Ok(Event::Delete(object)) => Told::Gone(read(object)),
                Err(error) => Told::Failed(plain(&error)),
            };
            let failed = matches!(told, Told::Failed(_));
            if inputs.send(tell(told)).await.is_err() {
                return;
            }
            if failed {
                tokio::time::sleep(pause.mul_f64(0.5 + chance() / 2.0)).await;
                pause = (pause * 2).min(PAUSES.1);
            } else {
                pause = PAUSES.0;
            }
        }
    };
    tokio::spawn(follow).abort_handle()
}

/// Between 0 and 1, so that gateways do not come back all at once.
fn chance() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(std::time::Instant::now());
    f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

/// An error with what caused it, on one line.
fn plain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text += ": ";
            text += &more;
        }
        cause = inner.source();
    }
    text.replace(['\n', '\r'], " ")
}

/// What the gateway reads of its own namespace.
pub(super) fn selector(instance: &str) -> String {
    format!("{INSTANCE} in ({instance},ALL)")
}

/// A ConfigMap as something published.
pub(super) fn config_map(map: ConfigMap) -> Own {
    let labels = map.labels();
    let content = if labels.get(PART).is_some_and(|part| part == "routing") {
        let stored = map.binary_data.as_ref().and_then(|data| data.get("part"));
        part(
            &map.name_any(),
            stored.map(|bytes| &*bytes.0),
            "binaryData.part",
        )
    } else if labels.get(MANIFEST).is_some_and(|kind| kind == "group") {
        let text = map.data.as_ref().and_then(|data| data.get("manifest"));
        let about = map.annotations().get(GROUP);
        Some(Content::Group {
            text: text.map(String::as_str).unwrap_or_default().into(),
            about: about.and_then(|about| about.parse().ok()),
        })
    } else {
        None
    };
    published(&map, content)
}

/// A Secret as something published, or what the report port needs.
pub(super) fn secret(secret: Secret) -> Own {
    let data = |key: &str| Some(&*secret.data.as_ref()?.get(key)?.0);
    let labels = secret.labels();
    let content = match labels.get(PART).map(String::as_str) {
        Some("certificate" | "credential") => part(&secret.name_any(), data("part"), "data.part"),
        Some("report-tls") => {
            let text = |key| Some(String::from_utf8_lossy(data(key)?).into_owned());
            return Own::ReportTls(Box::new(Certificate {
                chain: text("tls.crt"),
                key: text("tls.key").map(Redacted::new),
                ca: text("ca.crt"),
                ..Certificate::default()
            }));
        }
        _ if labels.get(MANIFEST).is_some_and(|kind| kind == "apps")
            && secret.name_any() == super::APPS =>
        {
            let text = String::from_utf8_lossy(data("manifest").unwrap_or_default());
            Some(Content::Apps(text.into()))
        }
        _ => None,
    };
    published(&secret, content)
}

fn published(object: &impl kube::ResourceExt, content: Option<Content>) -> Own {
    let Some(content) = content else {
        return Own::Other;
    };
    // Documented to be compared as a number since 1.35, and a number in every version before.
    let version = object
        .resource_version()
        .and_then(|version| version.parse().ok());
    Own::Published(Object {
        name: object.name_any().into(),
        version: version.unwrap_or(0),
        content,
    })
}

/// A part by the hash that its object's name ends with; nothing when it ends with none.
fn part(name: &str, stored: Option<&[u8]>, field: &str) -> Option<Content> {
    let hash = part_of(name)?;
    let stored = stored
        .map(Arc::from)
        .ok_or_else(|| format!("{name} has no {field}"));
    Some(Content::Part(hash, stored))
}

fn part_of(name: &str) -> Option<Hash> {
    name.rsplit_once('-')?.1.parse().ok()
}

impl Own {
    /// The object's place among those published, for one that is gone.
    pub(super) fn gone(&self) -> Option<(&str, Option<&Hash>)> {
        match self {
            Self::Published(object) => Some((
                &object.name,
                match &object.content {
                    Content::Part(hash, _) => Some(hash),
                    Content::Group { .. } | Content::Apps(_) => None,
                },
            )),
            Self::ReportTls(_) | Self::Other => None,
        }
    }
}

/// What a list is split into: what is published, and what the report port needs.
pub(super) fn split(all: Vec<Own>) -> (Vec<Object>, Option<Box<Certificate>>) {
    let (mut objects, mut tls) = (Vec::new(), None);
    for own in all {
        match own {
            Own::Published(object) => objects.push(object),
            Own::ReportTls(certificate) => tls = Some(certificate),
            Own::Other => {}
        }
    }
    (objects, tls)
}

/// Which of the two watches of the own namespace.
impl Source {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Routing => "configmaps",
            Self::Secrets => "secrets",
        }
    }
}

/// The names of Services as a selector of their slices.
pub(super) fn slices_of<'n>(names: impl Iterator<Item = &'n str>) -> String {
    format!("{SERVICE} in ({})", names.collect::<Vec<_>>().join(","))
}

/// Every slice of a Service.
pub(super) const ALL_SLICES: &str = SERVICE;

/// A slice with what a gateway needs of it.
pub(super) fn slice(slice: EndpointSlice) -> Slice {
    let namespace = slice.namespace().unwrap_or_default();
    let service = slice.labels().get(SERVICE).cloned().unwrap_or_default();
    let tcp = |protocol: &Option<String>| protocol.as_deref().is_none_or(|it| it == "TCP");
    let ports = slice
        .ports
        .iter()
        .flatten()
        .filter(|port| tcp(&port.protocol));
    Slice {
        name: slice.name_any().into(),
        service: ObjectName::new(namespace, service),
        ports: ports
            .filter_map(|port| {
                let number = u16::try_from(port.port?).ok()?;
                Some((port.name.clone().unwrap_or_default(), number))
            })
            .collect(),
        by_name: slice.address_type == "FQDN",
        endpoints: slice.endpoints.iter().filter_map(endpoint).collect(),
    }
}

fn endpoint(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> Option<Endpoint> {
    // All addresses of one endpoint are the same place; the API asks that the first is used.
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
    let hints = endpoint
        .hints
        .as_ref()
        .and_then(|hints| hints.for_zones.as_ref());
    Some(Endpoint {
        address,
        ready,
        serving: conditions.and_then(|it| it.serving).unwrap_or(ready),
        terminating: conditions.and_then(|it| it.terminating).unwrap_or(false),
        zone: endpoint.zone.as_deref().map(Into::into),
        hints: hints
            .into_iter()
            .flatten()
            .map(|zone| zone.name.as_str().into())
            .collect(),
    })
}
