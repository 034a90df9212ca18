//! From a question to its answer: whose object it is, whether it can be read, what compile says of it, and how that is told.

use std::sync::Arc;

use paifang_compiler::{
    Admission, AnyObject, Kind, Object, ObjectId, Problem, Reason, Request, Written,
};
use paifang_model::ObjectName;
use paifang_resources::GROUP;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Judge, Outcome,
    review::{Answer, Asked, Operation, Refusal, Thing},
};

/// Problems told of one object.
const MOST_PROBLEMS: usize = 20;
/// Bytes of the message about one object.
const LONGEST_MESSAGE: usize = 4 << 10;
/// Warnings about one object.
const MOST_WARNINGS: usize = 10;
/// Characters of a warning: the API server may cut what is longer.
const LONGEST_WARNING: usize = 256;

/// What is answered, and how it is counted.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) answer: Answer,
    pub(super) outcome: Outcome,
}

/// What kind of ours the question is about. Status and other parts of an object are nobody's to refuse here.
pub(super) fn kind(asked: &Asked) -> Option<Kind> {
    let whole = asked.sub_resource.as_deref().unwrap_or_default().is_empty();
    let ours = whole && asked.kind.group == GROUP && asked.operation != Operation::Other;
    ours.then(|| asked.kind.kind.parse().ok())?
}

/// Judges a question.
pub(super) fn judge(asked: Asked, judge: &dyn Judge) -> Judged {
    let Some(kind) = kind(&asked) else {
        return unchecked(asked.uid, Vec::new());
    };
    let things = (&asked.object, &asked.old_object);
    let thing = match asked.operation {
        Operation::Delete => things.1.as_ref(),
        _ => things.0.as_ref(),
    };
    // What is about to go must be free to go: its finalizers are taken away by updates.
    if thing.is_some_and(|thing| thing.metadata.deletion_timestamp.is_some()) {
        return unchecked(asked.uid, Vec::new());
    }
    let Some(name) = name(&asked, thing) else {
        let warning = "the object has no name yet; not checked at admission";
        return unchecked(asked.uid, vec![warning.to_owned()]);
    };
    let admission = if asked.operation == Operation::Delete {
        let id = ObjectId::new(kind, &name);
        judge.admit(Request::Delete { id: &id })
    } else {
        match read(kind, thing) {
            Ok(object) => judge.admit(Request::Write {
                name: &name,
                object: &object,
            }),
            Err(problem) => Some(Admission {
                refusals: vec![problem],
                warnings: Vec::new(),
            }),
        }
    };
    let Some(mut admission) = admission else {
        let warning = "paifang-controller is starting; not checked at admission";
        return unchecked(asked.uid, vec![warning.to_owned()]);
    };
    if is_as_before(&asked) {
        // Settings may have become stricter since: an edit of a label is not the time to refuse.
        let still = admission
            .refusals
            .drain(..)
            .map(|problem| problem.to_string());
        admission.warnings.splice(0..0, still);
    }
    tell(asked.uid, kind, &name, &admission)
}

fn unchecked(uid: String, warnings: Vec<String>) -> Judged {
    Judged {
        answer: Answer {
            uid,
            refusal: None,
            warnings,
        },
        outcome: Outcome::Unchecked,
    }
}

/// The object says it best: a question may leave its name out.
fn name(asked: &Asked, thing: Option<&Thing>) -> Option<ObjectName> {
    let metadata = thing.map(|thing| &thing.metadata);
    let own = |name: Option<&String>, other: &Option<String>| {
        let name = name.or(other.as_ref())?;
        (!name.is_empty()).then(|| name.clone())
    };
    let namespace = own(
        metadata.and_then(|it| it.namespace.as_ref()),
        &asked.namespace,
    )?;
    let name = own(metadata.and_then(|it| it.name.as_ref()), &asked.name)?;
    Some(ObjectName::new(namespace, name))
}

fn is_as_before(asked: &Asked) -> bool {
    let spec = |thing: &Option<Thing>| thing.as_ref().and_then(|thing| thing.spec.clone());
    asked.operation == Operation::Update && spec(&asked.object) == spec(&asked.old_object)
}

