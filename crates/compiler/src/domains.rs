//! DomainBindings: which group answers for a host.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{BasePath, HostPattern, ObjectName};
use paifang_resources::{DomainBindingSpec, Kind};
use paifang_snapshot::wire;

use crate::{
    Accepted, CertificateFacts, DomainStatus, Object, ObjectId, Problem, Reason, Settings, Status,
    Verdict,
    admit::counted,
    backend::Resolver,
    certificates::{Certificates, Use},
    claims::{self, Blocked, Claim, Entry, Got},
    compile::{Step, View, World},
    graph::{Dep, Deps},
    groups::keep,
    inputs::{Age, age},
    memory::{recall, replace},
    parse::{self, domain_binding::Binding},
    settle::{InForce, effect, settle},
};

/// What is known of a DomainBinding.
#[derive(Debug)]
pub(crate) struct DomainNode {
    wish: Wish,
    /// The group that answers for the host, and what is published there.
    pub(crate) published: Option<(ObjectName, wire::Domain)>,
    deps: Deps,
}

/// A binding before conflicts are settled.
#[derive(Debug)]
pub(crate) struct Wish {
    age: Age,
    uid: Option<Arc<str>>,
    before: Option<Arc<Accepted<DomainBindingSpec>>>,
    wanted: Option<Ready>,
    held: Option<Ready>,
    holds: bool,
    problems: Vec<Problem>,
}

/// A binding whose group is there.
#[derive(Debug, Clone)]
struct Ready {
    spec: Arc<DomainBindingSpec>,
    model: Binding,
    key: Key,
    facts: Option<CertificateFacts>,
    /// Whether its certificate and CA can be used.
    usable: bool,
    problems: Vec<Problem>,
}

/// What only one binding may have.
pub(crate) type Key = (String, HostPattern, BasePath);

/// What a binding competes for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Prize {
    Host(Key),
    /// One of the places of a group.
    Place(ObjectName),
}

/// Works out what a binding asks for.
pub(crate) fn wish(
    name: &ObjectName,
    object: &Object<DomainBindingSpec>,
    remembered: &BTreeMap<ObjectName, Arc<Accepted<DomainBindingSpec>>>,
    settings: &Settings,
    view: View<'_>,
    resolver: &mut Resolver<'_, '_>,
) -> Wish {
    let before = recall(remembered, name, object.uid.as_deref());
    let settled = settle(object, before, settings, |spec, check| {
        parse::domain_binding::parse(name, spec, check)
    });
    let mut problems = settled.problems;
    let mut ready = |in_force: InForce<DomainBindingSpec, Binding>| ready(in_force, view, resolver);
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
        age: age(object),
        uid: object.uid.clone(),
        before: before.cloned(),
        wanted,
        held,
        holds,
        problems,
    }
}

fn ready(
    in_force: InForce<DomainBindingSpec, Binding>,
    view: View<'_>,
    resolver: &mut Resolver<'_, '_>,
) -> Result<Ready, Problem> {
    let InForce { spec, model } = in_force;
    resolver.trace.reads(Dep::Group(model.group.clone()));
    let group = view.group(&model.group).ok_or_else(|| {
        Problem::new(
            "spec.groupRef",
            Reason::GroupNotFound,
            format!("there is no ApiGroup {} in force", model.group),
            "create it, or correct the name",
        )
    })?;
    let entry = &group.model;
    let mut ready = Ready {
        key: (
            entry.instance.clone(),
            model.host.clone(),
            entry.base_path.clone(),
        ),
        spec,
        facts: None,
        usable: true,
        problems: Vec::new(),
        model,
    };
    ready.judge_tls(resolver);
    Ok(ready)
}

// === impl Ready ===

