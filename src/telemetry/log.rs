//! The program's own log: JSON lines on standard error, and in a file if one is named.
//!
//! Standard output belongs to the access log. The level is read from `BOOKEND_LOG`, else `RUST_LOG`, in tracing's
//! filter syntax (`debug`, `info,bookend::pool=debug`); without either it is `info`, with `-v` or `verbose` more. Libraries that use the `log` crate,
//! pingora above all, are captured too, but tamed: what pingora reports once per connection or request as an error (a
//! client that hung up, a server that refused) is in the access log and the metrics already, with a reason and a route.

mod line;
mod output;

use std::{env, io, panic, path::Path, sync::Arc};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::telemetry::log::{line::JsonLine, output::Output};

/// What libraries may say. Named targets win over a plain level, and the operator's own words over these.
const TAMED: &str = "pingora_core=warn,\
    pingora_core::apps=off,\
    pingora_core::protocols=off,\
    pingora_core::connectors=off,\
    pingora_core::upstreams=off,\
    pingora_core::services=error,\
    pingora_proxy=off,\
    pingora_pool=off,\
    tokio_postgres=warn";

/// How much is to be said, before any file has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Voice {
    /// `-q`: nothing on standard error.
    pub quiet: bool,
    /// `-v`: 1 is what happens to each connection, 2 is everything.
    pub verbose: u8,
}

/// The log while it runs.
#[derive(Clone, Default)]
pub struct Log {
    output: Output,
    /// What was said at the start, which a file can only add to.
    verbose: u8,
    /// `None` where the environment says what is logged, or (tests) nothing does.
    set_level: Option<Arc<dyn Fn(u8) + Send + Sync>>,
}

impl Log {
    /// Takes over what a file says: where the log goes beside standard error, and how much. Called again, it opens the file
    /// again.
    ///
    /// # Errors
    /// The file cannot be opened; the one before it stays.
    pub fn apply(&self, file: Option<&Path>, verbose: u8) -> io::Result<()> {
        if let Some(set_level) = &self.set_level {
            set_level(self.verbose.max(verbose));
        }
        self.output.set_file(file)
    }
}

/// Starts the log. Called once, by `main`; a second call (tests) changes nothing.
///
/// # Errors
/// Text for the operator when the filter in the environment cannot be read.
pub fn init(voice: Voice) -> Result<Log, String> {
    let wanted = ["BOOKEND_LOG", "RUST_LOG"]
        .into_iter()
        .filter_map(|name| Some((name, env::var(name).ok()?)))
        .find(|(_, filter)| !filter.trim().is_empty());
    let filter = match &wanted {
        Some((name, filter)) => parse(filter).map_err(|error| format!("{name}: {error}"))?,
        None => parse(level(voice.verbose)).map_err(|error| error.to_string())?,
    };
    let mut log = Log { verbose: voice.verbose, ..Log::default() };
    log.output.set_quiet(voice.quiet);
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
    let lines = fmt::layer().event_format(JsonLine).with_writer(log.output.clone());
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        panic::set_hook(Box::new(report_panic));
    }
    if wanted.is_none() {
        log.set_level = Some(Arc::new(move |verbose| {
            if let Ok(filter) = parse(level(verbose)) {
                // Fails when the log has gone.
                let _ = handle.reload(filter);
            }
        }));
    }
    Ok(log)
}

/// Returns the filter for a number of `-v`.
fn level(verbose: u8) -> &'static str {
    match verbose {
        0 => "info",
        1 => "info,bookend=debug",
        _ => "debug,bookend=trace",
    }
}

fn parse(wanted: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(format!("{TAMED},{wanted}"))
}

/// A panic is a bug that cost one request or session: it must be seen, as one line like any other.
fn report_panic(info: &panic::PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| info.payload().downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(message, place, thread = thread.name().unwrap_or(""), "panic");
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::Arc,
    };

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(filter: &str, log: impl FnOnce()) -> Vec<serde_json::Value> {
        written(filter, log).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn written(filter: &str, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = fmt::layer().event_format(JsonLine).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(parse(filter).unwrap()).with(layer);
        tracing::subscriber::with_default(subscriber, log);
        let bytes = captured.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_json_with_its_fields_on_top() {
        let lines = lines("info", || tracing::warn!(server = "web-1", failures = 3, "server is down"));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["message"], "server is down");
        assert_eq!(lines[0]["server"], "web-1");
        assert_eq!(lines[0]["failures"], 3);
    }

    #[test]
    fn fields_come_in_order_and_every_text_is_escaped() {
        let captured = written("info", || tracing::info!(z = "a \"b\"\nc", a = 1.5, up = true, "said {}", '"'));
        let (_, rest) = captured.split_once(",\"level\"").unwrap();
        let expected =
            ":\"INFO\",\"message\":\"said \\\"\",\"z\":\"a \\\"b\\\"\\nc\",\"a\":1.5,\"up\":true,\"target\":\"";
        assert!(rest.starts_with(expected), "{rest}");
        assert_eq!(captured.matches('\n').count(), 1);
    }

    #[test]
    fn a_record_of_another_library_has_its_own_target_and_no_paths() {
        let line = &lines("info", || {
            tracing::info!(target: "log", { "log.target" = "pingora_core::server", "log.file" = "/src/x.rs", "log.line" = 7 }, "hi");
        })[0];
        assert_eq!(line["target"], "pingora_core::server", "{line}");
        assert_eq!(line.as_object().unwrap().len(), 4, "{line}");
    }

    #[test]
    fn the_noise_of_the_transport_is_tamed_unless_asked_for() {
        let noise = || tracing::error!(target: "pingora_proxy", "Fail to proxy");
        assert!(lines("debug", noise).is_empty());
        assert_eq!(lines("info,pingora_proxy=error", noise).len(), 1);
        let accept = || tracing::error!(target: "pingora_core::services::listening", "Accept() failed");
        assert_eq!(lines("info", accept).len(), 1);
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_an_error() {
        assert!(parse("bookend=loud").is_err());
    }
}
