//! DomainBindings: which group answers for a host.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{BasePath, HostPattern, ObjectName};
use paifang_resources::DomainBindingSpec;
use paifang_snapshot::wire;

use crate::{
    Accepted, CertificateFacts, DomainStatus, Memory, Object, Objects, Problem, Reason, Settings,
    Status, Verdict,
    certificates::{Certificates, Use},
    claims::{self, Blocked, Claim, Entry, Got},
    groups::{Groups, keep},
    inputs::seniority,
    memory::recall,
    parse::{self, domain_binding::Binding},
    settle::{InForce, effect, settle},
};

/// What becomes of the bindings.
#[derive(Default)]
pub(crate) struct Domains {
    /// By position of the group.
    pub(crate) published: BTreeMap<usize, Vec<wire::Domain>>,
    /// What to remember.
    pub(crate) memory: BTreeMap<ObjectName, Arc<Accepted<DomainBindingSpec>>>,
    /// A verdict on each.
    pub(crate) verdicts: Vec<(ObjectName, Verdict)>,
}

/// A binding before conflicts are settled.
struct Wish<'a> {
    name: &'a ObjectName,
    object: &'a Object<DomainBindingSpec>,
    before: Option<&'a Arc<Accepted<DomainBindingSpec>>>,
    wanted: Option<Ready>,
    held: Option<Ready>,
    holds: bool,
    problems: Vec<Problem>,
}

/// A binding whose group is there.
#[derive(Clone)]
struct Ready {
    spec: Arc<DomainBindingSpec>,
    model: Binding,
    group: usize,
    key: Key,
    facts: Option<CertificateFacts>,
    /// Whether its certificate and CA can be used.
    usable: bool,
    problems: Vec<Problem>,
}

/// What only one binding may have.
type Key = (String, HostPattern, BasePath);

/// Decides every DomainBinding.
pub(crate) fn decide(
    objects: &Objects,
    memory: &Memory,
    settings: &Settings,
    groups: &Groups<'_>,
    certificates: &mut Certificates<'_>,
) -> Domains {
    let mut wishes: Vec<Wish<'_>> = objects
        .domain_bindings
        .iter()
        .map(|(name, object)| {
            let before = recall(&memory.domain_bindings, name, object.uid.as_deref());
            wish(name, object, before, settings, groups, certificates)
        })
        .collect();
    wishes.sort_by_cached_key(|wish| seniority(wish.name, wish.object));
    let claim = |ready: &Ready, member: usize| Claim {
        key: ready.key.clone(),
        group: ready.group,
        member,
    };
    let entries: Vec<Entry<Key>> = wishes
        .iter()
        .enumerate()
        .map(|(at, wish)| Entry {
            wanted: wish.wanted.as_ref().map(|ready| claim(ready, at)),
            held: wish.held.as_ref().map(|ready| claim(ready, at)),
            holds: wish.holds,
        })
        .collect();
    let outcomes = claims::settle(&entries, settings.limits.domains_per_group);
    let names: Vec<&ObjectName> = wishes.iter().map(|wish| wish.name).collect();
    let mut domains = Domains::default();
    for (mut wish, outcome) in wishes.into_iter().zip(outcomes) {
        if let (Some(why), Some(wanted)) = (outcome.blocked, &wish.wanted) {
            wish.problems
                .push(refusal(why, wanted, &names, groups, settings));
        }
        let got = match outcome.got {
            Some(Got::Wanted) => wish.wanted.take(),
            Some(Got::Held) => wish.held.take(),
            None => None,
        };
        domains.conclude(wish, got);
    }
    domains
}

fn wish<'a>(
    name: &'a ObjectName,
    object: &'a Object<DomainBindingSpec>,
    before: Option<&'a Arc<Accepted<DomainBindingSpec>>>,
    settings: &Settings,
    groups: &Groups<'_>,
    certificates: &mut Certificates<'_>,
) -> Wish<'a> {
    let settled = settle(object, before, settings, |spec, check| {
        parse::domain_binding::parse(name, spec, check)
    });
    let mut problems = settled.problems;
    let mut ready =
        |in_force: InForce<DomainBindingSpec, Binding>| ready(in_force, groups, certificates);
    let mut wanted = None;
    match settled.edit.map(&mut ready) {
        Some(Ok(edit)) => wanted = Some(edit),
        Some(Err(problem)) => problems.push(problem),
        None => {}
    }
    if let Some(wanted) = &wanted {
        problems.extend(wanted.problems.iter().cloned());
    }
    let last = settled.last.and_then(|last| ready(last).ok());
    let held = match (&wanted, last) {
        (_, Some(last)) => Some(last),
        // Nothing was edited: what it has is what it wants.
        (Some(wanted), None) if before.is_some_and(|it| it.spec == wanted.spec) => {
            Some(wanted.clone())
        }
        (_, None) => None,
    };
    let holds = held
        .as_ref()
        .is_some_and(|held| settled.claims.contains(&shown(&held.key)));
    let works = |ready: &Option<Ready>| ready.as_ref().is_some_and(|ready| ready.usable);
    if works(&held) && !works(&wanted) {
        wanted = None;
    }
    Wish {
        name,
        object,
        before,
        wanted,
        held,
        holds,
        problems,
    }
}

