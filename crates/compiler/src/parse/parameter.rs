//! A parameter of an Api (Ref §4.4).

use paifang_model::{Location, ParameterType};
use paifang_resources::{
    Location as WrittenLocation, Parameter as Written, ParameterType as WrittenType,
};
use paifang_snapshot::{
    table::{compile_pattern, compile_schema},
    wire::{Number, Parameter, Rules},
};

use super::{Check, text};
use crate::Reason;

/// Parses one parameter; everything but patterns and schemas, see [`compile_rules`]. Fails only with problems in `check`.
pub(super) fn parse(field: &str, written: &Written, check: &mut Check<'_>) -> Option<Parameter> {
    let mark = check.problems.len();
    let location = location(written.in_);
    let kind = kind(written.type_);
    let target = written.backend.as_ref();
    let backend_location = target
        .and_then(|target| target.in_)
        .map_or(location, self::location);
    let backend_name = target
        .and_then(|target| target.name.as_ref())
        .unwrap_or(&written.name);
    check_name(&format!("{field}.name"), &written.name, location, check);
    let target_field = match target {
        Some(_) => format!("{field}.backend.name"),
        None => format!("{field}.name"),
    };
    check_name(&target_field, backend_name, backend_location, check);
    if backend_location == Location::Header {
        check.not_managed(&target_field, backend_name);
    }
    check_texts(field, written, check);
    check_array(field, written, location, backend_location, check);
    let rules = parse_rules(field, written, kind, check);
    check_default(field, written, kind, &rules, check);
    if backend_location == Location::Path
        && location != Location::Path
        && !written.required
        && written.default.is_none()
    {
        check.add(
            format!("{field}.required"),
            Reason::Required,
            "goes into the backend's path, which cannot be without it",
            "write `required: true`, or a default",
        );
    }
    check.clean_since(mark).then(|| Parameter {
        name: written.name.clone(),
        location,
        kind,
        array: written.array,
        required: written.required || location == Location::Path,
        default: written.default.clone(),
        rules,
        backend_name: backend_name.clone(),
        backend_location,
    })
}

/// Compiles the pattern and the schema, which takes longer than all the rest, and tries the default on them.
pub(super) fn compile_rules(field: &str, written: &Written, check: &mut Check<'_>) {
    let default = written.default.as_deref();
    let mut unfit = false;
    if let Some(pattern) = &written.pattern {
        let compiled = compile_pattern(pattern);
        let field = format!("{field}.pattern");
        if let Some(compiled) = check.take(&field, Reason::InvalidPattern, compiled) {
            unfit |= default.is_some_and(|default| !compiled.is_match(default));
        }
    }
    if let Some(schema) = &written.json_schema {
        let compiled = compile_schema(schema);
        let field = format!("{field}.jsonSchema");
        if let Some(compiled) = check.take(&field, Reason::InvalidJsonSchema, compiled) {
            unfit |= default.is_some_and(|default| compiled.check(default).is_err());
        }
    }
    if unfit {
        bad_default(field, check);
    }
}

/// Whether `text` is a value of this type, as the gateway reads it.
pub(super) fn is_value(kind: ParameterType, text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let integer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match kind {
        ParameterType::String => true,
        ParameterType::Int => integer && text.parse::<i32>().is_ok(),
        ParameterType::Long => integer && text.parse::<i64>().is_ok(),
        ParameterType::Float => is_decimal(digits) && text.parse::<f32>().is_ok_and(f32::is_finite),
        ParameterType::Double => {
            is_decimal(digits) && text.parse::<f64>().is_ok_and(f64::is_finite)
        }
        ParameterType::Boolean => {
            text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
        }
    }
}

/// `digits[.digits][e[±]digits]`.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let exponent = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    digits(whole) && fraction.is_none_or(digits) && exponent.is_none_or(digits)
}

fn check_name(field: &str, name: &str, location: Location, check: &mut Check<'_>) {
    if location == Location::Header {
        check.header_name(field, name);
    } else if !text::is_parameter_name(name) {
        check.add(
            field,
            Reason::InvalidValue,
            format!("`{}` is not a parameter's name", text::short(name)),
            "write 1 to 64 characters without spaces",
        );
    }
}

