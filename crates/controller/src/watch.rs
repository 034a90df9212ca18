//! Watches: what happens in the cluster, on one bounded channel.
//!
//! A watch that fails is begun again with back-off and never ends; an object that cannot be read is reported and passed over by its
//! own reader. Nothing is remembered here.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1 as core;
use kube::{
    Client, Resource,
    api::Api,
    core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, Event as Watched},
    },
};
use paifang_compiler::{GrantFrom, GrantTo, Kind, ReferenceGrant, Secret, Service, ServicePort};
use paifang_model::{ObjectName, Redacted};
use paifang_resources::{GROUP, VERSION};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    fleet::Pod,
    names::{self, Publishable, Published},
    object::Seen,
    world::Store,
};

/// Something happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A store is about to be read whole.
    Relist(Store),
    /// It was.
    Relisted(Store),
    /// One of the six kinds.
    Object(Box<Seen>),
    /// One of the six kinds is gone.
    ObjectGone(Kind, ObjectName),
    /// A Secret, with its version; none when it is gone.
    SecretSeen(ObjectName, Option<String>),
    /// A Secret was looked at: the number of the look, and what was there.
    Secret(ObjectName, u64, Option<(String, Secret)>),
    /// A Service; none when it is gone.
    Service(ObjectName, Option<Service>),
    /// Labels of a namespace; none when it is gone.
    Namespace(String, Option<BTreeMap<String, String>>),
    /// A ReferenceGrant; none when it is gone.
    ReferenceGrant(ObjectName, Option<ReferenceGrant>),
    /// Something that was published.
    Published(PublishedEvent),
    /// The pods of all gateways.
    Pod(PodEvent),
}

/// What is known of published objects.
#[derive(Debug)]
pub(crate) enum PublishedEvent {
    /// All of one type are about to be told.
    Relist(names::Type),
    /// They were.
    Relisted(names::Type),
    /// One is there.
    There(Box<Published>),
    /// One is gone.
    Gone(names::Type, String),
}

/// What is known of gateway pods.
#[derive(Debug)]
pub(crate) enum PodEvent {
    /// All are about to be told.
    Relist,
    /// They were.
    Relisted,
    /// One is there.
    There(Pod),
    /// One is gone: its uid.
    Gone(String),
}

/// How long a watch waits before it looks again whether ReferenceGrants are known to this cluster.
const UNKNOWN_KIND: Duration = Duration::from_secs(30);
/// The first and the longest pause before a watch that failed begins again. The client's own 30 s would be noticed after an outage.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long it waits when the API server did not say.
const UNANSWERED: Duration = Duration::from_secs(1);

/// The pauses of one watch: each twice as long as the one before.
struct Pauses(Duration);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(BACK_OFF.1);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = BACK_OFF.0;
    }
}

