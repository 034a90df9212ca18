//! TLS of the public listener: which certificate a name gets, and what may be spoken with it.
//!
//! [`TlsTable`] is built from a snapshot off the workers' threads and swapped as one pointer. What did not change is the very same
//! configuration, so that sessions go on being resumed. A certificate that cannot be used leaves its domain with the last one that
//! could, unless that would let in clients that the domain now wants to see a certificate of.

pub(crate) mod certificate;
mod name;

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::Arc,
};

use http::HeaderValue;
use paifang_model::{HostPattern, HttpsPolicy, ObjectName};
use paifang_proxy::ClientTls;
use paifang_snapshot::wire::{Certificate, Domain, Snapshot};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use crate::settings::DefaultCertificate;

/// Which TLS configuration each name has.
#[derive(Default)]
pub(crate) struct TlsTable {
    /// A name that is known but has no TLS here is `None`, and no wildcard speaks for it.
    exact: Hosts,
    wildcard: Hosts,
    default: Option<Arc<ServerConfig>>,
}

type Hosts = HashMap<Box<str>, Option<Arc<Bound>>, foldhash::fast::RandomState>;

/// A domain with its TLS.
pub(crate) struct Bound {
    host: HostPattern,
    config: Arc<ServerConfig>,
    wanted: Wanted,
    /// The Secret.
    pub(crate) certificate: ObjectName,
    /// End of the leaf's validity, milliseconds since the epoch.
    pub(crate) not_after_ms: i64,
}

/// What a configuration is made of.
#[derive(Clone, PartialEq)]
struct Wanted {
    certificate: Certificate,
    client_ca: Option<Certificate>,
    policy: HttpsPolicy,
}

/// A domain whose certificate cannot be used, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsProblem {
    pub(crate) group: ObjectName,
    pub(crate) certificate: ObjectName,
    pub(crate) message: String,
}

/// What a handshake is answered with.
pub(crate) struct Chosen {
    pub(crate) config: Arc<ServerConfig>,
    /// The domain; absent for the default certificate.
    pub(crate) domain: Option<HostPattern>,
}

/// What all groups say about one host.
struct Claim<'s> {
    group: &'s ObjectName,
    policy: HttpsPolicy,
    certificate: &'s ObjectName,
    client_ca: Option<&'s ObjectName>,
    /// Whether groups that share the host ask for different client CAs.
    disputed: bool,
}

// === impl TlsTable ===

impl TlsTable {
    /// A table with the default certificate alone.
    ///
    /// # Errors
    /// When the default certificate cannot be used.
    pub(crate) fn new(default: Option<&DefaultCertificate>) -> Result<Self, String> {
        let default = default.map(|default| {
            let certificate = Certificate {
                chain: Some(default.chain.clone()),
                key: Some(default.key.clone()),
                ..Certificate::default()
            };
            server_config(&certificate, None, HttpsPolicy::Http2Tls13)
        });
        Ok(Self {
            default: default.transpose()?,
            ..Self::default()
        })
    }

    /// Builds the table for `snapshot`. Never panics.
    pub(crate) fn load(snapshot: &Snapshot, previous: &Self) -> (Self, Vec<TlsProblem>) {
        let mut table = Self {
            default: previous.default.clone(),
            ..Self::default()
        };
        let mut problems = Vec::new();
        let mut claims: BTreeMap<&HostPattern, Option<Claim<'_>>> = BTreeMap::new();
        for group in snapshot.groups.values() {
            for domain in &group.domains {
                claim(&mut claims, &group.name, group.https_policy, domain);
            }
        }
        for (host, claim) in claims {
            let before = previous.bound(host);
            let bound = claim.and_then(|claim| match bind(host, &claim, snapshot, before) {
                Ok(bound) => Some(bound),
                Err(reason) => {
                    let kept = before.filter(|before| {
                        before.wanted.client_ca.is_some() == claim.client_ca.is_some()
                    });
                    let kept = kept.filter(|_| !claim.disputed);
                    problems.push(problem(host, &claim, &reason, kept.is_some()));
                    kept.cloned()
                }
            });
            let (hosts, name) = table.place(host);
            hosts.insert(name.into(), bound);
        }
        (table, problems)
    }

