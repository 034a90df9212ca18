//! The internal certificates: by which gateways and controller know each other, and by which the API server knows the webhook.
//!
//! The leader makes and renews them, in Secrets of its namespace; every replica reads them there and swaps its TLS configurations, and
//! connections that stand are left alone. What is to be done is decided by a pure function of the Secrets and the time, [`decide`];
//! this file is the loop around it. Certificates of users' domains have nothing to do with any of this.
//!
//! Deleting the Secret of the authority starts over with a new one that is trusted alone: what to do when its key has leaked.

mod authority;
mod decide;
mod keep;
mod leaf;
mod pem;
mod trust;

use std::{
    collections::BTreeMap,
    future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret,
};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watch_object, watcher},
    },
};
use rustls::{
    ClientConfig, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::UnixTime,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::{
    authority::Authorities,
    decide::{Action, Seen, What},
    keep::Written,
    leaf::Leaf,
};
use crate::{Settings, metrics::Metrics};

/// The Secret of the authorities.
const CA_SECRET: &str = "paifang-ca";
const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const CA_CRT: &str = "ca.crt";

/// How far the start of a certificate lies in the past, for clocks that go behind.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// How often the time is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// The first and the longest pause after a failed write.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Changes in a row before the loop lets others have a turn. Making everything from nothing takes four.
const MOST_CHANGES: usize = 16;

/// The last that could be used of each; absent until there was one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Material {
    /// What the webhook speaks.
    pub(crate) webhook: Option<Arc<ServerConfig>>,
    /// What a reader of gateways' reports speaks.
    pub(crate) reports: Option<Arc<ClientConfig>>,
    /// The authorities' certificates, as PEM.
    pub(crate) ca_bundle: Option<String>,
}

/// What the loop knows.
struct Keeper {
    settings: Arc<Settings>,
    leaves: Vec<Leaf>,
    /// What the watch has told. Absent before it has told all.
    seen: Option<Seen>,
    /// A list that is on its way.
    listing: Seen,
    configuration: Option<ValidatingWebhookConfiguration>,
    /// The content that each part of the material was last tried from.
    tried: BTreeMap<&'static str, u64>,
    metrics: Metrics,
}

type Configurations =
    Pin<Box<dyn Stream<Item = watcher::Result<Option<ValidatingWebhookConfiguration>>> + Send>>;

/// Keeps the certificates and publishes what is to be done with them. Never ends: what fails is logged and tried again.
pub(crate) async fn run(
    client: Client,
    settings: Arc<Settings>,
    mut leading: watch::Receiver<bool>,
    material: watch::Sender<Arc<Material>>,
    metrics: Metrics,
) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &settings.namespace);
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(client);
    let selected = watcher::Config::default().labels(decide::SELECTOR);
    let events = watcher(secrets.clone(), selected).default_backoff();
    let mut events = pin!(events.chain(stream::pending()));
    let mut configurations = configurations(&hooks, &settings);
    let mut keeper = Keeper::new(settings, metrics);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pause = PAUSES.0;
    let mut retry: Option<Instant> = None;
    loop {
        let due = tokio::select! {
            Some(event) = events.next() => keeper.hear(event),
            Some(found) = configurations.next() => keeper.hear_configuration(found),
            () = changed(&mut leading) => true,
            _ = looks.tick() => true,
            () = wait(retry) => true,
        };
        keeper.publish(&material);
        if !leads(&leading) {
            retry = None;
            continue;
        }
        // After a failed write only the pause decides, else a busy watch would hammer.
        if !due || retry.is_some_and(|at| Instant::now() < at) {
            continue;
        }
        match keeper.keep(&secrets, &hooks, &leading).await {
            Ok(()) => (retry, pause) = (None, PAUSES.0),
            Err(error) => {
                tracing::warn!(%error, again_in = ?pause, "internal certificates cannot be kept");
                retry = Some(Instant::now() + pause);
                pause = (pause * 2).min(PAUSES.1);
            }
        }
        keeper.publish(&material);
    }
}

