//! One document as an object: who it is, and what it says.
//!
//! The six kinds go to the compiler as they are, with the mistakes of their shape. What stands beside them (Secrets, Services, …) is read
//! here, as far as the compiler needs it.

use std::{collections::BTreeMap, fmt, sync::OnceLock};

use paifang_compiler::{Problem, Reason};
use paifang_model::ObjectName;
use paifang_resources::{API_VERSION, GROUP, Kind};

use crate::{
    Position,
    beside::{self, Beside},
    shape::{self, Shape},
    specs::Spec,
    suggest,
    text::shortened,
    yaml::{Data, Node},
};

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: AnyKind,
    pub(crate) name: ObjectName,
}

/// The kinds that a folder may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AnyKind {
    Ours(Kind),
    Secret,
    ConfigMap,
    Service,
    EndpointSlice,
    Namespace,
    ReferenceGrant,
}

/// What an object says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Payload {
    /// One of the six kinds.
    Ours(Spec),
    /// One of the six kinds, not of its shape: the compiler keeps what it had.
    Malformed(Vec<Problem>),
    /// What stands beside.
    Beside(Beside),
    /// What stands beside, and cannot be used: what the file said before stays.
    Unusable,
}

/// An object of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) key: Key,
    /// Which document of the file, and which item when it is a List.
    pub(crate) place: Place,
    pub(crate) payload: Payload,
}

/// Where an object is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) document: usize,
    pub(crate) item: Option<usize>,
}

/// Something wrong with a document, beside what the compiler will say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Complaint {
    pub(crate) at: Position,
    pub(crate) object: String,
    pub(crate) problem: Problem,
    pub(crate) warning: bool,
}

/// Objects of one document, and what is wrong with it.
pub(crate) fn read(
    root: &Node,
    document: usize,
    manifests: &mut Vec<Manifest>,
    complaints: &mut Vec<Complaint>,
) {
    if is_list(root) {
        let items = match root.get("items").map(|items| &items.data) {
            Some(Data::List(items)) => items.as_slice(),
            _ => &[],
        };
        for (index, item) in items.iter().enumerate() {
            let place = Place {
                document,
                item: Some(index),
            };
            manifests.extend(one(item, place, complaints));
        }
        return;
    }
    let place = Place {
        document,
        item: None,
    };
    manifests.extend(one(root, place, complaints));
}

fn is_list(root: &Node) -> bool {
    let text = |name| root.get(name).and_then(Node::text);
    text("kind") == Some("List") && text("apiVersion") == Some("v1")
}

fn one(root: &Node, place: Place, complaints: &mut Vec<Complaint>) -> Option<Manifest> {
    let kind = match kind(root) {
        Ok(kind) => kind,
        Err(complaint) => {
            complaints.push(*complaint);
            return None;
        }
    };
    let mut problems = shape_of(kind).check(root, "");
    let name = match name(root, kind) {
        Ok(name) => name,
        Err(named) => {
            problems.retain(|problem| {
                problem.field.starts_with("metadata") && problem.field != named.field
            });
            problems.push(named);
            complaints.extend(
                problems
                    .into_iter()
                    .map(|problem| complaint(root, kind.to_string(), problem)),
            );
            return None;
        }
    };
    let key = Key { kind, name };
    let payload = match kind {
        AnyKind::Ours(kind) => ours(kind, root, problems),
        _ => {
            let read = if problems.is_empty() {
                beside::read(kind, root)
            } else {
                Err(problems)
            };
            match read {
                Ok(beside) => Payload::Beside(beside),
                Err(problems) => {
                    complaints.extend(
                        problems
                            .into_iter()
                            .map(|problem| complaint(root, key.to_string(), problem)),
                    );
                    Payload::Unusable
                }
            }
        }
    };
    Some(Manifest {
        key,
        place,
        payload,
    })
}

fn ours(kind: Kind, root: &Node, problems: Vec<Problem>) -> Payload {
    if !problems.is_empty() {
        return Payload::Malformed(problems);
    }
    let spec = root.get("spec").map_or_else(
        || serde_json::Value::Object(serde_json::Map::new()),
        Node::to_json,
    );
    match Spec::read(kind, spec) {
        Ok(spec) => Payload::Ours(spec),
        // The shape is made from the same types, so this is rare: a number that fits the definition and not the type.
        Err(error) => Payload::Malformed(vec![Problem::new("spec", Reason::Malformed, error, "")]),
    }
}