    /// What a client that names `server_name` gets; nothing means that no certificate is meant for it.
    pub(crate) fn choose(&self, server_name: Option<&str>) -> Option<Chosen> {
        let bound = server_name.and_then(|name| {
            let lower;
            let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
                lower = name.to_ascii_lowercase();
                lower.as_str()
            } else {
                name
            };
            self.find(name.strip_suffix('.').unwrap_or(name))
        });
        match bound {
            Some(bound) => Some(Chosen {
                config: Arc::clone(&bound.config),
                domain: Some(bound.host.clone()),
            }),
            None => self.default.as_ref().map(|config| Chosen {
                config: Arc::clone(config),
                domain: None,
            }),
        }
    }

    fn find(&self, name: &str) -> Option<&Arc<Bound>> {
        if let Some(bound) = self.exact.get(name) {
            return bound.as_ref();
        }
        let (label, suffix) = name.split_once('.')?;
        (!label.is_empty())
            .then(|| self.wildcard.get(suffix))??
            .as_ref()
    }

    /// Every domain that has TLS.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = (&HostPattern, &Bound)> {
        let all = self.exact.values().chain(self.wildcard.values());
        all.flatten().map(|bound| (&bound.host, &**bound))
    }

    /// Whether every domain has the very TLS that it has in `other`.
    pub(crate) fn binds_as(&self, other: &Self) -> bool {
        let same = |left: &Hosts, right: &Hosts| {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(host, bound)| match (bound, right.get(host)) {
                        (Some(bound), Some(Some(other))) => Arc::ptr_eq(bound, other),
                        (None, Some(None)) => true,
                        _ => false,
                    })
        };
        same(&self.exact, &other.exact) && same(&self.wildcard, &other.wildcard)
    }

    fn bound(&self, host: &HostPattern) -> Option<&Arc<Bound>> {
        match host {
            HostPattern::Exact(name) => self.exact.get(name),
            HostPattern::Wildcard(suffix) => self.wildcard.get(suffix),
        }?
        .as_ref()
    }

    fn place<'h>(&mut self, host: &'h HostPattern) -> (&mut Hosts, &'h str) {
        match host {
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard(suffix) => (&mut self.wildcard, suffix),
        }
    }
}

/// Adds what a group says about a host. The first group with TLS decides the certificate; a client CA of any of them counts for all.
fn claim<'s>(
    claims: &mut BTreeMap<&'s HostPattern, Option<Claim<'s>>>,
    group: &'s ObjectName,
    policy: HttpsPolicy,
    domain: &'s Domain,
) {
    let claim = domain
        .tls
        .as_ref()
        .filter(|_| !domain.intranet)
        .map(|tls| Claim {
            group,
            policy,
            certificate: &tls.certificate,
            client_ca: tls.client_ca.as_ref(),
            disputed: false,
        });
    match (claims.entry(&domain.host), claim) {
        (Entry::Vacant(entry), claim) => drop(entry.insert(claim)),
        (Entry::Occupied(mut entry), Some(claim)) => match entry.get_mut() {
            Some(first) if first.client_ca.is_none() => first.client_ca = claim.client_ca,
            Some(first) => {
                first.disputed |= claim.client_ca.is_some() && claim.client_ca != first.client_ca
            }
            none => *none = Some(claim),
        },
        (Entry::Occupied(_), None) => {}
    }
}

fn bind(
    host: &HostPattern,
    claim: &Claim<'_>,
    snapshot: &Snapshot,
    before: Option<&Arc<Bound>>,
) -> Result<Arc<Bound>, String> {
    if claim.disputed {
        return Err("groups that share this domain ask for different client CAs".to_owned());
    }
    let material = |name: &ObjectName| {
        let found = snapshot.certificates.get(name);
        found.ok_or_else(|| format!("Secret {name} is not there"))
    };
    let certificate = material(claim.certificate)?;
    let client_ca = claim.client_ca.map(material).transpose()?;
    if let Some(before) = before
        && before.certificate == *claim.certificate
        && before.wanted.certificate == *certificate
        && before.wanted.client_ca.as_ref() == client_ca
        && before.wanted.policy == claim.policy
    {
        return Ok(Arc::clone(before));
    }
    let wanted = Wanted {
        certificate: certificate.clone(),
        client_ca: client_ca.cloned(),
        policy: claim.policy,
    };
    let facts = certificate::check(&wanted.certificate)?;
    Ok(Arc::new(Bound {
        host: host.clone(),
        config: server_config(
            &wanted.certificate,
            wanted.client_ca.as_ref(),
            wanted.policy,
        )?,
        wanted,
        certificate: claim.certificate.clone(),
        not_after_ms: facts.not_after_ms,
    }))
}

fn problem(host: &HostPattern, claim: &Claim<'_>, reason: &str, kept: bool) -> TlsProblem {
    let instead = if kept {
        "the last certificate that could be used stays"
    } else {
        "there is no TLS on this domain"
    };
    TlsProblem {
        group: claim.group.clone(),
        certificate: claim.certificate.clone(),
        message: format!("{host}: {reason}; {instead}"),
    }
}

