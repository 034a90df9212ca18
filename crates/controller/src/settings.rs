//! What a controller is told at its start.

use std::{net::SocketAddr, time::Duration};

/// Of one controller process. The platform team's settings, which decide what objects mean, are the compiler's.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it publishes, and where the gateways are.
    pub namespace: String,
    /// Its name among the replicas, unique: the pod's.
    pub identity: String,
    /// `/livez`, `/readyz`, `/metrics`; none for no admin port.
    pub admin: Option<SocketAddr>,
    /// Where the API server asks about objects; none for no webhook.
    pub webhook: Option<Webhook>,
    /// Port of gateway pods that tells what they serve.
    pub gateway_port: u16,
    /// Who leads.
    pub lease: Lease,
    /// What objects mean.
    pub meaning: paifang_compiler::Settings,
}

/// The admission webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where it listens, with TLS.
    pub address: SocketAddr,
    /// The Service that the API server calls it by.
    pub service: String,
    /// The ValidatingWebhookConfiguration whose CA bundle is kept up to date.
    pub configuration: String,
}

/// Leader election, with the words and the defaults of Kubernetes' own components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Name of the Lease object.
    pub name: String,
    /// How long others wait after the last renewal before they take over.
    pub duration: Duration,
    /// How long the leader tries to renew before it gives up leading. Shorter than `duration`.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry_period: Duration,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            name: "paifang-controller".to_owned(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}
