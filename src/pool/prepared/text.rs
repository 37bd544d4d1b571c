//! Which texts without a name are worth one on servers: those that PostgreSQL plans, and that mean the same tomorrow.
//!
//! A `BEGIN` or `SET` has no plan to save. And one kind of text must not be prepared ahead: the literals `'now'`, `'today'`,
//! `'tomorrow'` and `'yesterday'` become a date when the text is parsed, not when it runs (PostgreSQL 8.5.1.4, "Special
//! Values"), so that a statement parsed yesterday would say yesterday's. They are looked for anywhere in the text as words
//! of their own: to be wrong about one costs a Parse.

/// First words of what PostgreSQL plans.
const PLANNED: [&[u8]; 7] = [b"select", b"insert", b"update", b"delete", b"with", b"merge", b"values"];
/// Words that stand for a date in a literal.
const MOVING: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Returns whether the definition (a text, its NUL, the types of its parameters) is worth a name.
pub fn is_worth_a_name(definition: &[u8]) -> bool {
    let end = memchr::memchr(0, definition).unwrap_or(definition.len());
    let text = &definition[..end];
    let first = first_word(text);
    PLANNED.iter().any(|word| first.eq_ignore_ascii_case(word)) && !has_moving_date(text)
}

/// Returns the first word behind spaces, brackets and comments; nothing when a comment does not end.
fn first_word(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_start();
        text = match text {
            [b'(', rest @ ..] => rest,
            [b'-', b'-', rest @ ..] => &rest[memchr::memchr(b'\n', rest).unwrap_or(rest.len())..],
            // Comments nest; who nests one in front of a statement does without a name.
            [b'/', b'*', rest @ ..] => match memchr::memmem::find(rest, b"*/") {
                Some(end) => &rest[end + 2..],
                None => return b"",
            },
            _ => break,
        };
    }
    let end = text.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(text.len());
    &text[..end]
}

/// Returns whether one of the words stands in the text that is not the call of a function.
fn has_moving_date(text: &[u8]) -> bool {
    // Of every word it is the second letter: `o` in three, `e` in the last.
    let ends = memchr::memchr3_iter(b'o', b'O', b'e', text).chain(memchr::memchr_iter(b'E', text));
    ends.filter(|&at| at > 0).any(|at| {
        let from = at - 1;
        MOVING.iter().any(|word| {
            let Some(found) = text.get(from..from + word.len()) else { return false };
            found.eq_ignore_ascii_case(word)
                && !text[..from].last().is_some_and(|&b| is_part_of_word(b))
                && match text[from + word.len()..].trim_ascii_start().first() {
                    Some(b'(') => false,
                    _ => !text.get(from + word.len()).is_some_and(|&b| is_part_of_word(b)),
                }
        })
    })
}

fn is_part_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_is_worth_a_name_and_what_is_not_is_not() {
        for (text, worth) in [
            ("select 1", true),
            ("  SELECT\n1", true),
            ("/* web-1 */ Select 1", true),
            ("-- a line\n-- another\nselect 1", true),
            ("((select 1) union select 2)", true),
            ("WITH a AS (SELECT 1) SELECT * FROM a", true),
            ("insert into t values ($1)", true),
            ("UPDATE t SET a = $1", true),
            ("delete from t", true),
            ("BEGIN", false),
            ("SET search_path = x", false),
            ("DECLARE c CURSOR FOR SELECT 1", false),
            ("selection", false),
            ("/* select 1", false),
            ("-- select 1", false),
            ("", false),
        ] {
            assert_eq!(is_worth_a_name(format!("{text}\0\0\0").as_bytes()), worth, "{text}");
        }
    }

    #[test]
    fn a_text_that_means_another_day_tomorrow_is_not_worth_a_name() {
        for (text, worth) in [
            ("select 'now'::timestamptz", false),
            ("select timestamptz ' NOW '", false),
            ("select date 'yesterday'", false),
            ("select 'tomorrow 10:00'::timestamp", false),
            ("select * from t where day = 'Today'", false),
            ("insert into t values ('now')", false),
            ("select now()", true),
            ("select NOW ()", true),
            ("select known, snow, today_count, nowhere from t", true),
            ("select 'a' from towns", true),
        ] {
            assert_eq!(is_worth_a_name(format!("{text}\0\0\0").as_bytes()), worth, "{text}");
        }
    }

    #[test]
    fn the_types_behind_the_text_are_not_read_as_text() {
        assert!(is_worth_a_name(b"select $1\0\0\x01 now "));
    }
}
