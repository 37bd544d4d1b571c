//! Who may log in: `users:`, `auth_file`, and the names in `admin_users` and `stats_users`.

use std::collections::HashSet;

use crate::config::{
    error::ConfigError,
    field::Field,
    node::Value,
    pool::{AuthType, PoolMode, User, UserSecret, UserTimeouts, foreign, password, userlist},
    reading::Reading,
    secret::Secret,
    section::{Section, nearest},
};

const AUTH_TYPES: [(&str, AuthType); 3] =
    [("scram-sha-256", AuthType::ScramSha256), ("md5", AuthType::Md5), ("trust", AuthType::Trust)];
/// PgBouncer's other ways.
const FOREIGN_AUTH_TYPES: [&str; 7] = ["any", "cert", "hba", "ldap", "pam", "peer", "plain"];

/// Who may log in, and as what.
pub(super) struct Auth {
    pub auth_type: AuthType,
    pub admin_users: Vec<String>,
    pub stats_users: Vec<String>,
    pub users: Vec<User>,
}

/// Reads the keys of `pool:` that are about users, and `users:`.
pub(super) fn read(reading: &Reading<'_>, file: &mut Section<'_>, settings: &mut Section<'_>) -> Auth {
    let auth_type = read_auth_type(settings);
    let auth_file = settings.get("auth_file");
    let admins = settings.get("admin_users").map(|field| names(&field)).unwrap_or_default();
    let stats = settings.get("stats_users").map(|field| names(&field)).unwrap_or_default();

    let mut complete = true;
    let mut users = Vec::new();
    let entries = file.get("users").map(|field| field.entries()).unwrap_or_default();
    for (name, field) in &entries {
        users.push(read_user(name, field, auth_type));
    }
    let mut bare: HashSet<&str> =
        entries.iter().filter(|(_, field)| has_no_password(field)).map(|(name, _)| *name).collect();
    if let Some(field) = auth_file {
        complete = add_auth_file(reading, &field, auth_type, &mut users, &mut bare);
    }
    if complete {
        check_bare(reading, auth_type, &entries, &bare, &mut users);
    }
    if users.is_empty() && complete && !reading.is_ini() {
        file.error("has nobody who may log in: give users, or pool.auth_file");
    }
    let known = |(name, field): &(String, Field<'_>)| !complete || is_known(name, field, &users);
    let (admins, stats) = (admins.into_iter().filter(known).collect(), stats.into_iter().filter(known).collect());
    let names = |fields: Vec<(String, Field<'_>)>| fields.into_iter().map(|(name, _)| name).collect();
    Auth { auth_type, admin_users: names(admins), stats_users: names(stats), users }
}

fn read_auth_type(settings: &mut Section<'_>) -> AuthType {
    let Some(field) = settings.get("auth_type") else { return AuthType::ScramSha256 };
    if let Some(word) = FOREIGN_AUTH_TYPES.iter().find(|word| field.is(word)) {
        field.error_with_hint(foreign::explanation(word), "scram-sha-256, md5 or trust");
        return AuthType::ScramSha256;
    }
    field.choice(&AUTH_TYPES).unwrap_or(AuthType::ScramSha256)
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

fn read_user(name: &str, field: &Field<'_>, auth_type: AuthType) -> User {
    if name.is_empty() || name.chars().any(char::is_control) {
        field.error("a user's name must not be empty and have no control characters");
    }
    let mut section = field.section();
    let password = section.get("password");
    let pool_size = section.get("pool_size").and_then(|field| field.integer(0..=super::MAX_POOL_SIZE));
    let pool_mode = read_pool_mode(&mut section);
    let reserve_pool_size = section.get("reserve_pool_size").and_then(|field| field.integer(0..=super::MAX_POOL_SIZE));
    let max_user_connections = section.limit("max_user_connections", u32::MAX);
    let timeouts = UserTimeouts::read(&mut section);
    let max_user_client_connections = section.limit("max_user_client_connections", u32::MAX);
    let none = UserSecret::Plain(Secret::new(""));
    let secret = match &password {
        // To be found in auth_file, see `check_bare`.
        None => none,
        Some(field) => match field.secret().map(password::classify) {
            Some(Ok(secret)) => {
                if let Some(why) = password::unusable(auth_type, &secret) {
                    field.error(why);
                }
                secret
            }
            Some(Err(why)) => {
                field.error(why);
                none
            }
            None => none,
        },
    };
    section.finish_with(foreign::entry);
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

/// Reads `pool_mode`.
pub(super) fn read_pool_mode(section: &mut Section<'_>) -> Option<PoolMode> {
    section.get("pool_mode")?.choice(&[
        ("transaction", PoolMode::Transaction),
        ("session", PoolMode::Session),
        ("statement", PoolMode::Statement),
    ])
}

/// Returns whether an entry has settings alone, as those of PgBouncer's `[users]`.
fn has_no_password(field: &Field<'_>) -> bool {
    match &field.node.value {
        Value::Map(entries) => !entries.iter().any(|(key, node)| key.name == "password" && node.value != Value::Null),
        _ => false,
    }
}

/// Looks at the entries whose password auth_file has not got either. PgBouncer pretends that such a user exists.
fn check_bare(
    reading: &Reading<'_>,
    auth_type: AuthType,
    entries: &[(&str, Field<'_>)],
    bare: &HashSet<&str>,
    users: &mut Vec<User>,
) {
    let Some(why) = password::unusable(auth_type, &UserSecret::Plain(Secret::new(""))) else { return };
    for (name, field) in entries.iter().filter(|(name, _)| bare.contains(name)) {
        if reading.is_ini() {
            reading.note(&format!("user {name} {why}: cannot log in"));
            users.retain(|user| user.name != *name);
        } else {
            field.error(why);
        }
    }
}

/// Adds the users of the file that `users:` does not have, and the passwords of those in `bare`; false when it could not be
/// read.
fn add_auth_file(
    reading: &Reading<'_>,
    field: &Field<'_>,
    auth_type: AuthType,
    users: &mut Vec<User>,
    bare: &mut HashSet<&str>,
) -> bool {
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
    let named: HashSet<String> = users.iter().map(|user| user.name.clone()).collect();
    for entry in entries {
        if named.contains(&entry.name) && !bare.contains(&*entry.name) {
            continue;
        }
        if let Some(why) = password::unusable(auth_type, &entry.secret) {
            let message = format!("user {} {why}", entry.name);
            if reading.is_ini() {
                // As in PgBouncer, which finds out when somebody tries.
                reading.note(&format!("{message}: cannot log in"));
                continue;
            }
            reading.extend([ConfigError { position: Some(entry.at), ..ConfigError::of_file(&path, message) }]);
        }
        bare.remove(&*entry.name);
        match users.iter_mut().find(|user| named.contains(&entry.name) && user.name == entry.name) {
            Some(user) => user.secret = entry.secret,
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
