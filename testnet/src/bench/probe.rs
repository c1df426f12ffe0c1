//! The disk's own syncs, as the log does them: a 4 KiB append to a file that is all zeros already,
//! then `fdatasync`.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::task::spawn_blocking;

use crate::machine::{Fdatasync, PROBE_BYTES, percentile};

/// Bytes of the file; more appends start again at its beginning.
const FILE_BYTES: u64 = 16 << 20;
/// Between two syncs while the servers serve: rare enough that they hardly feel it.
const SERVING_EVERY: Duration = Duration::from_millis(50);
/// Between two syncs while the network rests.
const IDLE_EVERY: Duration = Duration::from_millis(5);

/// Measures so many syncs in `directory`, paced like those of a server that is not busy.
///
/// # Errors
///
/// What the system says to the probe's file, which leaves nothing behind.
pub async fn idle(directory: &Path, syncs: u32) -> anyhow::Result<Fdatasync> {
    let file = file(directory)?;
    let times = spawn_blocking(move || {
        let mut times = Vec::new();
        for number in 0..u64::from(syncs) {
            times.push(sync(&file, number)?);
            thread::sleep(IDLE_EVERY);
        }
        io::Result::Ok(times)
    });
    Ok(spread(times.await??))
}

/// Syncs at a low rate until it is stopped or dropped.
#[derive(Debug)]
pub struct Probe {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<io::Result<Vec<Duration>>>,
}

impl Probe {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// What the system says to the probe's file or thread.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let file = file(directory)?;
        let (stop, stopped) = mpsc::channel();
        let measure = move || {
            let mut times = Vec::new();
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(SERVING_EVERY) {
                times.push(sync(&file, times.len() as u64)?);
            }
            Ok(times)
        };
        let thread = thread::Builder::new()
            .name("fdatasync-probe".into())
            .spawn(measure)?;
        Ok(Self { stop, thread })
    }

    /// Stops it and gives what it measured.
    ///
    /// # Errors
    ///
    /// What the system said to a sync.
    pub async fn stop(self) -> anyhow::Result<Fdatasync> {
        drop(self.stop);
        let joined = spawn_blocking(|| self.thread.join()).await?;
        let times = joined.map_err(|_| anyhow::anyhow!("the disk probe panicked"))?;
        Ok(spread(times.context("probing the disk")?))
    }
}

fn file(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join(format!(".fdatasync-probe-{}", std::process::id()));
    let open = || {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        std::fs::remove_file(&path)?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        io::Result::Ok(file)
    };
    open().with_context(|| format!("probing the disk of {}", directory.display()))
}

fn sync(file: &File, number: u64) -> io::Result<Duration> {
    let block = [0x5a; PROBE_BYTES];
    let place = number * PROBE_BYTES as u64 % FILE_BYTES;
    let start = Instant::now();
    file.write_all_at(&block, place)?;
    file.sync_data()?;
    Ok(start.elapsed())
}

fn spread(mut times: Vec<Duration>) -> Fdatasync {
    times.sort_unstable();
    let ms = |per_mille| percentile(&times, per_mille).map_or(0.0, super::ms);
    Fdatasync {
        samples: times.len() as u64,
        p50_ms: ms(500),
        p99_ms: ms(990),
        p999_ms: ms(999),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_probe_measures_until_it_is_stopped_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let idle = idle(dir.path(), 3).await.unwrap();
        assert_eq!(idle.samples, 3);
        assert!(0.0 < idle.p50_ms && idle.p50_ms <= idle.p99_ms);
        let probe = Probe::start(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let serving = probe.stop().await.unwrap();
        assert!(serving.p50_ms <= serving.p999_ms);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(Probe::start(Path::new("no/such/directory")).is_err());
    }
}
