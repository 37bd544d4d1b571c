//! `listeners:` of `lb.yaml`.

use crate::config::{field::Field, lb::Listener, reading::Spot, section::Section};

/// Reads the listeners, each with the place of its address.
pub(super) fn read(file: &mut Section<'_>) -> Vec<(Listener, Spot)> {
    let Some(list) = file.require("listeners", "[{ address: 0.0.0.0:8080 }]") else { return Vec::new() };
    list.some_items("listener").iter().filter_map(listener).collect()
}

fn listener(field: &Field<'_>) -> Option<(Listener, Spot)> {
    let mut section = field.section();
    let address = section.require("address", "0.0.0.0:8080");
    let max_connections = section.integer("max_connections", 20_000, 1..=10_000_000);
    section.finish();
    let field = address?;
    Some((Listener { address: field.listen_address()?, max_connections }, field.spot))
}
