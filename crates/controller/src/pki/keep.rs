//! Writing Secrets, when several may want to: a Secret that somebody else wrote in the meantime is read again, never overwritten.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PostParams, Preconditions},
};
use tokio::time::timeout;

use super::decide;

/// How long the API server may take for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Who writes.
pub(super) const FIELD_MANAGER: &str = "paifang-controller";

/// What came of it.
#[derive(Debug)]
pub(super) enum Written {
    /// It stands as wanted; this is what the API server made of it.
    Done(Box<Secret>),
    /// Somebody else was faster; this is what stands there now.
    Raced(Option<Box<Secret>>),
}

/// Writes `wanted` in place of `before`.
///
/// # Errors
/// When the API server cannot be asked or refuses for another reason than a race.
pub(super) async fn write(
    api: &Api<Secret>,
    before: Option<&Secret>,
    mut wanted: Secret,
) -> Result<Written, String> {
    let name = wanted.name_any();
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let replaceable = before.is_some_and(decide::replaceable);
    if let Some(before) = before.filter(|_| !replaceable) {
        match answer(api.delete(&name, &exactly(before))).await {
            Ok(_) => {}
            Err(error) if is_race(&error) => return read_again(api, &name).await,
            Err(error) => return Err(error.to_string()),
        }
        wanted.metadata.resource_version = None;
        wanted.metadata.uid = None;
        wanted.metadata.creation_timestamp = None;
    }
    let written = if replaceable {
        answer(api.replace(&name, &params, &wanted)).await
    } else {
        answer(api.create(&params, &wanted)).await
    };
    match written {
        Ok(secret) => Ok(Written::Done(Box::new(secret))),
        Err(error) if is_race(&error) => read_again(api, &name).await,
        Err(error) => Err(error.to_string()),
    }
}

async fn read_again(api: &Api<Secret>, name: &str) -> Result<Written, String> {
    let now = answer(api.get_opt(name)).await;
    let now = now.map_err(|error| error.to_string())?;
    Ok(Written::Raced(now.map(Box::new)))
}

/// Only this very version.
fn exactly(before: &Secret) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions {
        resource_version: before.metadata.resource_version.clone(),
        uid: before.metadata.uid.clone(),
    })
}

/// Why the API server did not do it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("{0}")]
    Refused(#[from] kube::Error),
}

/// Waits for an answer, within reason.
pub(super) async fn answer<T>(
    asked: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    match timeout(PATIENCE, asked).await {
        Ok(answered) => Ok(answered?),
        Err(_) => Err(Failure::Silent),
    }
}

/// 409 is another's write or creation, 404 another's deletion.
fn is_race(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(kube::Error::Api(status)) if matches!(status.code, 404 | 409))
}
