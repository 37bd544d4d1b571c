//! The program: what the command line says, done by the library.

use std::{env, process::ExitCode};

use bookend::{
    app::{self, Voice, ask},
    cli::{self, Command, Start},
};

/// Thousands of small short-lived buffers on a few threads, and a resident set that must fall again after a peak.
///
/// Without transparent huge pages (feature `no_thp`, and [`small_pages`]), which mimalloc asks for by itself: a touched byte
/// then makes 2 MiB resident.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps the kernel from huge pages of its own accord, where it is set to give them to everyone (Debian, RHEL). The
/// allocator has begun before `main`: that it does not ask for them has to be built in.
fn small_pages() {
    let unused: libc::c_ulong = 0;
    // SAFETY: PR_SET_THP_DISABLE sets a flag of this process and touches no memory of ours.
    // A kernel without it (before 3.15, or built without huge pages) has nothing to switch off.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1 as libc::c_ulong, unused, unused, unused) };
}

fn main() -> ExitCode {
    small_pages();
    let command = match cli::parse(env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            // Help and version come this way too; a closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = match command {
        Command::Run { sources, start: Start { quiet, verbose, user } } => {
            app::run(&sources, Voice { quiet, verbose }, user.as_deref())
                .map(|()| String::new())
                .map_err(|errors| errors.join("\n"))
        }
        Command::Check { sources, print } => app::check(&sources, print),
        Command::Import { file } => app::import(&file),
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
