//! One entry of `servers:`.

use std::time::Duration;

use crate::config::{field::Field, lb::Server, reading::Spot};

/// A server, and where its parts stand for the checks across servers.
pub(super) struct Found {
    pub server: Server,
    pub name: Spot,
    pub address: Spot,
}

pub(super) fn read(field: &Field<'_>) -> Option<Found> {
    let mut section = field.section();
    let address = section.require("address", "127.0.0.1:8001");
    let name = section.get("name");
    let backup = section.get("backup");
    let weight = section.integer("weight", 1, 1..=65_535);
    let max_fails = section.integer("max_fails", 3, 0..=u32::MAX.into());
    let fail_timeout = section.duration("fail_timeout", Duration::from_secs(10));
    let max_conns = section.integer("max_conns", 0_usize, 0..=10_000_000);
    let slow_start = section.timeout("slow_start", None).unwrap_or_default();
    let down = section.flag("down", false);
    section.finish();

    let named = match &name {
        Some(name) => name.name(),
        None => address.as_ref().and_then(Field::text),
    };
    let address = address?;
    let server = Server {
        name: named?.into(),
        address: address.server_address()?,
        weight,
        backup: backup.as_ref().and_then(Field::flag).unwrap_or(false),
        max_fails,
        fail_timeout,
        slow_start,
        max_conns: (max_conns != 0).then_some(max_conns),
        down,
    };
    Some(Found { server, name: name.map_or_else(|| address.spot.clone(), |name| name.spot), address: address.spot })
}
