//! What compile says about each object: conditions, problems, and the facts for its status.
//!
//! Compile knows what is published, not what gateways really serve: `Programmed` and `Ready` start as unknown, and who hears from
//! the gateways sets them with [`Verdict::programmed`]. Nothing in here is secret.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock},
};

use paifang_model::{ObjectName, Stage};

use crate::{ByStage, CertificateFacts};

/// What compile says about one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// `Accepted`, `ResolvedRefs`, `Programmed` and `Ready` in this order; behind them the negative ones that are true. Shared: most
    /// verdicts say the same.
    pub conditions: Arc<Vec<Condition>>,
    /// Everything that is wrong, in the order of the fields.
    pub problems: Vec<Problem>,
    /// Facts for the status.
    pub status: Status,
}

/// One condition, without times and generations, which the caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Which.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// A stable CamelCase word.
    pub reason: &'static str,
    /// For people; names the field and the fix.
    pub message: String,
}

/// The conditions of product.md §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKind {
    /// The object is valid, and in force as written.
    Accepted,
    /// Everything it refers to is there and allowed.
    ResolvedRefs,
    /// Gateways have it.
    Programmed,
    /// All of the above: kstatus.
    Ready,
    /// Another object holds what it asks for.
    Conflicted,
    /// Some part of it is not served.
    PartiallyInvalid,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, `spec.request.parameters[2].pattern`.
    pub field: String,
    /// The stable word.
    pub reason: Reason,
    /// What is wrong.
    pub message: String,
    /// What to write instead; may be empty when the message says it.
    pub fix: String,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $aspect:ident,)*) => {
        /// Why something is refused: one stable word each, for conditions, metrics and tests.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The condition it shows in.
            pub const fn condition(self) -> ConditionKind {
                match self { $(Self::$name => ConditionKind::$aspect,)* }
            }
        }
    };
}

reasons! {
    /// The object is not of its kind's shape.
    Malformed => Accepted,
    /// A field that must be there is not.
    Required => Accepted,
    /// A value is not what the field takes.
    InvalidValue => Accepted,
    /// Text beyond its limit.
    TooLong => Accepted,
    /// More entries than allowed.
    TooMany => Accepted,
    /// A number outside its range.
    OutOfRange => Accepted,
    /// The same thing twice in one object.
    Duplicate => Accepted,
    /// Fields that exclude each other, or one that has no meaning here.
    Contradiction => Accepted,
    /// A path or template that cannot be.
    InvalidPath => Accepted,
    /// A `[name]` of a path and the parameters do not fit together.
    PathParameterMismatch => Accepted,
    /// A host name that cannot be.
    InvalidHost => Accepted,
    /// A backend address that cannot be.
    InvalidAddress => Accepted,
    /// An address that the platform team's settings do not allow.
    AddressNotAllowed => Accepted,
    /// Not a stage name.
    InvalidStage => Accepted,
    /// A regular expression that does not compile.
    InvalidPattern => Accepted,
    /// A JSON Schema that does not compile.
    InvalidJsonSchema => Accepted,
    /// A field that cannot be changed was changed.
    Immutable => Accepted,
    /// A stage with `deletionPolicy: Block` that published Apis use was removed.
    StageInUse => Accepted,
    /// A domain that the platform team's settings do not allow here.
    DomainNotAllowed => Accepted,
    /// The group has as many Apis or domains as it may.
    GroupFull => Accepted,
    /// The ApiGroup is not there, or has never been valid.
    GroupNotFound => ResolvedRefs,
    /// The ApiGroup does not take Apis of this namespace.
    NamespaceNotAllowed => ResolvedRefs,
    /// The BackendService is not there, or has never been valid.
    BackendNotFound => ResolvedRefs,
    /// The Service is not there.
    ServiceNotFound => ResolvedRefs,
    /// The Service has no such port.
    ServicePortNotFound => ResolvedRefs,
    /// No ReferenceGrant allows it.
    ReferenceNotGranted => ResolvedRefs,
    /// The Secret is not there.
    SecretNotFound => ResolvedRefs,
    /// The Secret lacks a key, or what it has cannot be used.
    SecretInvalid => ResolvedRefs,
    /// The App is not there, or has never been valid.
    AppNotFound => ResolvedRefs,
    /// The Api is not there.
    ApiNotFound => ResolvedRefs,
    /// Another object holds it already.
    Conflicted => Conflicted,
    /// The backend service has no configuration for the stage.
    BackendStageMissing => PartiallyInvalid,
    /// A `#Name#` has no value in the stage, or one that does not fit.
    StageVariableMissing => PartiallyInvalid,
    /// The Api has no release of that number.
    ReleaseNotFound => PartiallyInvalid,
    /// The Api has no valid draft yet, so no release.
    NoRelease => PartiallyInvalid,
    /// A stored release that this version cannot read.
    ReleaseInvalid => PartiallyInvalid,
    /// The backend cannot be used as configured: something it needs is missing.
    BackendUnavailable => PartiallyInvalid,
    /// What the Api says to its backend belongs to another type, or something that this type needs is not said.
    BackendTypeMismatch => PartiallyInvalid,
    /// The certificate is not for this domain.
    CertificateMismatch => PartiallyInvalid,
}

