//! What is known to judge with: the world as the brain sees it, and a look at Secrets that nothing has named so far.
//!
//! The brain reads only Secrets that an object names. One that the object in question is the first to name is looked at here, or
//! whoever writes it would be told that a Secret is missing that is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use kube::Client;
use paifang_compiler::{Admission, AnyObject, Object, ObjectId, Request, Secret, Written};
use paifang_model::ObjectName;
use serde_json::Value;
use tokio::{runtime::Handle, time::timeout};

use super::Judge;
use crate::{brain::Shared, object, watch};

/// How long looks may take, all of them together: less than an API server waits for an answer.
const LOOKS: Duration = Duration::from_secs(2);
/// Looks at a time, and the most for one question.
const LOOKS_AT_ONCE: usize = 8;
const MOST_LOOKS: usize = 64;

/// The brain's knowledge, and a way to the API server.
pub(crate) struct Known {
    shared: Arc<RwLock<Shared>>,
    client: Client,
}

/// What looks have brought.
#[derive(Default)]
struct Looked {
    found: BTreeMap<ObjectName, Secret>,
    /// Nobody answered in time.
    unclear: BTreeSet<ObjectName>,
}

// === impl Known ===

impl Known {
    pub(crate) fn new(shared: Arc<RwLock<Shared>>, client: Client) -> Self {
        Self { shared, client }
    }

    /// The Secrets that an object names and that were never looked at.
    fn unknown(&self, name: &ObjectName, object: &AnyObject) -> BTreeSet<ObjectName> {
        let id = ObjectId::new(object.kind(), name);
        let mut named = object::secrets_of(&id, &spec(object));
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        // Before there is anything to judge with, there is nothing to look for either.
        let judges = shared.compiler.is_some();
        named.retain(|secret| judges && !shared.world.knows_secret(secret));
        named
    }

    async fn look(&self, secrets: BTreeSet<ObjectName>) -> Looked {
        let mut looked = Looked::default();
        let mut looks = stream::iter(secrets.iter().take(MOST_LOOKS))
            .map(|name| async move { (name, watch::get_secret(&self.client, name).await) })
            .buffer_unordered(LOOKS_AT_ONCE);
        let mut clear = BTreeSet::new();
        let all = async {
            while let Some((name, found)) = looks.next().await {
                match found {
                    Ok(found) => {
                        clear.insert(name);
                        let found = found.map(|(_, secret)| (name.clone(), secret));
                        looked.found.extend(found);
                    }
                    Err(error) => {
                        tracing::warn!(secret = %name, error = %crate::said(&error), "a Secret cannot be read for admission");
                    }
                }
            }
        };
        // What came in time counts.
        let _ = timeout(LOOKS, all).await;
        let unclear = secrets.iter().filter(|name| !clear.contains(name));
        looked.unclear = unclear.cloned().collect();
        looked
    }
}

impl Judge for Known {
    /// To be called where waiting is allowed.
    fn admit(&self, request: Request<'_>) -> Option<Admission> {
        let unknown = match request {
            Request::Write { name, object } => self.unknown(name, object),
            Request::Delete { .. } => BTreeSet::new(),
        };
        let looked = if unknown.is_empty() {
            Looked::default()
        } else {
            Handle::current().block_on(self.look(unknown))
        };
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        let compiler = shared.compiler.as_ref()?;
        if looked.found.is_empty() && looked.unclear.is_empty() {
            return Some(compiler.admit(&shared.world.objects, &request));
        }
        // Objects share their specs: a copy of the names is all that this costs, and only for the first who names a Secret.
        let mut objects = shared.world.objects.clone();
        objects.secrets.extend(looked.found);
        let mut admission = compiler.admit(&objects, &request);
        for secret in looked.unclear {
            let name = secret.to_string();
            admission.warnings.retain(|said| !said.contains(&name));
            admission.warnings.push(format!(
                "Secret {secret} could not be read in time; whether it is there and fits is not checked at admission"
            ));
        }
        Some(admission)
    }
}

fn spec(object: &AnyObject) -> Value {
    fn spec<S: serde::Serialize>(object: &Object<S>) -> Value {
        match &object.written {
            Written::Spec(spec) => serde_json::to_value(spec).unwrap_or_default(),
            Written::Malformed(_) => Value::Null,
        }
    }
    match object {
        AnyObject::ApiGroup(object) => spec(object),
        AnyObject::BackendService(object) => spec(object),
        AnyObject::Api(object) => spec(object),
        AnyObject::App(object) => spec(object),
        AnyObject::Authorization(object) => spec(object),
        AnyObject::DomainBinding(object) => spec(object),
    }
}
