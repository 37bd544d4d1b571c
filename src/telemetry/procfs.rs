//! What Linux says of this process, read from `/proc/self` (proc_pid_stat(5), proc_pid_limits(5)).
//!
//! Four small files at each scrape. A field that cannot be read is absent, never zero: a dashboard that shows no memory is
//! believed, one that shows 0 bytes is not.

use std::fs;

/// USER_HZ, the unit of the times in `/proc/PID/stat`: 100 on every architecture Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// One look at the process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: Option<f64>,
    pub threads: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    /// The soft limit: what `accept()` fails at.
    pub max_fds: Option<u64>,
}

impl Process {
    /// Looks now.
    pub fn read() -> Self {
        let mut process = fs::read_to_string("/proc/self/stat").map(|text| parse_stat(&text)).unwrap_or_default();
        if let Ok(text) = fs::read_to_string("/proc/self/status") {
            process.resident_bytes = parse_kib(&text, "VmRSS:");
            process.virtual_bytes = parse_kib(&text, "VmSize:");
        }
        // The directory that is being read is itself an open descriptor.
        process.open_fds = fs::read_dir("/proc/self/fd").ok().map(|dir| (dir.count() as u64).saturating_sub(1));
        process.max_fds = fs::read_to_string("/proc/self/limits").ok().and_then(|text| parse_max_fds(&text));
        process
    }
}

/// `pid (comm) state …`: comm may hold spaces and parentheses, so counting starts after the last `)`.
fn parse_stat(text: &str) -> Process {
    let Some((_, rest)) = text.rsplit_once(')') else { return Process::default() };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // rest begins with field 3 (state): utime is field 14, stime 15, num_threads 20.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let cpu_seconds = match (number(14), number(15)) {
        (Some(user), Some(system)) => Some((user + system) as f64 / TICKS_PER_SECOND),
        _ => None,
    };
    Process { cpu_seconds, threads: number(20), ..Process::default() }
}

fn parse_kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

fn parse_max_fds(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("Max open files"))?;
    // `unlimited` does not parse and stays absent.
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text =
            "7 (a) b (c)) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 9 0 12345 1000 200 18446744073709551615";
        let process = parse_stat(text);
        assert_eq!(process.cpu_seconds, Some(3.0));
        assert_eq!(process.threads, Some(9));
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        assert_eq!(parse_stat("garbage"), Process::default());
        assert_eq!(parse_stat("1 (x) S 1"), Process::default());
        assert_eq!(parse_kib("VmRSS:\tmuch kB\n", "VmRSS:"), None);
        assert_eq!(parse_max_fds("Max open files            unlimited            unlimited            files\n"), None);
    }

    #[test]
    fn sizes_and_limits_are_read() {
        assert_eq!(parse_kib("VmSize:\t  20 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 * 1024));
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(parse_max_fds(limits), Some(1024));
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 0));
        assert!(process.open_fds.is_some_and(|open| open >= 3));
        assert!(process.threads.is_some_and(|threads| threads >= 1));
    }
}
