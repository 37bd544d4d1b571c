//! `health_check:` of an upstream.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use crate::config::{
    field::Field,
    lb::{HealthCheck, route::request_target},
    reading::Spot,
};

const SHORTEST_DOWN_INTERVAL: Duration = Duration::from_millis(100);

/// Reads a check, and where its database is named.
pub(super) fn read(field: &Field<'_>) -> (HealthCheck, Option<Spot>) {
    let mut section = field.section();
    let interval = section.duration("interval", Duration::from_secs(2));
    let database = section.get("database");
    let check = HealthCheck {
        path: section.get("path").and_then(|path| request_target(&path)).unwrap_or_else(|| "/".into()),
        host: section.get("host").and_then(|host| host.name().map(str::to_owned)),
        interval,
        down_interval: section.duration("down_interval", (interval / 4).max(SHORTEST_DOWN_INTERVAL)),
        timeout: section.duration("timeout", Duration::from_secs(1)),
        rise: section.integer("rise", 2, 1..=1_000),
        fall: section.integer("fall", 3, 1..=1_000),
        status: section.get("status").map_or_else(|| vec![200..=399], |list| statuses(&list)),
        database: database.as_ref().and_then(Field::text).map(Arc::from),
        max_body: section.size("max_body", 64 << 10, 1..=64 << 20) as usize,
    };
    section.finish();
    (check, database.map(|database| database.spot))
}

fn statuses(list: &Field<'_>) -> Vec<RangeInclusive<u16>> {
    list.some_items("status").iter().filter_map(status).collect()
}

/// Reads `204` or `200-399`.
fn status(field: &Field<'_>) -> Option<RangeInclusive<u16>> {
    let text = field.text()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if (100..=599).contains(&first) && (first..=599).contains(&last) => Some(first..=last),
        _ => {
            field.reject("must be a status such as 204 or a range such as 200-399");
            None
        }
    }
}
