//! Certificates, keys and CAs from Secrets, checked, with the last good material behind them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Redacted};
use paifang_snapshot::wire::{AccessKey, Certificate, Group};

use crate::{CertificateFacts, Objects, Problem, Reason, Secret, Settings};

/// Longest part of an access key, in bytes; a security token has the most, about 1,000.
const MOST_KEY: usize = 4096;

/// What a Secret is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// `tls.crt` and `tls.key`.
    Pair,
    /// `ca.crt`.
    Ca,
    /// `accessKeyId`, `accessKeySecret` and, if there is one, `securityToken`.
    AccessKey,
}

impl Use {
    const ALL: [Self; 3] = [Self::Pair, Self::Ca, Self::AccessKey];
}

/// What is known of a Secret for one use.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    /// The material to use: the Secret's, or the last good one.
    material: Option<Certificate>,
    /// Facts about that material.
    pub(crate) facts: CertificateFacts,
    /// What is wrong with the Secret.
    fault: Option<Fault>,
}

#[derive(Debug, Clone)]
struct Fault {
    reason: Reason,
    message: String,
    fix: &'static str,
}

/// What is known so far, by Secret and use: nothing is looked at twice.
#[derive(Debug, Default)]
pub(crate) struct Judgements(BTreeMap<ObjectName, [Option<Arc<Judged>>; 3]>);

/// Where certificates come from.
#[derive(Clone, Copy)]
pub(crate) struct Certificates<'a> {
    pub(crate) objects: &'a Objects,
    /// The last good material.
    pub(crate) remembered: &'a BTreeMap<ObjectName, Arc<Certificate>>,
    pub(crate) settings: &'a Settings,
}

/// How many published things use a Secret, and how.
#[derive(Debug, Default)]
pub(crate) struct Uses(BTreeMap<ObjectName, [usize; 3]>);

// === impl Judged ===

impl Judged {
    /// Whether there is something to use.
    pub(crate) fn is_usable(&self) -> bool {
        self.material.is_some()
    }

    /// What is wrong, as a problem of `field`.
    pub(crate) fn problem(&self, field: &str) -> Option<Problem> {
        let fault = self.fault.as_ref()?;
        let goes_on = if self.is_usable() {
            "; the last good one goes on"
        } else {
            ""
        };
        let message = format!("{}{goes_on}", fault.message);
        Some(Problem::new(field, fault.reason, message, fault.fix))
    }
}

// === impl Judgements ===

impl Judgements {
    /// Forgets what is known of a Secret.
    pub(crate) fn forget(&mut self, name: &ObjectName) {
        self.0.remove(name);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

// === impl Certificates ===

impl Certificates<'_> {
    /// What is known of the Secret `name` for this use.
    pub(crate) fn judge(
        &self,
        name: &ObjectName,
        usage: Use,
        known: &mut Judgements,
    ) -> Arc<Judged> {
        if let Some(Some(judged)) = known.0.get(name).map(|it| &it[usage as usize]) {
            return Arc::clone(judged);
        }
        let judged = Arc::new(self.look(name, usage));
        known.0.entry(name.clone()).or_default()[usage as usize] = Some(Arc::clone(&judged));
        judged
    }

    fn look(&self, name: &ObjectName, usage: Use) -> Judged {
        let fault = match self.read(name, usage) {
            Ok((material, facts)) => {
                return Judged {
                    material: Some(material),
                    facts,
                    fault: None,
                };
            }
            Err(fault) => fault,
        };
        let last = self.remembered.get(name);
        let last = last.and_then(|last| part(last, usage));
        let facts = last
            .as_ref()
            .and_then(|last| (self.settings.check_certificate)(last).ok());
        Judged {
            material: last,
            facts: facts.unwrap_or_default(),
            fault: Some(fault),
        }
    }

    fn read(
        &self,
        name: &ObjectName,
        usage: Use,
    ) -> Result<(Certificate, CertificateFacts), Fault> {
        let secret = self.objects.secrets.get(name).ok_or_else(|| Fault {
            reason: Reason::SecretNotFound,
            message: format!("there is no Secret {name}"),
            fix: "create it",
        })?;
        let pem = |key: &str| self.pem(name, secret, key);
        let material = match usage {
            Use::AccessKey => {
                let material = Certificate {
                    access_key: Some(access_key(name, secret)?),
                    ..Certificate::default()
                };
                return Ok((material, CertificateFacts::default()));
            }
            Use::Pair => Certificate {
                chain: Some(pem("tls.crt")?),
                key: Some(Redacted::new(pem("tls.key")?)),
                ..Certificate::default()
            },
            Use::Ca => Certificate {
                ca: Some(pem("ca.crt")?),
                ..Certificate::default()
            },
        };
        let facts = (self.settings.check_certificate)(&material).map_err(|why| Fault {
            reason: Reason::SecretInvalid,
            message: format!("Secret {name}: {why}"),
            fix: "put a certificate and its own key there",
        })?;
        Ok((material, facts))
    }

    fn pem(&self, name: &ObjectName, secret: &Secret, key: &str) -> Result<String, Fault> {
        let invalid = |message: String, fix: &'static str| Fault {
            reason: Reason::SecretInvalid,
            message,
            fix,
        };
        let data = secret
            .data
            .get(key)
            .map(|data| data.expose())
            .filter(|data| !data.is_empty())
            .ok_or_else(|| {
                let message = format!("Secret {name} has nothing under `{key}`");
                invalid(message, "put the PEM text there")
            })?;
        let most = self.settings.limits.pem_bytes;
        if data.len() > most {
            let message = format!("`{key}` of Secret {name} has more than {most} bytes");
            return Err(invalid(message, "remove what is not needed"));
        }
        String::from_utf8(data.clone()).map_err(|_| {
            let message = format!("`{key}` of Secret {name} is not text");
            invalid(message, "put the PEM text there")
        })
    }