impl Ready {
    fn judge_tls(&mut self, resolver: &mut Resolver<'_, '_>) {
        let Some(tls) = &self.model.tls else { return };
        let pair = resolver.judge(&tls.certificate, Use::Pair);
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
            let ca = resolver.judge(ca, Use::Ca);
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

/// Settles which bindings get what they ask for. `wishes` are in order of seniority, and nobody else competes with them. Answers what
/// is wrong, and what each gets, in their order.
fn settle_wishes<'w>(
    wishes: &[(&ObjectName, &'w Wish)],
    settings: &Settings,
) -> Vec<(Option<Problem>, Option<&'w Ready>)> {
    let mut groups: BTreeMap<&ObjectName, usize> = BTreeMap::new();
    for ready in wishes.iter().flat_map(|(_, wish)| wish.both()) {
        let next = groups.len();
        groups.entry(&ready.model.group).or_insert(next);
    }
    let claim = |ready: &Ready, member: usize| Claim {
        key: ready.key.clone(),
        group: groups[&ready.model.group],
        member,
    };
    let entries: Vec<Entry<Key>> = wishes
        .iter()
        .enumerate()
        .map(|(at, (_, wish))| Entry {
            wanted: wish.wanted.as_ref().map(|ready| claim(ready, at)),
            held: wish.held.as_ref().map(|ready| claim(ready, at)),
            holds: wish.holds,
        })
        .collect();
    let outcomes = claims::settle(&entries, settings.limits.domains_per_group);
    let decided = wishes.iter().zip(outcomes).map(|((_, wish), outcome)| {
        let problem = match (outcome.blocked, &wish.wanted) {
            (Some(why), Some(wanted)) => Some(refusal(why, wanted, wishes, settings)),
            _ => None,
        };
        let got = match outcome.got {
            Some(Got::Wanted) => wish.wanted.as_ref(),
            Some(Got::Held) => wish.held.as_ref(),
            None => None,
        };
        (problem, got)
    });
    decided.collect()
}

fn refusal(
    why: Blocked,
    wanted: &Ready,
    wishes: &[(&ObjectName, &Wish)],
    settings: &Settings,
) -> Problem {
    let host = &wanted.model.host;
    match why {
        Blocked::Taken(owner) => Problem::new(
            "spec.domain",
            Reason::Conflicted,
            format!(
                "{host} with base path {} is bound by DomainBinding {} already",
                wanted.key.2, wishes[owner].0
            ),
            "bind another domain, or give the group another base path",
        ),
        Blocked::Full => Problem::new(
            "spec.groupRef",
            Reason::GroupFull,
            format!(
                "ApiGroup {} has {} already",
                wanted.model.group,
                counted(settings.limits.domains_per_group, "domain")
            ),
            "use a wildcard, or ask the platform team to raise the limit",
        ),
    }
}

// === impl Wish ===

impl Wish {
    fn both(&self) -> impl Iterator<Item = &Ready> {
        self.wanted.iter().chain(&self.held)
    }

    /// What it competes for.
    fn prizes(&self) -> impl Iterator<Item = Prize> {
        self.both().flat_map(|ready| {
            let place = Prize::Place(ready.model.group.clone());
            [Prize::Host(ready.key.clone()), place]
        })
    }

    /// What to remember, and a verdict.
    fn conclude(
        &self,
        blocked: Option<Problem>,
        got: Option<&Ready>,
    ) -> (Option<Arc<Accepted<DomainBindingSpec>>>, Verdict) {
        let uid = self.uid.clone();
        let before = self.before.as_ref();
        let (accepted, status) = match got {
            Some(ready) => {
                let claims = BTreeSet::from([shown(&ready.key)]);
                let status = DomainStatus {
                    published: true,
                    certificate: ready.facts.clone(),
                };
                let accepted = keep(before, uid, Arc::clone(&ready.spec), claims);
                (Some(accepted), status)
            }
            // Nothing is held any more; what was good stays known.
            None => {
                let accepted =
                    before.map(|it| keep(before, uid, Arc::clone(&it.spec), BTreeSet::new()));
                (accepted, DomainStatus::default())
            }
        };
        let mut problems = self.problems.clone();
        problems.extend(blocked);
        let effect = effect(got.is_some());
        let verdict = Verdict::judge(problems, effect, &[], Status::DomainBinding(status));
        (accepted, verdict)
    }
}

/// What a binding would get.
#[derive(Default)]
pub(crate) struct Bound {
    pub(crate) published: Option<(ObjectName, wire::Domain)>,
    /// None when it would be gone.
    pub(crate) verdict: Option<Verdict>,
}

/// What everybody concerned would get if some bindings asked for something else, or were gone. Changes nothing.
pub(crate) fn try_out(
    world: &World,
    instead: &BTreeMap<ObjectName, Option<Wish>>,
    settings: &Settings,
) -> BTreeMap<ObjectName, Bound> {
    let known = instead.keys().filter_map(|name| world.domains.get(name));
    let before = known.flat_map(|it| it.wish.prizes());
    let now = instead.values().flatten().flat_map(Wish::prizes);
    let prizes = before.chain(now).collect();
    let bindings = world.rivals(instead.keys().cloned().collect(), prizes);
    let mut wishes: Vec<(&ObjectName, &Wish)> = bindings
        .iter()
        .filter_map(|name| match instead.get(name) {
            Some(wish) => Some((name, wish.as_ref()?)),
            None => Some((name, &world.domains.get(name)?.wish)),
        })
        .collect();
    wishes.sort_by_key(|(name, wish)| (wish.age, *name));
    let settled = settle_wishes(&wishes, settings);
    let mut bound: BTreeMap<ObjectName, Bound> = wishes
        .iter()
        .zip(settled)
        .map(|((name, wish), (blocked, got))| {
            let published = got.map(|it| (it.model.group.clone(), it.publish(name)));
            let (_, verdict) = wish.conclude(blocked, got);
            let bound = Bound {
                published,
                verdict: Some(verdict),
            };
            ((*name).clone(), bound)
        })
        .collect();
    for name in instead.keys() {
        bound.entry(name.clone()).or_default();
    }
    bound
}

// === impl World ===

impl World {
    /// `bindings` and all who compete for the same, or for `prizes`, and so on.
    fn rivals(
        &self,
        mut bindings: BTreeSet<ObjectName>,
        mut prizes: Vec<Prize>,
    ) -> BTreeSet<ObjectName> {
        let mut seen = BTreeSet::new();
        while let Some(prize) = prizes.pop() {
            if seen.contains(&prize) {
                continue;
            }
            let rivals: Vec<&ObjectName> = match &prize {
                Prize::Host(key) => self.hosts.get(key).into_iter().flatten().collect(),
                Prize::Place(group) => {
                    let dep = Dep::Group(group.clone());
                    self.readers.of_kind(&dep, Kind::DomainBinding).collect()
                }
            };
            for rival in rivals {
                if !bindings.contains(rival) {
                    bindings.insert(rival.clone());
                    let rival = self.domains.get(rival);
                    prizes.extend(rival.into_iter().flat_map(|it| it.wish.prizes()));
                }
            }
            seen.insert(prize);
        }
        bindings
    }
}

// === impl Step ===

impl Step<'_> {
    /// Works out what the bindings that are to be looked at ask for, and settles it with all who compete with them.
    pub(crate) fn settle_domains(&mut self) {
        let mut prizes = Vec::new();
        let mut bindings = BTreeSet::new();
        for name in std::mem::take(&mut self.dirty.domains) {
            prizes.extend(self.wish_domain(&name));
            if self.objects.domain_bindings.contains_key(&name) {
                bindings.insert(name);
            } else {
                if replace(&mut self.compiler.memory.domain_bindings, &name, None) {
                    self.remembers(Kind::DomainBinding, &name);
                }
                self.tell(ObjectId::new(Kind::DomainBinding, &name), None);
            }
        }
        let bindings = self.compiler.world.rivals(bindings, prizes);
        let world = &self.compiler.world;
        let mut wishes: Vec<(&ObjectName, &Wish)> = bindings
            .iter()
            .filter_map(|name| Some((name, &world.domains.get(name)?.wish)))
            .collect();
        wishes.sort_by_key(|(name, wish)| (wish.age, *name));
        let settled = settle_wishes(&wishes, &self.compiler.settings);
        let concluded: Vec<_> = wishes
            .iter()
            .zip(settled)
            .map(|((name, wish), (blocked, got))| {
                let published = got.map(|ready| (ready.model.group.clone(), ready.publish(name)));
                ((*name).clone(), published, wish.conclude(blocked, got))
            })
            .collect();
        for (name, published, (memory, verdict)) in concluded {
            self.bind(&name, published);
            if replace(&mut self.compiler.memory.domain_bindings, &name, memory) {
                self.remembers(Kind::DomainBinding, &name);
            }
            self.tell(ObjectId::new(Kind::DomainBinding, &name), Some(verdict));
        }
    }

    /// Works out what a binding asks for. Answers what it competed for, and competes for now.
    fn wish_domain(&mut self, name: &ObjectName) -> Vec<Prize> {
        let compiler = &mut *self.compiler;
        let world = &mut compiler.world;
        let object = self.objects.domain_bindings.get(name);
        let view = View::new(&world.groups, &world.services, &compiler.release_settings);
        let certificates = Certificates {
            objects: self.objects,
            remembered: &compiler.memory.certificates,
            settings: &compiler.settings,
        };
        let mut now = object.map(|object| {
            let mut resolver = Resolver::new(certificates, &mut world.judgements);
            let remembered = &compiler.memory.domain_bindings;
            let settings = &compiler.settings;
            let wish = wish(name, object, remembered, settings, view, &mut resolver);
            (wish, resolver.trace.deps)
        });
        let before = world.domains.remove(name);
        world.readers.replace(
            &Arc::new(ObjectId::new(Kind::DomainBinding, name)),
            before.as_ref().map(|it| &it.deps),
            now.as_mut().map(|(_, deps)| deps),
        );
        let mut prizes = Vec::new();
        if let Some(before) = &before {
            for key in before.wish.both().map(|ready| &ready.key) {
                if let Some(names) = world.hosts.get_mut(key) {
                    names.remove(name);
                    if names.is_empty() {
                        world.hosts.remove(key);
                    }
                }
            }
            prizes.extend(before.wish.prizes());
        }
        let published = before.and_then(|before| before.published);
        if let Some((wish, deps)) = now {
            for ready in wish.both() {
                let names = world.hosts.entry(ready.key.clone()).or_default();
                names.insert(name.clone());
            }
            prizes.extend(wish.prizes());
            let node = DomainNode {
                wish,
                published,
                deps,
            };
            world.domains.insert(name.clone(), node);
        } else if let Some((group, _)) = published {
            if let Some(names) = world.bound.get_mut(&group) {
                names.remove(name);
            }
            self.dirty.published.insert(group);
        }
        prizes
    }

    /// A binding is published so from now on.
    fn bind(&mut self, name: &ObjectName, published: Option<(ObjectName, wire::Domain)>) {
        let world = &mut self.compiler.world;
        let Some(node) = world.domains.get_mut(name) else {
            return;
        };
        if node.published == published {
            return;
        }
        let before = std::mem::replace(&mut node.published, published.clone());
        if let Some((group, _)) = before {
            if let Some(names) = world.bound.get_mut(&group) {
                names.remove(name);
                if names.is_empty() {
                    world.bound.remove(&group);
                }
            }
            self.dirty.published.insert(group);
        }
        if let Some((group, _)) = published {
            let names = world.bound.entry(group.clone()).or_default();
            names.insert(name.clone());
            self.dirty.published.insert(group);
        }
    }
}
