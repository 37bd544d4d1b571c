//! What stands behind a database, a user or a peer: `host=10.0.0.5 dbname='it''s' pool_size=30`.
//!
//! White space between the pairs and around `=`; a value in single quotes may have anything inside, the quote doubled; there
//! are no empty values (src/loader.c, cstr_get_pair). Stricter in one thing: between a closing quote and the next key there
//! must be white space, where PgBouncer loses a character.

/// One pair; places are characters from the beginning.
#[derive(Debug, PartialEq)]
pub(super) struct Pair {
    pub key: String,
    pub key_at: usize,
    pub value: String,
    pub value_at: usize,
}

/// Takes a connection string apart.
///
/// # Errors
/// The place and what it is; the text, which may hold a password, is not quoted.
pub(super) fn parse(text: &str) -> Result<Vec<Pair>, (usize, &'static str)> {
    let chars: Vec<char> = text.chars().collect();
    let blank = |at: usize| chars.get(at).is_some_and(|c| c.is_whitespace());
    let skip = |mut at: usize| {
        while blank(at) {
            at += 1;
        }
        at
    };
    let mut pairs = Vec::new();
    let mut at = skip(0);
    while at < chars.len() {
        let key_at = at;
        while at < chars.len() && chars[at] != '=' && !blank(at) {
            at += 1;
        }
        let key: String = chars[key_at..at].iter().collect();
        at = skip(at);
        if key.is_empty() || chars.get(at) != Some(&'=') {
            return Err((key_at, "must be key=value pairs with white space between"));
        }
        at = skip(at + 1);
        let value_at = at;
        let value = if chars.get(at) == Some(&'\'') {
            let (value, end) = quoted(&chars, at + 1).ok_or((value_at, "a quote is never closed"))?;
            at = end;
            if at < chars.len() && !blank(at) {
                return Err((at, "must be white space: a quote inside a value is written twice"));
            }
            value
        } else {
            while at < chars.len() && !blank(at) {
                at += 1;
            }
            chars[value_at..at].iter().collect()
        };
        if value.is_empty() {
            return Err((key_at, "has no value; leave the key out"));
        }
        pairs.push(Pair { key, key_at, value, value_at });
        at = skip(at);
    }
    Ok(pairs)
}

/// Reads to the closing quote; returns the place behind it.
fn quoted(chars: &[char], mut at: usize) -> Option<(String, usize)> {
    let mut value = String::new();
    loop {
        match (chars.get(at)?, chars.get(at + 1)) {
            ('\'', Some('\'')) => {
                value.push('\'');
                at += 2;
            }
            ('\'', _) => return Some((value, at + 1)),
            (c, _) => {
                value.push(*c);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|pair| (pair.key, pair.value)).collect()
    }

    #[test]
    fn quotes_are_doubled_inside_and_blanks_may_stand_around_the_equals_sign() {
        let text = "host = 10.0.0.5\tdbname='it''s x'  pool_size=30 connect_query='SELECT ''a'', 1;'";
        let expected =
            [("host", "10.0.0.5"), ("dbname", "it's x"), ("pool_size", "30"), ("connect_query", "SELECT 'a', 1;")];
        assert_eq!(pairs(text), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(pairs("  "), []);
    }

    #[test]
    fn a_broken_one_is_told_with_its_place() {
        let places = [("host", 0), ("a=b =c", 4), ("a=", 0), ("a='b", 2), ("a='b'c=d", 5), ("a=''", 0), ("x=1 y", 4)];
        for (text, place) in places {
            assert_eq!(parse(text).unwrap_err().0, place, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_value_reads_back(value in "[^\\p{Cc}]{1,20}") {
            let pairs = pairs(&format!("password='{}' port=1", value.replace('\'', "''")));
            prop_assert_eq!(&pairs[0].1, &value);
            prop_assert_eq!(pairs.len(), 2);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[a= ']{0,20}") {
            let _ = parse(&text);
        }
    }
}
