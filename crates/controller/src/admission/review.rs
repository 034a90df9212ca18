//! AdmissionReview, as much of `admission.k8s.io/v1` as is asked and answered here.
//!
//! Read leniently: what is not needed is not looked at, so that an object of any shape can be asked about.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";

/// What the API server asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    /// The question's, to be repeated in the answer.
    pub(super) uid: String,
    pub(super) kind: GroupKind,
    #[serde(default)]
    pub(super) sub_resource: Option<String>,
    /// Empty where the API server makes the name, and when many objects are deleted at once.
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) namespace: Option<String>,
    pub(super) operation: Operation,
    /// The object as it would be.
    #[serde(default)]
    pub(super) object: Option<Thing>,
    /// The object as it is.
    #[serde(default)]
    pub(super) old_object: Option<Thing>,
}

/// What kind of object.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct GroupKind {
    #[serde(default)]
    pub(super) group: String,
    pub(super) kind: String,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    #[serde(other)]
    Other,
}

/// An object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Thing {
    pub(super) metadata: Metadata,
    pub(super) spec: Option<Value>,
}

/// What matters of its metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) creation_timestamp: Option<Time>,
    /// Whether it is about to go.
    pub(super) deletion_timestamp: Option<IgnoredAny>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) uid: String,
    /// Why not; absent when it may be.
    pub(super) refusal: Option<Refusal>,
    pub(super) warnings: Vec<String>,
}

/// Why an object may not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP status.
    pub(super) code: u16,
    /// Kubernetes' word for it.
    pub(super) reason: &'static str,
    /// For people, all of it.
    pub(super) message: String,
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// Field and message of each, for tools that show them by themselves as kubectl does.
    pub(super) causes: Vec<(String, String)>,
}

/// Why there is no question.
pub(super) enum Unreadable {
    /// There is one, and it can be answered, but not what it is about.
    Question { uid: String, why: String },
    /// It is no AdmissionReview that can be answered.
    Review(String),
}

// === impl Asked ===

impl Asked {
    /// Reads the body of a request.
    pub(super) fn read(body: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Review<R> {
            api_version: String,
            request: R,
        }
        #[derive(Deserialize)]
        struct Uid {
            uid: String,
        }
        let error = match serde_json::from_slice::<Review<Self>>(body) {
            Ok(review) if review.api_version == API_VERSION => return Ok(review.request),
            Ok(review) => {
                let version: String = review.api_version.chars().take(80).collect();
                return Err(Unreadable::Review(format!(
                    "{version} is not spoken here; {API_VERSION} is"
                )));
            }
            Err(error) => error,
        };
        match serde_json::from_slice::<Review<Uid>>(body) {
            Ok(review) if review.api_version == API_VERSION => Err(Unreadable::Question {
                uid: review.request.uid,
                why: error.to_string(),
            }),
            _ => Err(Unreadable::Review(format!(
                "not an AdmissionReview of {API_VERSION}: {error}"
            ))),
        }
    }
}

// === impl Operation ===

impl Operation {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Other => "other",
        }
    }
}

// === impl Answer ===

impl Answer {
    /// As JSON.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut response = json!({"uid": self.uid, "allowed": self.refusal.is_none()});
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        if let Some(refusal) = &self.refusal {
            response["status"] = refusal.status();
        }
        let review = json!({
            "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response,
        });
        review.to_string().into_bytes()
    }
}

impl Refusal {
    fn status(&self) -> Value {
        let cause = |(field, message): &(String, String)| json!({"reason": "FieldValueInvalid", "field": field, "message": message});
        let causes: Vec<Value> = self.causes.iter().map(cause).collect();
        json!({
            "status": "Failure", "code": self.code, "reason": self.reason, "message": self.message,
            "details": {
                "group": paifang_resources::GROUP, "kind": self.kind, "name": self.name,
                "causes": causes,
            },
        })
    }
}