/// Facts for an object's status.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// Of an ApiGroup.
    ApiGroup(Box<GroupStatus>),
    /// Of a BackendService.
    BackendService(BackendServiceStatus),
    /// Of an Api.
    Api(ApiStatus),
    /// Of an App.
    App(AppStatus),
    /// Of an Authorization.
    Authorization,
    /// Of a DomainBinding.
    DomainBinding(DomainStatus),
}

/// Facts about an ApiGroup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupStatus {
    /// 32 hexadecimal digits: from the uid, or from namespace and name.
    pub group_id: String,
    /// Its public sub-domain, unless switched off.
    pub public: Option<String>,
    /// Its internal sub-domain, when switched on.
    pub internal: Option<String>,
    /// Apis published per stage.
    pub apis: BTreeMap<Stage, u32>,
    /// Hosts bound to it.
    pub domains: Vec<String>,
}

/// Facts about a BackendService.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendServiceStatus {
    /// Its stages, with those that Apis ask for though it lacks them.
    pub stages: BTreeMap<Stage, BackendStageStatus>,
    /// Apis whose draft names it.
    pub drafts: u32,
}

/// One stage of a BackendService.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackendStageStatus {
    /// Apis published in the stage through it.
    pub apis: u32,
    /// Apis that should be and are not, with the reason; by namespace and name.
    pub failures: Vec<BackendFailure>,
}

/// An Api that a BackendService cannot serve in a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendFailure {
    /// The Api.
    pub api: ObjectName,
    /// Its ApiGroup.
    pub group: ObjectName,
    /// Why.
    pub problem: Problem,
}

/// Facts about an Api.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiStatus {
    /// Number of the newest release.
    pub latest_release: Option<u64>,
    /// Every stage it lists.
    pub stages: ByStage<StageStatus>,
}

/// One stage of an Api.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StageStatus {
    /// The release that is published; none means offline.
    pub release: Option<u64>,
    /// Hash of its content.
    pub hash: Option<Arc<str>>,
    /// The ApiGroup it is published in.
    pub group: Option<Arc<ObjectName>>,
    /// The BackendService it goes through; none when its backend is inline.
    pub service: Option<Arc<ObjectName>>,
    /// Where it goes: the backend's address in this stage.
    pub address: Option<Arc<str>>,
    /// Why what was asked for is not published. With a release beside it, the release that the stage had before goes on.
    pub problem: Option<Box<Problem>>,
}

/// Facts about an App.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppStatus {
    /// Its number, the value of `CaAppId`; at most 15 digits.
    pub app_id: u64,
    /// Its credentials, in the order of the spec in force. Whether one has expired is for who has a clock.
    pub credentials: Vec<CredentialStatus>,
}

/// One credential of an App.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialStatus {
    /// Its name inside the App.
    pub name: String,
    /// The AppKey of a key pair, when its Secret has one. Public.
    pub app_key: Option<String>,
    /// Start, milliseconds since the epoch.
    pub not_before_ms: Option<i64>,
    /// End, milliseconds since the epoch.
    pub expires_at_ms: Option<i64>,
    /// Why it cannot be used.
    pub problem: Option<Problem>,
}

