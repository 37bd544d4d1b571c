//! The command line: what the operator asked for, as a plain value.
//!
//! Parsing is pure (arguments in, [`Command`] out) so that it is tested without a process; `main` acts on it. clap is
//! used in this file alone.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::config::lb::Sources;

/// Where the admin listener is when neither file says otherwise.
pub const DEFAULT_ADMIN_URL: &str = "http://127.0.0.1:9180";

/// What the process is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve until told to stop.
    Run { sources: Sources, start: Start },
    /// Read both files, print every error at once.
    Check { sources: Sources, print: bool },
    /// Print a pgbouncer.ini as pool.yaml.
    Import { file: PathBuf },
    /// Ask a running process whether it is ready: exit code 0 or 1, for a container's HEALTHCHECK.
    Healthcheck { url: String },
    /// Ask a running process to read its files again.
    Reload { admin: String },
    /// Ask a running process to send nothing new to the server `name` (`web-1` or `django/web-1`).
    Drain { admin: String, name: String },
}

/// What `run` is told beside its files, by PgBouncer's letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Nothing on standard error.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// The user to become, instead of the one of the file.
    pub user: Option<String>,
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
    let words = Cli::try_parse_from(arguments)?.command;
    if let Words::Run(run) = &words
        && let Some(why) = run.refused()
    {
        return Err(Cli::command().error(ErrorKind::ArgumentConflict, why));
    }
    Ok(words.into())
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
    Run(Run),
    /// Check the files and print every error with file, line, column and key; exit code 1 if there are any.
    Check {
        #[command(flatten)]
        files: Files,
        /// Print the configuration in effect, defaults filled in and secrets left out.
        #[arg(long)]
        print: bool,
    },
    /// Print what pool.yaml would be for a pgbouncer.ini, with comments: what is left out and why. Holds its passwords.
    Import { file: PathBuf },
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

#[derive(Args)]
struct Run {
    #[command(flatten)]
    files: Files,
    /// Log nothing on standard error.
    #[arg(short, long)]
    quiet: bool,
    /// Log more; twice: everything.
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// Become this user before anything is opened; only when started as root.
    #[arg(short, long, value_name = "NAME")]
    user: Option<String>,
    /// PgBouncer's: into the background.
    #[arg(short, long, hide = true)]
    daemon: bool,
    /// PgBouncer's: take over from a running process.
    #[arg(short = 'R', long, hide = true)]
    reboot: bool,
}

impl Run {
    /// Returns what to do instead of what is not offered.
    fn refused(&self) -> Option<&'static str> {
        if self.daemon {
            return Some(
                "-d is not offered: the process stays in the foreground, for systemd (Type=notify), a container or setsid(1); pidfile and logfile are honoured",
            );
        }
        self.reboot.then_some("-R is not offered: start the new process beside the old one, then send the old one SIGTERM (so_reuseport, or a balancer that watches /ready)")
    }
}

/// With neither flag: ./lb.yaml and ./pool.yaml, those that exist. With one flag: that half alone.
#[derive(Args)]
struct Files {
    /// The front's file; given alone, the pool does not run.
    #[arg(long, value_name = "FILE")]
    lb: Option<PathBuf>,
    /// The pool's file, or a pgbouncer.ini; given alone, the front does not run.
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
            Words::Run(run) => Self::Run {
                sources: run.files.into(),
                start: Start { quiet: run.quiet, verbose: run.verbose, user: run.user },
            },
            Words::Check { files, print } => Self::Check { sources: files.into(), print },
            Words::Import { file } => Self::Import { file },
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
        assert_eq!(
            parsed("bookend run").unwrap(),
            Command::Run { sources: Sources::default(), start: Start::default() }
        );
    }

    #[test]
    fn run_with_one_flag_names_that_half_alone() {
        let sources = Sources { lb: None, pool: Some("p.yaml".into()) };
        assert_eq!(parsed("bookend run --pool p.yaml").unwrap(), Command::Run { sources, start: Start::default() });
    }

    #[test]
    fn run_takes_pgbouncers_letters_and_names_what_to_use_instead_of_the_others() {
        let sources = Sources { lb: None, pool: Some("pgbouncer.ini".into()) };
        let start = Start { quiet: true, verbose: 2, user: Some("postgres".into()) };
        let line = "bookend run -qvv -u postgres --pool pgbouncer.ini";
        assert_eq!(parsed(line).unwrap(), Command::Run { sources, start });
        for (line, instead) in
            [("bookend run -d", "systemd"), ("bookend run --daemon", "pidfile"), ("bookend run -R", "SIGTERM")]
        {
            let error = parsed(line).unwrap_err().to_string();
            assert!(error.contains("is not offered") && error.contains(instead), "{error}");
        }
        for line in ["bookend -V", "bookend --version"] {
            assert_eq!(parsed(line).unwrap_err().kind(), ErrorKind::DisplayVersion);
        }
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
