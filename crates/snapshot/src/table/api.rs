//! One published Api, and one stage of it, as the proxy reads them while a request passes.

use std::{sync::Arc, time::Duration};

use paifang_model::{
    Location, Method, ObjectName, ParameterType, Protocols, Stage, SystemParameter,
};

use super::{
    backend_path::BackendPath,
    group::StageIndex,
    rules::{Check, Violation, check_type},
};
use crate::wire;

/// A release in service: Api × stage × backend, see [`wire::Route`]. Stage variables are filled in.
pub struct Route {
    /// The release.
    pub api: Arc<Api>,
    /// The stage it serves.
    pub stage: Arc<Stage>,
    /// The same, as the group counts stages.
    pub stage_index: StageIndex,
    /// Which Api of the group this is, whatever its release: what grants are given for.
    pub(super) grant_key: u32,
    /// Where the request goes.
    pub backend: Arc<Backend>,
    /// Fixed values added.
    pub constants: Arc<[Constant]>,
    /// Path at the backend; absent when the request's path below the base path is kept.
    pub backend_path: Option<Arc<BackendPath>>,
}

/// One release of an Api, see [`wire::Api`].
pub struct Api {
    /// The Api object.
    pub name: ObjectName,
    /// The name shown to people; empty when the object has none.
    pub display_name: Arc<str>,
    /// Number of the release.
    pub release: u64,
    /// Hash of the release's content, hexadecimal.
    pub hash: Arc<str>,
    /// What a call of it does.
    pub kind: wire::ApiKind,
    /// Protocols it may be called over.
    pub protocols: Protocols,
    /// Request method.
    pub method: Method,
    /// Template of the request path below the group's base path, as text.
    pub path: Arc<str>,
    /// How parameters travel.
    pub mode: wire::Mode,
    /// How the body is read.
    pub body_format: wire::BodyFormat,
    /// Who may call.
    pub auth: wire::Auth,
    /// Whether only the internal listener answers.
    pub internal_only: bool,
    /// Declared parameters, in the user's order. Empty for an Api that answers closed.
    pub parameters: Box<[Parameter]>,
    /// Method at the backend; absent when the request's is kept.
    pub backend_method: Option<Method>,
    /// The whole exchange with the backend; at least one millisecond.
    pub timeout: Duration,
    /// The `Content-Type` sent to the backend; a custom one is a well-formed header value.
    pub content_type: wire::ContentType,
    /// Values of the gateway's added for the backend.
    pub system: Arc<[System]>,
    /// What the backend's type needs to know beyond that.
    pub call: Call,
}

/// What the backend's type needs to know of an Api, see [`wire::Call`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Nothing.
    Plain,
    /// Of a function.
    Function {
        /// The function sees the business path only.
        only_business_path: bool,
    },
    /// Of an object store.
    Object {
        /// What is done.
        action: wire::ObjectAction,
    },
    /// Of an event sink.
    Event {
        /// CloudEvents `type`.
        kind: Arc<str>,
        /// CloudEvents `subject`; empty when it has none.
        subject: Box<[TextPiece]>,
    },
}

/// A piece of a text with parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPiece {
    /// As it is.
    Text(Box<str>),
    /// The value of the parameter at this position of [`Api::parameters`]; nothing when it is absent.
    Parameter(u16),
}

/// A declared parameter, see [`wire::Parameter`]. Names of headers are well-formed and in lower case.
pub struct Parameter {
    /// The name callers use.
    pub name: Arc<str>,
    /// Name at the backend.
    pub backend_name: Arc<str>,
    /// Value when absent and optional.
    pub default: Option<Arc<str>>,
    /// Rules beyond the type.
    pub(super) check: Option<Arc<Check>>,
    /// Where callers put it.
    pub location: Location,
    /// Place at the backend.
    pub backend_location: Location,
    /// Type of the text, or of each element.
    pub kind: ParameterType,
    /// Whether repeated values are an array; otherwise the first is taken.
    pub array: bool,
    /// Whether it must be present.
    pub required: bool,
    /// For one in the path: which of the [`super::Captures`] is its value. `None` elsewhere.
    pub capture: Option<u8>,
}

/// A fixed value added for the backend. A header's name is well-formed and in lower case, its value well-formed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constant {
    /// Name at the backend.
    pub name: Arc<str>,
    /// Header, query or form; never the path.
    pub location: Location,
    /// The value, as it is sent before any encoding that its place asks for.
    pub value: Arc<str>,
}

/// A value of the gateway's added for the backend. A header's name is well-formed and in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct System {
    /// Which value.
    pub from: SystemParameter,
    /// Name at the backend.
    pub name: Arc<str>,
    /// Header, query or form; never the path.
    pub location: Location,
}

/// Where requests go. Backends with equal targets have the same `id` in every group and over loads for as long as any loaded group
/// uses the target, so what is kept by `id` (connection pools, health) survives changes elsewhere.
#[derive(Debug)]
pub struct Backend {
    /// Unique in this process; never used again for another target.
    pub id: u64,
    /// What to show for it, for logs and metrics.
    pub label: Arc<str>,
    /// Where and how.
    pub target: Arc<wire::Target>,
}

// === impl Call ===

impl Call {
    /// Whether the value of the parameter at this position is part of what the type needs to know.
    pub fn mentions(&self, parameter: u16) -> bool {
        match self {
            Self::Event { subject, .. } => subject.contains(&TextPiece::Parameter(parameter)),
            Self::Plain | Self::Function { .. } | Self::Object { .. } => false,
        }
    }
}

// === impl Parameter ===

impl Parameter {
    /// Whether `text`, decoded, is a value of this parameter (of an array: of one element): type, then enum, range, length, pattern
    /// and JSON Schema, in this order (Ref §4.4). Presence is the caller's matter. Allocates nothing when the value is good, but for
    /// a JSON Schema and for a pattern's first use on a thread.
    ///
    /// # Errors
    /// The first rule that is broken; its `Display` is the reason in `Invalid parameter NAME REASON` and never shows the value.
    pub fn check(&self, text: &str) -> Result<(), Violation> {
        match &self.check {
            None => check_type(self.kind, text),
            Some(check) => check.run(self.kind, text),
        }
    }
}