/// Starts every watch. They run until the set is dropped.
pub(crate) fn start(client: &Client, namespace: &str, events: &mpsc::Sender<Event>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for kind in Kind::ALL {
        let gvk = GroupVersionKind::gvk(GROUP, VERSION, kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        tasks.spawn(objects(kind, api, events.clone()));
    }
    tasks.spawn(secrets(Api::all(client.clone()), events.clone()));
    tasks.spawn(services(Api::all(client.clone()), events.clone()));
    tasks.spawn(namespaces(Api::all(client.clone()), events.clone()));
    tasks.spawn(reference_grants(client.clone(), events.clone()));
    let own = Api::namespaced(client.clone(), namespace);
    tasks.spawn(published::<core::ConfigMap>(
        names::Type::ConfigMap,
        own,
        events.clone(),
    ));
    let own = Api::namespaced(client.clone(), namespace);
    tasks.spawn(published::<core::Secret>(
        names::Type::Secret,
        own,
        events.clone(),
    ));
    tasks.spawn(pods(
        Api::namespaced(client.clone(), namespace),
        events.clone(),
    ));
    tasks
}

async fn objects(kind: Kind, api: Api<DynamicObject>, events: mpsc::Sender<Event>) {
    let store = Store::Objects(kind);
    let stream = watcher::watcher(api, watcher::Config::default().any_semantic());
    follow(stream, kind.name(), &events, |event| match event {
        Watched::Init => Some(Event::Relist(store)),
        Watched::InitDone => Some(Event::Relisted(store)),
        Watched::Apply(object) | Watched::InitApply(object) => {
            Some(Event::Object(Box::new(Seen::read(kind, object)?)))
        }
        Watched::Delete(object) => Some(Event::ObjectGone(kind, name_of(&object.metadata)?)),
    })
    .await;
}

/// Metadata alone: what is in a Secret is looked at only when something names it.
async fn secrets(api: Api<PartialObjectMeta<core::Secret>>, events: mpsc::Sender<Event>) {
    let stream = watcher::watcher(api, watcher::Config::default().any_semantic());
    let seen = |object: PartialObjectMeta<core::Secret>| {
        let name = name_of(&object.metadata)?;
        Some(Event::SecretSeen(name, object.metadata.resource_version))
    };
    follow(stream, "Secret", &events, |event| match event {
        Watched::Init => Some(Event::Relist(Store::Secrets)),
        Watched::InitDone => Some(Event::Relisted(Store::Secrets)),
        Watched::Apply(object) | Watched::InitApply(object) => seen(object),
        Watched::Delete(object) => Some(Event::SecretSeen(name_of(&object.metadata)?, None)),
    })
    .await;
}

async fn services(api: Api<core::Service>, events: mpsc::Sender<Event>) {
    let stream = watcher::watcher(api, watcher::Config::default().any_semantic());
    follow(stream, "Service", &events, |event| match event {
        Watched::Init => Some(Event::Relist(Store::Services)),
        Watched::InitDone => Some(Event::Relisted(Store::Services)),
        Watched::Apply(object) | Watched::InitApply(object) => {
            let name = name_of(&object.metadata)?;
            Some(Event::Service(name, Some(service(object))))
        }
        Watched::Delete(object) => Some(Event::Service(name_of(&object.metadata)?, None)),
    })
    .await;
}

fn service(object: core::Service) -> Service {
    let spec = object.spec.unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    let ports = spec.ports.unwrap_or_default().into_iter();
    Service {
        external_name: spec.external_name.filter(|_| external),
        ports: ports
            .map(|port| ServicePort {
                name: port.name.filter(|name| !name.is_empty()),
                number: u16::try_from(port.port).unwrap_or_default(),
                app_protocol: port.app_protocol,
                // The gateways follow the endpoints themselves.
                ready: Vec::new(),
            })
            .collect(),
    }
}

async fn namespaces(api: Api<PartialObjectMeta<core::Namespace>>, events: mpsc::Sender<Event>) {
    let stream = watcher::watcher(api, watcher::Config::default().any_semantic());
    follow(stream, "Namespace", &events, |event| match event {
        Watched::Init => Some(Event::Relist(Store::Namespaces)),
        Watched::InitDone => Some(Event::Relisted(Store::Namespaces)),
        Watched::Apply(object) | Watched::InitApply(object) => {
            let labels = object.metadata.labels.unwrap_or_default();
            Some(Event::Namespace(object.metadata.name?, Some(labels)))
        }
        Watched::Delete(object) => Some(Event::Namespace(object.metadata.name?, None)),
    })
    .await;
}

/// A cluster without Gateway API has no ReferenceGrants: an empty store, until the kind appears.
async fn reference_grants(client: Client, events: mpsc::Sender<Event>) {
    const STORE: Store = Store::ReferenceGrants;
    let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1beta1", "ReferenceGrant");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "referencegrants");
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let limited = kube::api::ListParams::default().limit(1);
    loop {
        match api.list_metadata(&limited).await {
            // Until the kind is taken away.
            Ok(_) => {
                let stream =
                    watcher::watcher(api.clone(), watcher::Config::default().any_semantic());
                let stream = stream.take_while(|next| std::future::ready(!is_unknown(next)));
                follow(stream, "ReferenceGrant", &events, |event| match event {
                    Watched::Init => Some(Event::Relist(STORE)),
                    Watched::InitDone => Some(Event::Relisted(STORE)),
                    Watched::Apply(object) | Watched::InitApply(object) => {
                        let name = name_of(&object.metadata)?;
                        Some(Event::ReferenceGrant(name, Some(grant(&object.data))))
                    }
                    Watched::Delete(object) => {
                        Some(Event::ReferenceGrant(name_of(&object.metadata)?, None))
                    }
                })
                .await;
                if events.is_closed() {
                    return;
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                for event in [Event::Relist(STORE), Event::Relisted(STORE)] {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                tokio::time::sleep(UNKNOWN_KIND).await;
            }
            // No answer says nothing about the kind: a store that is never read whole would hold up everything.
            Err(error) => {
                tracing::warn!(what = "ReferenceGrant", error = %crate::said(&error), "cannot be listed; trying again");
                tokio::time::sleep(UNANSWERED).await;
            }
        }
    }
}

/// Whether the API server says that it does not know the kind (any more).
fn is_unknown<K>(next: &Result<Watched<K>, watcher::Error>) -> bool {
    matches!(
        next,
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 404
    )
}

fn grant(data: &Value) -> ReferenceGrant {
    let list = |key: &str| {
        let items = data.get("spec").and_then(|spec| spec.get(key));
        items.and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let text = |item: &Value, key: &str| {
        let text = item.get(key).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    ReferenceGrant {
        from: list("from")
            .iter()
            .map(|from| GrantFrom {
                group: text(from, "group"),
                kind: text(from, "kind"),
                namespace: text(from, "namespace"),
            })
            .collect(),
        to: list("to")
            .iter()
            .map(|to| GrantTo {
                group: text(to, "group"),
                kind: text(to, "kind"),
                name: to.get("name").and_then(Value::as_str).map(str::to_owned),
            })
            .collect(),
    }
}

/// What the controller publishes, so that what somebody else changes is repaired.
async fn published<K>(type_: names::Type, api: Api<K>, events: mpsc::Sender<Event>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + serde::de::DeserializeOwned + 'static,
    K: Publishable,
{
    let config = watcher::Config::default()
        .labels(names::MANAGED)
        .any_semantic();
    let stream = watcher::watcher(api, config);
    let tell = |event| Some(Event::Published(event));
    follow(stream, "published objects", &events, |event| match event {
        Watched::Init => tell(PublishedEvent::Relist(type_)),
        Watched::InitDone => tell(PublishedEvent::Relisted(type_)),
        Watched::Apply(object) | Watched::InitApply(object) => {
            tell(PublishedEvent::There(Box::new(object.published()?)))
        }
        Watched::Delete(object) => {
            let name = object.meta().name.clone()?;
            tell(PublishedEvent::Gone(type_, name))
        }
    })
    .await;
}

async fn pods(api: Api<core::Pod>, events: mpsc::Sender<Event>) {
    let config = watcher::Config::default()
        .labels(names::GATEWAY_PODS)
        .any_semantic();
    let tell = |event| Some(Event::Pod(event));
    follow(
        watcher::watcher(api, config),
        "gateway pods",
        &events,
        |event| match event {
            Watched::Init => tell(PodEvent::Relist),
            Watched::InitDone => tell(PodEvent::Relisted),
            Watched::Apply(pod) | Watched::InitApply(pod) => tell(PodEvent::There(Pod::read(pod)?)),
            Watched::Delete(pod) => tell(PodEvent::Gone(pod.metadata.uid?)),
        },
    )
    .await;
}

/// Hands on what a watch says, for ever.
async fn follow<K, S>(
    stream: S,
    what: &'static str,
    events: &mpsc::Sender<Event>,
    mut read: impl FnMut(Watched<K>) -> Option<Event>,
) where
    K: Send,
    S: futures_util::Stream<Item = Result<Watched<K>, watcher::Error>> + Send,
{
    let stream = stream.backoff(Pauses(BACK_OFF.0));
    futures_util::pin_mut!(stream);
    while let Some(next) = stream.next().await {
        match next {
            Ok(event) => {
                if let Some(event) = read(event)
                    && events.send(event).await.is_err()
                {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(what, error = %crate::said(&error), "watch interrupted; it begins again");
            }
        }
    }
}

fn name_of(metadata: &kube::core::ObjectMeta) -> Option<ObjectName> {
    Some(ObjectName::new(
        metadata.namespace.clone()?,
        metadata.name.clone()?,
    ))
}

/// Looks at a Secret; none when it is not there, or may not be read. Tries until the API server answers.
pub(crate) async fn look_at(
    client: Client,
    name: ObjectName,
    look: u64,
    events: mpsc::Sender<Event>,
) {
    let mut wait = Duration::from_millis(100);
    let found = loop {
        match get_secret(&client, &name).await {
            Ok(found) => break found,
            Err(error) => {
                tracing::warn!(secret = %name, error = %crate::said(&error), "a Secret cannot be read; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(10));
            }
        }
    };
    let _ = events.send(Event::Secret(name, look, found)).await;
}

/// A Secret with its resourceVersion; none when it is not there, or may not be read.
pub(crate) async fn get_secret(
    client: &Client,
    name: &ObjectName,
) -> kube::Result<Option<(String, Secret)>> {
    let api: Api<core::Secret> = Api::namespaced(client.clone(), &name.namespace);
    let found = match api.get_opt(&name.name).await {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::warn!(secret = %name, "this Secret may not be read; it counts as missing");
            None
        }
        found => found?,
    };
    Ok(found.map(|secret| {
        let version = secret.metadata.resource_version.unwrap_or_default();
        let data = secret.data.unwrap_or_default().into_iter();
        let secret = Secret {
            kind: secret.type_.unwrap_or_default(),
            data: data
                .map(|(key, value)| (key, Redacted::new(value.0)))
                .collect(),
        };
        (version, secret)
    }))
}
