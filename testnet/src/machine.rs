//! The machine that figures were measured on: without it no figure means anything.

use std::fs;
use std::hint::black_box;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use comity_protocol::signing::{Domain, SecretKey, verify};

/// Bytes of one append of the probe: a small group of records, as the log writes them.
pub const PROBE_BYTES: usize = 4 * 1024;
/// Bytes of the probe's file; more appends start again at its beginning.
const PROBE_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Verifications between two looks at the clock.
const VERIFY_BATCH: u32 = 64;

/// What the machine is and does now.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Machine {
    /// Processor cores that we may use.
    pub cores: usize,
    /// The processor's name, or "unknown".
    pub cpu: String,
    /// Tasks that wanted to run in the last minute, on average: above `cores`, figures are worse
    /// than the machine.
    pub load_1m: f64,
    /// The disk of the directory asked for.
    pub fdatasync: Fdatasync,
    /// Ed25519 signatures checked in a second by one thread.
    pub verify_per_s: f64,
}

/// Times of an append of [`PROBE_BYTES`] to a preallocated file and its `fdatasync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Fdatasync {
    /// Appends measured.
    pub samples: u64,
    /// Half of them took at most this, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took at most this, in milliseconds.
    pub p99_ms: f64,
    /// 999 of 1,000 took at most this, in milliseconds.
    pub p999_ms: f64,
}

/// Measures the machine: `appends` syncs in `directory`, then signatures for `verify_time`.
///
/// # Errors
///
/// What the system says to the probe's file.
pub fn measure(directory: &Path, appends: u32, verify_time: Duration) -> io::Result<Machine> {
    Ok(Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cpu: cpu(),
        load_1m: load_1m(),
        fdatasync: fdatasync(directory, appends)?,
        verify_per_s: verify_per_s(verify_time),
    })
}

/// Measures `appends` syncs in `directory`, whose file is removed again. Blocks the thread.
///
/// # Errors
///
/// What the system says; the file has no name by then and leaves nothing behind.
pub fn fdatasync(directory: &Path, appends: u32) -> io::Result<Fdatasync> {
    let path = directory.join(format!(".fdatasync-probe-{}", std::process::id()));
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    preallocate(&file, PROBE_FILE_BYTES)?;
    file.sync_all()?;
    let block = [0x5a; PROBE_BYTES];
    let mut times = Vec::with_capacity(appends as usize);
    for append in 0..u64::from(appends) {
        let place = append * PROBE_BYTES as u64 % PROBE_FILE_BYTES;
        let start = Instant::now();
        file.write_all_at(&block, place)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let ms = |per_mille| percentile(&times, per_mille).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    Ok(Fdatasync {
        samples: times.len() as u64,
        p50_ms: ms(500),
        p99_ms: ms(990),
        p999_ms: ms(999),
    })
}

/// Signatures that one thread checks in a second, measured for at least `time`. Blocks the thread.
#[must_use]
pub fn verify_per_s(time: Duration) -> f64 {
    let key = SecretKey::from_seed([7; 32]);
    let (public, id) = (key.public(), [9; 32]);
    let signature = key.sign(Domain::Event, &id);
    let start = Instant::now();
    let mut checked = 0_u32;
    loop {
        for _ in 0..VERIFY_BATCH {
            let good = verify(&public, Domain::Event, black_box(&id), &signature).is_ok();
            checked += u32::from(black_box(good));
        }
        let elapsed = start.elapsed();
        if elapsed >= time {
            return f64::from(checked) / elapsed.as_secs_f64();
        }
    }
}

/// The smallest of `sorted` that at least `per_mille` of 1,000 do not exceed (nearest rank), or
/// none of nothing.
#[must_use]
pub fn percentile<T: Copy>(sorted: &[T], per_mille: usize) -> Option<T> {
    let rank = (sorted.len() * per_mille).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Gives the file its blocks now, as the log does, so that a sync writes data and little else.
fn preallocate(file: &fs::File, bytes: u64) -> io::Result<()> {
    let len = i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
    #[expect(unsafe_code, reason = "the standard library cannot allocate blocks")]
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    let result = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) };
    match result {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| "unknown".to_owned())
}

fn load_1m() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_ascii_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<u32> = (1..=1_000).collect();
        assert_eq!(percentile(&sorted, 500), Some(500));
        assert_eq!(percentile(&sorted, 990), Some(990));
        assert_eq!(percentile(&sorted, 999), Some(999));
        assert_eq!(percentile(&[4], 500), Some(4));
        assert_eq!(percentile(&[4, 8], 990), Some(8));
        assert_eq!(percentile::<u32>(&[], 500), None);
    }

    #[test]
    fn a_measured_machine_has_figures_and_the_probe_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let machine = measure(dir.path(), 20, Duration::from_millis(20)).unwrap();
        assert!(machine.cores >= 1 && !machine.cpu.is_empty());
        assert!(machine.load_1m >= 0.0);
        assert!(machine.verify_per_s > 1.0, "{machine:?}");
        let disk = machine.fdatasync;
        assert_eq!(disk.samples, 20);
        assert!(0.0 < disk.p50_ms && disk.p50_ms <= disk.p99_ms && disk.p99_ms <= disk.p999_ms);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let json = serde_json::to_value(&machine).unwrap();
        assert_eq!(json["fdatasync"]["samples"], 20);
    }

    #[test]
    fn no_append_gives_no_figure() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(fdatasync(dir.path(), 0).unwrap(), Fdatasync::default());
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(fdatasync(Path::new("no/such/directory"), 1).is_err());
    }
}
