//! Apps and their credentials.
//!
//! A credential is only ever what its Secret says now: a Secret that is gone is a revocation, so nothing is remembered here but who
//! held which AppKey.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Redacted};
use paifang_resources::{AppSpec, CredentialType, Kind};
use paifang_snapshot::wire::{self, Proof};

use crate::{
    Accepted, AppStatus, Compiler, CredentialStatus, Object, ObjectId, Objects, Problem, Reason,
    Settings, Status, Verdict,
    claims::{self, Blocked, Claim, Entry},
    compile::Step,
    graph::{Dep, Deps},
    groups::keep,
    ids,
    inputs::{Age, age},
    memory::{recall, replace},
    parse::{
        self,
        app::{App, Credential},
    },
    settle::{InForce, effect, settle},
};

/// A Secret for a credential without `secretRef`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretToMake {
    /// Name of the Secret: `<app>-<credential>`, in the App's namespace.
    pub secret: ObjectName,
    /// The App that owns it.
    pub app: ObjectName,
    /// What it holds.
    pub kind: SecretKind,
}

/// What a made Secret holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretKind {
    /// `appKey` and `appSecret`.
    KeyPair,
    /// `appCode`.
    AppCode,
}

/// What is known of an App.
#[derive(Debug)]
pub(crate) struct AppNode {
    age: Age,
    uid: Option<Arc<str>>,
    before: Option<Arc<Accepted<AppSpec>>>,
    in_force: Option<InForce<AppSpec, App>>,
    /// What the Secrets of its credentials say, in the order of the spec.
    proofs: Vec<Result<Proof, Problem>>,
    problems: Vec<Problem>,
    pub(crate) to_make: Vec<SecretToMake>,
    /// Which credentials another one stands in the way of, and whose that is.
    lost: BTreeMap<usize, ObjectName>,
    deps: Deps,
}

/// What only one credential may have: an AppKey, or an AppCode.
pub(crate) type Key = (bool, Redacted<String>);

/// What follows for an App, once conflicts are settled.
#[derive(Default)]
struct Concluded {
    published: Option<wire::App>,
    credentials: Vec<wire::Credential>,
    memory: Option<Arc<Accepted<AppSpec>>>,
}

/// Parses an App and reads its Secrets.
fn judge(
    name: &ObjectName,
    object: &Object<AppSpec>,
    objects: &Objects,
    remembered: &BTreeMap<ObjectName, Arc<Accepted<AppSpec>>>,
    settings: &Settings,
) -> AppNode {
    let before = recall(remembered, name, object.uid.as_deref());
    let (in_force, problems) = settle(object, before, settings, |spec, check| {
        parse::app::parse(name, spec, check)
    })
    .take();
    let mut app = AppNode {
        age: age(object),
        uid: object.uid.clone(),
        before: before.cloned(),
        proofs: Vec::new(),
        problems,
        to_make: Vec::new(),
        in_force: None,
        lost: BTreeMap::new(),
        deps: Deps::default(),
    };
    for (at, credential) in in_force
        .iter()
        .flat_map(|it| it.model.credentials.iter().enumerate())
    {
        let field = format!("spec.credentials[{at}]");
        app.deps.insert(Dep::Secret(credential.secret.clone()));
        let proof = app.read(name, &field, credential, objects);
        app.proofs.push(proof);
    }
    app.in_force = in_force;
    app
}

// === impl AppNode ===

