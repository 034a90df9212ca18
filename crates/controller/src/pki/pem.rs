//! Certificates as text: what they hold, and what they say of themselves.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_cert::{
    certificate::{CertificateInner, Raw},
    der::Decode,
    ext::pkix::{BasicConstraints, SubjectAltName, name::GeneralName},
};

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its subject as RFC 4514 writes it.
    pub(super) subject: String,
    /// Start of its validity, seconds since the epoch.
    pub(super) not_before: u64,
    /// End of its validity, seconds since the epoch.
    pub(super) not_after: u64,
    /// Whether it may sign others.
    pub(super) authority: bool,
    /// Its DNS names.
    pub(super) names: Vec<String>,
}

/// The certificates of `text`, at least one.
pub(super) fn certificates(
    part: &str,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{part} holds no certificate")),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("{part} is not PEM: {error}")),
    }
}

/// The private key of `text`. What is wrong with one that cannot be read is not told: an error could carry a piece of it.
pub(super) fn private_key(part: &str, text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text).map_err(|_| format!("{part} holds no private key"))
}

/// Reads a certificate.
pub(super) fn facts(der: &CertificateDer<'_>) -> Result<Facts, String> {
    let parsed = CertificateInner::<Raw>::from_der(der)
        .map_err(|error| format!("holds a certificate that cannot be read: {error}"))?;
    let parsed = parsed.tbs_certificate();
    let constraints = parsed.get_extension::<BasicConstraints>().ok().flatten();
    let names = parsed.get_extension::<SubjectAltName>().ok().flatten();
    let dns = |name: GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        _ => None,
    };
    Ok(Facts {
        subject: parsed.subject().to_string(),
        not_before: parsed.validity().not_before.to_unix_duration().as_secs(),
        not_after: parsed.validity().not_after.to_unix_duration().as_secs(),
        authority: constraints.is_some_and(|(_, constraints)| constraints.ca),
        names: names
            .map(|(_, names)| names.0.into_iter().filter_map(dns).collect())
            .unwrap_or_default(),
    })
}
