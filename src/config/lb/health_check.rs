//! `health_check:` of an upstream.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::config::{
    field::Field,
    lb::{
        CheckKind, HealthCheck,
        headers::{header_name, is_secret},
        route::request_target,
    },
    reading::Spot,
};

const SHORTEST_DOWN_INTERVAL: Duration = Duration::from_millis(100);

/// Reads a check, and where its database is named.
pub(super) fn read(field: &Field<'_>) -> (HealthCheck, Option<Spot>) {
    let mut section = field.section();
    let default = HealthCheck::default();
    let interval = section.duration("interval", default.interval);
    let database = section.get("database");
    let kind = section.choice("type", default.kind, &[("http", CheckKind::Http), ("tcp", CheckKind::Tcp)]);
    if kind == CheckKind::Tcp {
        for key in HTTP_ONLY {
            if let Some(field) = section.get(key) {
                field.error("has no meaning with type: tcp, which asks for nothing");
            }
        }
    }
    let check = HealthCheck {
        kind,
        path: section.get("path").and_then(|path| request_target(&path)).unwrap_or(default.path),
        host: section.get("host").and_then(|host| host.name().map(str::to_owned)),
        headers: headers(section.get("headers")),
        interval,
        down_interval: section.duration("down_interval", (interval / 4).max(SHORTEST_DOWN_INTERVAL)),
        fast_interval: section.get("fast_interval").and_then(|field| field.positive_duration()),
        initially_up: section.choice("initial", default.initially_up, &[("down", false), ("up", true)]),
        timeout: section.duration("timeout", default.timeout),
        rise: section.integer("rise", default.rise, 1..=1_000),
        fall: section.integer("fall", default.fall, 1..=1_000),
        status: section.get("status").map_or(default.status, |list| statuses(&list)),
        expect_body: section.get("expect_body").and_then(|field| field.lines()).map(Box::from),
        expect_headers: headers(section.get("expect_headers")),
        database: database.as_ref().and_then(Field::text).map(Arc::from),
        max_body: section.size("max_body", default.max_body as u64, 1..=64 << 20) as usize,
    };
    section.finish();
    (check, database.map(|database| database.spot))
}

/// What a check by TCP cannot ask for or see.
const HTTP_ONLY: [&str; 7] = ["path", "host", "headers", "status", "expect_body", "expect_headers", "max_body"];

fn headers(field: Option<Field<'_>>) -> Vec<(HeaderName, HeaderValue)> {
    let entries = field.map(|field| field.entries()).unwrap_or_default();
    entries
        .iter()
        .filter_map(|(name, field)| {
            let header = header_name(name, field)?;
            let mut value = header_value(field)?;
            value.set_sensitive(is_secret(&header, field));
            Some((header, value))
        })
        .collect()
}

fn header_value(field: &Field<'_>) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(field.text()?).ok();
    if value.is_none() {
        field.reject("must be a header's value: visible ASCII and spaces");
    }
    value
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
