//! Settings of PgBouncer that `pool.yaml` has no key for, in an ini: taken where nothing is lost by it, refused with a reason
//! where something would be.

use super::settings::{self, Kind, Setting, Without};
use crate::config::{
    ini::spelling::spell,
    node::{Node, Value},
    reading::Spot,
    section::Section,
};

/// Goes through the keys of `[pgbouncer]` that no reader has asked for.
pub(in crate::config) fn settle(section: &mut Section<'_>) {
    if !section.reading().is_ini() {
        return;
    }
    for (key, node) in section.unasked() {
        let Some(setting) = settings::find(&key.name) else { continue };
        let reading = section.reading();
        match setting.without {
            _ if is_default(setting, node) => {}
            Without::NoEffect(why) => reading.takes_without_effect(setting.name, why),
            Without::Unless(values, _) if values.iter().any(|value| is(setting.kind, node, value)) => {}
            Without::Unless(_, instead) => {
                let spot = Spot { at: key.at, key: key.name.clone() };
                reading.error(&spot, "is not offered", Some(instead.to_owned()));
            }
        }
        section.settles(setting.name);
    }
}

fn is_default(setting: &Setting, node: &Node) -> bool {
    node.value == Value::Null || is(setting.kind, node, setting.default)
}

fn is(kind: Kind, node: &Node, value: &str) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.text == spell(kind, value))
}
