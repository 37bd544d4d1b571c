//! How a value of an ini is written in `pool.yaml`.
//!
//! What cannot be read is handed on as it is: the reader of its key says what it must be, and quotes it.

use super::settings::Kind;

/// Longest time the configuration takes; PgBouncer takes any, and nobody sees the difference.
const MAX_SECONDS: f64 = 10.0 * 365.0 * 86_400.0;
/// Units of time, beside PgBouncer's bare seconds.
const UNITS: [(&str, f64); 9] = [
    ("us", 0.000_001),
    ("ms", 0.001),
    ("sec", 1.0),
    ("min", 60.0),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
];

/// Returns how `pool.yaml` writes `value`.
pub(super) fn spell(kind: Kind, value: &str) -> String {
    let spelled = match kind {
        Kind::Text | Kind::Path | Kind::Names | Kind::Octal => None,
        Kind::Word => Some(value.to_ascii_lowercase()),
        Kind::Int => integer(value).map(|number| number.to_string()),
        Kind::Flag => flag(value).map(|flag| flag.to_string()),
        Kind::Seconds => seconds(value, 1.0).map(millis),
        // With its unit: bare numbers are seconds for some readers.
        Kind::Millis => seconds(value, 0.001).map(|time| format!("{}ms", whole_millis(time))),
    };
    spelled.unwrap_or_else(|| value.to_owned())
}

/// Reads a number as strtol(3) does: decimal, `0x` or a leading zero for octal.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = digits.strip_prefix("0x").or(digits.strip_prefix("0X"));
    let octal = digits.strip_prefix('0').filter(|rest| !rest.is_empty());
    let number = match (hex, octal) {
        (Some(hex), _) => i64::from_str_radix(hex, 16),
        (None, Some(octal)) => i64::from_str_radix(octal, 8),
        (None, None) => digits.parse(),
    };
    number.ok().filter(|_| !digits.starts_with(['+', '-'])).map(|number| sign * number)
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" => Some(true),
        "off" | "no" | "false" => Some(false),
        _ => integer(text).map(|number| number != 0),
    }
}

/// Reads a time; a bare number is in steps of `bare` seconds.
fn seconds(text: &str, bare: f64) -> Option<f64> {
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit) && text.len() > unit.len());
    let (number, factor) =
        unit.map_or((text, bare), |(unit, factor)| (text[..text.len() - unit.len()].trim_end(), *factor));
    let seconds = number.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)? * factor;
    Some(seconds.min(MAX_SECONDS))
}

/// Rounds up: a time that is not 0 does not become 0, which would be "never".
fn millis(seconds: f64) -> String {
    let ms = whole_millis(seconds);
    if ms.is_multiple_of(1_000) { (ms / 1_000).to_string() } else { format!("{ms}ms") }
}

fn whole_millis(seconds: f64) -> u64 {
    // At most ten years of milliseconds, and not negative.
    (seconds * 1_000.0 - 1e-6).ceil().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_with_a_fraction_or_have_a_unit() {
        let table = [
            ("30", "30"),
            ("0", "0"),
            ("5.0", "5"),
            (".5", "500ms"),
            ("1e2", "100"),
            ("0.0001", "1ms"),
            ("250us", "1ms"),
            ("250 ms", "250ms"),
            ("10m", "600"),
            ("1h", "3600"),
            ("2d", "172800"),
            ("99999999999", "315360000"),
            ("-1", "-1"),
            ("x", "x"),
            ("", ""),
            ("s", "s"),
        ];
        for (text, expected) in table {
            assert_eq!(spell(Kind::Seconds, text), expected, "{text}");
        }
        assert_eq!(spell(Kind::Millis, "2000"), "2000ms");
    }

    #[test]
    fn numbers_are_those_of_c_and_flags_have_words() {
        for (text, expected) in
            [("0x10", "16"), ("0500", "320"), ("+5", "5"), ("-5", "-5"), ("5k", "5k"), ("0", "0"), ("+-5", "+-5")]
        {
            assert_eq!(spell(Kind::Int, text), expected, "{text}");
        }
        for (text, expected) in
            [("1", "true"), ("0", "false"), ("ON", "true"), ("no", "false"), ("5", "true"), ("maybe", "maybe")]
        {
            assert_eq!(spell(Kind::Flag, text), expected, "{text}");
        }
        assert_eq!(spell(Kind::Word, "Transaction"), "transaction");
    }
}
