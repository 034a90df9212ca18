//! PEM material: whether it can be used, and what it says.

use paifang_snapshot::wire::Certificate;
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_cert::{
    certificate::{CertificateInner, Raw},
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::name;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateFacts {
    /// Start of the leaf's validity, milliseconds since the epoch.
    pub not_before_ms: i64,
    /// Its end.
    pub not_after_ms: i64,
    /// DNS names of the leaf in lower case, wildcards as `*.example.com`, in its order.
    pub names: Vec<String>,
    /// Its subject as RFC 4514 writes it.
    pub subject: String,
}

type Parsed = CertificateInner<Raw>;

/// Checks the parts that are present: that each can be read, that the chain is in order, leaf first, and that the key belongs to the
/// leaf. Facts are those of the chain's leaf, else of the first CA certificate.
///
/// # Errors
/// The first thing that is wrong, with what to do about it. Never shows key material.
pub(crate) fn check(certificate: &Certificate) -> Result<CertificateFacts, String> {
    let mut facts = None;
    if let Some(chain) = &certificate.chain {
        facts = Some(check_chain(chain)?);
    }
    match (&certificate.chain, &certificate.key) {
        (Some(_), Some(_)) => drop(certified_key(certificate, &super::provider())?),
        (None, Some(key)) => drop(private_key(key.expose())?),
        (_, None) => {}
    }
    if let Some(ca) = &certificate.ca {
        roots(certificate)?;
        if facts.is_none() {
            let first = parse_all(ca, "ca.crt")?.into_iter().next();
            facts = first.map(|first| describe(&first));
        }
    }
    Ok(facts.unwrap_or_default())
}

fn check_chain(chain: &str) -> Result<CertificateFacts, String> {
    let parsed = parse_all(chain, "tls.crt")?;
    for (at, pair) in parsed.windows(2).enumerate() {
        let [lower, upper] = pair else { continue };
        if lower.tbs_certificate().issuer() != upper.tbs_certificate().subject() {
            return Err(format!(
                "tls.crt: certificate {} ({}) did not issue certificate {} ({}); order the chain from the leaf to its issuers",
                at + 2,
                name::text(upper.tbs_certificate().subject()),
                at + 1,
                name::text(lower.tbs_certificate().subject()),
            ));
        }
    }
    let leaf = parsed.first().ok_or("tls.crt holds no certificate")?;
    Ok(describe(leaf))
}

fn parse_all(pem: &str, part: &str) -> Result<Vec<Parsed>, String> {
    let parse = |der: &CertificateDer<'_>| {
        Parsed::from_der(der)
            .map_err(|error| format!("{part} holds a certificate that cannot be read: {error}"))
    };
    certificates(pem, part)?.iter().map(parse).collect()
}

fn certificates(pem: &str, part: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| format!("{part} is not PEM: {error}"))?;
    if all.is_empty() {
        return Err(format!(
            "{part} holds no certificate; it must have a section BEGIN CERTIFICATE"
        ));
    }
    Ok(all)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    // What is wrong is not told in detail: an error could carry a piece of the key.
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        "tls.key holds no private key; it must have a section BEGIN PRIVATE KEY, not encrypted"
            .to_owned()
    })
}

fn describe(leaf: &Parsed) -> CertificateFacts {
    let leaf = leaf.tbs_certificate();
    let millis = |time: x509_cert::time::Time| {
        i64::try_from(time.to_unix_duration().as_millis()).unwrap_or(i64::MAX)
    };
    let alternative = leaf.get_extension::<SubjectAltName>().ok().flatten();
    let names = alternative.map(|(_, names)| names.0).unwrap_or_default();
    let dns = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    };
    CertificateFacts {
        not_before_ms: millis(leaf.validity().not_before),
        not_after_ms: millis(leaf.validity().not_after),
        names: names.iter().filter_map(dns).collect(),
        subject: name::text(leaf.subject()),
    }
}

/// Chain and key, ready to sign with.
pub(crate) fn certified_key(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let chain = certificate.chain.as_deref().ok_or("tls.crt is missing")?;
    let key = certificate.key.as_ref().ok_or("tls.key is missing")?;
    let chain = certificates(chain, "tls.crt")?;
    let key = private_key(key.expose())?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            "tls.key does not belong to the first certificate of tls.crt".to_owned()
        }
        rustls::Error::InvalidCertificate(_) => {
            "tls.crt holds a certificate that cannot be used".to_owned()
        }
        _ => "tls.key is of no kind that can be used; RSA, ECDSA and Ed25519 are".to_owned(),
    })
}

/// The CA certificates of `ca.crt`.
pub(crate) fn roots(certificate: &Certificate) -> Result<RootCertStore, String> {
    let ca = certificate.ca.as_deref().ok_or("ca.crt is missing")?;
    let mut roots = RootCertStore::empty();
    for root in certificates(ca, "ca.crt")? {
        roots
            .add(root)
            .map_err(|error| format!("ca.crt holds a certificate that cannot be used: {error}"))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use paifang_model::Redacted;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    struct Made {
        ca: String,
        leaf: String,
        key: String,
    }

    fn make() -> Made {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "root");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec!["A.example.com".to_owned(), "*.b.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        let leaf = params.signed_by(&key, &ca).unwrap();
        Made {
            ca: ca.pem(),
            leaf: leaf.pem(),
            key: key.serialize_pem(),
        }
    }

    fn with(
        chain: Option<&str>,
        key: Option<&str>,
        ca: Option<&str>,
    ) -> Result<CertificateFacts, String> {
        check(&Certificate {
            chain: chain.map(str::to_owned),
            key: key.map(|key| Redacted::new(key.to_owned())),
            ca: ca.map(str::to_owned),
            ..Certificate::default()
        })
    }

    #[test]
    fn only_what_is_present_is_checked() {
        let Made { ca, leaf, key } = make();
        let facts = with(Some(&leaf), Some(&key), Some(&ca)).unwrap();
        assert_eq!(facts.names, ["a.example.com", "*.b.com"]);
        assert!(facts.subject.contains("CN=leaf"), "{}", facts.subject);
        assert!(facts.not_before_ms < facts.not_after_ms);
        let chain = format!("{leaf}{ca}");
        assert_eq!(with(Some(&chain), Some(&key), None).unwrap(), facts);
        assert_eq!(with(Some(&leaf), None, None).unwrap(), facts);
        assert!(
            with(None, None, Some(&ca))
                .unwrap()
                .subject
                .contains("CN=root")
        );
        assert!(with(None, Some(&key), None).is_ok());
        assert!(with(None, None, None).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_and_keys_are_not() {
        let (one, two) = (make(), make());
        let broken = one.leaf.replace("MII", "!!!");
        let upside_down = format!("{}{}", one.ca, one.leaf);
        for (chain, key, ca, expected) in [
            (
                Some(one.leaf.as_str()),
                Some(two.key.as_str()),
                None,
                "does not belong",
            ),
            (
                Some(&upside_down),
                None,
                None,
                "order the chain from the leaf",
            ),
            (Some(""), Some(&one.key), None, "holds no certificate"),
            (Some(&broken), None, None, "tls.crt"),
            (Some(&one.key), None, None, "holds no certificate"),
            (
                Some(&one.leaf),
                Some(&one.leaf),
                None,
                "holds no private key",
            ),
            (
                Some(&one.leaf),
                Some("secret"),
                None,
                "holds no private key",
            ),
            (None, None, Some("x"), "holds no certificate"),
        ] {
            let error = with(chain, key, ca).unwrap_err();
            assert!(
                error.contains(expected),
                "{error:?} does not say {expected:?}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
