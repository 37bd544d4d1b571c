//! The program: what the command line says, done by the library.

use std::{env, process::ExitCode};

use bookend::{
    app::{self, ask},
    cli::{self, Command},
};

/// Thousands of small short-lived buffers on a few threads, and a resident set that must fall again after a peak.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match cli::parse(env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            // Help and version come this way too; a closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match command {
        Command::Run { sources } => app::run(&sources).map(|()| String::new()).map_err(|errors| errors.join("\n")),
        Command::Check { sources, print } => app::check(&sources, print),
        Command::Healthcheck { url } => ask::healthcheck(&url),
        Command::Reload { admin } => ask::reload(&admin),
        Command::Drain { admin, name } => ask::drain(&admin, &name),
    };
    match done {
        Ok(text) if text.is_empty() => ExitCode::SUCCESS,
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
