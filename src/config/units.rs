//! Durations and sizes as operators write them.
//!
//! Durations: `250ms`, `30s`, `10m`, `1h`, `2d`, sums such as `1h30m` (nginx), and a bare number of seconds (PgBouncer).
//! Sizes: `64KiB`, `20MiB`, `1GiB`, nginx's `64k`, `20M`, and a bare number of bytes; all in steps of 1,024. `KB` and
//! `MB` are refused, since half of the readers take them for 1,000.

use std::{fmt::Write, time::Duration};

/// Longest duration taken: ten years, so that no sum with a clock can overflow.
const MAX_DURATION_MS: u64 = 10 * 366 * 24 * 3_600_000;

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 24 * 3_600_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads a duration.
///
/// # Errors
/// What it must look like.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "must be a duration such as 250ms, 30s, 10m or 1h (a bare number is seconds)";
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut last_unit_ms = u64::MAX;
    while !rest.is_empty() || text.is_empty() {
        let (thousandths, after) = decimal(rest).ok_or(FORM)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let unit_ms = match unit {
            "" if after.is_empty() && rest.len() == text.len() => 1_000,
            _ => DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or(FORM)?.1,
        };
        // `1h30m` is a sum; `30m1h` and `5s5s` are slips.
        if unit_ms >= last_unit_ms {
            return Err(FORM);
        }
        last_unit_ms = unit_ms;
        let exact = thousandths.checked_mul(unit_ms).ok_or("is longer than ten years")?;
        if exact % 1_000 != 0 {
            return Err("is finer than a millisecond");
        }
        total_ms = total_ms.saturating_add(exact / 1_000);
        rest = after;
    }
    if total_ms > MAX_DURATION_MS { Err("is longer than ten years") } else { Ok(Duration::from_millis(total_ms)) }
}

/// Splits a decimal number with at most three digits after the point off the front; returned in thousandths.
fn decimal(text: &str) -> Option<(u64, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at(digits(text));
    let whole: u64 = whole.parse().ok()?;
    let (fraction, rest) = match rest.strip_prefix('.') {
        None => ("", rest),
        Some(rest) => rest.split_at(digits(rest)),
    };
    let point = text.as_bytes().get(digits(text)) == Some(&b'.');
    if fraction.len() > 3 || (point && fraction.is_empty()) {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    Some((whole.checked_mul(1_000)?.checked_add(fraction)?, rest))
}

/// Reads a size in bytes.
///
/// # Errors
/// What it must look like.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "must be a size such as 64KiB, 20MiB or 20M (a bare number is bytes)";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        "KB" | "kB" | "MB" | "GB" => return Err("is ambiguous: write KiB, MiB or GiB (steps of 1,024)"),
        _ => return Err(FORM),
    };
    if digits == 0 {
        return Err(FORM);
    }
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or("is too large")
}

/// Writes a duration so that [`parse_duration`] reads the same one, in the largest units that are exact.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (unit, unit_ms) in DURATION_UNITS {
        let count = rest / unit_ms;
        if count > 0 {
            rest %= unit_ms;
            let _ = write!(text, "{count}{unit}");
        }
    }
    text
}

/// Writes a size so that [`parse_size`] reads the same one, in the largest unit that is exact.
pub fn format_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(text: &str) -> Result<u128, &'static str> {
        parse_duration(text).map(|duration| duration.as_millis())
    }

    #[test]
    fn reads_durations() {
        let table = [
            ("250ms", 250),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("1h30m", 5_400_000),
            ("15", 15_000),
            ("0", 0),
            ("0.5", 500),
            ("1.25s", 1_250),
        ];
        for (text, expected) in table {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_duration() {
        let table = ["", "s", "-1", "1 s", "1x", "5s5s", "30m1h", "1h30", "1.", ".5s", "0.0001s", "1e3", "٣s", "0.5ms"];
        for text in table {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(millis("11000d"), Err("is longer than ten years"));
        assert_eq!(millis("18446744073709551615d"), Err(parse_duration("x").unwrap_err()));
    }

    #[test]
    fn reads_sizes() {
        let table = [("0", 0), ("512", 512), ("64KiB", 65_536), ("64k", 65_536), ("20M", 20 << 20), ("20m", 20 << 20)];
        for (text, expected) in table {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
    }

    #[test]
    fn refuses_what_is_not_a_size() {
        for text in ["", "k", "-1", "1.5MiB", "20 MiB", "20MB", "1T", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(ms in 0..MAX_DURATION_MS) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn a_written_size_reads_back(bytes: u64) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}|[0-9.smhdkKMiB]{0,12}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
