//! The command line: what the operator asked for, as a plain value.
//!
//! Parsing is pure (arguments in, [`Command`] out) so that it is tested without a process; `main` acts on it. clap is
//! used in this file alone.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::lb::Sources;

/// Where the admin listener is when neither file says otherwise.
pub const DEFAULT_ADMIN_URL: &str = "http://127.0.0.1:9180";

/// What the process is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve until told to stop.
    Run { sources: Sources },
    /// Read both files, print every error at once.
    Check { sources: Sources, print: bool },
    /// Ask a running process whether it is ready: exit code 0 or 1, for a container's HEALTHCHECK.
    Healthcheck { url: String },
    /// Ask a running process to read its files again.
    Reload { admin: String },
    /// Ask a running process to send nothing new to the server `name` (`web-1` or `django/web-1`).
    Drain { admin: String, name: String },
}

/// Parses the process's arguments, the program's name first.
///
/// # Errors
/// clap's error, which prints itself (help and version are "errors" too: exit code 0).
pub fn parse<I, T>(arguments: I) -> Result<Command, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    Ok(Cli::try_parse_from(arguments)?.command.into())
}

/// One process on both sides of a Django deployment: HTTP load balancer in front, PostgreSQL pool behind.
#[derive(Parser)]
#[command(name = "bookend", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Words,
}

#[derive(Subcommand)]
enum Words {
    /// Serve until SIGTERM. SIGHUP reads the files again.
    Run(Files),
    /// Check the files and print every error with file, line, column and key; exit code 1 if there are any.
    Check {
        #[command(flatten)]
        files: Files,
        /// Print the configuration in effect, defaults filled in and secrets left out.
        #[arg(long)]
        print: bool,
    },
    /// Ask a running bookend whether it is ready; exit code 0 or 1.
    Healthcheck {
        #[command(flatten)]
        admin: AdminUrl,
        /// The whole URL to ask [default: /ready of the admin listener]
        #[arg(long, value_name = "URL", value_parser = http_url, conflicts_with = "admin")]
        url: Option<String>,
    },
    /// Tell a running bookend to read its files again; a bad file changes nothing and its errors are printed.
    Reload(AdminUrl),
    /// Tell a running bookend to send nothing new to a server.
    Drain {
        /// `web-1`, or `django/web-1` when two upstreams have a server of that name.
        name: String,
        #[command(flatten)]
        admin: AdminUrl,
    },
}

/// With neither flag: ./lb.yaml and ./pool.yaml, those that exist. With one flag: that half alone.
#[derive(Args)]
struct Files {
    /// The front's file; given alone, the pool does not run.
    #[arg(long, value_name = "FILE")]
    lb: Option<PathBuf>,
    /// The pool's file; given alone, the front does not run.
    #[arg(long, value_name = "FILE")]
    pool: Option<PathBuf>,
}

#[derive(Args)]
struct AdminUrl {
    /// The admin listener of the running bookend.
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN_URL, value_parser = http_url)]
    admin: String,
}

/// Takes `http://host:port` with or without a last slash, which is cut.
fn http_url(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(rest) if !rest.trim_end_matches('/').is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("must look like http://127.0.0.1:9180".into()),
    }
}

impl From<Files> for Sources {
    fn from(files: Files) -> Self {
        Self { lb: files.lb, pool: files.pool }
    }
}

impl From<Words> for Command {
    fn from(words: Words) -> Self {
        match words {
            Words::Run(files) => Self::Run { sources: files.into() },
            Words::Check { files, print } => Self::Check { sources: files.into(), print },
            Words::Healthcheck { admin, url } => {
                Self::Healthcheck { url: url.unwrap_or_else(|| format!("{}/ready", admin.admin)) }
            }
            Words::Reload(admin) => Self::Reload { admin: admin.admin },
            Words::Drain { name, admin } => Self::Drain { admin: admin.admin, name },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        parse(line.split(' '))
    }

    #[test]
    fn run_without_flags_names_no_file() {
        assert_eq!(parsed("bookend run").unwrap(), Command::Run { sources: Sources::default() });
    }

    #[test]
    fn run_with_one_flag_names_that_half_alone() {
        let sources = Sources { lb: None, pool: Some("p.yaml".into()) };
        assert_eq!(parsed("bookend run --pool p.yaml").unwrap(), Command::Run { sources });
    }

    #[test]
    fn check_prints_when_asked() {
        let sources = Sources { lb: Some("a".into()), pool: Some("b".into()) };
        let expected = Command::Check { sources, print: true };
        assert_eq!(parsed("bookend check --lb a --pool b --print").unwrap(), expected);
    }

    #[test]
    fn healthcheck_asks_ready_unless_told_a_url() {
        let url = |line| match parsed(line).unwrap() {
            Command::Healthcheck { url } => url,
            other => panic!("{other:?}"),
        };
        assert_eq!(url("bookend healthcheck"), "http://127.0.0.1:9180/ready");
        assert_eq!(url("bookend healthcheck --admin http://10.0.0.1:9999/"), "http://10.0.0.1:9999/ready");
        assert_eq!(url("bookend healthcheck --url http://10.0.0.1:9999/live"), "http://10.0.0.1:9999/live");
    }

    #[test]
    fn drain_needs_a_name_and_takes_the_admin_url() {
        assert!(parsed("bookend drain").is_err());
        let expected = Command::Drain { admin: "http://h:1".into(), name: "web-1".into() };
        assert_eq!(parsed("bookend drain web-1 --admin http://h:1").unwrap(), expected);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for line in ["bookend", "bookend serve", "bookend run --port 1", "bookend reload --admin 127.0.0.1:9180"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