impl AppNode {
    /// What the credential's Secret says.
    fn read(
        &mut self,
        app: &ObjectName,
        field: &str,
        credential: &Credential,
        objects: &Objects,
    ) -> Result<Proof, Problem> {
        let name = &credential.secret;
        let field = if credential.made {
            field.to_owned()
        } else {
            format!("{field}.secretRef")
        };
        let Some(secret) = objects.secrets.get(name) else {
            let fix = if credential.made {
                self.to_make.push(SecretToMake {
                    secret: name.clone(),
                    app: app.clone(),
                    kind: credential.kind.into(),
                });
                "it is made by itself; wait, or name a Secret of your own with secretRef"
            } else {
                "create it"
            };
            let message = format!("there is no Secret {name}");
            return Err(Problem::new(field, Reason::SecretNotFound, message, fix));
        };
        let text = |key: &str| {
            let refused = |message: &str, fix: &str| {
                let message = format!("`{key}` of Secret {name} {message}");
                Problem::new(field.as_str(), Reason::SecretInvalid, message, fix)
            };
            let data = secret.data.get(key).map(Redacted::expose);
            let data = data
                .filter(|data| !data.is_empty())
                .ok_or_else(|| refused("is missing or empty", "write it"))?;
            let well_formed = data.len() <= 256 && data.iter().all(u8::is_ascii_graphic);
            let text = String::from_utf8(data.clone()).ok().filter(|_| well_formed);
            text.ok_or_else(|| {
                refused(
                    "is not 1 to 256 visible ASCII characters",
                    "remove spaces and line breaks; `echo` adds one at the end, `printf %s` does not",
                )
            })
        };
        Ok(match credential.kind {
            CredentialType::KeyPair => Proof::KeyPair {
                app_key: text("appKey")?,
                app_secret: Redacted::new(text("appSecret")?),
            },
            CredentialType::AppCode => Proof::AppCode {
                app_code: Redacted::new(text("appCode")?),
            },
        })
    }

    /// Whether there is anything in force of it.
    pub(crate) fn is_in_force(&self) -> bool {
        self.in_force.is_some()
    }

    /// What its credentials hold that only one may have.
    fn keys(&self) -> BTreeSet<Key> {
        let proofs = self.proofs.iter().filter_map(|proof| proof.as_ref().ok());
        proofs.map(key).collect()
    }

    /// What follows, with the credentials that lost theirs to others left out.
    fn conclude(&self, name: &ObjectName) -> (Concluded, Verdict) {
        let mut problems = self.problems.clone();
        let is_edit_refused = !problems.is_empty();
        let proofs: Vec<Result<&Proof, Problem>> = (0..self.proofs.len())
            .map(|at| self.proof(name, at))
            .collect();
        problems.extend(proofs.iter().filter_map(|it| it.as_ref().err()).cloned());
        let id = ids::app_id(name, self.uid.as_deref());
        let mut status = AppStatus {
            app_id: id,
            credentials: Vec::new(),
        };
        // A credential that cannot be used leaves the rest of the edit in force.
        let effect = if is_edit_refused {
            effect(self.in_force.is_some())
        } else {
            ""
        };
        let mut concluded = Concluded::default();
        if let Some(InForce { spec, model }) = &self.in_force {
            concluded.published = Some(wire::App {
                name: name.clone(),
                id,
                disabled: model.disabled,
            });
            let mut claims = BTreeSet::new();
            for (credential, proof) in model.credentials.iter().zip(proofs) {
                status
                    .credentials
                    .push(credential_status(credential, &proof));
                let Ok(proof) = proof else { continue };
                if let Proof::KeyPair { app_key, .. } = proof {
                    claims.insert(app_key.clone());
                }
                concluded.credentials.push(wire::Credential {
                    app: name.clone(),
                    name: credential.name.clone(),
                    not_before_ms: credential.not_before_ms,
                    expires_at_ms: credential.expires_at_ms,
                    proof: proof.clone(),
                });
            }
            concluded.credentials.sort();
            let accepted = keep(
                self.before.as_ref(),
                self.uid.clone(),
                Arc::clone(spec),
                claims,
            );
            concluded.memory = Some(accepted);
        }
        let verdict = Verdict::judge(problems, effect, &[], Status::App(status));
        (concluded, verdict)
    }

    /// What a credential is proven by, unless another one stands in the way.
    fn proof(&self, name: &ObjectName, at: usize) -> Result<&Proof, Problem> {
        let proof = self.proofs[at].as_ref().map_err(Clone::clone)?;
        let Some(owner) = self.lost.get(&at) else {
            return Ok(proof);
        };
        let what = match proof {
            Proof::KeyPair { app_key, .. } => format!("the AppKey {app_key}"),
            Proof::AppCode { .. } => "this AppCode".to_owned(),
        };
        let (reason, message) = if name == owner {
            let message = format!("another credential of this App has {what}");
            (Reason::Duplicate, message)
        } else {
            (Reason::Conflicted, format!("App {owner} has {what}"))
        };
        let field = format!("spec.credentials[{at}]");
        Err(Problem::new(field, reason, message, "use another one"))
    }
}

