//! Sections and keys -> the tree of `pool.yaml`.
//!
//! `[pgbouncer]` is `pool:`, `[databases]`, `[users]` and `[peers]` are the mappings of that name, `[bookend]`, which PgBouncer
//! has not, holds what only Bookend has, with dots (`admin.address`, `shutdown.grace_period`). As in PgBouncer the last of two
//! keys counts, and a second `[pgbouncer]` begins from the defaults again. What an ini leaves out has PgBouncer's default.

use super::{
    connstr,
    lines::Item,
    settings::{self, Kind, SETTINGS, Without},
    spelling::spell,
};
use crate::config::{
    error::{ConfigError, Position},
    node::{Key, Node, Scalar, Value},
    reading::{Reading, Spot},
};

type Map = Vec<(Key, Node)>;

/// Defaults of PgBouncer that are not written into the tree: the readers' own are the same, or better on purpose.
const OWN_DEFAULTS: &[&str] = &[
    "auth_query",
    "client_tls_protocols",
    "client_tls_sslmode",
    "listen_backlog",
    "server_check_query",
    "server_reset_query",
    "server_tls_protocols",
    "server_tls_sslmode",
    "tcp_defer_accept",
    "tcp_keepcnt",
    "tcp_keepidle",
    "tcp_keepintvl",
];
/// Of these nothing is not the same as not given.
const EMPTY_IS_A_VALUE: [&str; 3] = [SOCKET_DIR, "server_check_query", "server_reset_query"];
/// Not given, PgBouncer listens on its Unix socket alone.
const LISTEN_ADDR: &str = "listen_addr";
/// Where PgBouncer looks for a server's Unix socket, and has its own.
const SOCKET_DIR: &str = "unix_socket_dir";

/// Builds the tree.
///
/// # Errors
/// There is no `[pgbouncer]`, without which PgBouncer does not start either.
pub(super) fn build(reading: &Reading<'_>, items: &[Item]) -> Result<Node, ConfigError> {
    let mut draft = Draft { reading, main: None, section: Section::None, pool: Map::new(), root: Map::new() };
    for name in ["databases", "users"] {
        draft.root.push((key(name, START), Node { at: START, value: Value::Map(Map::new()) }));
    }
    for item in items {
        match item {
            Item::Section(name) => draft.enter(name),
            Item::Entry { key, value, at } => draft.entry(key, value, *at),
        }
    }
    draft.finish()
}

/// Returns the node of a setting as `pool.yaml` would have it. Nothing, for a text, is "not given".
pub(in crate::config) fn setting_node(name: &str, value: &str, at: Position) -> Node {
    let kind = settings::find(name).map_or(Kind::Text, |setting| setting.kind);
    let nothing = value.is_empty() && matches!(kind, Kind::Text | Kind::Path) && !EMPTY_IS_A_VALUE.contains(&name);
    let text = spelled(kind, value);
    if nothing { Node { at, value: Value::Null } } else { scalar(at, text) }
}

const START: Position = Position { line: 1, column: 1 };

#[derive(Clone, Copy, PartialEq)]
enum Section {
    /// Before the first.
    None,
    /// In one that has been reported.
    Unknown,
    Pool,
    Databases,
    Users,
    Peers,
    Bookend,
}

struct Draft<'a> {
    reading: &'a Reading<'a>,
    /// Where `[pgbouncer]` begins.
    main: Option<Position>,
    section: Section,
    pool: Map,
    root: Map,
}