/// Without a sender nobody says any more who leads, so nobody does; reading goes on.
fn leads(leading: &watch::Receiver<bool>) -> bool {
    *leading.borrow() && leading.has_changed().is_ok()
}

async fn changed(leading: &mut watch::Receiver<bool>) {
    if leading.changed().await.is_err() {
        future::pending().await
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => future::pending().await,
    }
}

fn configurations(
    api: &Api<ValidatingWebhookConfiguration>,
    settings: &Settings,
) -> Configurations {
    match &settings.webhook {
        Some(webhook) => {
            let found = watch_object(api.clone(), &webhook.configuration).default_backoff();
            Box::pin(found.chain(stream::pending()))
        }
        None => Box::pin(stream::pending()),
    }
}

// === impl Keeper ===

impl Keeper {
    fn new(settings: Arc<Settings>, metrics: Metrics) -> Self {
        let mut leaves = vec![Leaf::gateway(), Leaf::controller()];
        let webhook = settings.webhook.as_ref();
        leaves.extend(webhook.map(|webhook| Leaf::webhook(webhook, &settings.namespace)));
        Self {
            settings,
            leaves,
            seen: None,
            listing: Seen::new(),
            configuration: None,
            tried: BTreeMap::new(),
            metrics,
        }
    }

    /// Whether something may have to be done.
    fn hear(&mut self, event: watcher::Result<Event<Secret>>) -> bool {
        match event {
            Ok(Event::Init) => self.listing.clear(),
            Ok(Event::InitApply(secret)) => {
                self.listing.insert(secret.name_any(), secret);
            }
            Ok(Event::InitDone) => {
                self.seen = Some(std::mem::take(&mut self.listing));
                return true;
            }
            Ok(Event::Apply(secret)) => {
                self.put(&secret.name_any(), Some(secret));
                return true;
            }
            Ok(Event::Delete(secret)) => {
                self.put(&secret.name_any(), None);
                return true;
            }
            Err(error) => tracing::warn!(%error, "internal certificates cannot be watched"),
        }
        false
    }

    fn hear_configuration(
        &mut self,
        found: watcher::Result<Option<ValidatingWebhookConfiguration>>,
    ) -> bool {
        match found {
            Ok(found) => {
                self.configuration = found;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the webhook's configuration cannot be watched");
                false
            }
        }
    }

    fn put(&mut self, name: &str, secret: Option<Secret>) {
        let Some(seen) = &mut self.seen else { return };
        match secret {
            Some(secret) => drop(seen.insert(name.to_owned(), secret)),
            None => drop(seen.remove(name)),
        }
    }

    /// Does what is due, one change after the other, until nothing is.
    async fn keep(
        &mut self,
        secrets: &Api<Secret>,
        hooks: &Api<ValidatingWebhookConfiguration>,
        leading: &watch::Receiver<bool>,
    ) -> Result<(), String> {
        for _ in 0..MOST_CHANGES {
            let Some(seen) = &self.seen else {
                return Ok(());
            };
            let now = UnixTime::now();
            let Some(action) = decide::decide(now, &self.leaves, seen).into_iter().next() else {
                return self.tell_api_server(hooks).await;
            };
            if !leads(leading) {
                return Ok(());
            }
            self.change(now, &action, secrets).await?;
        }
        Err("somebody else keeps changing the Secrets".to_owned())
    }

    async fn change(
        &mut self,
        now: UnixTime,
        action: &Action,
        secrets: &Api<Secret>,
    ) -> Result<(), String> {
        let Some(seen) = &self.seen else {
            return Ok(());
        };
        let wanted = decide::carry_out(now, action, &self.leaves, seen)?;
        let before = seen.get(action.secret);
        let written = keep::write(secrets, before, wanted)
            .await
            .map_err(|error| format!("Secret {}: {error}", action.secret))?;
        match written {
            Written::Done(secret) => {
                let Action {
                    secret: name,
                    what,
                    why,
                } = action;
                let what = what.word();
                tracing::info!(secret = name, what, why, "internal certificate kept");
                self.put(name, Some(*secret));
            }
            Written::Raced(secret) => {
                tracing::debug!(
                    secret = action.secret,
                    "somebody else wrote it, looking again"
                );
                self.put(action.secret, secret.map(|secret| *secret));
            }
        }
        Ok(())
    }

