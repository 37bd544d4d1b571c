//! `${VAR}` and `${VAR:-default}` inside a value.
//!
//! As in a shell and in compose files: the default stands in when the variable is unset or empty; `${VAR}` must be set.
//! `$${` is a literal `${`; every other `$` stands for itself, so that passwords need no care. Errors name the variable
//! and never the text around it, which may be a secret.

/// Looks a variable up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value with its references replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Substituted {
    pub text: String,
    /// Something in it came from a variable or its default.
    pub replaced: bool,
}

/// Replaces every reference in `text`.
///
/// # Errors
/// One message for each reference that cannot be replaced.
pub(super) fn substitute(text: &str, lookup: Lookup<'_>) -> Result<Substituted, Vec<String>> {
    let mut out = Substituted { text: String::with_capacity(text.len()), replaced: false };
    let mut errors = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.text.push_str(&rest[..start - 1]);
            out.text.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.text.push_str(&rest[..start]);
        out.replaced = true;
        let Some(length) = rest[start..].find('}') else {
            errors.push("a ${ is never closed (write $${ for the two characters themselves)".into());
            return Err(errors);
        };
        match replacement(&rest[start + 2..start + length], lookup) {
            Ok(value) => out.text.push_str(&value),
            Err(error) => errors.push(error),
        }
        rest = &rest[start + length + 1..];
    }
    out.text.push_str(rest);
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

/// Returns the value of what stands between the braces.
fn replacement(reference: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let length = reference.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let (name, rest) = reference.split_at(length);
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return Err("a ${…} does not name an environment variable (write $${ for the two characters themselves)".into());
    }
    let value = lookup(name);
    match rest.strip_prefix(":-") {
        Some(default) => Ok(value.filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())),
        None if rest.is_empty() => {
            value.ok_or_else(|| format!("environment variable {name} is not set (${{{name}:-…}} would give a default)"))
        }
        None => Err(format!("only ${{{name}}} and ${{{name}:-default}} can be written")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &str) -> Result<String, Vec<String>> {
        let lookup = |name: &str| match name {
            "HOST" => Some("db1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        substitute(text, &lookup).map(|substituted| substituted.text)
    }

    #[test]
    fn replaces_references_anywhere() {
        assert_eq!(run("${HOST}").unwrap(), "db1");
        assert_eq!(run("a-${HOST}.${NONE:-x}:5").unwrap(), "a-db1.x:5");
        assert_eq!(run("${NONE:-}").unwrap(), "");
    }

    #[test]
    fn a_default_stands_in_for_unset_and_for_empty() {
        assert_eq!(run("${EMPTY:-x}").unwrap(), "x");
        assert_eq!(run("${EMPTY}").unwrap(), "");
        assert_eq!(run("${HOST:-x}").unwrap(), "db1");
    }

    #[test]
    fn other_dollars_stand_for_themselves() {
        for text in ["pa$$word", "$HOST", "cost: 5$", "$", "SCRAM-SHA-256$4096:c2FsdA==$a:b"] {
            assert_eq!(run(text).unwrap(), text);
        }
        assert_eq!(run("$${HOST}").unwrap(), "${HOST}");
    }

    #[test]
    fn names_every_variable_that_is_missing() {
        let errors = run("${A}${B}").unwrap_err();
        assert_eq!(errors[0], "environment variable A is not set (${A:-…} would give a default)");
        assert_eq!(errors.len(), 2);
    }

    #[test]
    fn errors_never_show_the_text_around() {
        for text in ["hunter2${", "hunter2${}", "${1hunter2}", "${A:?hunter2}", "${HOST+hunter2}", "${hunter2 x"] {
            let errors = run(text).unwrap_err();
            assert!(errors.iter().all(|error| !error.contains("hunter2")), "{errors:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_replaced_or_refused(text in "\\PC*|[${}A:\\-?]{0,20}") {
            let _ = run(&text);
        }
    }
}
