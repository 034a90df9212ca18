//! Writes that are not published configuration: statuses, Events, Secrets of credentials.

use std::time::Duration;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ObjectReference, Secret},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use paifang_compiler::{Kind, ObjectId, SecretToMake};
use paifang_resources::{API_VERSION, GROUP, VERSION};
use paifang_snapshot::published::AppsManifest;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    lease::Leading,
    names::{self, MANAGED_BY, MANAGER},
    publish::is_passing,
    said,
    status::{Stated, Tell},
    store::owner_reference,
    watch::Event as Happened,
};

/// What became of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Result {
    Done,
    /// The object is not there any more.
    Gone,
    Failed,
}

/// Writes a status by server-side apply, then tells what is worth an Event.
pub(crate) async fn status(
    client: &Client,
    leading: &Leading,
    id: &ObjectId,
    uid: &str,
    stated: &Stated,
) -> Result {
    if !leading.holds() {
        return Result::Failed;
    }
    let gvk = GroupVersionKind::gvk(GROUP, VERSION, id.kind.name());
    let resource = ApiResource::from_gvk_with_plural(&gvk, id.kind.plural());
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &id.name.namespace, &resource);
    let patch = json!({
        "apiVersion": API_VERSION,
        "kind": id.kind.name(),
        // With the uid, a status never lands on another object of the same name, and never creates one.
        "metadata": {"name": &*id.name.name, "namespace": &*id.name.namespace, "uid": uid},
        "status": stated.status,
    });
    let params = PatchParams::apply(MANAGER).force();
    match api
        .patch_status(&id.name.name, &params, &Patch::Apply(patch))
        .await
    {
        Ok(_) => {
            for tell in &stated.tell {
                event(client, id, uid, tell).await;
            }
            Result::Done
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Result::Gone,
        Err(error) => {
            if is_passing(&error) {
                tracing::warn!(object = %id, error = %said(&error), "a status cannot be written yet");
            } else {
                tracing::error!(object = %id, error = %said(&error), "a status cannot be written");
            }
            Result::Failed
        }
    }
}

async fn event(client: &Client, id: &ObjectId, uid: &str, tell: &Tell) {
    let recorder = Recorder::new(client.clone(), Reporter::from(MANAGER));
    let event = Event {
        type_: if tell.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: tell.reason.clone(),
        note: Some(tell.note.clone()).filter(|note| !note.is_empty()),
        action: if tell.warning { "Judge" } else { "Publish" }.to_owned(),
        secondary: None,
    };
    let regarding = ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(id.kind.name().to_owned()),
        namespace: Some(id.name.namespace.to_string()),
        name: Some(id.name.name.to_string()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    };
    // An Event is a courtesy: the status says the same.
    if let Err(error) = recorder.publish(&event, &regarding).await {
        tracing::debug!(object = %id, error = %said(&error), "an Event was not written");
    }
}

/// Makes the Secret of a credential, owned by its App. One that is there already is left as it is.
pub(crate) async fn make_secret(
    client: Client,
    leading: Leading,
    make: SecretToMake,
    app_uid: String,
    events: mpsc::Sender<Happened>,
) {
    let api: Api<Secret> = Api::namespaced(client.clone(), &make.secret.namespace);
    let mut wait = Duration::from_millis(200);
    while leading.holds() {
        let secret = match secret(&make, &app_uid) {
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(secret = %make.secret, %error, "no random bytes for a Secret");
                return;
            }
        };
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                tracing::info!(secret = %make.secret, app = %make.app, "made the Secret of a credential");
                break;
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => break,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::warn!(secret = %make.secret, error = status.message, "the Secret of a credential may not be made");
                return;
            }
            Err(error) => {
                tracing::warn!(secret = %make.secret, error = %said(&error), "the Secret of a credential cannot be made yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(30));
            }
        }
    }
    // Somebody else may have made it before: it is looked at either way.
    let seen = Happened::SecretSeen(make.secret, Some(String::new()));
    let _ = events.send(seen).await;
}

fn secret(make: &SecretToMake, app_uid: &str) -> std::result::Result<Secret, getrandom::Error> {
    let app = ObjectId::new(Kind::App, &make.app);
    let data = make.kind.make(getrandom::fill)?.data.into_iter();
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(make.secret.name.to_string()),
            namespace: Some(make.secret.namespace.to_string()),
            labels: Some(
                [
                    ("app.kubernetes.io/part-of".to_owned(), "paifang".to_owned()),
                    (MANAGED_BY.to_owned(), MANAGER.to_owned()),
                ]
                .into(),
            ),
            owner_references: Some(vec![owner_reference(&app, app_uid)]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(
            data.map(|(key, value)| (key, ByteString(value.expose().clone())))
                .collect(),
        ),
        ..Secret::default()
    })
}

/// The salt that Apps were published with, so that equal Apps stay equal parts.
pub(crate) async fn salt(client: &Client, namespace: &str) -> Option<String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = api.get_opt(names::APPS).await.ok()??;
    let manifest = AppsManifest::read(&names::apps_manifest_text(&secret)?).ok()?;
    Some(manifest.salt)
}

/// A salt: 128 random bits.
pub(crate) fn random_salt() -> String {
    let mut bytes = [0; 16];
    // Without randomness the salt is no worse than none.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
