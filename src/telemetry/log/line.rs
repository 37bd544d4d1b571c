//! One event as one JSON line: time, level, message, then its fields in the order they were written, then the target.
//!
//! tracing-subscriber's own JSON sorts the fields, and shows for records of the `log` crate (pingora) where in someone's
//! cargo folder they were written instead of which part of the library speaks.

use std::fmt;

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// What tracing-log calls a record's own target, and all that it adds to one.
const RECORD_TARGET: &str = "log.target";
const RECORD_PREFIX: &str = "log.";

/// The format.
pub struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        writer.write_str("\",\"level\":\"")?;
        writer.write_str(metadata.level().as_str())?;
        let mut rest = Vec::with_capacity(fields.others.len() + fields.message.len() + 64);
        rest.extend_from_slice(b"\",\"message\":");
        append(&mut rest, &fields.message)?;
        rest.extend_from_slice(&fields.others);
        rest.extend_from_slice(b",\"target\":");
        append(&mut rest, fields.record_target.as_deref().unwrap_or(metadata.target()))?;
        rest.extend_from_slice(b"}\n");
        writer.write_str(str::from_utf8(&rest).map_err(|_| fmt::Error)?)
    }
}

/// Appends `value` as JSON.
fn append(to: &mut Vec<u8>, value: impl Serialize) -> fmt::Result {
    serde_json::to_writer(to, &value).map_err(|_| fmt::Error)
}

/// An event's fields, taken apart.
#[derive(Default)]
struct Fields {
    message: String,
    /// All others, as they stand in the line: with a comma before each.
    others: Vec<u8>,
    record_target: Option<String>,
}

impl Fields {
    fn take(&mut self, field: &Field, value: impl Serialize + fmt::Display) {
        match field.name() {
            "message" => self.message = value.to_string(),
            RECORD_TARGET => self.record_target = Some(value.to_string()),
            name if name.starts_with(RECORD_PREFIX) => {}
            name => {
                let before = self.others.len();
                self.others.push(b',');
                let written = append(&mut self.others, name).and_then(|()| {
                    self.others.push(b':');
                    append(&mut self.others, value)
                });
                if written.is_err() {
                    self.others.truncate(before);
                }
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value);
    }
}