    /// The material that is published of a Secret; none when nothing uses it, or when there is none.
    pub(crate) fn published(
        &self,
        name: &ObjectName,
        uses: &Uses,
        known: &mut Judgements,
    ) -> Option<Certificate> {
        let mut published: Option<Certificate> = None;
        for usage in uses.of(name) {
            let judged = self.judge(name, usage, known);
            let Some(material) = judged.material.clone() else {
                continue;
            };
            let entry = published.get_or_insert_default();
            entry.chain = entry.chain.take().or(material.chain);
            entry.key = entry.key.take().or(material.key);
            entry.ca = entry.ca.take().or(material.ca);
            entry.access_key = entry.access_key.take().or(material.access_key);
        }
        published
    }
}

// === impl Uses ===

impl Uses {
    /// One use more.
    pub(crate) fn add(&mut self, name: &ObjectName, usage: Use) {
        self.0.entry(name.clone()).or_default()[usage as usize] += 1;
    }

    /// One use less.
    pub(crate) fn remove(&mut self, name: &ObjectName, usage: Use) {
        let Some(counts) = self.0.get_mut(name) else {
            return;
        };
        counts[usage as usize] = counts[usage as usize].saturating_sub(1);
        if *counts == [0; 3] {
            self.0.remove(name);
        }
    }

    /// How a Secret is used.
    fn of(&self, name: &ObjectName) -> impl Iterator<Item = Use> + use<> {
        let counts = self.0.get(name).copied().unwrap_or_default();
        Use::ALL
            .into_iter()
            .filter(move |usage| counts[*usage as usize] > 0)
    }

    /// The Secrets that are used.
    pub(crate) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.0.keys()
    }
}

/// The Secrets that a group refers to.
pub(crate) fn used_by(group: &Group) -> BTreeSet<(&ObjectName, Use)> {
    let mut used = BTreeSet::new();
    for tls in group
        .domains
        .iter()
        .filter_map(|domain| domain.tls.as_ref())
    {
        used.insert((&tls.certificate, Use::Pair));
        used.extend(tls.client_ca.as_ref().map(|ca| (ca, Use::Ca)));
    }
    for backend in &group.backends {
        let key = backend.target.credentials();
        used.extend(key.map(|key| (key, Use::AccessKey)));
        let Some(Some(tls)) = backend.target.tls() else {
            continue;
        };
        used.extend(tls.ca.as_ref().map(|ca| (ca, Use::Ca)));
        used.extend(
            tls.client_certificate
                .as_ref()
                .map(|pair| (pair, Use::Pair)),
        );
    }
    used
}

/// What of `last` serves this use.
fn part(last: &Arc<Certificate>, usage: Use) -> Option<Certificate> {
    match usage {
        Use::Pair => Some(Certificate {
            chain: Some(last.chain.clone()?),
            key: Some(last.key.clone()?),
            ..Certificate::default()
        }),
        Use::AccessKey => Some(Certificate {
            access_key: Some(last.access_key.clone()?),
            ..Certificate::default()
        }),
        Use::Ca => Some(Certificate {
            ca: Some(last.ca.clone()?),
            ..Certificate::default()
        }),
    }
}

/// What calls of a cloud's services are signed with. A line end behind a value, as `echo` leaves it, is not part of it.
fn access_key(name: &ObjectName, secret: &Secret) -> Result<AccessKey, Fault> {
    let read = |key: &str| -> Result<Option<String>, Fault> {
        let Some(data) = secret.data.get(key).map(|data| data.expose()) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(data).unwrap_or("\0");
        let text = text.trim_end_matches(['\r', '\n']);
        if text.len() > MOST_KEY || text.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(Fault {
                reason: Reason::SecretInvalid,
                message: format!(
                    "`{key}` of Secret {name} has more than {MOST_KEY} characters, or others than visible ASCII"
                ),
                fix: "put the access key there as the cloud gave it",
            });
        }
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    };
    let needed = |key: &str| {
        read(key)?.ok_or_else(|| Fault {
            reason: Reason::SecretInvalid,
            message: format!("Secret {name} has nothing under `{key}`"),
            fix: "put accessKeyId and accessKeySecret there, and securityToken if the key is temporary",
        })
    };
    Ok(AccessKey {
        id: needed("accessKeyId")?,
        secret: Redacted::new(needed("accessKeySecret")?),
        security_token: read("securityToken")?.map(Redacted::new),
    })
}