fn check_texts(field: &str, written: &Written, check: &mut Check<'_>) {
    let rows = [
        ("default", written.default.as_deref(), 1024),
        ("pattern", written.pattern.as_deref(), 1024),
        ("jsonSchema", written.json_schema.as_deref(), 16_384),
        ("description", written.description.as_deref(), 2000),
        ("example", written.example.as_deref(), 1024),
    ];
    for (key, text, max) in rows {
        check.length(&format!("{field}.{key}"), text, max);
    }
}

fn check_array(
    field: &str,
    written: &Written,
    location: Location,
    backend_location: Location,
    check: &mut Check<'_>,
) {
    if written.array && (location == Location::Path || backend_location == Location::Path) {
        check.add(
            format!("{field}.array"),
            Reason::Contradiction,
            "a path has one value only",
            "remove it, or put the parameter elsewhere",
        );
    }
}

fn check_default(
    field: &str,
    written: &Written,
    kind: ParameterType,
    rules: &Rules,
    check: &mut Check<'_>,
) {
    let Some(default) = &written.default else {
        return;
    };
    if written.required || written.in_ == WrittenLocation::Path {
        check.add(
            format!("{field}.default"),
            Reason::Contradiction,
            "is never used, as the parameter is always there",
            "remove it, or write `required: false`",
        );
        return;
    }
    if !satisfies(kind, rules, default) {
        bad_default(field, check);
    }
}

fn bad_default(field: &str, check: &mut Check<'_>) {
    check.add(
        format!("{field}.default"),
        Reason::InvalidValue,
        "breaks the parameter's own rules",
        "write a value that callers could send",
    );
}

/// Type, enum, range and length.
fn satisfies(kind: ParameterType, rules: &Rules, text: &str) -> bool {
    let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    is_value(kind, text)
        && (rules.one_of.is_empty() || rules.one_of.iter().any(|one| one == text))
        && rules
            .minimum
            .is_none_or(|least| !less(kind, text, least, true))
        && rules
            .maximum
            .is_none_or(|most| !less(kind, text, most, false))
        && rules.min_length.is_none_or(|least| length >= least)
        && rules.max_length.is_none_or(|most| length <= most)
}

/// Whether the number `text` is below `bound`, or above it.
fn less(kind: ParameterType, text: &str, bound: Number, below: bool) -> bool {
    let ordering = match (kind, bound) {
        (ParameterType::Int | ParameterType::Long, Number::Integer(bound)) => {
            text.parse::<i64>().ok().map(|value| value.cmp(&bound))
        }
        (_, bound) => text
            .parse::<f64>()
            .ok()
            .and_then(|value| value.partial_cmp(&real(bound))),
    };
    ordering.is_some_and(|ordering| {
        if below {
            ordering.is_lt()
        } else {
            ordering.is_gt()
        }
    })
}

/// The nearest double, as the gateway compares.
#[allow(clippy::cast_precision_loss)]
fn real(bound: Number) -> f64 {
    match bound {
        Number::Integer(bound) => bound as f64,
        Number::Real(bound) => bound,
    }
}

fn parse_rules(
    field: &str,
    written: &Written,
    kind: ParameterType,
    check: &mut Check<'_>,
) -> Rules {
    let text_only = [
        ("minLength", written.min_length.is_some()),
        ("maxLength", written.max_length.is_some()),
        ("pattern", written.pattern.is_some()),
        ("jsonSchema", written.json_schema.is_some()),
    ];
    let number_only = [
        ("minimum", written.minimum.is_some()),
        ("maximum", written.maximum.is_some()),
    ];
    if kind != ParameterType::String {
        misplaced(field, &text_only, "String", check);
    }
    if matches!(kind, ParameterType::String | ParameterType::Boolean) {
        misplaced(field, &number_only, "Int, Long, Float and Double", check);
    }
    let one_of_key = [("enum", !written.enum_.is_empty())];
    if kind == ParameterType::Boolean {
        misplaced(field, &one_of_key, "other types than Boolean", check);
    }
    parse_enum(field, written, kind, check);
    let minimum = parse_bound(
        &format!("{field}.minimum"),
        written.minimum.as_ref(),
        kind,
        check,
    );
    let maximum = parse_bound(
        &format!("{field}.maximum"),
        written.maximum.as_ref(),
        kind,
        check,
    );
    let crossed = match (minimum, maximum) {
        (Some(Number::Integer(least)), Some(Number::Integer(most))) => least > most,
        (Some(least), Some(most)) => real(least) > real(most),
        _ => false,
    };
    if crossed {
        crossing(&format!("{field}.maximum"), "minimum", check);
    }
    if let (Some(least), Some(most)) = (written.min_length, written.max_length)
        && least > most
    {
        crossing(&format!("{field}.maxLength"), "minLength", check);
    }
    Rules {
        one_of: written.enum_.clone(),
        minimum,
        maximum,
        min_length: written.min_length,
        max_length: written.max_length,
        pattern: written.pattern.clone(),
        json_schema: written.json_schema.clone(),
    }
}

