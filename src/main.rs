//! The program: what the command line says, done by the library.

use std::{
    alloc::{GlobalAlloc, Layout},
    env,
    process::ExitCode,
};

use bookend::{
    app::{self, Voice, ask},
    cli::{self, Command, Start},
};

/// Thousands of small short-lived buffers on a few threads, and a resident set that must fall again after a peak.
///
/// Without transparent huge pages (feature `no_thp`, and [`small_pages`]), which mimalloc asks for by itself: a touched byte
/// then makes 2 MiB resident.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator(mimalloc::MiMalloc);

/// mimalloc, asked for an alignment only where it does not have it anyway: asked for one, it allocates everything above a
/// kilobyte by a detour, larger than it need be (its alloc-aligned.c, `mi_theap_malloc_zero_aligned_at_generic`).
struct Allocator(mimalloc::MiMalloc);

/// What every block of mimalloc's is aligned to.
const ALIGNED: usize = std::mem::size_of::<usize>();

// SAFETY: every call is mimalloc's own for the same size; what is not asked to be aligned is, since no block is smaller than a
// word, and mimalloc frees a block without being told how it was asked for.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: takes any size.
            return unsafe { libmimalloc_sys::mi_malloc(layout.size()) }.cast();
        }
        // SAFETY: as this function's own.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: takes any size.
            return unsafe { libmimalloc_sys::mi_zalloc(layout.size()) }.cast();
        }
        // SAFETY: as this function's own.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as this function's own.
        unsafe { self.0.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as this function's own.
        unsafe { self.0.realloc(at, layout, size) }
    }
}

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
