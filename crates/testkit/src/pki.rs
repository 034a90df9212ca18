//! The certificates of a cluster: one authority, and whatever it signs, each new for every cluster.

use std::{net::IpAddr, path::PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use crate::state::State;

/// The cluster's authority.
pub(crate) struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The authority's certificate.
    pub(crate) ca: PathBuf,
    /// The authority's key; controller-manager signs with it.
    pub(crate) ca_key: PathBuf,
    /// The key that signs tokens of service accounts, and its public half.
    pub(crate) token_key: PathBuf,
    pub(crate) token_public_key: PathBuf,
}

/// Files of one certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

// === impl Pki ===

impl Pki {
    pub(crate) fn create(state: &State) -> Result<Self> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "cluster of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let ca_key = state.write("pki/ca.key", key.serialize_pem())?;
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        let ca = state.write("pki/ca.crt", issuer.pem())?;
        let tokens = KeyPair::generate()?;
        Ok(Self {
            issuer,
            ca,
            ca_key,
            token_key: state.write("pki/tokens.key", tokens.serialize_pem())?,
            token_public_key: state.write("pki/tokens.pub", tokens.public_key_pem())?,
        })
    }

    /// A client's certificate: Kubernetes reads the user from the common name and the group from the organisation.
    pub(crate) fn client(&self, state: &State, user: &str, group: Option<&str>) -> Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(state, &user.replace([':', '/'], "-"), params)
    }

    /// A server's certificate.
    pub(crate) fn server(
        &self,
        state: &State,
        name: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Pair> {
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(state, name, params)
    }

    fn sign(&self, state: &State, file: &str, mut params: CertificateParams) -> Result<Pair> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate: state.write(&format!("pki/{file}.crt"), certificate.pem())?,
            key: state.write(&format!("pki/{file}.key"), key.serialize_pem())?,
        })
    }

    /// Writes a kubeconfig for a client of `server` who shows `user` (the `user` of a kubeconfig entry).
    pub(crate) fn kubeconfig(
        &self,
        state: &State,
        name: &str,
        server: &str,
        user: &Value,
    ) -> Result<PathBuf> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {"server": server, "certificate-authority": self.ca}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": "tests", "user": name}}],
            "current-context": name,
        });
        state.write(
            &format!("{name}.kubeconfig"),
            serde_json::to_vec_pretty(&config)?,
        )
    }
}

// === impl Pair ===

impl Pair {
    /// The `user` of a kubeconfig entry.
    pub(crate) fn user(&self) -> Value {
        json!({"client-certificate": self.certificate, "client-key": self.key})
    }
}