fn complaint(root: &Node, object: String, problem: Problem) -> Complaint {
    Complaint {
        at: root.locate(&problem.field),
        object,
        problem,
        warning: false,
    }
}

/// The kind, when it is one that a folder may hold.
fn kind(root: &Node) -> Result<AnyKind, Box<Complaint>> {
    let refuse = |field: &str, message: String, fix: String, warning| {
        Box::new(Complaint {
            at: root.locate(field),
            object: String::new(),
            problem: Problem::new(field, Reason::Malformed, message, fix),
            warning,
        })
    };
    if !matches!(root.data, Data::Map(_)) {
        let message = format!(
            "the document is {}, not an object; it is ignored",
            root.what()
        );
        return Err(refuse("", message, String::new(), true));
    }
    let text = |name| root.get(name).and_then(Node::text);
    match (text("apiVersion"), text("kind")) {
        (None, None) => {
            let message =
                "the document has neither apiVersion nor kind, so it is no object; it is ignored";
            Err(refuse("", message.to_owned(), String::new(), true))
        }
        (None, Some(kind)) => {
            let version = if kind.parse::<Kind>().is_ok() {
                API_VERSION
            } else {
                "v1"
            };
            Err(refuse(
                "apiVersion",
                "is missing".into(),
                format!("add `apiVersion: {version}`"),
                false,
            ))
        }
        (Some(_), None) => Err(refuse(
            "kind",
            "is missing".into(),
            "add it, as in `kind: Api`".into(),
            false,
        )),
        (Some(version), Some(kind)) => known(version, kind).ok_or_else(|| {
            let group = version.split_once('/').map_or("", |(group, _)| group);
            if group == GROUP {
                return unknown_of_ours(version, kind, &refuse);
            }
            let message = format!(
                "kind {} of {} is none that Paifang reads; it is ignored",
                shortened(kind),
                shortened(version)
            );
            refuse("kind", message, String::new(), true)
        }),
    }
}

fn unknown_of_ours(
    version: &str,
    kind: &str,
    refuse: &dyn Fn(&str, String, String, bool) -> Box<Complaint>,
) -> Box<Complaint> {
    if version != API_VERSION {
        let message = format!(
            "`{}` is not a version that this Paifang knows",
            shortened(version)
        );
        return refuse("apiVersion", message, format!("write {API_VERSION}"), false);
    }
    let names = Kind::ALL.map(Kind::name);
    let fix = match suggest::nearest(kind, names) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("use one of {}", names.join(", ")),
    };
    refuse(
        "kind",
        format!("`{}` is not a kind of {GROUP}", shortened(kind)),
        fix,
        false,
    )
}

fn known(version: &str, kind: &str) -> Option<AnyKind> {
    let (group, _) = version.split_once('/').unwrap_or(("", version));
    match (group, kind) {
        ("", "Secret") if version == "v1" => Some(AnyKind::Secret),
        ("", "ConfigMap") if version == "v1" => Some(AnyKind::ConfigMap),
        ("", "Service") if version == "v1" => Some(AnyKind::Service),
        ("", "Namespace") if version == "v1" => Some(AnyKind::Namespace),
        ("discovery.k8s.io", "EndpointSlice") => Some(AnyKind::EndpointSlice),
        ("gateway.networking.k8s.io", "ReferenceGrant") => Some(AnyKind::ReferenceGrant),
        (GROUP, _) if version == API_VERSION => kind.parse().ok().map(AnyKind::Ours),
        _ => None,
    }
}

