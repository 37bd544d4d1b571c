//! `admin:`, `shutdown:` and `threads:`: the process itself. The first two may stand in either file.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use crate::config::{
    lb::{Admin, Shutdown},
    reading::Spot,
    section::Section,
};

/// Where `/live`, `/ready`, `/metrics` and the pages are when no file says otherwise.
pub(in crate::config) const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);
pub(in crate::config) const DEFAULT_SHUTDOWN: Shutdown =
    Shutdown { pre_stop_delay: Duration::ZERO, grace_period: Duration::from_secs(30) };

/// What a file says about the process; `None` where it says nothing.
#[derive(Debug)]
pub(in crate::config) struct Process {
    /// Inner `None`: `admin: false`.
    pub admin: Option<Option<(Admin, Spot)>>,
    pub shutdown: Option<Shutdown>,
}

pub(in crate::config) fn read(file: &mut Section<'_>) -> Process {
    Process { admin: read_admin(file), shutdown: read_shutdown(file) }
}

fn read_admin(file: &mut Section<'_>) -> Option<Option<(Admin, Spot)>> {
    let field = file.get("admin")?;
    if field.is("false") {
        return Some(None);
    }
    let mut section = field.section();
    let address = section.get("address");
    section.finish();
    let admin = match address {
        None => (Admin { address: DEFAULT_ADMIN }, field.spot),
        Some(field) => (Admin { address: field.listen_address()? }, field.spot),
    };
    Some(Some(admin))
}

fn read_shutdown(file: &mut Section<'_>) -> Option<Shutdown> {
    let mut section = file.get("shutdown")?.section();
    let default = DEFAULT_SHUTDOWN;
    let shutdown = Shutdown {
        pre_stop_delay: section.timeout("pre_stop_delay", None).unwrap_or(default.pre_stop_delay),
        grace_period: section.timeout("grace_period", Some(default.grace_period)).unwrap_or(Duration::ZERO),
    };
    section.finish();
    Some(shutdown)
}

/// Reads `threads: N` or `threads: auto`, the number of cores.
pub(in crate::config) fn read_threads(section: &mut Section<'_>, default: Option<usize>) -> usize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    match section.get("threads") {
        None => default.unwrap_or_else(cores),
        Some(field) if field.is("auto") => cores(),
        Some(field) => field.integer_or_word(1..=1_024, "auto").unwrap_or(1),
    }
}

/// Takes the first file's word on each section, else the default.
pub(in crate::config) fn settle<'p>(processes: impl Iterator<Item = &'p Process> + Clone) -> (Option<Admin>, Shutdown) {
    let admin = match processes.clone().find_map(|process| process.admin.as_ref()) {
        Some(said) => said.as_ref().map(|(admin, _)| admin.clone()),
        None => Some(Admin { address: DEFAULT_ADMIN }),
    };
    let shutdown = processes.clone().find_map(|process| process.shutdown).unwrap_or(DEFAULT_SHUTDOWN);
    (admin, shutdown)
}