fn key(proof: &Proof) -> Key {
    match proof {
        Proof::KeyPair { app_key, .. } => (true, Redacted::new(app_key.clone())),
        Proof::AppCode { app_code } => (false, app_code.clone()),
    }
}

/// Everybody who has `key`, the oldest first, with what stands in the way of each: who has it keeps it, else the older App.
fn settle_key<'n>(
    key: &Key,
    claimants: impl Iterator<Item = (&'n ObjectName, &'n AppNode)>,
) -> Vec<(&'n ObjectName, usize, Option<&'n ObjectName>)> {
    let mut apps: Vec<(&ObjectName, &AppNode)> = claimants.collect();
    apps.sort_by_key(|(name, app)| (app.age, *name));
    let places: Vec<(&ObjectName, &AppNode, usize)> = apps
        .iter()
        .flat_map(|(name, app)| {
            let has = |(at, proof): (usize, &Result<Proof, Problem>)| {
                (proof.as_ref().is_ok_and(|it| self::key(it) == *key)).then_some((*name, *app, at))
            };
            app.proofs.iter().enumerate().filter_map(has)
        })
        .collect();
    let claim = Claim {
        key: (),
        group: 0,
        member: 0,
    };
    let entries: Vec<Entry<()>> = places
        .iter()
        .map(|(_, app, _)| {
            let before = app.before.as_ref();
            let holds = key.0 && before.is_some_and(|it| it.claims.contains(key.1.expose()));
            Entry {
                wanted: Some(claim.clone()),
                held: holds.then(|| claim.clone()),
                holds,
            }
        })
        .collect();
    let outcomes = claims::settle(&entries, usize::MAX);
    let owner = |blocked| match blocked {
        Some(Blocked::Taken(owner)) => Some(places[owner].0),
        _ => None,
    };
    places
        .iter()
        .zip(&outcomes)
        .map(|((name, _, at), outcome)| (*name, *at, owner(outcome.blocked)))
        .collect()
}

/// The verdict on an App as it would be. Changes nothing.
pub(crate) fn try_out(
    name: &ObjectName,
    object: &Object<AppSpec>,
    objects: &Objects,
    compiler: &Compiler,
) -> Verdict {
    let (world, memory) = (&compiler.world, &compiler.memory);
    let mut node = judge(name, object, objects, &memory.apps, &compiler.settings);
    let mut lost = BTreeMap::new();
    for key in node.keys() {
        let others = world.app_keys.get(&key).into_iter().flatten();
        let others = others.filter(|other| *other != name);
        let others = others.filter_map(|other| world.apps.get_key_value(other));
        let settled = settle_key(&key, others.chain([(name, &node)]));
        let own = settled.into_iter().filter(|(app, _, _)| *app == name);
        lost.extend(own.filter_map(|(_, at, owner)| Some((at, owner?.clone()))));
    }
    node.lost = lost;
    node.conclude(name).1
}

// === impl Step ===

