//! From files to the objects that are compiled: each object once, the last good state of what cannot be read, endpoints joined to their
//! Services.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use paifang_compiler::{Objects, Secret, Service, ServicePort};
use paifang_model::ObjectName;

use crate::{
    Diagnostic,
    beside::{self, Beside, EndpointSlice},
    folder::{File, Folder},
    manifest::{AnyKind, Key, Payload, Place},
    specs,
};

/// What each file last said that could be used.
pub(crate) type Good = BTreeMap<PathBuf, BTreeMap<Key, Payload>>;

/// The objects of a folder.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// For the compiler.
    pub(crate) objects: Objects,
    /// Where each object stands; no place when its file cannot be read now.
    pub(crate) origins: BTreeMap<Key, Origin>,
    /// What each object says, to see what changed.
    pub(crate) payloads: BTreeMap<Key, Payload>,
    /// What is wrong that the compiler cannot know.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What to remember of each file.
    pub(crate) good: Good,
}

/// Where an object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) file: PathBuf,
    pub(crate) place: Option<Place>,
}

/// Gathers. `made` are Secrets that were made for Apps; one in the folder is stronger.
pub(crate) fn gather(
    folder: &Folder,
    before: &Good,
    made: &BTreeMap<ObjectName, Secret>,
) -> Gathered {
    let mut gathered = Gathered {
        diagnostics: folder.unreadable().to_vec(),
        ..Gathered::default()
    };
    let mut claims: BTreeMap<&Key, Vec<Claim<'_>>> = BTreeMap::new();
    for (path, file) in folder.files() {
        gathered.complain(path, file);
        for claim in claims_of(path, file, before.get(path)) {
            claims.entry(claim.key).or_default().push(claim);
        }
        gathered.good.insert(path.clone(), BTreeMap::new());
    }
    for (key, claims) in claims {
        let winner = winner(&claims);
        let (chosen, others) = (
            &claims[winner],
            claims
                .iter()
                .enumerate()
                .filter(|(index, _)| *index != winner),
        );
        let others: Vec<&Claim<'_>> = others
            .map(|(_, claim)| claim)
            .filter(|claim| claim.place.is_some())
            .collect();
        for other in others {
            let twice = twice(folder, key, chosen, other);
            gathered.diagnostics.push(twice);
        }
        gathered.take(key, chosen);
    }
    gathered.good.retain(|_, objects| !objects.is_empty());
    for (name, secret) in made {
        let secrets = &mut gathered.objects.secrets;
        secrets
            .entry(name.clone())
            .or_insert_with(|| secret.clone());
    }
    gathered.join_endpoints(folder);
    gathered
}

/// A file that says an object.
struct Claim<'f> {
    key: &'f Key,
    path: &'f Path,
    /// None: from what the file said before.
    place: Option<Place>,
    /// What it says; none when it cannot be used and never could.
    payload: Option<&'f Payload>,
    /// What it said before.
    before: Option<&'f Payload>,
}

fn claims_of<'f>(
    path: &'f Path,
    file: &'f File,
    before: Option<&'f BTreeMap<Key, Payload>>,
) -> Vec<Claim<'f>> {
    if file.broken.is_some() {
        let stale = before.into_iter().flatten().map(|(key, payload)| Claim {
            key,
            path,
            place: None,
            payload: Some(payload),
            before: Some(payload),
        });
        return stale.collect();
    }
    let fresh = file.manifests.iter().map(|manifest| {
        let before = before.and_then(|objects| objects.get(&manifest.key));
        Claim {
            key: &manifest.key,
            path,
            place: Some(manifest.place),
            payload: match &manifest.payload {
                Payload::Unusable => before,
                payload => Some(payload),
            },
            before,
        }
    });
    fresh.collect()
}

/// A file that can be read is stronger than one that cannot; then who had the object before; then the order of names.
fn winner(claims: &[Claim<'_>]) -> usize {
    let rank = |claim: &Claim<'_>| (claim.place.is_none(), claim.before.is_none());
    let mut best = 0;
    for (index, claim) in claims.iter().enumerate() {
        if rank(claim) < rank(&claims[best]) {
            best = index;
        }
    }
    best
}

fn twice(folder: &Folder, key: &Key, chosen: &Claim<'_>, other: &Claim<'_>) -> Diagnostic {
    let at = |claim: &Claim<'_>| {
        folder
            .map(claim.path)?
            .locate(claim.place?, "metadata.name")
    };
    let mut first = chosen.path.display().to_string();
    if let Some(position) = at(chosen) {
        first = format!("{first}:{}", position.line);
    }
    let mut diagnostic = Diagnostic::of_file(
        other.path,
        "Duplicate",
        format!("is in {first} too, and that one counts"),
        "keep one of the two",
    )
    .about(key);
    diagnostic.at = at(other);
    diagnostic
}

