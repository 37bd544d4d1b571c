//! `strip_prefix`: the path that a server sees without the part that led to it. Pure.
//!
//! Routes compare paths as Django will see them, percent-decoded, and send them on as they came; so the part is taken off the
//! path as it came, however it was written (`/%61pi/` begins with `/api`), and the rest is not touched.

/// Returns a target in origin form without `prefix` at its beginning, which it has once it is decoded; `None` if it has not.
pub fn strip_prefix(target: &[u8], prefix: &str) -> Option<Vec<u8>> {
    let mut rest = target;
    for wanted in prefix.bytes() {
        let (byte, behind) = first_decoded(rest)?;
        if byte != wanted {
            return None;
        }
        rest = behind;
    }
    // A target begins with a slash; what is left of one that was nothing but the prefix is the root.
    let slash: &[u8] = if rest.starts_with(b"/") { b"" } else { b"/" };
    Some([slash, rest].concat())
}

/// Splits off the first byte of a path, percent-decoded; the query is no part of it.
fn first_decoded(path: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |at: usize| char::from(*path.get(at)?).to_digit(16);
    match (path.first()?, digit(1), digit(2)) {
        (b'?' | b'#', ..) => None,
        (b'%', Some(high), Some(low)) => Some(((high << 4 | low) as u8, &path[3..])),
        (byte, ..) => Some((*byte, &path[1..])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stripped(target: &str, prefix: &str) -> Option<String> {
        strip_prefix(target.as_bytes(), prefix).map(|rest| String::from_utf8(rest).unwrap())
    }

    #[test]
    fn the_prefix_goes_however_it_is_written_and_the_rest_stays_as_it_came() {
        for (target, prefix, expected) in [
            ("/api/users/?a=/api", "/api", "/users/?a=/api"),
            ("/api/users/", "/api/", "/users/"),
            ("/%61pi/%75sers/", "/api", "/%75sers/"),
            ("/api%2Fx", "/api", "/%2Fx"),
            ("/api%2fx", "/api/", "/x"),
            ("/api", "/api", "/"),
            ("/api?x", "/api", "/?x"),
            ("/api//x", "/api", "//x"),
            ("/a%20b/c", "/a b", "/c"),
        ] {
            assert_eq!(stripped(target, prefix).as_deref(), Some(expected), "{target} without {prefix}");
        }
    }

    #[test]
    fn what_does_not_begin_with_it_is_left_alone() {
        for (target, prefix) in [("/ap", "/api"), ("/apx/", "/api"), ("/?/api", "/api"), ("*", "/api"), ("/%6", "/%61")]
        {
            assert_eq!(stripped(target, prefix), None, "{target} without {prefix}");
        }
    }

    proptest! {
        #[test]
        fn any_target_gives_one_that_begins_with_a_slash_or_none(target in prop::collection::vec(any::<u8>(), 0..40), prefix in "/[a-c%/]{0,6}") {
            if let Some(rest) = strip_prefix(&target, &prefix) {
                prop_assert!(rest.starts_with(b"/") && rest.len() <= target.len() + 1);
            }
        }
    }
}
