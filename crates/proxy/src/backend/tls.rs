//! TLS towards backends: which roots, which certificate of our own. Verification is never skipped.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use paifang_model::ObjectName;
use paifang_snapshot::wire::{BackendTls, Certificate};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// A client configuration for what a backend asks for.
///
/// # Errors
/// A sentence for people when a Secret is missing or does not hold what it should; it names the Secret, never its content.
pub(crate) fn client_config(
    wanted: Option<&BackendTls>,
    certificates: &BTreeMap<ObjectName, Certificate>,
) -> Result<Arc<ClientConfig>, String> {
    let roots = match wanted.and_then(|tls| tls.ca.as_ref()) {
        Some(secret) => Arc::new(own_roots(secret, certificates)?),
        None => system_roots(),
    };
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match wanted.and_then(|tls| tls.client_certificate.as_ref()) {
        Some(secret) => {
            let (chain, key) = client_certificate(secret, certificates)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("Secret {secret}: {error}"))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The same for a backend that is to speak HTTP/2 if it can (RFC 9113 §3.2). Sessions are resumed with those of the other.
pub(crate) fn with_http2(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn own_roots(
    secret: &ObjectName,
    certificates: &BTreeMap<ObjectName, Certificate>,
) -> Result<RootCertStore, String> {
    let pem = certificates
        .get(secret)
        .and_then(|certificate| certificate.ca.as_deref())
        .ok_or_else(|| format!("Secret {secret} has no ca.crt"))?;
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|error| format!("Secret {secret}, ca.crt: {error}"))?;
        roots
            .add(der)
            .map_err(|error| format!("Secret {secret}, ca.crt: {error}"))?;
    }
    if roots.is_empty() {
        return Err(format!("Secret {secret}: ca.crt holds no certificate"));
    }
    Ok(roots)
}

fn client_certificate(
    secret: &ObjectName,
    certificates: &BTreeMap<ObjectName, Certificate>,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let missing = || format!("Secret {secret} has no tls.crt and tls.key");
    let certificate = certificates.get(secret).ok_or_else(missing)?;
    let chain = certificate.chain.as_deref().ok_or_else(missing)?;
    let key = certificate.key.as_ref().ok_or_else(missing)?;
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("Secret {secret}, tls.crt: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|_| format!("Secret {secret}: tls.key is not a PEM private key"))?;
    Ok((chain, key))
}

/// The system's roots, read once. None at all is not an error here: every handshake then fails and says so.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(errors = ?found.errors, "the system has no root certificates: backends over https need tls.caSecretRef");
        }
        Arc::new(roots)
    }))
}
