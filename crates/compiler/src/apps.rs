//! Apps and their credentials.
//!
//! A credential is only ever what its Secret says now: a Secret that is gone is a revocation, so nothing is remembered here but who
//! held which AppKey.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paifang_model::{ObjectName, Redacted};
use paifang_resources::{AppSpec, CredentialType};
use paifang_snapshot::wire::{self, Proof};

use crate::{
    Accepted, AppStatus, CredentialStatus, Memory, Object, Objects, Problem, Reason, Settings,
    Status, Verdict,
    claims::{self, Blocked, Claim, Entry},
    groups::keep,
    ids,
    inputs::seniority,
    memory::recall,
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

/// What becomes of the Apps.
#[derive(Default)]
pub(crate) struct Apps {
    pub(crate) published: Vec<wire::App>,
    pub(crate) credentials: Vec<wire::Credential>,
    /// Those in force.
    pub(crate) names: BTreeSet<ObjectName>,
    pub(crate) to_make: Vec<SecretToMake>,
    pub(crate) memory: BTreeMap<ObjectName, Arc<Accepted<AppSpec>>>,
    pub(crate) verdicts: Vec<(ObjectName, Verdict)>,
}

/// An App before conflicts are settled.
struct Judged<'a> {
    name: &'a ObjectName,
    object: &'a Object<AppSpec>,
    before: Option<&'a Arc<Accepted<AppSpec>>>,
    in_force: Option<InForce<AppSpec, App>>,
    proofs: Vec<Result<Proof, Problem>>,
    problems: Vec<Problem>,
    to_make: Vec<SecretToMake>,
}

/// Decides every App.
pub(crate) fn decide(objects: &Objects, memory: &Memory, settings: &Settings) -> Apps {
    let mut judged: Vec<Judged<'_>> = objects
        .apps
        .iter()
        .map(|(name, object)| judge(name, object, objects, memory, settings))
        .collect();
    judged.sort_by_cached_key(|app| seniority(app.name, app.object));
    settle_conflicts(&mut judged);
    let mut apps = Apps::default();
    for app in judged {
        apps.conclude(app);
    }
    apps.published.sort_by(|a, b| a.name.cmp(&b.name));
    apps.credentials.sort();
    apps.to_make.sort();
    apps
}

fn judge<'a>(
    name: &'a ObjectName,
    object: &'a Object<AppSpec>,
    objects: &Objects,
    memory: &'a Memory,
    settings: &Settings,
) -> Judged<'a> {
    let before = recall(&memory.apps, name, object.uid.as_deref());
    let (in_force, problems) = settle(object, before, settings, |spec, check| {
        parse::app::parse(name, spec, check)
    })
    .take();
    let mut app = Judged {
        name,
        object,
        before,
        proofs: Vec::new(),
        problems,
        to_make: Vec::new(),
        in_force: None,
    };
    for (at, credential) in in_force
        .iter()
        .flat_map(|it| it.model.credentials.iter().enumerate())
    {
        let proof = app.read(&format!("spec.credentials[{at}]"), credential, objects);
        app.proofs.push(proof);
    }
    app.in_force = in_force;
    app
}

// === impl Judged ===

impl Judged<'_> {
    /// What the credential's Secret says.
    fn read(
        &mut self,
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
                    app: self.name.clone(),
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
}

/// What only one credential may have.
fn key(proof: &Proof) -> (bool, &str) {
    match proof {
        Proof::KeyPair { app_key, .. } => (true, app_key),
        Proof::AppCode { app_code } => (false, app_code.expose()),
    }
}

/// The same AppKey or AppCode twice: who has it keeps it, else the older App. `judged` is in order of seniority.
fn settle_conflicts(judged: &mut [Judged<'_>]) {
    let places: Vec<(usize, usize)> = judged
        .iter()
        .enumerate()
        .flat_map(|(app, it)| (0..it.proofs.len()).map(move |at| (app, at)))
        .collect();
    let entries: Vec<Entry<(bool, &str)>> = places
        .iter()
        .map(|&(app, at)| {
            let key = judged[app].proofs[at].as_ref().ok().map(key);
            let claim = key.map(|key| Claim {
                key,
                group: 0,
                member: 0,
            });
            let holds = key.is_some_and(|(is_key, text)| {
                is_key
                    && judged[app]
                        .before
                        .is_some_and(|it| it.claims.contains(text))
            });
            Entry {
                held: claim.clone().filter(|_| holds),
                wanted: claim,
                holds,
            }
        })
        .collect();
    let outcomes = claims::settle(&entries, usize::MAX);
    let mut lost = Vec::new();
    for (&(app, at), outcome) in places.iter().zip(&outcomes) {
        let Some(Blocked::Taken(owner)) = outcome.blocked else {
            continue;
        };
        let (owner, _) = places[owner];
        lost.push((app, at, owner));
    }
    for (app, at, owner) in lost {
        let what = match &judged[app].proofs[at] {
            Ok(Proof::KeyPair { app_key, .. }) => format!("the AppKey {app_key}"),
            _ => "this AppCode".to_owned(),
        };
        let (reason, message) = if app == owner {
            let message = format!("another credential of this App has {what}");
            (Reason::Duplicate, message)
        } else {
            let message = format!("App {} has {what}", judged[owner].name);
            (Reason::Conflicted, message)
        };
        judged[app].proofs[at] = Err(Problem::new(
            format!("spec.credentials[{at}]"),
            reason,
            message,
            "use another one",
        ));
    }
}

// === impl Apps ===

impl Apps {
    fn conclude(&mut self, app: Judged<'_>) {
        let Judged {
            name,
            object,
            before,
            in_force,
            proofs,
            mut problems,
            to_make,
        } = app;
        let is_edit_refused = !problems.is_empty();
        problems.extend(
            proofs
                .iter()
                .filter_map(|proof| proof.as_ref().err())
                .cloned(),
        );
        let id = ids::app_id(name, object.uid.as_deref());
        let mut status = AppStatus {
            app_id: id,
            credentials: Vec::new(),
        };
        // A credential that cannot be used leaves the rest of the edit in force.
        let effect = if is_edit_refused {
            effect(in_force.is_some())
        } else {
            ""
        };
        if let Some(InForce { spec, model }) = in_force {
            self.to_make.extend(to_make);
            self.names.insert(name.clone());
            self.published.push(wire::App {
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
                if let Proof::KeyPair { app_key, .. } = &proof {
                    claims.insert(app_key.clone());
                }
                self.credentials.push(wire::Credential {
                    app: name.clone(),
                    name: credential.name.clone(),
                    not_before_ms: credential.not_before_ms,
                    expires_at_ms: credential.expires_at_ms,
                    proof,
                });
            }
            let accepted = keep(before, object.uid.clone(), spec, claims);
            self.memory.insert(name.clone(), accepted);
        }
        let verdict = Verdict::judge(problems, effect, &[], Status::App(status));
        self.verdicts.push((name.clone(), verdict));
    }
}

fn credential_status(credential: &Credential, proof: &Result<Proof, Problem>) -> CredentialStatus {
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
