//! The bundle by which the API server knows the webhook.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::keep;

/// What makes the configuration trust `bundle`; nothing when it does. Bound to the version that was looked at.
pub(super) fn patch(configuration: &ValidatingWebhookConfiguration, bundle: &str) -> Option<Value> {
    let webhooks = configuration.webhooks.iter().flatten();
    let other = webhooks.filter(|webhook| {
        let known = webhook.client_config.ca_bundle.as_ref();
        known.is_none_or(|known| known.0 != bundle.as_bytes())
    });
    let encoded = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
    let changed: Vec<Value> = other
        .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": encoded}}))
        .collect();
    (!changed.is_empty()).then(|| {
        json!({
            "metadata": {"resourceVersion": configuration.metadata.resource_version},
            "webhooks": changed,
        })
    })
}

/// Sends the patch. Webhooks of other names stay as they are.
///
/// # Errors
/// When the API server cannot be asked, or refuses.
pub(super) async fn send(
    api: &Api<ValidatingWebhookConfiguration>,
    name: &str,
    patch: Value,
) -> Result<ValidatingWebhookConfiguration, String> {
    let params = PatchParams {
        field_manager: Some(keep::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    keep::answer(api.patch(name, &params, &Patch::Strategic(patch)))
        .await
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: &[Option<&str>]) -> ValidatingWebhookConfiguration {
        let webhooks: Vec<Value> = bundles
            .iter()
            .enumerate()
            .map(|(at, bundle)| {
                let bundle = bundle.map(|text| k8s_openapi::ByteString(text.as_bytes().to_vec()));
                json!({
                    "name": format!("w{at}"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
                    "clientConfig": {"caBundle": bundle, "service": {"name": "s", "namespace": "n"}},
                })
            })
            .collect();
        serde_json::from_value(json!({"metadata": {"resourceVersion": "7"}, "webhooks": webhooks}))
            .unwrap()
    }

    #[test]
    fn only_webhooks_that_trust_something_else_are_patched() {
        assert_eq!(patch(&configuration(&[]), "x"), None);
        assert_eq!(patch(&configuration(&[Some("x"), Some("x")]), "x"), None);
        let patch = patch(&configuration(&[Some("x"), None, Some("old")]), "x").unwrap();
        assert_eq!(
            patch,
            json!({
                "metadata": {"resourceVersion": "7"},
                "webhooks": [
                    {"name": "w1", "clientConfig": {"caBundle": "eA=="}},
                    {"name": "w2", "clientConfig": {"caBundle": "eA=="}},
                ],
            })
        );
    }
}
