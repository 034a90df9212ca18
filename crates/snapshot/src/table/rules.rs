//! What a parameter's value must satisfy (Ref §4.4).

use std::sync::Arc;

use paifang_model::ParameterType;

use super::{
    pattern::Pattern,
    schema::{Schema, SchemaViolation},
};
use crate::wire::{Number, Rules};

/// The rule that a value breaks. Shown, it completes `Invalid parameter NAME …`; it never shows the value.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Violation {
    /// Not an Int.
    #[error("must be a 32-bit integer")]
    Int,
    /// Not a Long.
    #[error("must be a 64-bit integer")]
    Long,
    /// Not a Float or Double, or too large for it.
    #[error("must be a finite decimal number")]
    Real,
    /// Not a Boolean.
    #[error("must be true or false")]
    Boolean,
    /// None of the listed values.
    #[error("must be one of the listed values")]
    OneOf,
    /// Below the smallest integer.
    #[error("must be at least {0}")]
    MinimumInteger(i64),
    /// Above the largest integer.
    #[error("must be at most {0}")]
    MaximumInteger(i64),
    /// Below the smallest number.
    #[error("must be at least {0}")]
    MinimumReal(f64),
    /// Above the largest number.
    #[error("must be at most {0}")]
    MaximumReal(f64),
    /// Fewer characters than allowed.
    #[error("must have at least {0} characters")]
    MinLength(u32),
    /// More characters than allowed.
    #[error("must have at most {0} characters")]
    MaxLength(u32),
    /// The pattern does not match.
    #[error("must match the required pattern")]
    Pattern,
    /// The JSON Schema is not satisfied.
    #[error(transparent)]
    Schema(SchemaViolation),
}

/// Rules beyond the type, ready to run. Equal ones are shared.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) one_of: Box<[Box<str>]>,
    pub(super) range: Range,
    pub(super) min_length: u32,
    pub(super) max_length: u32,
    pub(super) pattern: Option<Arc<Pattern>>,
    pub(super) schema: Option<Arc<Schema>>,
}

/// A number's bounds, both included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Range {
    Any,
    Integer(i64, i64),
    Real(f64, f64),
}

/// A value's number, if its type has one.
enum Value {
    None,
    Integer(i64),
    Real(f64),
}

// === impl Check ===

impl Check {
    pub(super) fn run(&self, kind: ParameterType, text: &str) -> Result<(), Violation> {
        let value = parse(kind, text)?;
        if !self.one_of.is_empty() && !self.one_of.iter().any(|one| **one == *text) {
            return Err(Violation::OneOf);
        }
        self.range.run(&value)?;
        self.run_length(text)?;
        if let Some(pattern) = &self.pattern
            && !pattern.is_match(text)
        {
            return Err(Violation::Pattern);
        }
        match &self.schema {
            Some(schema) => schema.check(text).map_err(Violation::Schema),
            None => Ok(()),
        }
    }

    fn run_length(&self, text: &str) -> Result<(), Violation> {
        if (self.min_length, self.max_length) == (0, u32::MAX) {
            return Ok(());
        }
        // Saturating: a longer text is above every maximum but u32::MAX, which means none.
        let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        if length < self.min_length {
            Err(Violation::MinLength(self.min_length))
        } else if length > self.max_length {
            Err(Violation::MaxLength(self.max_length))
        } else {
            Ok(())
        }
    }
}

// === impl Range ===

impl Range {
    /// Bounds for a type; says what is wrong with them otherwise.
    pub(super) fn new(kind: ParameterType, rules: &Rules) -> Result<Self, String> {
        let (minimum, maximum) = (rules.minimum, rules.maximum);
        if minimum.is_none() && maximum.is_none() {
            return Ok(Self::Any);
        }
        match kind {
            ParameterType::Int | ParameterType::Long => Ok(Self::Integer(
                minimum.map_or(Ok(i64::MIN), integer)?,
                maximum.map_or(Ok(i64::MAX), integer)?,
            )),
            ParameterType::Float | ParameterType::Double => Ok(Self::Real(
                minimum.map_or(Ok(f64::MIN), real)?,
                maximum.map_or(Ok(f64::MAX), real)?,
            )),
            ParameterType::String | ParameterType::Boolean => {
                Err("minimum and maximum need a number type".to_owned())
            }
        }
    }

