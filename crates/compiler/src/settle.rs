//! An object as written, or as it was last accepted.

use std::{collections::BTreeSet, sync::Arc};

use crate::{Accepted, Object, Problem, Settings, Written, parse::Check};

/// What is in force of an object.
#[derive(Debug, Clone)]
pub(crate) struct InForce<S, M> {
    /// As written.
    pub(crate) spec: Arc<S>,
    /// What it means.
    pub(crate) model: M,
}

/// An object's edit, and what was accepted before it.
pub(crate) struct Settled<S, M> {
    /// The edit, when it is valid.
    pub(crate) edit: Option<InForce<S, M>>,
    /// What was accepted before, when the edit is not valid or something else.
    pub(crate) last: Option<InForce<S, M>>,
    /// What it held.
    pub(crate) claims: BTreeSet<String>,
    /// What is wrong with the edit.
    pub(crate) problems: Vec<Problem>,
}

/// Parses the edit of an object, and what was accepted before if that is something else.
pub(crate) fn settle<S: PartialEq, M>(
    object: &Object<S>,
    before: Option<&Arc<Accepted<S>>>,
    settings: &Settings,
    parse: impl Fn(&S, &mut Check<'_>) -> Option<M>,
) -> Settled<S, M> {
    let mut check = Check::new(settings);
    let edit = match &object.written {
        Written::Spec(spec) => parse(spec, &mut check).map(|model| InForce {
            spec: Arc::clone(spec),
            model,
        }),
        Written::Malformed(problems) => {
            check.problems.extend(problems.iter().cloned());
            None
        }
    };
    let same = |last: &Arc<S>| {
        edit.as_ref()
            .is_some_and(|edit| Arc::ptr_eq(&edit.spec, last) || *edit.spec == **last)
    };
    let last = before
        .filter(|before| !same(&before.spec))
        .and_then(|before| {
            parse(&before.spec, &mut Check::new(settings)).map(|model| InForce {
                spec: Arc::clone(&before.spec),
                model,
            })
        });
    Settled {
        edit,
        last,
        claims: before
            .map(|before| before.claims.clone())
            .unwrap_or_default(),
        problems: check.problems,
    }
}

// === impl Settled ===

impl<S, M> Settled<S, M> {
    /// The edit, else what was accepted before; and the problems.
    pub(crate) fn take(self) -> (Option<InForce<S, M>>, Vec<Problem>) {
        (self.edit.or(self.last), self.problems)
    }
}

/// What to say beside a refusal.
pub(crate) fn effect(in_force: bool) -> &'static str {
    if in_force {
        "The last accepted version stays in force"
    } else {
        "It is not in force"
    }
}
