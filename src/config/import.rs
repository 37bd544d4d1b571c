//! `pgbouncer.ini` -> `pool.yaml`, with comments: what was left out and why, and what had to be said.
//!
//! Made from the tree that the ini is read into, so that what is printed means the same: PgBouncer's defaults are written
//! down where leaving them out would make a difference, which is found out by leaving them out.

use std::{collections::BTreeSet, fmt::Write, path::Path};

use crate::config::{
    ConfigError, Errors, Surroundings, ini, load,
    node::{Key, Node, Value},
    pool::{self, Pool},
    print::Yaml,
    reading::Reading,
};

/// Returns the ini as `pool.yaml` would say it. The text holds the passwords of the ini.
///
/// # Errors
/// Everything that is wrong in it, at once.
pub fn import(file: &Path, surroundings: &Surroundings) -> Result<String, Errors> {
    let text = load::read_file(file)?;
    if !ini::is_ini(file, &text) {
        return Err(ConfigError::of_file(file, "is no pgbouncer.ini: it does not begin with a section").into());
    }
    let reading = Reading::new(file, surroundings);
    let tree = ini::parse(&reading, &text, &load::read_file)?;
    let pool = pool::read(&reading, &tree).pool;
    let (notes, without_effect) = (reading.notes(), reading.without_effect());
    let (errors, known) = reading.finish();
    if let Some(errors) = Errors::collect(errors) {
        return Err(errors);
    }
    let Value::Map(sections) = &tree.value else { return Ok(String::new()) };
    let mut out = format!("# {} as pool.yaml. It may hold passwords, as the ini does.\n", file.display());
    for note in &notes {
        let _ = writeln!(out, "# {note}");
    }
    for (key, why) in &without_effect {
        let _ = writeln!(out, "# left out: {key}, it has no effect here: {why}");
    }
    for (name, section) in sections {
        match (&*name.name, &section.value) {
            ("pool", Value::Map(settings)) => {
                out.push_str("\npool:\n");
                let writer = Settings { file, surroundings, tree: &tree, section, pool: &pool, known: &known };
                settings.iter().for_each(|(key, node)| writer.write(key, node, &mut out));
            }
            ("users", Value::Map(users)) => {
                let here = |(key, _): &&(Key, Node)| pool.users.iter().any(|user| user.name == key.name);
                let users: Vec<_> = users.iter().filter(here).cloned().collect();
                if !users.is_empty() {
                    write_section("users", &Value::Map(users), &mut out);
                }
            }
            (name, value) => write_section(name, value, &mut out),
        }
    }
    Ok(out)
}

fn write_section(name: &str, value: &Value, out: &mut String) {
    let mut map = Yaml::map();
    map.put(name, yaml(value));
    out.push('\n');
    out.push_str(&load::to_yaml(&map));
}

/// What is written of `[pgbouncer]`.
struct Settings<'a> {
    file: &'a Path,
    surroundings: &'a Surroundings,
    tree: &'a Node,
    section: &'a Node,
    pool: &'a Pool,
    /// What the readers of `pool.yaml` have asked for.
    known: &'a BTreeSet<String>,
}

impl Settings<'_> {
    fn write(&self, key: &Key, node: &Node, out: &mut String) {
        if !self.known.contains(&load::join("pool", &key.name)) || node.value == Value::Null {
            return;
        }
        // The defaults stand where the section begins.
        let is_default = key.at == self.section.at;
        if is_default && self.pool_without(&key.name).as_ref() == Some(self.pool) {
            return;
        }
        let value = match key.name.as_str() {
            // Without those who are nobody.
            "admin_users" => Yaml::list(&self.pool.admin_users, Yaml::text),
            "stats_users" => Yaml::list(&self.pool.stats_users, Yaml::text),
            _ => yaml(&node.value),
        };
        let mut line = Yaml::map();
        line.put(&key.name, value);
        if is_default {
            out.push_str("  # PgBouncer's default\n");
        }
        for line in load::to_yaml(&line).lines() {
            let _ = writeln!(out, "  {line}");
        }
    }

    /// Returns what the ini would be without one setting; `None` when it would be wrong.
    fn pool_without(&self, name: &str) -> Option<Pool> {
        let mut tree = self.tree.clone();
        if let Value::Map(sections) = &mut tree.value {
            for (_, section) in sections.iter_mut().filter(|(key, _)| key.name == "pool") {
                if let Value::Map(settings) = &mut section.value {
                    settings.retain(|(key, _)| key.name != name);
                }
            }
        }
        let reading = Reading::new(self.file, self.surroundings);
        reading.becomes_ini();
        let pool = pool::read(&reading, &tree).pool;
        reading.finish().0.is_empty().then_some(pool)
    }
}

fn yaml(value: &Value) -> Yaml {
    match value {
        Value::Null | Value::Broken => Yaml::Null,
        Value::List(items) => Yaml::list(items, |item| yaml(&item.value)),
        Value::Map(entries) => {
            let mut map = Yaml::map();
            entries.iter().for_each(|(key, node)| map.put(&key.name, yaml(&node.value)));
            map
        }
        Value::Scalar(scalar) => match (scalar.text.as_str(), scalar.text.parse::<u64>()) {
            ("true", _) => Yaml::Bool(true),
            ("false", _) => Yaml::Bool(false),
            (text, Ok(number)) if number.to_string() == text => Yaml::Number(number),
            // What is no variable there must not become one here.
            (text, _) => Yaml::text(text.replace("${", "$${")),
        },
    }
}