    fn run(self, value: &Value) -> Result<(), Violation> {
        match (self, value) {
            (Self::Integer(minimum, _), &Value::Integer(value)) if value < minimum => {
                Err(Violation::MinimumInteger(minimum))
            }
            (Self::Integer(_, maximum), &Value::Integer(value)) if value > maximum => {
                Err(Violation::MaximumInteger(maximum))
            }
            (Self::Real(minimum, _), &Value::Real(value)) if value < minimum => {
                Err(Violation::MinimumReal(minimum))
            }
            (Self::Real(_, maximum), &Value::Real(value)) if value > maximum => {
                Err(Violation::MaximumReal(maximum))
            }
            _ => Ok(()),
        }
    }
}

fn integer(number: Number) -> Result<i64, String> {
    match number {
        Number::Integer(number) => Ok(number),
        Number::Real(_) => {
            Err("a bound of an Int or Long must be an integer of 64 bits".to_owned())
        }
    }
}

fn real(number: Number) -> Result<f64, String> {
    match number {
        // The nearest double; the value compared with it is one, too.
        #[allow(clippy::cast_precision_loss)]
        Number::Integer(number) => Ok(number as f64),
        Number::Real(number) if number.is_finite() => Ok(number),
        Number::Real(_) => Err("a bound must be a finite number".to_owned()),
    }
}

/// The type alone.
pub(super) fn check_type(kind: ParameterType, text: &str) -> Result<(), Violation> {
    parse(kind, text).map(|_| ())
}

/// Int and Long: `-` or nothing, then digits (leading zeros are fine), within 32 or 64 bits; no `+`, which a query would decode to a
/// space. Float and Double: the same, then optionally a fraction `.digits` and an exponent `e`/`E`, sign, digits, finite in single or
/// double precision; so neither `NaN` nor `Infinity`, hexadecimal, `.5` or `5.`. Boolean: `true` or `false` in any case.
fn parse(kind: ParameterType, text: &str) -> Result<Value, Violation> {
    match kind {
        ParameterType::String => Ok(Value::None),
        ParameterType::Int => parse_integer(text)
            .filter(|&number| i32::try_from(number).is_ok())
            .map(Value::Integer)
            .ok_or(Violation::Int),
        ParameterType::Long => parse_integer(text)
            .map(Value::Integer)
            .ok_or(Violation::Long),
        ParameterType::Float => parse_real(text)
            .filter(|_| text.parse::<f32>().is_ok_and(f32::is_finite))
            .map(Value::Real)
            .ok_or(Violation::Real),
        ParameterType::Double => parse_real(text).map(Value::Real).ok_or(Violation::Real),
        ParameterType::Boolean => {
            let known = text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
            known.then_some(Value::None).ok_or(Violation::Boolean)
        }
    }
}

fn parse_integer(text: &str) -> Option<i64> {
    if text.starts_with('+') {
        return None;
    }
    text.parse().ok()
}

