//! `${VAR}` in files.

use super::*;

#[test]
fn a_variable_stands_for_a_number_as_well_as_for_a_text() {
    let text = POOL
        .replace("{ host: 127.0.0.1 }", "\n    host: ${HOST:-db1}\n    port: ${PORT}\n")
        .replace("hunter2", "'x${DB_PASSWORD}'");
    let pool = load_pool(&text);
    assert_eq!((pool.databases[0].host.as_str(), pool.databases[0].port), ("db1", 6000));
    assert_eq!(pool.users[0].secret, pool::UserSecret::Plain(secret::Secret::new("xhunter2")));
}

#[test]
fn a_variable_that_is_missing_is_an_error_at_its_place() {
    let errors = pool_errors(&POOL.replace("hunter2", "'${NONE}'").replace("127.0.0.1", "'${A}${B}'"));
    let expected = [
        "pool.yaml:2:21: databases.arena_db.host: environment variable A is not set (${A:-…} would give a default)",
        "pool.yaml:2:21: databases.arena_db.host: environment variable B is not set (${B:-…} would give a default)",
        "pool.yaml:4:27: users.arena_user.password: environment variable NONE is not set (${NONE:-…} would give a default)",
    ];
    assert_eq!(errors, expected);
}

#[test]
fn a_value_from_the_environment_is_never_quoted() {
    let fronts = [
        FRONT.replace("127.0.0.1:8001", "'${DB_PASSWORD}'"),
        FRONT.replace("127.0.0.1:8001", "'${DB_PASSWORD}:80'"),
        FRONT.replace("upstream: django", "upstream: '${DB_PASSWORD}'"),
        FRONT.replace("path_prefix: /", "path_prefix: '${DB_PASSWORD}'"),
        format!("{FRONT}threads: ${{DB_PASSWORD}}\n"),
        format!("{FRONT}client_max_body_size: ${{DB_PASSWORD}}\n"),
        format!("{FRONT}trusted_proxies: ['${{DB_PASSWORD}}']\n"),
    ];
    for text in fronts {
        let errors = lb_errors(&text).join("\n");
        assert!(errors.contains("got what the environment gives"), "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    let errors = pool_errors(&format!(
        "pool: {{ auth_type: '${{DB_PASSWORD}}' }}\n{}",
        POOL.replace("127.0.0.1", "'${DB_PASSWORD}:1'")
    ));
    assert_eq!(errors.len(), 2);
    assert!(!errors.join("\n").contains("hunter2"), "{errors:?}");
}

#[test]
fn a_value_is_kept_as_it_was_written() {
    for password in ["1e5", "0123", "'~'", "true", "0x10", "pa$$wd"] {
        let pool = load_pool(&POOL.replace("hunter2", password));
        let expected = pool::UserSecret::Plain(secret::Secret::new(password.trim_matches('\'')));
        assert_eq!(pool.users[0].secret, expected, "{password}");
    }
}
