//! Stages (环境): the environments in which a caller may find an API.

use std::{fmt, str::FromStr};

/// A stage name: `TEST`, `PRE`, `RELEASE`, or a custom one of 2–10 upper-case letters or digits (Ref §5.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stage(Box<str>);

/// Why a text is not a stage name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a stage name: use TEST, PRE, RELEASE, or 2 to 10 upper-case letters or digits"
)]
pub struct InvalidStage(String);

// === impl Stage ===

impl Stage {
    /// The stage of a caller that names none (Ref §4.1).
    pub const DEFAULT: &'static str = "RELEASE";

    /// The stage of a caller that names none: `RELEASE`.
    pub fn release() -> Self {
        Self(Self::DEFAULT.into())
    }

    /// The name as callers write it in `X-Ca-Stage`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Stage {
    type Err = InvalidStage;

    fn from_str(text: &str) -> Result<Self, InvalidStage> {
        let well_formed = (2..=10).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(InvalidStage(text.chars().take(40).collect()))
        }
    }
}

impl TryFrom<String> for Stage {
    type Error = InvalidStage;

    fn try_from(text: String) -> Result<Self, InvalidStage> {
        text.parse()
    }
}

impl From<Stage> for String {
    fn from(stage: Stage) -> Self {
        stage.0.into()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_two_to_ten_upper_case_letters_or_digits() {
        for good in ["TEST", "PRE", "RELEASE", "A1", "0123456789"] {
            assert!(good.parse::<Stage>().is_ok(), "{good}");
        }
        for bad in ["", "A", "test", "RELEASE-1", "ABCDEFGHIJK", "环境", "TE ST"] {
            assert!(bad.parse::<Stage>().is_err(), "{bad}");
        }
    }
}