/// Facts about a DomainBinding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DomainStatus {
    /// Whether the host answers.
    pub published: bool,
    /// What is known of the certificate in use.
    pub certificate: Option<CertificateFacts>,
}

// === impl Problem ===

impl Problem {
    /// All four parts.
    pub fn new(
        field: impl Into<String>,
        reason: Reason,
        message: impl fmt::Display,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            reason,
            message: message.to_string(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)?;
        if self.fix.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.fix)
        }
    }
}

// === impl ConditionKind ===

impl ConditionKind {
    /// As in `status.conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Ready => "Ready",
            Self::Conflicted => "Conflicted",
            Self::PartiallyInvalid => "PartiallyInvalid",
        }
    }
}

// === impl ConditionStatus ===

impl ConditionStatus {
    /// As in `status.conditions[].status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl StageStatus ===

impl StageStatus {
    /// Whether the stage serves a release.
    pub fn is_published(&self) -> bool {
        self.release.is_some()
    }
}

// === impl Verdict ===

impl Verdict {
    /// The verdict that follows from `problems`. `effect` says what stays in force when the object is not accepted; `notes` are said
    /// in the message of an accepted one.
    pub(crate) fn judge(
        problems: Vec<Problem>,
        effect: &str,
        notes: &[String],
        status: Status,
    ) -> Self {
        let conditions = if problems.is_empty() && notes.is_empty() {
            Arc::clone(&NOTHING_WRONG)
        } else {
            Arc::new(conditions(&problems, effect, notes))
        };
        Self {
            conditions,
            problems,
            status,
        }
    }

    /// One condition, when it is there.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }

