//! Open files: the limit is raised as far as the kernel lets us, and a configuration that needs more is told so.
//!
//! A soft limit of 1,024 is common and is reached at some 500 proxied connections; what fails then is `accept()`, far from
//! its cause. systemd and Docker set the hard limit (`LimitNOFILE=`, `--ulimit nofile`).

use std::io;

/// Raises the soft limit of open files to the hard one. Returns the limit that now holds.
///
/// # Errors
/// When the kernel refuses to say or to set it.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to fill in.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: `raised` is a valid rlimit that the kernel only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } != 0 {
            return Err(io::Error::last_os_error());
        }
        limit = raised;
    }
    Ok(limit.rlim_cur)
}

/// Returns what to tell the operator when `needed` open files do not fit into `limit`.
pub fn shortage(needed: u64, limit: u64) -> Option<String> {
    (needed > limit).then(|| {
        format!(
            "the configuration may need {needed} open files (two per proxied request or transaction) but the hard limit is \
             {limit}: raise it (systemd LimitNOFILE=, docker --ulimit nofile=) or lower max_connections and max_client_conn"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise_open_files().unwrap();
        assert!(limit >= 256);
        assert_eq!(raise_open_files().unwrap(), limit, "raising again changes nothing");
    }

    #[test]
    fn a_shortage_names_both_numbers() {
        assert_eq!(shortage(1024, 1024), None);
        let text = shortage(45_000, 4_096).unwrap();
        assert!(text.contains("45000") && text.contains("4096"), "{text}");
    }
}