/// A configuration of its own tickets: a session is never resumed under another domain's rules (CVE-2025-23419).
fn server_config(
    certificate: &Certificate,
    client_ca: Option<&Certificate>,
    policy: HttpsPolicy,
) -> Result<Arc<ServerConfig>, String> {
    let provider = provider();
    let versions: &[_] = match policy {
        HttpsPolicy::Http1Tls12 | HttpsPolicy::Http2Tls13 => &[&TLS13, &TLS12],
        HttpsPolicy::Http2Tls12 => &[&TLS12],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| format!("no TLS with these versions: {error}"))?;
    let builder = match client_ca {
        Some(ca) => builder.with_client_cert_verifier(verifier(ca, &provider)?),
        None => builder.with_no_client_auth(),
    };
    let key = certificate::certified_key(certificate, &provider)?;
    let mut config = builder.with_cert_resolver(resolver(key));
    config.alpn_protocols = match policy {
        HttpsPolicy::Http1Tls12 => vec![b"http/1.1".to_vec()],
        HttpsPolicy::Http2Tls12 | HttpsPolicy::Http2Tls13 => {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        }
    };
    config.ticketer =
        aws_lc_rs::Ticketer::new().map_err(|error| format!("no session tickets: {error}"))?;
    // Tickets carry the state; a second memory of sessions would only grow.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn resolver(key: CertifiedKey) -> Arc<dyn ResolvesServerCert> {
    Arc::new(SingleCertAndKey::from(key))
}

fn verifier(
    ca: &Certificate,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let roots: RootCertStore = certificate::roots(ca)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| format!("the client CA cannot be used: {error}"))
}

/// The one set of algorithms.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
}