    /// Whether there is nothing to complain about.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Sets `Programmed`, and `Ready` with it, to what the gateways report.
    pub fn programmed(&mut self, reported: bool, message: impl Into<String>) {
        let message = message.into();
        let conditions = Arc::make_mut(&mut self.conditions);
        for condition in &mut *conditions {
            if condition.kind == ConditionKind::Programmed {
                condition.status = if reported {
                    ConditionStatus::True
                } else {
                    ConditionStatus::False
                };
                condition.reason = if reported { "Programmed" } else { "Pending" };
                condition.message.clone_from(&message);
            }
        }
        let ready = ready(conditions, &self.problems);
        if let Some(condition) = conditions
            .iter_mut()
            .find(|condition| condition.kind == ConditionKind::Ready)
        {
            *condition = ready;
        }
    }
}

/// The conditions of what nothing is wrong with.
static NOTHING_WRONG: LazyLock<Arc<Vec<Condition>>> =
    LazyLock::new(|| Arc::new(conditions(&[], "", &[])));

fn conditions(problems: &[Problem], effect: &str, notes: &[String]) -> Vec<Condition> {
    let mut conditions = vec![
        positive(ConditionKind::Accepted, problems, effect, notes),
        positive(ConditionKind::ResolvedRefs, problems, "", &[]),
    ];
    conditions.push(Condition {
        kind: ConditionKind::Programmed,
        status: ConditionStatus::Unknown,
        reason: "Pending",
        message: "waiting for the gateways".to_owned(),
    });
    conditions.push(ready(&conditions, problems));
    for kind in [ConditionKind::Conflicted, ConditionKind::PartiallyInvalid] {
        conditions.extend(negative(kind, problems));
    }
    conditions
}

fn of(kind: ConditionKind, problems: &[Problem]) -> impl Iterator<Item = &Problem> {
    problems
        .iter()
        .filter(move |problem| problem.reason.condition() == kind)
}

/// A conflict keeps an object from being accepted as written; it also has a condition of its own.
fn positive(
    kind: ConditionKind,
    problems: &[Problem],
    effect: &str,
    notes: &[String],
) -> Condition {
    let against: Vec<&Problem> = problems
        .iter()
        .filter(|problem| {
            let shows = problem.reason.condition();
            shows == kind || (kind == ConditionKind::Accepted && shows == ConditionKind::Conflicted)
        })
        .collect();
    match against.first() {
        None => Condition {
            kind,
            status: ConditionStatus::True,
            reason: kind.as_str(),
            message: notes.join("; "),
        },
        Some(first) => Condition {
            kind,
            status: ConditionStatus::False,
            reason: first.reason.as_str(),
            message: sentences(against.iter().copied(), effect),
        },
    }
}

fn negative(kind: ConditionKind, problems: &[Problem]) -> Option<Condition> {
    let first = of(kind, problems).next()?;
    Some(Condition {
        kind,
        status: ConditionStatus::True,
        reason: first.reason.as_str(),
        message: sentences(of(kind, problems), ""),
    })
}

/// Ready is what kstatus looks at: false as soon as anything is wrong, true only when the gateways report all of it.
fn ready(conditions: &[Condition], problems: &[Problem]) -> Condition {
    let (status, reason, message) = if let Some(first) = problems.first() {
        (
            ConditionStatus::False,
            first.reason.as_str(),
            first.to_string(),
        )
    } else if let Some(pending) = conditions
        .iter()
        .filter(|condition| condition.kind < ConditionKind::Ready)
        .find(|condition| condition.status != ConditionStatus::True)
    {
        (pending.status, pending.reason, pending.message.clone())
    } else {
        (ConditionStatus::True, "Ready", String::new())
    };
    Condition {
        kind: ConditionKind::Ready,
        status,
        reason,
        message,
    }
}

/// Problems as one message, bounded: the first ten, then how many more.
fn sentences<'a>(problems: impl Iterator<Item = &'a Problem>, effect: &str) -> String {
    const SHOWN: usize = 10;
    let mut said: Vec<String> = problems.map(ToString::to_string).collect();
    let more = said.len().saturating_sub(SHOWN);
    said.truncate(SHOWN);
    if more > 0 {
        said.push(format!("and {more} more"));
    }
    if !effect.is_empty() {
        said.push(effect.to_owned());
    }
    said.join(". ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(verdict: &Verdict) -> Vec<String> {
        let line =
            |it: &Condition| format!("{}={} {}", it.kind.as_str(), it.status.as_str(), it.reason);
        verdict.conditions.iter().map(line).collect()
    }

    fn verdict(reasons: &[Reason]) -> Verdict {
        let problem = |reason: &Reason| Problem::new("spec.a", *reason, "is wrong", "mend it");
        let problems = reasons.iter().map(problem).collect();
        Verdict::judge(problems, "", &[], Status::Authorization)
    }

    #[test]
    fn ready_waits_for_the_gateways() {
        let mut good = verdict(&[]);
        assert_eq!(shown(&good)[3], "Ready=Unknown Pending");
        good.programmed(true, "3 of 3 gateways");
        assert_eq!(
            shown(&good)[2..],
            ["Programmed=True Programmed", "Ready=True Ready"]
        );
        good.programmed(false, "2 of 3 gateways");
        assert_eq!(
            shown(&good)[2..],
            ["Programmed=False Pending", "Ready=False Pending"]
        );
    }

    #[test]
    fn a_problem_shows_in_its_condition_and_in_ready() {
        let rows = [
            (Reason::InvalidPath, "Accepted=False InvalidPath", 0, 4),
            (
                Reason::SecretNotFound,
                "ResolvedRefs=False SecretNotFound",
                1,
                4,
            ),
            (Reason::Conflicted, "Accepted=False Conflicted", 0, 5),
            (
                Reason::BackendStageMissing,
                "PartiallyInvalid=True BackendStageMissing",
                4,
                5,
            ),
        ];
        for (reason, expected, at, count) in rows {
            let mut verdict = verdict(&[reason]);
            verdict.programmed(true, "");
            let conditions = shown(&verdict);
            assert_eq!(conditions[at], expected);
            assert_eq!(conditions[3], format!("Ready=False {reason}"));
            assert_eq!(conditions.len(), count, "{conditions:?}");
        }
    }

    #[test]
    fn a_message_is_bounded() {
        let many = verdict(&[Reason::Required; 12]);
        let message = &many.conditions[0].message;
        assert_eq!(message.matches("is wrong").count(), 10);
        assert!(message.ends_with("and 2 more"), "{message}");
    }
}
