//! The controller: watches, remembers, compiles, publishes, reports status, admits.
//!
//! One task owns the world ([`brain`]): every event becomes a change of plain values, a compile of what it touches, and values to
//! write. Writers take those values, retry them, and never decide. Nothing is published before every store has synced, and nothing is
//! written by a replica that does not lead.

mod admission;
mod brain;
mod fleet;
mod lease;
mod metrics;
mod names;
mod object;
mod pki;
mod publish;
mod reports;
mod settings;
mod status;
mod store;
mod watch;
mod world;
mod write;

use std::sync::{Arc, RwLock};

use anyhow::Context as _;
use kube::{Client, Config};
use paifang_runtime::{
    admin::{Admin, Pages},
    metrics::Metrics as Registry,
    readiness::Readiness,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch as channel},
};

pub use settings::{Lease, Settings, Webhook};

/// Events that wait for the one task; the watches wait when it is full.
const EVENTS: usize = 8_192;
/// Reports that wait for it.
const REPORTS: usize = 256;

/// Runs a controller until `stop` is done, then gives the lease up.
///
/// # Errors
/// When it cannot start: no way to the API server is configured, or an address cannot be used.
pub fn run(settings: Settings, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("controller")
        .enable_all()
        .build()
        .context("the system gives no threads")?;
    runtime.block_on(serve(settings, stop))?;
    runtime.shutdown_background();
    Ok(())
}

async fn serve(settings: Settings, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let config = Config::infer().await.context(
        "no way to a Kubernetes API server: neither KUBECONFIG nor a pod's service account",
    )?;
    let client = Client::try_from(config)
        .context("the API server's address or credentials cannot be used")?;
    let settings = Arc::new(settings);
    let registry = Registry::new("paifang", env!("CARGO_PKG_VERSION"));
    let metrics = metrics::Metrics::register(&registry);
    let readiness = Readiness::new();
    let unready = readiness.hold("the cluster was not read whole yet");
    let admin = match settings.admin {
        Some(address) => {
            let listener = std::net::TcpListener::bind(address)
                .with_context(|| format!("the admin port cannot listen on {address}"))?;
            Some(Admin::serve(
                listener,
                Pages::standard(readiness, registry.clone()),
            )?)
        }
        None => None,
    };
    if let Some(admin) = &admin {
        tracing::info!(admin = %admin.address(), "listening");
    }

    let (events_in, events) = mpsc::channel(EVENTS);
    let (heard_in, heard) = mpsc::channel(REPORTS);
    let (leads_in, leads) = channel::channel(false);
    let (material_in, material) = channel::channel(Arc::new(pki::Material::default()));
    let shared = Arc::new(RwLock::new(brain::Shared::default()));
    let leading = lease::Leading::new();

    let mut tasks = watch::start(&client, &settings.namespace, &events_in);
    tasks.spawn(lease::run(
        client.clone(),
        Arc::clone(&settings),
        leading.clone(),
        leads_in,
    ));
    tasks.spawn(pki::run(
        client.clone(),
        Arc::clone(&settings),
        leads.clone(),
        material_in,
        metrics.clone(),
    ));
    let (ending_in, ending) = channel::channel(false);
    let webhook = match &settings.webhook {
        Some(webhook) => {
            let listener = TcpListener::bind(webhook.address)
                .await
                .with_context(|| format!("the webhook cannot listen on {}", webhook.address))?;
            let judge = Arc::new(admission::Known::new(Arc::clone(&shared), client.clone()));
            let metrics = admission::AdmissionMetrics::register(&registry);
            Some(tokio::spawn(admission::serve(
                listener,
                material.clone(),
                judge,
                metrics,
                ending,
            )))
        }
        None => None,
    };
    let brain = brain::Brain::new(
        client.clone(),
        Arc::clone(&settings),
        shared,
        leading.clone(),
        material,
        events_in,
        heard_in,
        metrics,
        unready,
    );
    tasks.spawn(brain.run(events, heard, leads));

    tokio::select! {
        () = stop => tracing::info!("ending"),
        ended = tasks.join_next() => {
            // None of them ends by itself.
            if let Some(Err(error)) = ended {
                anyhow::bail!("a task broke off: {error}");
            }
            anyhow::bail!("a task ended that should not");
        }
    }
    ending_in.send_replace(true);
    lease::release(&client, &settings, &leading).await;
    if let Some(webhook) = webhook {
        // It answers with what was known last.
        drop(webhook.await);
    }
    drop(admin);
    Ok(())
}

/// An error with its causes on one line, without what is secret: the client shows no bodies.
pub(crate) fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