/// What the handshake settled, for the proxy.
pub(crate) fn client_tls(
    domain: Option<HostPattern>,
    session: &rustls::ServerConnection,
) -> ClientTls {
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let subject = leaf.and_then(|leaf| {
        let subject = name::subject(leaf)?;
        HeaderValue::from_str(&subject).ok()
    });
    ClientTls { domain, subject }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use paifang_snapshot::wire::{DomainTls, FORMAT, Group, SubDomain};
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        Certificate {
            chain: Some(made.pem()),
            key: Some(key.serialize_pem().into()),
            ca: Some(made.pem()),
            ..Certificate::default()
        }
    }

    fn domain(
        host: &str,
        certificate: Option<&str>,
        client_ca: Option<&str>,
        intranet: bool,
    ) -> Domain {
        let tls = certificate.map(|certificate| DomainTls {
            certificate: ObjectName::new("ns", certificate),
            client_ca: client_ca.map(|ca| ObjectName::new("ns", ca)),
            pass_client_subject: false,
            redirect_http: false,
        });
        Domain {
            name: ObjectName::new("ns", host),
            host: host.parse().unwrap(),
            stage: None,
            intranet,
            tls,
            web_socket: false,
        }
    }

    fn snapshot(
        groups: Vec<(&str, Vec<Domain>)>,
        certificates: &[(&str, &Certificate)],
    ) -> Snapshot {
        let group = |(name, domains): (&str, Vec<Domain>)| {
            let name = ObjectName::new("ns", name);
            let group = Group {
                format: FORMAT,
                name: name.clone(),
                id: "0".repeat(32),
                instance: "default".to_owned(),
                base_path: "/".parse().unwrap(),
                qps_limit: 500,
                sub_domain: SubDomain {
                    public: None,
                    internal: None,
                    daily_quota: 1_000,
                },
                https_policy: HttpsPolicy::Http2Tls13,
                filter_app_code: false,
                domains,
                apis: Vec::new(),
                routes: Vec::new(),
                backends: Vec::new(),
                grants: Vec::new(),
            };
            (name, Arc::new(group))
        };
        let certificates: BTreeMap<_, _> = certificates
            .iter()
            .map(|(name, certificate)| (ObjectName::new("ns", *name), (*certificate).clone()))
            .collect();
        Snapshot {
            groups: groups.into_iter().map(group).collect(),
            certificates: Arc::new(certificates),
            ..Snapshot::default()
        }
    }

    fn chosen(table: &TlsTable, name: &str) -> Option<String> {
        table
            .choose(Some(name))
            .map(|chosen| chosen.domain.unwrap().to_string())
    }

    #[test]
    fn names_find_their_domain_and_nothing_else() {
        let pem = certificate(&["a"]);
        let domains = vec![
            domain("a.example.com", Some("c"), None, false),
            domain("*.example.com", Some("c"), None, false),
            domain("plain.example.com", None, None, false),
            domain("inner.example.com", Some("c"), None, true),
        ];
        let (table, problems) = TlsTable::load(
            &snapshot(vec![("g", domains)], &[("c", &pem)]),
            &TlsTable::default(),
        );
        assert_eq!(problems, []);
        for (name, expected) in [
            ("a.example.com", Some("a.example.com")),
            ("A.Example.COM", Some("a.example.com")),
            ("b.example.com", Some("*.example.com")),
            ("b.c.example.com", None),
            ("example.com", None),
            ("plain.example.com", None),
            ("inner.example.com", None),
            ("other.org", None),
        ] {
            assert_eq!(chosen(&table, name).as_deref(), expected, "{name}");
        }
        assert!(table.choose(None).is_none());
    }

    #[test]
    fn an_unchanged_domain_keeps_its_configuration_and_a_changed_one_does_not() {
        let (one, two) = (certificate(&["a"]), certificate(&["a"]));
        let domains = || {
            vec![
                domain("a.com", Some("c"), None, false),
                domain("b.com", Some("d"), None, false),
            ]
        };
        let load = |c, d, previous: &TlsTable| {
            TlsTable::load(
                &snapshot(vec![("g", domains())], &[("c", c), ("d", d)]),
                previous,
            )
            .0
        };
        let first = load(&one, &one, &TlsTable::default());
        let second = load(&one, &two, &first);
        let config = |table: &TlsTable, name| table.choose(Some(name)).unwrap().config;
        assert!(Arc::ptr_eq(
            &config(&first, "a.com"),
            &config(&second, "a.com")
        ));
        assert!(!Arc::ptr_eq(
            &config(&first, "b.com"),
            &config(&second, "b.com")
        ));
        assert!(!Arc::ptr_eq(
            &config(&first, "a.com").ticketer,
            &config(&first, "b.com").ticketer
        ));
    }

    #[test]
    fn a_half_rotated_secret_keeps_the_last_good_certificate() {
        let (one, two) = (certificate(&["a"]), certificate(&["a"]));
        let half = Certificate {
            key: two.key,
            ..one.clone()
        };
        let domains = || vec![domain("a.com", Some("c"), None, false)];
        let (good, _) = TlsTable::load(
            &snapshot(vec![("g", domains())], &[("c", &one)]),
            &TlsTable::default(),
        );
        let (kept, problems) =
            TlsTable::load(&snapshot(vec![("g", domains())], &[("c", &half)]), &good);
        assert_eq!(chosen(&kept, "a.com").as_deref(), Some("a.com"));
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].message.contains("does not belong"),
            "{problems:?}"
        );
        assert!(
            problems[0]
                .message
                .ends_with("the last certificate that could be used stays"),
            "{problems:?}"
        );
        let (never, problems) = TlsTable::load(
            &snapshot(vec![("g", domains())], &[("c", &half)]),
            &TlsTable::default(),
        );
        assert_eq!(chosen(&never, "a.com"), None);
        assert!(
            problems[0]
                .message
                .ends_with("there is no TLS on this domain"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_domain_that_begins_to_ask_for_client_certificates_never_falls_back_to_asking_for_none() {
        let pem = certificate(&["a"]);
        let bad = Certificate {
            ca: Some("no pem".to_owned()),
            ..Certificate::default()
        };
        let load = |ca, previous: &TlsTable| {
            let domains = vec![domain("a.com", Some("c"), ca, false)];
            TlsTable::load(
                &snapshot(vec![("g", domains)], &[("c", &pem), ("bad", &bad)]),
                previous,
            )
        };
        let (open, _) = load(None, &TlsTable::default());
        assert!(chosen(&open, "a.com").is_some());
        let (closed, problems) = load(Some("bad"), &open);
        assert_eq!(chosen(&closed, "a.com"), None);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let (closed, problems) = load(Some("missing"), &open);
        assert_eq!(chosen(&closed, "a.com"), None);
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn groups_that_share_a_domain_share_the_stricter_rule() {
        let pem = certificate(&["a"]);
        let load = |left, right| {
            let groups = vec![
                ("g", vec![domain("a.com", Some("c"), left, false)]),
                ("h", vec![domain("a.com", Some("c"), right, false)]),
            ];
            TlsTable::load(
                &snapshot(groups, &[("c", &pem), ("d", &pem)]),
                &TlsTable::default(),
            )
        };
        for (left, right) in [(Some("c"), None), (None, Some("c")), (Some("c"), Some("c"))] {
            let (table, problems) = load(left, right);
            assert_eq!(problems, []);
            assert!(
                table
                    .bounds()
                    .all(|(_, bound)| bound.wanted.client_ca.is_some())
            );
            assert_eq!(table.bounds().count(), 1);
        }
        let (table, problems) = load(Some("c"), Some("d"));
        assert_eq!((table.bounds().count(), problems.len()), (0, 1));
    }
}
