//! ApiGroup.

use std::collections::{BTreeMap, BTreeSet};

use paifang_model::{BasePath, HttpsPolicy, ObjectName, Stage};
use paifang_resources::{
    AllowedNamespaces, ApiGroupSpec, HttpsPolicy as Written, LabelSelector, NamespacesFrom,
};

use super::{Check, text, variable};
use crate::Reason;

/// What an ApiGroup means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    pub(crate) base_path: BasePath,
    pub(crate) instance: String,
    pub(crate) qps_limit: u32,
    pub(crate) public: bool,
    pub(crate) internal: bool,
    pub(crate) daily_quota: u32,
    pub(crate) https_policy: HttpsPolicy,
    pub(crate) variables: BTreeMap<Stage, BTreeMap<String, String>>,
    pub(crate) allowed: Allowed,
    pub(crate) filter_app_code: bool,
    /// Said beside `Accepted`.
    pub(crate) notes: Vec<String>,
}

/// Whose Apis may join.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Allowed {
    Same,
    All,
    Selector(Vec<Requirement>),
}

/// What the labels of a namespace must satisfy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
}

/// Fails only with problems in `check`.
pub(crate) fn parse(spec: &ApiGroupSpec, check: &mut Check<'_>) -> Option<Group> {
    let mark = check.problems.len();
    check.display_name(spec.display_name.as_deref(), 50);
    check.length("spec.description", spec.description.as_deref(), 180);
    check.length("spec.basePath", Some(&spec.base_path), 256);
    let base_path = check.take("spec.basePath", Reason::InvalidPath, spec.base_path.parse());
    check.label("spec.instance", &spec.instance);
    check.range("spec.qpsLimit", spec.qps_limit, 1, 1_000_000);
    let quota = spec.sub_domain.daily_quota;
    check.range("spec.subDomain.dailyQuota", quota, 0, 1_000_000_000);
    let variables = parse_variables(spec, check);
    let allowed = parse_allowed(&spec.allowed_namespaces, check);
    let (https_policy, notes) = https_policy(spec.https_policy);
    check.clean_since(mark).then_some(Group {
        base_path: base_path?,
        instance: spec.instance.clone(),
        qps_limit: spec.qps_limit,
        public: spec.sub_domain.public,
        internal: spec.sub_domain.internal,
        daily_quota: quota,
        https_policy,
        variables,
        allowed: allowed?,
        filter_app_code: spec.filter_app_code_for_backend,
        notes,
    })
}

fn https_policy(written: Written) -> (HttpsPolicy, Vec<String>) {
    let note = |name: &str| {
        vec![format!(
            "spec.httpsPolicy: {name} is served with TLS 1.2 as the floor; TLS 1.0 and 1.1 are never offered"
        )]
    };
    match written {
        Written::Https11Tls10 => (HttpsPolicy::Http1Tls12, note("HTTPS1_1_TLS1_0")),
        Written::Https2Tls10 => (HttpsPolicy::Http2Tls12, note("HTTPS2_TLS1_0")),
        Written::Https2Tls12 => (HttpsPolicy::Http2Tls12, Vec::new()),
        Written::Https2Tls13 => (HttpsPolicy::Http2Tls13, Vec::new()),
    }
}

fn parse_variables(
    spec: &ApiGroupSpec,
    check: &mut Check<'_>,
) -> BTreeMap<Stage, BTreeMap<String, String>> {
    check.stage_count("spec.stageVariables", spec.stage_variables.len());
    let mut stages = BTreeMap::new();
    for (name, variables) in &spec.stage_variables {
        let field = format!("spec.stageVariables.{}", text::short(name));
        let stage = check.stage(&field, name);
        check.count(
            &field,
            variables.len(),
            check.settings.limits.variables_per_stage,
        );
        for (name, value) in variables {
            parse_variable(&field, name, value, check);
        }
        if let Some(stage) = stage {
            stages.insert(stage, variables.clone());
        }
    }
    stages
}

fn parse_variable(stage: &str, name: &str, value: &str, check: &mut Check<'_>) {
    let field = format!("{stage}.{}", text::short(name));
    if !variable::is_name(name) {
        check.add(
            &field,
            Reason::InvalidValue,
            "is not a variable's name",
            "write a letter, then letters, digits, `_`, `-` and `.`; at most 64",
        );
    }
    check.length(&field, Some(value), 1024);
    if value.chars().any(char::is_control) {
        check.add(
            &field,
            Reason::InvalidValue,
            "has control characters",
            "remove them",
        );
    }
}

fn parse_allowed(written: &AllowedNamespaces, check: &mut Check<'_>) -> Option<Allowed> {
    let field = "spec.allowedNamespaces.selector";
    match (written.from, &written.selector) {
        (NamespacesFrom::Selector, Some(selector)) => {
            parse_selector(field, selector, check).map(Allowed::Selector)
        }
        (NamespacesFrom::Selector, None) => {
            check.add(
                field,
                Reason::Required,
                "`from: Selector` picks by labels",
                "say which, or use Same or All",
            );
            None
        }
        (_, Some(_)) => {
            check.add(
                field,
                Reason::Contradiction,
                "has no meaning unless `from` is Selector",
                "remove it, or write `from: Selector`",
            );
            None
        }
        (NamespacesFrom::Same, None) => Some(Allowed::Same),
        (NamespacesFrom::All, None) => Some(Allowed::All),
    }
}

fn parse_selector(
    field: &str,
    selector: &LabelSelector,
    check: &mut Check<'_>,
) -> Option<Vec<Requirement>> {
    let mark = check.problems.len();
    let mut requirements: Vec<Requirement> = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| Requirement::In(key.clone(), BTreeSet::from([value.clone()])))
        .collect();
    for (at, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let field = format!("{field}.matchExpressions[{at}]");
        let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
        let key = expression.key.clone();
        let (requirement, wants_values) = match expression.operator.as_str() {
            "In" => (Requirement::In(key, values.clone()), true),
            "NotIn" => (Requirement::NotIn(key, values.clone()), true),
            "Exists" => (Requirement::Exists(key), false),
            "DoesNotExist" => (Requirement::Absent(key), false),
            _ => {
                check.add(
                    format!("{field}.operator"),
                    Reason::InvalidValue,
                    "is not an operator",
                    "write In, NotIn, Exists or DoesNotExist",
                );
                continue;
            }
        };
        if wants_values == values.is_empty() {
            check.add(
                format!("{field}.values"),
                Reason::Contradiction,
                "In and NotIn need values, Exists and DoesNotExist have none",
                "add or remove them",
            );
        }
        requirements.push(requirement);
    }
    check.clean_since(mark).then_some(requirements)
}

// === impl Group ===

impl Group {
    /// Whether objects of `namespace` may belong to this group, which is called `name`.
    pub(crate) fn allows(
        &self,
        name: &ObjectName,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> bool {
        match &self.allowed {
            _ if *name.namespace == *namespace => true,
            Allowed::Same => false,
            Allowed::All => true,
            Allowed::Selector(requirements) => requirements
                .iter()
                .all(|requirement| requirement.holds(namespace, labels)),
        }
    }
}

// === impl Requirement ===

impl Requirement {
    fn holds(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = |key: &str| match labels.and_then(|labels| labels.get(key)) {
            Some(value) => Some(value.as_str()),
            None if key == "kubernetes.io/metadata.name" => Some(namespace),
            None => None,
        };
        match self {
            Self::In(key, values) => value(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => !value(key).is_some_and(|value| values.contains(value)),
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
        }
    }
}
