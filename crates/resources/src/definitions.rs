//! The CustomResourceDefinitions of the six kinds, from their types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{Api, ApiGroup, App, Authorization, BackendService, DomainBinding};

/// The six definitions, in the order of [`crate::Kind::ALL`].
pub fn definitions() -> [CustomResourceDefinition; 6] {
    [
        ApiGroup::crd(),
        BackendService::crd(),
        Api::crd(),
        App::crd(),
        Authorization::crd(),
        DomainBinding::crd(),
    ]
    .map(tidy)
}

fn tidy(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        {
            tidy_schema(schema);
        }
    }
    definition
}

/// Makes a schema that a user sees: takes `nullable` away, because the API server drops nulls before it applies defaults and CEL's `has` should mean
/// "there is something"; and formats that Kubernetes does not know (`uint32`).
fn tidy_schema(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.description = schema.description.as_deref().map(plain);
    if schema
        .format
        .as_deref()
        .is_some_and(|format| format.starts_with("uint"))
    {
        schema.format = None;
    }
    for property in schema.properties.iter_mut().flatten() {
        tidy_schema(property.1);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy_schema(values);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy_schema(items);
    }
}

/// A description without what only readers of the source can follow: Rust links and the sections of our reference.
fn plain(description: &str) -> String {
    let mut text = description.replace("[`", "`").replace("`]", "`");
    while let Some(start) = text.find(" (Ref §") {
        let Some(length) = text[start..].find(')') else {
            break;
        };
        text.replace_range(start..=start + length, "");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_loses_links_and_references_only() {
        let written = "What [`Api`] is (Ref §7.1), (really) and `x` (Ref §6).";
        assert_eq!(plain(written), "What `Api` is, (really) and `x`.");
        assert_eq!(plain("unclosed (Ref §7"), "unclosed (Ref §7");
    }

    #[test]
    fn no_schema_is_nullable_or_has_a_format_that_kubernetes_does_not_know() {
        let text = serde_json::to_string(&definitions()).unwrap();
        assert!(!text.contains("nullable"));
        assert!(!text.contains("uint"));
        assert!(!text.contains("(Ref §"));
    }
}