fn ready(
    in_force: InForce<DomainBindingSpec, Binding>,
    groups: &Groups<'_>,
    certificates: &mut Certificates<'_>,
) -> Result<Ready, Problem> {
    let InForce { spec, model } = in_force;
    let group = groups.position(&model.group).ok_or_else(|| {
        Problem::new(
            "spec.groupRef",
            Reason::GroupNotFound,
            format!("there is no ApiGroup {} in force", model.group),
            "create it, or correct the name",
        )
    })?;
    let entry = &groups.entries[group].model;
    let mut ready = Ready {
        key: (
            entry.instance.clone(),
            model.host.clone(),
            entry.base_path.clone(),
        ),
        spec,
        group,
        facts: None,
        usable: true,
        problems: Vec::new(),
        model,
    };
    ready.judge_tls(certificates);
    Ok(ready)
}

// === impl Ready ===

impl Ready {
    fn judge_tls(&mut self, certificates: &mut Certificates<'_>) {
        let Some(tls) = &self.model.tls else { return };
        let pair = certificates.judge(&tls.certificate, Use::Pair);
        self.usable = pair.is_usable();
        self.problems.extend(pair.problem("spec.tls.secretRef"));
        if pair.is_usable() {
            self.facts = Some(pair.facts.clone());
            let names = &pair.facts.names;
            if !names.is_empty() && !names.iter().any(|name| covers(name, &self.model.host)) {
                self.problems.push(Problem::new(
                    "spec.tls.secretRef",
                    Reason::CertificateMismatch,
                    format!(
                        "the certificate is for {}, not for {}",
                        names.join(", "),
                        self.model.host
                    ),
                    "use a certificate for this domain: clients refuse this one",
                ));
            }
        }
        if let Some(ca) = &tls.client_ca {
            let ca = certificates.judge(ca, Use::Ca);
            self.usable &= ca.is_usable();
            self.problems
                .extend(ca.problem("spec.tls.clientCaSecretRef"));
        }
    }

    fn publish(&self, name: &ObjectName) -> wire::Domain {
        let model = &self.model;
        wire::Domain {
            name: name.clone(),
            host: model.host.clone(),
            stage: model.stage.clone(),
            intranet: model.intranet,
            tls: model.tls.as_ref().map(|tls| wire::DomainTls {
                certificate: tls.certificate.clone(),
                client_ca: tls.client_ca.clone(),
                pass_client_subject: tls.pass_client_subject,
                redirect_http: tls.redirect_http,
            }),
            web_socket: model.web_socket,
        }
    }
}

/// Whether a name in a certificate is good for the host (RFC 6125 §6.4).
fn covers(name: &str, host: &HostPattern) -> bool {
    match name.to_ascii_lowercase().parse::<HostPattern>() {
        Ok(pattern) => match host {
            HostPattern::Exact(host) => pattern.matches(host),
            HostPattern::Wildcard(_) => pattern == *host,
        },
        Err(_) => false,
    }
}

/// A claim as it is remembered.
fn shown((instance, host, base_path): &Key) -> String {
    format!("{instance} {host}{base_path}")
}

fn refusal(
    why: Blocked,
    wanted: &Ready,
    names: &[&ObjectName],
    groups: &Groups<'_>,
    settings: &Settings,
) -> Problem {
    let host = &wanted.model.host;
    match why {
        Blocked::Taken(owner) => Problem::new(
            "spec.domain",
            Reason::Conflicted,
            format!(
                "{host} with base path {} is bound by DomainBinding {} already",
                wanted.key.2, names[owner]
            ),
            "bind another domain, or give the group another base path",
        ),
        Blocked::Full => Problem::new(
            "spec.groupRef",
            Reason::GroupFull,
            format!(
                "ApiGroup {} has {} domains already",
                groups.entries[wanted.group].name, settings.limits.domains_per_group
            ),
            "use a wildcard, or ask the platform team to raise the limit",
        ),
    }
}

// === impl Domains ===

impl Domains {
    fn conclude(&mut self, wish: Wish<'_>, got: Option<Ready>) {
        let uid = wish.object.uid.clone();
        let (accepted, status) = match &got {
            Some(ready) => {
                self.published
                    .entry(ready.group)
                    .or_default()
                    .push(ready.publish(wish.name));
                let claims = BTreeSet::from([shown(&ready.key)]);
                (
                    Some(keep(wish.before, uid, Arc::clone(&ready.spec), claims)),
                    DomainStatus {
                        published: true,
                        certificate: ready.facts.clone(),
                    },
                )
            }
            // Nothing is held any more; what was good stays known.
            None => (
                wish.before.map(|before| {
                    keep(Some(before), uid, Arc::clone(&before.spec), BTreeSet::new())
                }),
                DomainStatus::default(),
            ),
        };
        if let Some(accepted) = accepted {
            self.memory.insert(wish.name.clone(), accepted);
        }
        let verdict = Verdict::judge(
            wish.problems,
            effect(got.is_some()),
            &[],
            Status::DomainBinding(status),
        );
        self.verdicts.push((wish.name.clone(), verdict));
    }
}
