//! Who may log in: `users:`, `auth_file`, and the names in `admin_users` and `stats_users`.

use std::collections::HashSet;

use crate::config::{
    error::ConfigError,
    field::Field,
    load,
    node::Value,
    pool::{
        Access, AuthType, Databases, PoolMode, User, UserSecret, UserTimeouts, access, foreign, password, userlist,
    },
    reading::Reading,
    secret::Secret,
    section::{Section, nearest},
};

/// What PgBouncer has of other programs, and what does the job here.
const FOREIGN_AUTH_TYPES: [&str; 2] = ["ldap", "pam"];
/// Passwords that one user may have at a time: the old one and the new one, and some air.
const MAX_PASSWORDS: usize = 8;
const NO_PASSWORD: &str = "has no password, and auth_type is not trust";

/// Who may log in, and as what.
pub(super) struct Auth<'a> {
    pub auth_type: AuthType,
    /// Where it stands, if it is given.
    pub auth_type_field: Option<Field<'a>>,
    pub access: Access,
    pub admin_users: Vec<String>,
    pub stats_users: Vec<String>,
    pub users: Vec<User>,
}

/// Reads the keys of `pool:` that are about users, and `users:`.
pub(super) fn read<'a>(reading: &Reading<'_>, file: &mut Section<'a>, settings: &mut Section<'a>) -> Auth<'a> {
    let auth_type_field = settings.get("auth_type");
    let auth_type = auth_type_field.as_ref().map_or(AuthType::ScramSha256, read_auth_type);
    let access = access::read(reading, settings, auth_type);
    let databases = Databases::peek(file);
    let looks_up = access.lookup.user.is_some() || databases.has("auth_user");
    if auth_type == AuthType::Any {
        databases.without("user").for_each(|field| field.error("has no user, and auth_type: any needs one"));
    }
    let auth_file = settings.get("auth_file");
    let admins = settings.get("admin_users").map(|field| names(&field)).unwrap_or_default();
    let stats = settings.get("stats_users").map(|field| names(&field)).unwrap_or_default();

    let mut complete = true;
    let mut users = Vec::new();
    let entries = file.get("users").map(|field| field.entries()).unwrap_or_default();
    for (name, field) in &entries {
        users.push(read_user(reading, name, field, auth_type));
    }
    if let Some(field) = auth_file {
        complete = add_auth_file(reading, &field, auth_type, &mut users);
    }
    // Whoever a query, a certificate or nobody vouches for need not stand here.
    let others = looks_up || auth_type == AuthType::Any;
    if complete && !others && auth_type.asks_for_password() {
        check_settings_alone(reading, &entries, &databases, &mut users);
    }
    if users.is_empty() && complete && !others && !reading.is_ini() {
        file.error("has nobody who may log in: give users, or pool.auth_file, or pool.auth_user and pool.auth_query");
    }
    let known = |(name, field): &(String, Field<'_>)| !complete || others || is_known(name, field, &users);
    let (admins, stats) = (admins.into_iter().filter(known).collect(), stats.into_iter().filter(known).collect());
    let names = |fields: Vec<(String, Field<'_>)>| fields.into_iter().map(|(name, _)| name).collect();
    Auth { auth_type, auth_type_field, access, admin_users: names(admins), stats_users: names(stats), users }
}

/// Looks at the entries of settings alone for users that nothing is known of: a slip, unless servers are logged in as that
/// user. PgBouncer pretends that such a user exists.
fn check_settings_alone(
    reading: &Reading<'_>,
    entries: &[(&str, Field<'_>)],
    databases: &Databases<'_>,
    users: &mut Vec<User>,
) {
    let mut nobodies = HashSet::new();
    for ((name, field), _) in entries.iter().zip(users.iter()).filter(|(_, user)| user.secret == UserSecret::Absent) {
        match &field.node.value {
            Value::Map(_) | Value::Null if databases.any_is("user", name) => {}
            Value::Map(_) | Value::Null if reading.is_ini() => {
                reading.note(&format!("user {name} {NO_PASSWORD}: cannot log in, and is left out"));
                nobodies.insert(*name);
            }
            Value::Map(_) | Value::Null => field.error(NO_PASSWORD),
            _ => {}
        }
    }
    users.retain(|user| !nobodies.contains(&*user.name));
}

fn read_auth_type(field: &Field<'_>) -> AuthType {
    if let Some(word) = FOREIGN_AUTH_TYPES.iter().find(|word| field.is(word)) {
        field.error_with_hint(
            foreign::explanation(word),
            "scram-sha-256 with auth_query for passwords of PostgreSQL, or cert",
        );
        return AuthType::ScramSha256;
    }
    field.choice(&AuthType::ALL.map(|auth_type| (auth_type.word(), auth_type))).unwrap_or(AuthType::ScramSha256)
}

/// Reads names as a list, or as PgBouncer's text with commas.
pub(super) fn names<'a>(field: &Field<'a>) -> Vec<(String, Field<'a>)> {
    if let Value::List(_) = field.node.value {
        return field.items().into_iter().filter_map(|item| Some((item.text()?.to_owned(), item))).collect();
    }
    let Value::Scalar(scalar) = &field.node.value else {
        field.reject("must be a list of names");
        return Vec::new();
    };
    let words = scalar.text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| (word.to_owned(), field.clone())).collect()
}

fn read_user(reading: &Reading<'_>, name: &str, field: &Field<'_>, auth_type: AuthType) -> User {
    if name.is_empty() || name.chars().any(char::is_control) {
        field.error("a user's name must not be empty and have no control characters");
    }
    let mut section = field.section();
    let secret = read_secret(reading, &mut section, auth_type);
    let pool_size = section.get("pool_size").and_then(|field| field.integer(0..=super::MAX_POOL_SIZE));
    let pool_mode = read_pool_mode(&mut section);
    let reserve_pool_size = section.get("reserve_pool_size").and_then(|field| field.integer(0..=super::MAX_POOL_SIZE));
    let max_user_connections = section.limit("max_user_connections", u32::MAX);
    let timeouts = UserTimeouts::read(&mut section);
    let max_user_client_connections = section.limit("max_user_client_connections", u32::MAX);
    section.finish();
    User {
        name: name.to_owned(),
        secret,
        pool_size,
        reserve_pool_size,
        pool_mode,
        max_user_connections,
        max_user_client_connections,
        timeouts,
    }
}

/// Reads `password`, `passwords` or `password_file`; none of them is settings alone.
fn read_secret(reading: &Reading<'_>, section: &mut Section<'_>, auth_type: AuthType) -> UserSecret {
    let (one, several, file) = (section.get("password"), section.get("passwords"), section.get("password_file"));
    let given = [&one, &several, &file].into_iter().flatten();
    // Stands in for what has been reported.
    let wrong = || UserSecret::Plain(Secret::new(""));
    if let Some(second) = given.clone().nth(1) {
        second.error("of password, passwords and password_file only one can be given");
        return wrong();
    }
    if let Some(field) = &several {
        return read_passwords(field);
    }
    let Some(field) = given.last() else { return UserSecret::Absent };
    let secret = match &file {
        Some(field) => read_password_file(reading, field),
        None => field.secret(),
    };
    match secret.map(password::classify) {
        Some(Ok(secret)) => {
            if let Some(why) = password::unusable(auth_type, &secret) {
                field.error(why);
            }
            secret
        }
        Some(Err(why)) => {
            field.error(why);
            wrong()
        }
        None => wrong(),
    }
}

/// Reads the passwords of a user any of which logs in.
fn read_passwords(field: &Field<'_>) -> UserSecret {
    const HASHED: &str = "must be a password in plain text: which of several a client means shows only after the salt of a \
                          hash or verifier has been sent";
    let mut passwords = Vec::new();
    for item in field.items() {
        match item.secret().map(password::classify) {
            Some(Ok(UserSecret::Plain(password))) if !password.expose().is_empty() => passwords.push(password),
            Some(Ok(UserSecret::Plain(_))) => item.error("must not be empty"),
            Some(_) => item.error(HASHED),
            None => {}
        }
    }
    if !(1..=MAX_PASSWORDS).contains(&passwords.len()) && field.items().len() == passwords.len() {
        field.error(format!("must be 1 to {MAX_PASSWORDS} passwords"));
    }
    match passwords.len() {
        1 => UserSecret::Plain(passwords.remove(0)),
        _ => UserSecret::Several(passwords),
    }
}

/// Reads a file that holds a password and perhaps a line's end, as secrets of an orchestrator are mounted.
pub(super) fn read_password_file(reading: &Reading<'_>, field: &Field<'_>) -> Option<Secret> {
    let path = reading.beside(field.text()?);
    match load::read_file(&path) {
        Ok(text) => {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text.is_empty() || text.contains(['\n', '\0']) {
                field.error(format!("{} must hold one line, the password", path.display()));
                return None;
            }
            Some(Secret::new(text))
        }
        Err(error) => {
            field.error(format!("{} {}", path.display(), error.message));
            None
        }
    }
}

/// Reads `pool_mode`.
pub(super) fn read_pool_mode(section: &mut Section<'_>) -> Option<PoolMode> {
    section.get("pool_mode")?.choice(&[
        ("transaction", PoolMode::Transaction),
        ("session", PoolMode::Session),
        ("statement", PoolMode::Statement),
    ])
}

/// Adds the users of the file that `users:` does not have, and the secrets of those for whom it has settings alone; false
/// when it could not be read.
fn add_auth_file(reading: &Reading<'_>, field: &Field<'_>, auth_type: AuthType, users: &mut Vec<User>) -> bool {
    let Some(name) = field.text() else { return false };
    let path = reading.beside(name);
    let entries = match userlist::read(&path) {
        Ok(entries) => entries,
        // The file as a whole: the place to mend is the key that names it.
        Err(errors) if errors.iter().all(|error| error.position.is_none()) => {
            errors.iter().for_each(|error| field.error(format!("{} {}", path.display(), error.message)));
            return false;
        }
        Err(errors) => {
            reading.extend(errors);
            return false;
        }
    };
    let named: HashSet<String> =
        users.iter().filter(|user| user.secret != UserSecret::Absent).map(|user| user.name.clone()).collect();
    for entry in entries.into_iter().filter(|entry| !named.contains(&entry.name)) {
        if let Some(why) = password::unusable(auth_type, &entry.secret) {
            let message = format!("user {} {why}", entry.name);
            if reading.is_ini() {
                // As in PgBouncer, which finds out when somebody tries.
                reading.note(&format!("{message}: cannot log in"));
                continue;
            }
            reading.extend([ConfigError { position: Some(entry.at), ..ConfigError::of_file(&path, message) }]);
        }
        match users.iter_mut().find(|user| user.name == entry.name) {
            Some(settings) => settings.secret = entry.secret,
            None => users.push(User::new(entry.name, entry.secret)),
        }
    }
    true
}

/// Returns whether a user of the console is one who can log in, and reports one who is not; an ini may name those.
fn is_known(name: &str, field: &Field<'_>, users: &[User]) -> bool {
    if users.iter().any(|user| user.name == name) {
        return true;
    }
    if field.reading.is_ini() {
        field
            .reading
            .note(&format!("user {name} of the console is neither in [users] nor in auth_file, and is left out"));
        return false;
    }
    let message = format!("user {name} is neither in users nor in auth_file");
    match nearest(name, users.iter().map(|user| user.name.as_str())) {
        Some(near) => field.error_with_hint(message, format!("did you mean {near}?")),
        None => field.error(message),
    }
    false
}