impl Step<'_> {
    /// Looks at the Apps that are to be looked at, and at those who have the same keys.
    pub(crate) fn settle_apps(&mut self) {
        let mut keys = BTreeSet::new();
        let mut changed = std::mem::take(&mut self.dirty.apps);
        for name in &changed {
            keys.extend(self.judge_app(name));
        }
        let world = &mut self.compiler.world;
        for key in &keys {
            let names = world.app_keys.get(key).into_iter().flatten();
            let claimants = names.filter_map(|name| world.apps.get_key_value(name));
            let settled: Vec<(ObjectName, usize, Option<ObjectName>)> = settle_key(key, claimants)
                .into_iter()
                .map(|(name, at, owner)| (name.clone(), at, owner.cloned()))
                .collect();
            for (name, at, owner) in settled {
                let Some(app) = world.apps.get_mut(&name) else {
                    continue;
                };
                let before = match owner.clone() {
                    Some(owner) => app.lost.insert(at, owner),
                    None => app.lost.remove(&at),
                };
                if before != owner {
                    changed.insert(name);
                }
            }
        }
        self.publish_apps(changed);
    }

    /// Parses an App. Answers the keys that it had or has now.
    fn judge_app(&mut self, name: &ObjectName) -> BTreeSet<Key> {
        let compiler = &mut *self.compiler;
        let world = &mut compiler.world;
        let object = self.objects.apps.get(name);
        let remembered = &compiler.memory.apps;
        let mut node =
            object.map(|it| judge(name, it, self.objects, remembered, &compiler.settings));
        let before = world.apps.remove(name);
        world.readers.replace(
            &Arc::new(ObjectId::new(Kind::App, name)),
            before.as_ref().map(|it| &it.deps),
            node.as_mut().map(|it| &mut it.deps),
        );
        let in_force =
            |node: &Option<AppNode>| node.as_ref().is_some_and(|it| it.in_force.is_some());
        if in_force(&before) != in_force(&node) {
            self.dirty.fire(&Dep::App(name.clone()), &world.readers);
        }
        for secret in node.iter().flat_map(|node| &node.to_make) {
            if !before
                .as_ref()
                .is_some_and(|it| it.to_make.contains(secret))
            {
                self.update.secrets_to_make.push(secret.clone());
            }
        }
        let mut keys = before.as_ref().map(AppNode::keys).unwrap_or_default();
        for key in &keys {
            if let Some(names) = world.app_keys.get_mut(key) {
                names.remove(name);
                if names.is_empty() {
                    world.app_keys.remove(key);
                }
            }
        }
        if let Some(node) = node {
            let now = node.keys();
            for key in &now {
                let names = world.app_keys.entry(key.clone()).or_default();
                names.insert(name.clone());
            }
            keys.extend(now);
            world.apps.insert(name.clone(), node);
        }
        keys
    }

    fn publish_apps(&mut self, changed: BTreeSet<ObjectName>) {
        for name in changed {
            let node = self.compiler.world.apps.get(&name);
            let (concluded, verdict) = match node {
                Some(node) => {
                    let (concluded, verdict) = node.conclude(&name);
                    (concluded, Some(verdict))
                }
                None => Default::default(),
            };
            if replace(&mut self.compiler.memory.apps, &name, concluded.memory) {
                self.remembers(Kind::App, &name);
            }
            let snapshot = &mut self.compiler.snapshot;
            self.update.apps |= put_app(&mut snapshot.apps, &name, concluded.published);
            self.update.credentials |=
                put_credentials(&mut snapshot.credentials, &name, concluded.credentials);
            self.tell(ObjectId::new(Kind::App, &name), verdict);
        }
        self.update.secrets_to_make.sort();
    }
}

/// Puts an App into its place, or takes it out. Says whether this makes a difference.
fn put_app(apps: &mut Arc<wire::Apps>, name: &ObjectName, app: Option<wire::App>) -> bool {
    let at = apps.apps.binary_search_by(|it| it.name.cmp(name));
    match (at, app) {
        (Ok(at), Some(app)) if apps.apps[at] == app => return false,
        (Ok(at), Some(app)) => Arc::make_mut(apps).apps[at] = app,
        (Ok(at), None) => drop(Arc::make_mut(apps).apps.remove(at)),
        (Err(at), Some(app)) => Arc::make_mut(apps).apps.insert(at, app),
        (Err(_), None) => return false,
    }
    true
}

/// The same for the credentials of an App.
fn put_credentials(
    all: &mut Arc<Vec<wire::Credential>>,
    app: &ObjectName,
    credentials: Vec<wire::Credential>,
) -> bool {
    let from = all.partition_point(|it| it.app < *app);
    let to = all.partition_point(|it| it.app <= *app);
    if all[from..to] == credentials {
        return false;
    }
    Arc::make_mut(all).splice(from..to, credentials);
    true
}

fn credential_status(credential: &Credential, proof: &Result<&Proof, Problem>) -> CredentialStatus {
    CredentialStatus {
        name: credential.name.clone(),
        app_key: match proof {
            Ok(Proof::KeyPair { app_key, .. }) => Some(app_key.clone()),
            _ => None,
        },
        not_before_ms: credential.not_before_ms,
        expires_at_ms: credential.expires_at_ms,
        problem: proof.as_ref().err().cloned(),
    }
}

impl From<CredentialType> for SecretKind {
    fn from(kind: CredentialType) -> Self {
        match kind {
            CredentialType::KeyPair => Self::KeyPair,
            CredentialType::AppCode => Self::AppCode,
        }
    }
}