impl Draft<'_> {
    fn enter(&mut self, name: &Key) {
        self.section = match name.name.as_str() {
            "pgbouncer" => {
                if self.main.is_some() && !self.pool.is_empty() {
                    self.reading.note("a second [pgbouncer] begins from the defaults again, as in PgBouncer: what the first one says is lost");
                    // What has no default stays.
                    self.pool.retain(|(key, _)| {
                        settings::find(&key.name)
                            .is_some_and(|own| own.default.is_empty() && matches!(own.kind, Kind::Text | Kind::Path))
                    });
                }
                self.main = Some(name.at);
                Section::Pool
            }
            "databases" => Section::Databases,
            "users" => Section::Users,
            "peers" => Section::Peers,
            "bookend" => Section::Bookend,
            _ => {
                let hint =
                    "there are [databases], [users], [peers], [pgbouncer], and [bookend] for what PgBouncer has not";
                self.error(name.at, format!("unknown section [{}]", name.name), Some(hint.into()));
                Section::Unknown
            }
        };
    }

    fn entry(&mut self, key: &Key, value: &str, at: Position) {
        match self.section {
            Section::None => self.error(key.at, "stands before the first section", None),
            Section::Unknown => {}
            Section::Pool if key.name.contains('.') => put_deep(&mut self.pool, key, scalar(at, value)),
            Section::Pool => put(&mut self.pool, key, setting_node(&key.name, value, at)),
            Section::Bookend => put_deep(&mut self.root, key, scalar(at, value)),
            Section::Databases => self.connection("databases", key, value, at),
            Section::Users => self.connection("users", key, value, at),
            Section::Peers => self.connection("peers", key, value, at),
        }
    }

    /// An entry with a connection string.
    fn connection(&mut self, section: &str, name: &Key, text: &str, at: Position) {
        let pairs = match connstr::parse(text) {
            Ok(pairs) => pairs,
            Err((place, message)) => return self.error(forward(at, place), message, None),
        };
        let mut map = Map::new();
        for pair in pairs {
            let kind = settings::entry_kind(&pair.key);
            let own = Key { at: forward(at, pair.key_at), name: pair.key };
            // PgBouncer's "not set".
            let absent = pair.value == "-1" && matches!(kind, Kind::Int | Kind::Seconds);
            let node = match absent {
                true => Node { at: own.at, value: Value::Null },
                false => scalar(forward(at, pair.value_at), spelled(kind, &pair.value)),
            };
            put(&mut map, &own, node);
        }
        let of_nobody = |map: &Map| map.iter().all(|(key, _)| key.name != "user");
        if section == "databases" && of_nobody(&map) && map.iter().any(|(key, _)| key.name == "password") {
            map.retain(|(key, _)| key.name != "password");
            self.reading.note(&format!("databases.{}.password has no effect without user, as in PgBouncer", name.name));
        }
        let entries = child(&mut self.root, section, name.at);
        put(entries, name, Node { at: name.at, value: Value::Map(map) });
    }

    fn finish(mut self) -> Result<Node, ConfigError> {
        let Some(main) = self.main else {
            return Err(ConfigError::of_file(self.reading.file, "has no section [pgbouncer]"));
        };
        self.fill_defaults(main);
        self.fill_hosts(main);
        self.root.insert(0, (key("pool", main), Node { at: main, value: Value::Map(self.pool) }));
        Ok(Node { at: START, value: Value::Map(self.root) })
    }

    fn fill_defaults(&mut self, main: Position) {
        for setting in &SETTINGS {
            let own = OWN_DEFAULTS.contains(&setting.name) || matches!(setting.without, Without::NoEffect(_));
            if !own
                && (!setting.default.is_empty() || setting.name == LISTEN_ADDR)
                && self.pool.iter().all(|(key, _)| key.name != setting.name)
            {
                let node = setting_node(setting.name, setting.default, main);
                self.pool.push((key(setting.name, main), node));
            }
        }
    }

    /// A database without a host is reached by its Unix socket.
    fn fill_hosts(&mut self, main: Position) {
        let dir = text(&self.pool, SOCKET_DIR).filter(|dir| !dir.is_empty()).unwrap_or("/tmp").to_owned();
        for (_, database) in child(&mut self.root, "databases", main) {
            let at = database.at;
            if let Value::Map(map) = &mut database.value
                && map.iter().all(|(key, _)| key.name != "host")
            {
                map.push((key("host", at), scalar(at, dir.as_str())));
            }
        }
    }

    fn error(&self, at: Position, message: impl Into<String>, hint: Option<String>) {
        self.reading.error(&Spot { at, key: String::new() }, message, hint);
    }
}

fn spelled(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Path if !value.starts_with(['/', '@']) && !value.is_empty() => absolute(value),
        _ => spell(kind, value),
    }
}

/// PgBouncer's paths are relative to the working directory, those of `pool.yaml` to the file.
fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned())
}

fn key(name: &str, at: Position) -> Key {
    Key { at, name: name.to_owned() }
}

fn scalar(at: Position, text: impl Into<String>) -> Node {
    Node { at, value: Value::Scalar(Scalar { text: text.into(), quotable: true }) }
}

fn forward(at: Position, chars: usize) -> Position {
    Position { column: at.column + chars, ..at }
}

fn text<'m>(map: &'m Map, name: &str) -> Option<&'m str> {
    map.iter().find(|(key, _)| key.name == name).and_then(|(_, node)| match &node.value {
        Value::Scalar(scalar) => Some(scalar.text.as_str()),
        _ => None,
    })
}

/// The last one counts.
fn put(map: &mut Map, key: &Key, node: Node) {
    map.retain(|(own, _)| own.name != key.name);
    map.push((key.clone(), node));
}

/// Puts `a.b` into the mapping `a`.
fn put_deep(map: &mut Map, key: &Key, node: Node) {
    match key.name.split_once('.') {
        Some((first, rest)) => put_deep(child(map, first, key.at), &Key { at: key.at, name: rest.to_owned() }, node),
        None => put(map, key, node),
    }
}

/// Returns the mapping `name`, made where there is none.
fn child<'m>(map: &'m mut Map, name: &str, at: Position) -> &'m mut Map {
    let index = map
        .iter()
        .position(|(own, node)| own.name == name && matches!(node.value, Value::Map(_)))
        .unwrap_or_else(|| {
            map.retain(|(own, _)| own.name != name);
            map.push((key(name, at), Node { at, value: Value::Map(Map::new()) }));
            map.len() - 1
        });
    match &mut map[index].1.value {
        Value::Map(entries) => entries,
        _ => unreachable!("found or made as a mapping"),
    }
}