fn read(kind: Kind, thing: Option<&Thing>) -> Result<AnyObject, Problem> {
    let none = Thing::default();
    let thing = thing.unwrap_or(&none);
    Ok(match kind {
        Kind::ApiGroup => AnyObject::ApiGroup(object(thing)?),
        Kind::BackendService => AnyObject::BackendService(object(thing)?),
        Kind::Api => AnyObject::Api(object(thing)?),
        Kind::App => AnyObject::App(object(thing)?),
        Kind::Authorization => AnyObject::Authorization(object(thing)?),
        Kind::DomainBinding => AnyObject::DomainBinding(object(thing)?),
    })
}

fn object<S: DeserializeOwned>(thing: &Thing) -> Result<Object<S>, Problem> {
    let metadata = &thing.metadata;
    let spec = thing.spec.as_ref().unwrap_or(&Value::Null);
    let spec: S = serde_path_to_error::deserialize(spec).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." {
            "spec".to_owned()
        } else {
            format!("spec.{path}")
        };
        Problem::new(
            field,
            Reason::Malformed,
            error.into_inner(),
            "write it as `kubectl explain` shows",
        )
    })?;
    Ok(Object {
        uid: metadata.uid.as_deref().map(Into::into),
        created: metadata.creation_timestamp.clone(),
        written: Written::Spec(Arc::new(spec)),
    })
}

fn tell(uid: String, kind: Kind, name: &ObjectName, admission: &Admission) -> Judged {
    let warnings = warnings(&admission.warnings);
    let refusal = refusal(kind, name, &admission.refusals);
    let outcome = match (&refusal, warnings.is_empty()) {
        (Some(_), _) => Outcome::Refused,
        (None, false) => Outcome::Warned,
        (None, true) => Outcome::Allowed,
    };
    Judged {
        answer: Answer {
            uid,
            refusal,
            warnings,
        },
        outcome,
    }
}

fn refusal(kind: Kind, name: &ObjectName, problems: &[Problem]) -> Option<Refusal> {
    if problems.is_empty() {
        return None;
    }
    // Nothing is wrong with the object then: something else stands against it.
    let blocked = problems
        .iter()
        .all(|problem| problem.reason == Reason::StageInUse);
    let (code, reason) = if blocked {
        (403, "Forbidden")
    } else {
        (422, "Invalid")
    };
    let cause = |problem: &Problem| {
        let Problem { message, fix, .. } = problem;
        let said = if fix.is_empty() {
            clean(message)
        } else {
            clean(&format!("{message}; {fix}"))
        };
        (clean(&problem.field), shorten(&said, LONGEST_MESSAGE / 4))
    };
    Some(Refusal {
        code,
        reason,
        message: message(problems),
        kind: kind.name(),
        name: name.name.to_string(),
        causes: problems.iter().take(MOST_PROBLEMS).map(cause).collect(),
    })
}

/// One line for each problem, as many as there is room for.
fn message(problems: &[Problem]) -> String {
    if let [only] = problems {
        return shorten(&clean(&only.to_string()), LONGEST_MESSAGE);
    }
    let mut text = format!("{} problems:", problems.len());
    // Room for the last line.
    let room = LONGEST_MESSAGE - 64;
    for (at, problem) in problems.iter().enumerate() {
        let line = shorten(&clean(&problem.to_string()), LONGEST_MESSAGE / 4);
        if at == MOST_PROBLEMS || text.len() + line.len() + 3 > room {
            text.push_str(&format!("\n… and {} more", problems.len() - at));
            break;
        }
        text.push_str("\n- ");
        text.push_str(&line);
    }
    text
}

fn warnings(all: &[String]) -> Vec<String> {
    let told = |text: &String| {
        let text = clean(text);
        if text.chars().count() <= LONGEST_WARNING {
            return text;
        }
        let mut short: String = text.chars().take(LONGEST_WARNING - 1).collect();
        short.push('…');
        short
    };
    if all.len() <= MOST_WARNINGS {
        return all.iter().map(told).collect();
    }
    let shown = MOST_WARNINGS - 1;
    let mut warnings: Vec<String> = all.iter().take(shown).map(told).collect();
    warnings.push(format!("… and {} more warnings", all.len() - shown));
    warnings
}

/// Text that a header and a terminal can show: a line break or an escape of a user's text is a space.
fn clean(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

/// At most so many bytes, whole characters.
fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most - '…'.len_utf8());
    format!("{}…", &text[..end])
}