fn parse_real(text: &str) -> Option<f64> {
    let rest = skip_digits(text.strip_prefix('-').unwrap_or(text))?;
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => skip_digits(fraction)?,
        None => rest,
    };
    let rest = match rest.strip_prefix(['e', 'E']) {
        Some(exponent) => skip_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))?,
        None => rest,
    };
    if !rest.is_empty() {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// What follows one or more digits.
fn skip_digits(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < text.len()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::{
        ParameterType::{Boolean, Double, Float, Int, Long, String},
        *,
    };
    use crate::table::{compile_pattern, compile_schema};

    fn check(
        kind: ParameterType,
        change: impl FnOnce(&mut Check),
        text: &str,
    ) -> Option<Violation> {
        let mut check = Check {
            one_of: Box::default(),
            range: Range::Any,
            min_length: 0,
            max_length: u32::MAX,
            pattern: None,
            schema: None,
        };
        change(&mut check);
        check.run(kind, text).err()
    }

    #[test]
    fn types() {
        let rows = [
            (String, "", true),
            (Int, "0", true),
            (Int, "-2147483648", true),
            (Int, "2147483647", true),
            (Int, "2147483648", false),
            (Int, "007", true),
            (Int, "-0", true),
            (Int, "+1", false),
            (Int, "", false),
            (Int, "-", false),
            (Int, "1.0", false),
            (Int, " 1", false),
            (Int, "1_000", false),
            (Int, "٣", false),
            (Int, "0x10", false),
            (Long, "9223372036854775807", true),
            (Long, "9223372036854775808", false),
            (Long, "-9223372036854775808", true),
            (Double, "1", true),
            (Double, "-1.5e-3", true),
            (Double, "1E+9", true),
            (Double, "1e308", true),
            (Double, "1e309", false),
            (Float, "3.4e38", true),
            (Float, "1e39", false),
            (Double, "NaN", false),
            (Double, "inf", false),
            (Double, "-Infinity", false),
            (Double, ".5", false),
            (Double, "5.", false),
            (Double, "1e", false),
            (Double, "+1", false),
            (Double, "", false),
            (Boolean, "true", true),
            (Boolean, "FALSE", true),
            (Boolean, "1", false),
            (Boolean, "", false),
        ];
        for (kind, text, good) in rows {
            assert_eq!(check_type(kind, text).is_ok(), good, "{kind:?} {text:?}");
            assert_eq!(
                check(kind, |_| (), text).is_none(),
                good,
                "{kind:?} {text:?}"
            );
        }
    }

    #[test]
    fn ranges_include_their_bounds() {
        let within = |range, kind, text| check(kind, |it| it.range = range, text);
        let whole = Range::Integer(-1, i64::MAX);
        assert_eq!(within(whole, Long, "9223372036854775807"), None);
        assert_eq!(within(whole, Int, "-1"), None);
        assert_eq!(
            within(whole, Int, "-2"),
            Some(Violation::MinimumInteger(-1))
        );
        let real = Range::Real(0.5, 2.0);
        assert_eq!(within(real, Double, "0.5"), None);
        assert_eq!(
            within(real, Double, "0.4"),
            Some(Violation::MinimumReal(0.5))
        );
        assert_eq!(
            within(real, Float, "2.01"),
            Some(Violation::MaximumReal(2.0))
        );
        // Next to 2^53 a double could not tell these apart.
        let fine = Range::Integer(9_007_199_254_740_993, 9_007_199_254_740_993);
        assert_eq!(within(fine, Long, "9007199254740993"), None);
        assert!(within(fine, Long, "9007199254740992").is_some());
    }

    #[test]
    fn bounds_must_fit_the_type() {
        let new = |kind, minimum| {
            let rules = Rules {
                minimum: Some(minimum),
                ..Rules::default()
            };
            Range::new(kind, &rules)
        };
        assert_eq!(
            new(Int, Number::Integer(3)),
            Ok(Range::Integer(3, i64::MAX))
        );
        assert_eq!(
            new(Float, Number::Integer(3)),
            Ok(Range::Real(3.0, f64::MAX))
        );
        assert!(new(Long, Number::Real(0.5)).is_err());
        assert!(new(Double, Number::Real(f64::NAN)).is_err());
        assert!(new(String, Number::Integer(1)).is_err());
    }

    #[test]
    fn lengths_count_characters() {
        let within = |text| check(String, |it| (it.min_length, it.max_length) = (2, 3), text);
        assert_eq!(within("天气"), None);
        assert_eq!(within("天"), Some(Violation::MinLength(2)));
        assert_eq!(within("abcd"), Some(Violation::MaxLength(3)));
    }

    #[test]
    fn the_first_broken_rule_is_named_and_the_value_is_not() {
        let all = |it: &mut Check| {
            it.one_of = ["7".into(), "12345".into(), "800".into(), "9".into()].into();
            it.range = Range::Integer(8, 20_000);
            it.max_length = 4;
            it.pattern = Some(Arc::new(compile_pattern("^[0-7]+$").unwrap()));
            it.schema = Some(Arc::new(compile_schema(r#"{"enum": [1]}"#).unwrap()));
        };
        let rows = [
            ("secret", Violation::Int, "must be a 32-bit integer"),
            ("8", Violation::OneOf, "must be one of the listed values"),
            ("7", Violation::MinimumInteger(8), "must be at least 8"),
            (
                "12345",
                Violation::MaxLength(4),
                "must have at most 4 characters",
            ),
            ("9", Violation::Pattern, "must match the required pattern"),
        ];
        for (text, expected, shown) in rows {
            let violation = check(Int, all, text).unwrap();
            assert_eq!((violation, &*violation.to_string()), (expected, shown));
        }
        assert!(matches!(check(Int, all, "800"), Some(Violation::Pattern)));
        let schema_only = |it: &mut Check| {
            it.schema = Some(Arc::new(compile_schema(r#"{"enum": [1]}"#).unwrap()));
        };
        assert_eq!(check(Int, schema_only, "1"), None);
        assert_eq!(
            check(Int, schema_only, "2").unwrap().to_string(),
            "must satisfy its JSON Schema"
        );
    }
}