    async fn tell_api_server(
        &mut self,
        hooks: &Api<ValidatingWebhookConfiguration>,
    ) -> Result<(), String> {
        let (Some(configuration), Some(webhook), Some(bundle)) =
            (&self.configuration, &self.settings.webhook, self.bundle())
        else {
            return Ok(());
        };
        let Some(patch) = trust::patch(configuration, &bundle) else {
            return Ok(());
        };
        let name = &webhook.configuration;
        let patched = trust::send(hooks, name, patch).await;
        let patched =
            patched.map_err(|error| format!("ValidatingWebhookConfiguration {name}: {error}"))?;
        tracing::info!(name, "the API server trusts the webhook's certificate");
        self.configuration = Some(patched);
        Ok(())
    }

    fn bundle(&self) -> Option<String> {
        let secret = self.seen.as_ref()?.get(CA_SECRET)?;
        Some(Authorities::read(secret, UnixTime::now()).ok()?.bundle())
    }

    /// Builds what has changed. What cannot be used leaves the last that could.
    fn publish(&mut self, material: &watch::Sender<Arc<Material>>) {
        let Some(seen) = &self.seen else {
            return;
        };
        let mut next = None;
        for leaf in self
            .leaves
            .iter()
            .map(|leaf| leaf.secret)
            .chain([CA_SECRET])
        {
            let Some(secret) = seen.get(leaf) else {
                continue;
            };
            let content = content(secret);
            if self.tried.insert(leaf, content) == Some(content) {
                continue;
            }
            if let Some(end) = ends_at(secret) {
                self.metrics.certificate_ends(leaf, end);
            }
            let next = next.get_or_insert_with(|| Material::clone(&material.borrow()));
            if let Err(error) = next.load(leaf, secret) {
                tracing::warn!(
                    secret = leaf,
                    error,
                    "cannot be used, the last one that could stays"
                );
            }
        }
        if let Some(next) = next {
            material.send_replace(Arc::new(next));
        }
    }
}

// === impl Material ===

impl Material {
    fn load(&mut self, name: &str, secret: &Secret) -> Result<(), String> {
        if name == Leaf::controller().secret {
            self.reports = Some(leaf::client_config(secret)?);
        } else if name == CA_SECRET {
            let authorities = Authorities::read(secret, UnixTime::now())?;
            self.ca_bundle = Some(authorities.bundle());
        } else if name != Leaf::gateway().secret {
            self.webhook = Some(leaf::server_config(secret)?);
        }
        Ok(())
    }
}

// === impl What ===

impl What {
    fn word(&self) -> &'static str {
        match self {
            Self::Found => "new authority",
            Self::Step(authority::Step::Prepare) => "next authority announced",
            Self::Step(authority::Step::Promote) => "next authority signs",
            Self::Step(authority::Step::Tidy) => "authorities tidied",
            Self::Issue(_) => "issued",
            Self::Trust => "authorities told",
            Self::Label => "labelled",
        }
    }
}

fn bytes<'s>(secret: &'s Secret, part: &str) -> Option<&'s [u8]> {
    let data = secret.data.as_ref()?;
    Some(data.get(part)?.0.as_slice())
}

/// When the certificate in a Secret ends, in seconds since 1970.
fn ends_at(secret: &Secret) -> Option<u64> {
    let chain = pem::certificates(TLS_CRT, bytes(secret, TLS_CRT)?).ok()?;
    Some(pem::facts(chain.first()?).ok()?.not_after)
}

fn content(secret: &Secret) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (part, bytes) in secret.data.iter().flatten() {
        (part, &bytes.0).hash(&mut hasher);
    }
    hasher.finish()
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