/// Namespace and name, checked as the API server checks them: they become host names and file names.
fn name(root: &Node, kind: AnyKind) -> Result<ObjectName, Problem> {
    let metadata = root.get("metadata");
    let text = |field: &str| {
        let node = metadata.and_then(|metadata| metadata.get(field));
        match node.map(|node| (node, node.text())) {
            None => Ok(None),
            Some((_, Some(text))) => Ok(Some(text)),
            Some((node, None)) => Err(Problem::new(
                format!("metadata.{field}"),
                Reason::Malformed,
                format!("takes text, not {}", node.what()),
                "put it in quotes",
            )),
        }
    };
    let Some(name) = text("name")? else {
        return Err(Problem::new(
            "metadata.name",
            Reason::Required,
            "is missing",
            "add it",
        ));
    };
    if !is_name(name, 253, true) {
        return Err(invalid_name(
            "metadata.name",
            name,
            "lower-case letters, digits, `-` and `.`, at most 253",
        ));
    }
    if kind == AnyKind::Namespace {
        return Ok(ObjectName::new("", name));
    }
    let namespace = text("namespace")?.unwrap_or("default");
    if !is_name(namespace, 63, false) {
        return Err(invalid_name(
            "metadata.namespace",
            namespace,
            "lower-case letters, digits and `-`, at most 63",
        ));
    }
    Ok(ObjectName::new(namespace, name))
}

fn invalid_name(field: &str, name: &str, takes: &str) -> Problem {
    Problem::new(
        field,
        Reason::InvalidValue,
        format!("`{}` is not a name", shortened(name)),
        format!("use {takes}, with a letter or digit at both ends"),
    )
}

/// RFC 1123 labels, with dots between several.
pub(crate) fn is_name(text: &str, longest: usize, dots: bool) -> bool {
    let label = |label: &str| {
        let inner = label
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= longest && text.split('.').all(label) && (dots || !text.contains('.'))
}

/// The whole object: what every one has, and what its kind has.
fn shape_of(kind: AnyKind) -> &'static Shape {
    static SHAPES: OnceLock<BTreeMap<AnyKind, Shape>> = OnceLock::new();
    let shapes =
        SHAPES.get_or_init(|| AnyKind::all().map(|kind| (kind, object_of(kind))).collect());
    shapes.get(&kind).unwrap_or(&Shape::Any)
}

fn object_of(kind: AnyKind) -> Shape {
    let own = match kind {
        AnyKind::Ours(kind) => vec![("spec", shape::of_spec(kind).clone())],
        _ => beside::fields(kind),
    };
    let mut fields: BTreeMap<String, Shape> = own
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), shape))
        .collect();
    let mut required = vec!["metadata".to_owned()];
    if let Some(Shape::Object {
        required: inner, ..
    }) = fields.get("spec")
        && !inner.is_empty()
    {
        required.push("spec".to_owned());
    }
    fields.insert("apiVersion".into(), Shape::text());
    fields.insert("kind".into(), Shape::text());
    fields.insert("metadata".into(), metadata());
    // What a cluster wrote is not read here; somebody may have exported it.
    fields.insert("status".into(), Shape::Any);
    Shape::Object { fields, required }
}

fn metadata() -> Shape {
    Shape::object([
        ("name", Shape::text()),
        ("namespace", Shape::text()),
        ("labels", Shape::texts()),
        ("annotations", Shape::texts()),
        ("generateName", Shape::Any),
        ("uid", Shape::Any),
        ("resourceVersion", Shape::Any),
        ("generation", Shape::Any),
        ("creationTimestamp", Shape::Any),
        ("deletionTimestamp", Shape::Any),
        ("deletionGracePeriodSeconds", Shape::Any),
        ("finalizers", Shape::Any),
        ("ownerReferences", Shape::Any),
        ("managedFields", Shape::Any),
        ("selfLink", Shape::Any),
    ])
}

// === impl AnyKind ===

impl AnyKind {
    /// The name as written in `kind:`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours(kind) => kind.name(),
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::ReferenceGrant => "ReferenceGrant",
        }
    }

    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let beside = [
            Self::Secret,
            Self::ConfigMap,
            Self::Service,
            Self::EndpointSlice,
            Self::Namespace,
            Self::ReferenceGrant,
        ];
        Kind::ALL.into_iter().map(Self::Ours).chain(beside)
    }

    /// The kind of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for AnyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name.name)
        } else {
            write!(f, "{} {}", self.kind, self.name)
        }
    }
}