// === impl Gathered ===

impl Gathered {
    fn complain(&mut self, path: &Path, file: &File) {
        self.diagnostics.extend(file.broken.clone());
        for complaint in &file.complaints {
            let problem = &complaint.problem;
            let mut diagnostic = Diagnostic::of_file(
                path,
                problem.reason.as_str(),
                problem.message.clone(),
                problem.fix.clone(),
            )
            .at(complaint.at)
            .about(&complaint.object)
            .in_field(&problem.field);
            if complaint.warning {
                diagnostic = diagnostic.warning();
            }
            self.diagnostics.push(diagnostic);
        }
    }

    fn take(&mut self, key: &Key, claim: &Claim<'_>) {
        let origin = Origin {
            file: claim.path.to_owned(),
            place: claim.place,
        };
        self.origins.insert(key.clone(), origin);
        let Some(payload) = claim.payload else {
            return;
        };
        let good = match payload {
            Payload::Malformed(_) => claim.before,
            payload => Some(payload),
        };
        if let (Some(good), Some(file)) = (good, self.good.get_mut(claim.path)) {
            file.insert(key.clone(), good.clone());
        }
        self.payloads.insert(key.clone(), payload.clone());
        self.insert(key, payload);
    }

    fn insert(&mut self, key: &Key, payload: &Payload) {
        let name = key.name.clone();
        match (key.kind, payload) {
            (_, Payload::Ours(spec)) => spec.insert(name, &mut self.objects),
            (AnyKind::Ours(kind), Payload::Malformed(problems)) => {
                specs::insert_malformed(kind, name, problems.clone(), &mut self.objects);
            }
            (_, Payload::Beside(beside)) => self.insert_beside(name, beside),
            _ => {}
        }
    }

    fn insert_beside(&mut self, name: ObjectName, beside: &Beside) {
        let objects = &mut self.objects;
        match beside {
            Beside::Secret(secret) => {
                objects.secrets.insert(name, secret.clone());
            }
            Beside::Service(service) => {
                objects.services.insert(name, unjoined(service));
            }
            Beside::Namespace(labels) => {
                objects.namespaces.insert(name.name.into(), labels.clone());
            }
            Beside::ReferenceGrant(grant) => {
                objects.reference_grants.insert(name, grant.clone());
            }
            Beside::ConfigMap | Beside::EndpointSlice(_) => {}
        }
    }

    /// Endpoints of slices to the ports of their Services, by the ports' names. An annotation stands instead of slices.
    fn join_endpoints(&mut self, folder: &Folder) {
        let slices = self
            .payloads
            .iter()
            .filter_map(|(key, payload)| match payload {
                Payload::Beside(Beside::EndpointSlice(slice)) => Some((key, slice)),
                _ => None,
            });
        for (key, slice) in slices {
            let name = ObjectName::new(key.name.namespace.clone(), slice.service.as_str());
            let annotated = matches!(
                self.payloads.get(&Key {
                    kind: AnyKind::Service,
                    name: name.clone()
                }),
                Some(Payload::Beside(Beside::Service(beside::Service {
                    endpoints: Some(_),
                    ..
                })))
            );
            match self.objects.services.get_mut(&name) {
                Some(_) if annotated => {}
                Some(service) => join(service, slice),
                None => {
                    let orphan = orphan(folder, key, &self.origins[key], &name);
                    self.diagnostics.push(orphan);
                }
            }
        }
    }
}

fn unjoined(service: &beside::Service) -> Service {
    let ready = service.endpoints.clone().unwrap_or_default();
    let ports = service.ports.iter().map(|(name, number)| ServicePort {
        name: name.clone(),
        number: *number,
        app_protocol: service.protocols.get(number).cloned(),
        ready: ready.clone(),
    });
    Service {
        external_name: service.external_name.clone(),
        ports: ports.collect(),
    }
}

fn join(service: &mut Service, slice: &EndpointSlice) {
    for port in &mut service.ports {
        for (name, number) in &slice.ports {
            if *name == port.name {
                let addresses = slice.ready.iter().map(|ip| SocketAddr::new(*ip, *number));
                port.ready.extend(addresses);
            }
        }
        port.ready.sort_unstable();
        port.ready.dedup();
    }
}

fn orphan(folder: &Folder, key: &Key, origin: &Origin, service: &ObjectName) -> Diagnostic {
    let mut diagnostic = Diagnostic::of_file(
        &origin.file,
        "ServiceNotFound",
        format!("there is no Service {service}, so these endpoints are ignored"),
        "",
    )
    .warning()
    .about(key);
    let map = folder.map(&origin.file);
    diagnostic.at = map.and_then(|map| map.locate(origin.place?, "metadata.labels"));
    diagnostic
}
