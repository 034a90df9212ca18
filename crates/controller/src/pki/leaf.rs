//! The certificates that the programs show: whose they are, whether one can still be used, and how it is made.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use paifang_snapshot::report::{CONTROLLER_NAME, GATEWAY_NAME};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use super::{BACKDATED, CA_CRT, TLS_CRT, TLS_KEY, authority::Authorities, bytes, pem, provider};
use crate::Webhook;

/// How long one is good for.
pub(super) const LIFE: Duration = Duration::from_secs(90 * 86_400);

/// A certificate that some program shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    /// The Secret it stands in.
    pub(super) secret: &'static str,
    /// Its value of the label `paifang.dev/part`.
    pub(super) part: &'static str,
    /// Whether gateways read the Secret.
    pub(super) for_gateways: bool,
    /// The names it is for.
    pub(super) names: Vec<String>,
    /// Which side shows it.
    pub(super) side: Side,
}

/// A side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that is called.
    Server,
    /// The one that calls.
    Client,
}

// === impl Leaf ===

impl Leaf {
    /// What gateways show on their report port.
    pub(super) fn gateway() -> Self {
        Self {
            secret: "paifang-gateway-tls",
            part: "report-tls",
            for_gateways: true,
            names: vec![GATEWAY_NAME.to_owned()],
            side: Side::Server,
        }
    }

    /// What the controller shows to gateways.
    pub(super) fn controller() -> Self {
        Self {
            secret: "paifang-controller-tls",
            part: "controller-tls",
            for_gateways: false,
            names: vec![CONTROLLER_NAME.to_owned()],
            side: Side::Client,
        }
    }

    /// What the controller shows to the API server.
    pub(super) fn webhook(webhook: &Webhook, namespace: &str) -> Self {
        let name = format!("{}.{namespace}.svc", webhook.service);
        Self {
            secret: "paifang-webhook-tls",
            part: "webhook-tls",
            for_gateways: false,
            names: vec![format!("{name}.cluster.local"), name],
            side: Side::Server,
        }
    }

    /// Why another is needed, if so.
    pub(super) fn due(
        &self,
        secret: &Secret,
        authorities: &Authorities,
        now: UnixTime,
    ) -> Option<String> {
        match self.check(secret, authorities, now) {
            Ok(true) => None,
            Ok(false) => Some("two thirds of its life are over".to_owned()),
            Err(why) => Some(why),
        }
    }

    /// Whether it is fresh.
    fn check(
        &self,
        secret: &Secret,
        authorities: &Authorities,
        now: UnixTime,
    ) -> Result<bool, String> {
        let key = certified_key(secret)?;
        let [leaf, between @ ..] = key.cert.as_slice() else {
            return Err("tls.crt holds no certificate".to_owned());
        };
        let facts = pem::facts(leaf).map_err(|error| format!("tls.crt {error}"))?;
        let lacks = |name: &&String| !facts.names.contains(*name);
        if let Some(name) = self.names.iter().find(lacks) {
            return Err(format!("tls.crt is not for {name}"));
        }
        self.verify(leaf, between, authorities, now)
            .map_err(|error| format!("tls.crt cannot be used: {error}"))?;
        let life = facts.not_after.saturating_sub(facts.not_before);
        Ok(now.as_secs() < facts.not_before + life / 3 * 2)
    }

    /// As the other side of a connection checks it, with trust only in the authority that signs now.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        authorities: &Authorities,
        now: UnixTime,
    ) -> Result<(), String> {
        let roots = Arc::new(authorities.signing.roots()?);
        match self.side {
            Side::Server => {
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|error| error.to_string())?;
                for name in &self.names {
                    let name = ServerName::try_from(name.as_str())
                        .map_err(|_| format!("{name} is no DNS name"))?;
                    verifier
                        .verify_server_cert(leaf, between, &name, &[], now)
                        .map_err(|error| error.to_string())?;
                }
            }
            Side::Client => {
                WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|error| error.to_string())?
                    .verify_client_cert(leaf, between, now)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Makes one.
    pub(super) fn issue(
        &self,
        authorities: &Authorities,
        now: UnixTime,
    ) -> Result<BTreeMap<String, ByteString>, String> {
        let failed = |error: rcgen::Error| format!("no certificate can be made: {error}");
        let mut params = CertificateParams::new(self.names.clone()).map_err(failed)?;
        let start = Duration::from_secs(now.as_secs()).saturating_sub(BACKDATED);
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + start;
        params.not_after = epoch + start + LIFE;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match self.side {
            Side::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Side::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, self.secret);
        let key = KeyPair::generate().map_err(failed)?;
        let made = authorities.signing.sign(&params, &key)?;
        Ok(BTreeMap::from([
            (TLS_CRT.to_owned(), ByteString(made.pem().into_bytes())),
            (
                TLS_KEY.to_owned(),
                ByteString(key.serialize_pem().into_bytes()),
            ),
            (
                CA_CRT.to_owned(),
                ByteString(authorities.bundle().into_bytes()),
            ),
        ]))
    }
}

fn certified_key(secret: &Secret) -> Result<CertifiedKey, String> {
    let part = |part: &str| bytes(secret, part).ok_or_else(|| format!("{part} is missing"));
    let chain = pem::certificates(TLS_CRT, part(TLS_CRT)?)?;
    let key = pem::private_key(TLS_KEY, part(TLS_KEY)?)?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|_| "tls.key does not belong to tls.crt".to_owned())
}

/// What the webhook speaks.
pub(super) fn server_config(secret: &Secret) -> Result<Arc<ServerConfig>, String> {
    let key = certified_key(secret)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // The few callers keep their connections; nothing is won by remembering sessions.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// What a reader of reports speaks.
pub(super) fn client_config(secret: &Secret) -> Result<Arc<ClientConfig>, String> {
    let key = certified_key(secret)?;
    let bundle = bytes(secret, CA_CRT).ok_or("ca.crt is missing")?;
    let mut roots = RootCertStore::empty();
    for root in pem::certificates(CA_CRT, bundle)? {
        roots
            .add(root)
            .map_err(|error| format!("ca.crt holds a certificate that cannot be used: {error}"))?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    Ok(Arc::new(config))
}
