//! The collector of problems that all parsers share.

use std::fmt::Display;

use paifang_model::Stage;

use super::text;
use crate::{Problem, Reason, Settings};

/// Stages that one object may speak of.
const MAX_STAGES: usize = 20;

/// Collects the problems of one object.
pub(crate) struct Check<'a> {
    /// The platform team's settings.
    pub(crate) settings: &'a Settings,
    /// What was found, in order.
    pub(crate) problems: Vec<Problem>,
}

// === impl Check ===

impl<'a> Check<'a> {
    /// Nothing found yet.
    pub(crate) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            problems: Vec::new(),
        }
    }

    /// One more problem.
    pub(crate) fn add(
        &mut self,
        field: impl Into<String>,
        reason: Reason,
        message: impl Display,
        fix: impl Into<String>,
    ) {
        self.problems
            .push(Problem::new(field, reason, message, fix));
    }

    /// The value, or its error as a problem. The errors of `model` say what to write instead.
    pub(crate) fn take<T, E: Display>(
        &mut self,
        field: &str,
        reason: Reason,
        result: Result<T, E>,
    ) -> Option<T> {
        result
            .map_err(|error| self.add(field, reason, error, ""))
            .ok()
    }

    /// Text of at most `max` characters.
    pub(crate) fn length(&mut self, field: &str, written: Option<&str>, max: usize) {
        let length = written.map_or(0, |text| text.chars().count());
        if length > max {
            self.add(
                field,
                Reason::TooLong,
                format!("has {length} characters"),
                format!("at most {max} are allowed"),
            );
        }
    }

    /// At most `max` entries.
    pub(crate) fn count(&mut self, field: &str, count: usize, max: usize) {
        if count > max {
            self.add(
                field,
                Reason::TooMany,
                format!("has {count} entries"),
                format!("at most {max} are allowed"),
            );
        }
    }

    /// A number within its range.
    pub(crate) fn range<T: PartialOrd + Display>(
        &mut self,
        field: &str,
        value: T,
        least: T,
        most: T,
    ) {
        if value < least || value > most {
            self.add(
                field,
                Reason::OutOfRange,
                format!("is {value}"),
                format!("write a number from {least} to {most}"),
            );
        }
    }

    /// A name shown to people (Ref §10).
    pub(crate) fn display_name(&mut self, name: Option<&str>, most: usize) {
        let Some(name) = name else { return };
        let length = name.chars().count();
        if !(4..=most).contains(&length) || !text::is_display_name(name) {
            self.add(
                "spec.displayName",
                Reason::InvalidValue,
                format!("`{}` is not a display name", text::short(name)),
                format!("write a Chinese or Latin letter, then letters, digits and `_`; 4 to {most} characters"),
            );
        }
    }

    /// The name of a Kubernetes object (RFC 1123).
    pub(crate) fn object_name(&mut self, field: &str, name: &str) {
        if !text::is_object_name(name) {
            self.add(
                field,
                Reason::InvalidValue,
                format!("`{}` is not the name of an object", text::short(name)),
                "write lower-case letters, digits, `-` and `.`; at most 253",
            );
        }
    }

    /// The name of a namespace or a label of a host (RFC 1123).
    pub(crate) fn label(&mut self, field: &str, name: &str) {
        if name.len() > 63 || name.contains('.') || !text::is_object_name(name) {
            self.add(
                field,
                Reason::InvalidValue,
                format!("`{}` is not a DNS label", text::short(name)),
                "write lower-case letters, digits and `-`; at most 63",
            );
        }
    }

    /// A reference that may name a namespace.
    pub(crate) fn reference(&mut self, field: &str, name: &str, namespace: Option<&str>) {
        self.object_name(&format!("{field}.name"), name);
        if let Some(namespace) = namespace {
            self.label(&format!("{field}.namespace"), namespace);
        }
    }

    /// The name of a stage.
    pub(crate) fn stage(&mut self, field: &str, name: &str) -> Option<Stage> {
        self.take(field, Reason::InvalidStage, name.parse())
    }

    /// At most 20 stages.
    pub(crate) fn stage_count(&mut self, field: &str, count: usize) {
        self.count(field, count, MAX_STAGES);
    }

    /// The name of a header (RFC 9110 §5.1).
    pub(crate) fn header_name(&mut self, field: &str, name: &str) {
        if !text::is_token(name) {
            self.add(
                field,
                Reason::InvalidValue,
                format!("`{}` is not a header name", text::short(name)),
                "write letters, digits and `-`",
            );
        }
    }

    /// The value of a header (RFC 9110 §5.5).
    pub(crate) fn header_value(&mut self, field: &str, value: &str) {
        if !text::is_field_value(value) {
            self.add(
                field,
                Reason::InvalidValue,
                "is not a header value",
                "write visible text without line breaks, and no space at either end",
            );
        }
    }

    /// A `Host` header: a name or an address, and perhaps a port.
    pub(crate) fn authority(&mut self, field: &str, authority: &str) {
        if paifang_model::normalise_host(authority).is_none() {
            self.add(
                field,
                Reason::InvalidHost,
                format!("`{}` is not a Host header", text::short(authority)),
                "write a host name or IP address, and perhaps `:port`",
            );
        }
    }

    /// A header that the gateway manages itself may not be set towards the backend.
    pub(crate) fn not_managed(&mut self, field: &str, name: &str) {
        const MANAGED: [&str; 11] = [
            "connection",
            "content-length",
            "expect",
            "host",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
        ];
        if MANAGED
            .iter()
            .any(|managed| name.eq_ignore_ascii_case(managed))
        {
            self.add(
                field,
                Reason::InvalidValue,
                format!(
                    "`{}` is a header that the gateway manages",
                    text::short(name)
                ),
                "choose another name; a backend's Host is set in its configuration",
            );
        }
    }

    /// Whether nothing was found since `mark` problems.
    pub(crate) fn clean_since(&self, mark: usize) -> bool {
        self.problems.len() == mark
    }
}