fn misplaced(field: &str, keys: &[(&str, bool)], of: &str, check: &mut Check<'_>) {
    for (key, _) in keys.iter().filter(|(_, present)| *present) {
        check.add(
            format!("{field}.{key}"),
            Reason::Contradiction,
            format!("is a rule for {of} only"),
            "remove it, or change the type",
        );
    }
}

fn crossing(field: &str, least: &str, check: &mut Check<'_>) {
    check.add(
        field,
        Reason::Contradiction,
        format!("is below {least}, so that no value could satisfy both"),
        "exchange the two",
    );
}

fn parse_enum(field: &str, written: &Written, kind: ParameterType, check: &mut Check<'_>) {
    check.count(&format!("{field}.enum"), written.enum_.len(), 100);
    for (at, value) in written.enum_.iter().enumerate() {
        let field = format!("{field}.enum[{at}]");
        check.length(&field, Some(value), 256);
        if !is_value(kind, value) {
            check.add(
                &field,
                Reason::InvalidValue,
                format!("`{}` is not of the parameter's type", text::short(value)),
                "write values that callers could send",
            );
        }
        if written.enum_[..at].contains(value) {
            check.add(
                &field,
                Reason::Duplicate,
                format!("`{}` is there twice", text::short(value)),
                "remove one",
            );
        }
    }
}

fn parse_bound(
    field: &str,
    written: Option<&serde_json::Number>,
    kind: ParameterType,
    check: &mut Check<'_>,
) -> Option<Number> {
    let written = written?;
    let bound = match kind {
        ParameterType::Int | ParameterType::Long => written.as_i64().map(Number::Integer),
        _ => match written.as_i64() {
            Some(integer) => Some(Number::Integer(integer)),
            None => written
                .as_f64()
                .filter(|real| real.is_finite())
                .map(Number::Real),
        },
    };
    if bound.is_none() {
        check.add(
            field,
            Reason::InvalidValue,
            format!("{written} is not a number of the parameter's type"),
            "write an integer of 64 bits",
        );
    }
    bound
}

fn kind(written: WrittenType) -> ParameterType {
    match written {
        WrittenType::String => ParameterType::String,
        WrittenType::Int => ParameterType::Int,
        WrittenType::Long => ParameterType::Long,
        WrittenType::Float => ParameterType::Float,
        WrittenType::Double => ParameterType::Double,
        WrittenType::Boolean => ParameterType::Boolean,
    }
}

/// The same place in the words of the model.
pub(super) fn location(written: WrittenLocation) -> Location {
    match written {
        WrittenLocation::Path => Location::Path,
        WrittenLocation::Query => Location::Query,
        WrittenLocation::Header => Location::Header,
        WrittenLocation::Form => Location::Form,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_gateway_reads_them() {
        use ParameterType::{Boolean, Double, Float, Int, Long, String};
        let rows = [
            (String, "", true),
            (Int, "-007", true),
            (Int, "2147483648", false),
            (Int, "+1", false),
            (Int, "1.0", false),
            (Int, "", false),
            (Long, "2147483648", true),
            (Long, "9223372036854775808", false),
            (Float, "1e38", true),
            (Float, "1e39", false),
            (Double, "1e39", true),
            (Double, "-1.5E-3", true),
            (Double, "NaN", false),
            (Double, ".5", false),
            (Double, "5.", false),
            (Double, "inf", false),
            (Boolean, "TRUE", true),
            (Boolean, "1", false),
        ];
        for (kind, text, expected) in rows {
            assert_eq!(is_value(kind, text), expected, "{kind:?} {text}");
        }
    }
}
