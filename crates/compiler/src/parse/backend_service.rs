//! BackendService.

use std::collections::BTreeMap;

use paifang_model::{ObjectName, Stage};
use paifang_resources::{BackendServiceSpec, BackendType};

use super::{Check, text};
use crate::{Reason, backend::Backend};

/// Fails only with problems in `check`. `before` is the type that the object was accepted with.
pub(crate) fn parse(
    name: &ObjectName,
    spec: &BackendServiceSpec,
    before: Option<BackendType>,
    check: &mut Check<'_>,
) -> Option<BTreeMap<Stage, Backend>> {
    let mark = check.problems.len();
    check.display_name(spec.display_name.as_deref(), 50);
    if let Some(before) = before.filter(|before| *before != spec.type_) {
        check.add(
            "spec.type",
            Reason::Immutable,
            format!(
                "cannot be changed from {} to {}",
                before.name(),
                spec.type_.name()
            ),
            "make another BackendService",
        );
    }
    check.stage_count("spec.stages", spec.stages.len());
    let mut stages = BTreeMap::new();
    for (stage, config) in &spec.stages {
        let field = format!("spec.stages.{}", text::short(stage));
        let stage = check.stage(&field, stage);
        let parsed = Backend::parse(&field, &name.namespace, config, Some(spec.type_), check);
        if let (Some(stage), Some(parsed)) = (stage, parsed) {
            stages.insert(stage, parsed);
        }
    }
    check.clean_since(mark).then_some(stages)
}
