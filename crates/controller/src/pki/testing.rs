//! Certificates as the loop makes them, and a client of a control plane, for tests of what uses them.

use std::sync::Arc;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use paifang_runtime::metrics::Metrics as Registry;
use paifang_testkit::ControlPlane;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
};

use super::{
    CA_CRT, Keeper, Material, TLS_CRT, TLS_KEY, bytes,
    decide::{self, Seen},
    leaf, pem,
    tests::settings,
};
use crate::metrics::Metrics;

/// An administrator's way to a control plane.
pub(crate) async fn client(plane: &ControlPlane) -> Client {
    let config = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(config, &options)
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// Metrics that nobody reads.
pub(super) fn metrics() -> Metrics {
    Metrics::register(&Registry::new("paifang", "0.0.0"))
}

/// All Secrets of one installation.
pub(crate) struct Made(Seen);

/// Makes them, now.
pub(crate) fn make() -> Made {
    let keeper = Keeper::new(Arc::new(settings("paifang-system")), metrics());
    let mut seen = Seen::new();
    let now = UnixTime::now();
    while let Some(action) = decide::decide(now, &keeper.leaves, &seen).first() {
        let secret = decide::carry_out(now, action, &keeper.leaves, &seen).unwrap();
        seen.insert(action.secret.to_owned(), secret);
    }
    Made(seen)
}

impl Made {
    /// What a replica of the controller makes of them.
    pub(crate) fn material(&self) -> Material {
        let mut material = Material::default();
        for (name, secret) in &self.0 {
            material.load(name, secret).unwrap();
        }
        material
    }

    /// A Secret's certificate, its key, and whom its owner trusts.
    pub(crate) fn parts(
        &self,
        secret: &str,
    ) -> (
        Vec<CertificateDer<'static>>,
        PrivateKeyDer<'static>,
        RootCertStore,
    ) {
        let part = |part| bytes(&self.0[secret], part).unwrap();
        let mut roots = RootCertStore::empty();
        for root in pem::certificates(CA_CRT, part(CA_CRT)).unwrap() {
            roots.add(root).unwrap();
        }
        (
            pem::certificates(TLS_CRT, part(TLS_CRT)).unwrap(),
            pem::private_key(TLS_KEY, part(TLS_KEY)).unwrap(),
            roots,
        )
    }

    /// A controller of this installation that trusts the gateways of another.
    pub(crate) fn client_that_trusts(&self, other: &Self) -> Arc<ClientConfig> {
        let mut secret = self.0["paifang-controller-tls"].clone();
        let bundle = other.0["paifang-controller-tls"].data.as_ref().unwrap()[CA_CRT].clone();
        secret
            .data
            .as_mut()
            .unwrap()
            .insert(CA_CRT.to_owned(), bundle);
        leaf::client_config(&secret).unwrap()
    }
}
