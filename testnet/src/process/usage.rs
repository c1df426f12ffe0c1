//! What a process has used, as the kernel accounts it (`/proc/PID/stat`, proc(5)).

use std::fs;
use std::io;

/// Processor time and memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Usage {
    /// Processor time in user mode and in the kernel, in seconds, over all threads.
    pub cpu_s: f64,
    /// Memory resident now, in bytes; the kernel counts it per core and may be behind by some
    /// hundred KiB.
    pub rss_bytes: u64,
}

pub(super) fn read(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "unknown form of /proc/PID/stat");
    let (user, system, pages) = parse(&stat).ok_or_else(malformed)?;
    let ticks = system_value(libc::_SC_CLK_TCK)?;
    let page_bytes = system_value(libc::_SC_PAGESIZE)?;
    Ok(Usage {
        cpu_s: (user + system) as f64 / ticks as f64,
        rss_bytes: pages * page_bytes,
    })
}

/// User ticks, system ticks and resident pages: fields 14, 15 and 24.
fn parse(stat: &str) -> Option<(u64, u64, u64)> {
    // The name (field 2) is in parentheses and may hold anything, also spaces and parentheses.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user = fields.next()?.parse().ok()?;
    let system = fields.next()?.parse().ok()?;
    let pages = fields.nth(8)?.parse().ok()?;
    Some((user, system, pages))
}

fn system_value(name: i32) -> io::Result<u64> {
    #[expect(unsafe_code, reason = "the standard library does not tell it")]
    // SAFETY: sysconf reads nothing but its number.
    let value = unsafe { libc::sysconf(name) };
    match u64::try_from(value) {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) R (b) S 1 7 7 0 -1 0 5 6 7 8 120 34 3 4 20 0 9 0 100 4096 55 18446 1 1";
        assert_eq!(parse(stat), Some((120, 34, 55)));
        assert_eq!(parse("7 (a) S 1"), None);
    }
}
