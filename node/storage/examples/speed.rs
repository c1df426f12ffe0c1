//! How fast a disk, this crate and a plain projection are together: `cargo run --release -p
//! comity-storage --example speed -- DIR`. Figures are those of this machine at this moment; the
//! `fdatasync` next to them says what the disk alone costs.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use comity_storage::{Config, ContentAt, Projection, Record, RecordView, Storage, Tx};

/// Four rows a record, as a chat message needs: by order, by id, a counter, a change log.
struct Rows;

impl Projection for Rows {
    const FORMAT: u32 = 1;

    fn apply(&mut self, number: u64, record: RecordView<'_>, tx: &mut Tx<'_>) {
        let conversation = record.body.first().copied().unwrap_or(0);
        let order = number.to_be_bytes();
        let place = ContentAt {
            record: number,
            index: 0,
        }
        .to_bytes();
        tx.put(&[&[b'v', conversation], &order[..]].concat(), &place);
        let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        tx.put(&[&b"i"[..], &id[..], &id[..]].concat(), &order);
        let counter = [b'c', conversation];
        let count = tx
            .get(&counter)
            .and_then(|row| row.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        tx.put(&counter, &(count + 1).to_be_bytes());
        tx.put(
            &[&[b'l', conversation], &count.to_be_bytes()[..]].concat(),
            &order,
        );
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: speed DIR")?;
    println!(
        "bytes writers records/s p50_us p99_us commit_cpu_us/record other_cpu_us/record mean_group \
         sync_p50_us sync_p99_us"
    );
    for bytes in [200, 2 << 10, 16 << 10] {
        for writers in [1, 16, 256] {
            let dir = Path::new(&dir).join(format!("speed-{bytes}-{writers}"));
            run(&dir, bytes, writers)?;
            std::fs::remove_dir_all(&dir)?;
        }
    }
    Ok(())
}

fn run(dir: &Path, bytes: usize, writers: usize) -> Result<(), Box<dyn std::error::Error>> {
    let (storage, _) = Storage::open(Config::new(dir, comity_storage::boot_id()), Rows)?;
    let storage = Arc::new(storage);
    let started = Instant::now();
    let end = started + Duration::from_secs(3);
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let storage = Arc::clone(&storage);
            std::thread::spawn(move || {
                let mut us = Vec::new();
                while Instant::now() < end {
                    let record = Record {
                        kind: 1,
                        body: vec![u8::try_from(writer % 256).unwrap_or(0); 150],
                        contents: vec![vec![7; bytes]],
                    };
                    let start = Instant::now();
                    if storage.submit_and_wait(vec![record]).is_err() {
                        break;
                    }
                    us.push(start.elapsed().as_micros());
                }
                us
            })
        })
        .collect();
    let mut us = Vec::new();
    for thread in threads {
        us.extend(thread.join().map_err(|_| "a writer panicked")?);
    }
    let elapsed = started.elapsed();
    let (commit, other) = cpu();
    us.sort_unstable();
    let stats = storage.stats();
    println!(
        "{bytes} {writers} {:.0} {} {} {:.1} {:.1} {:.1} {} {}",
        us.len() as f64 / elapsed.as_secs_f64(),
        us[us.len() / 2],
        us[us.len() * 99 / 100],
        commit.as_micros() as f64 / us.len() as f64,
        other.as_micros() as f64 / us.len() as f64,
        stats.mean_group_records,
        stats.sync_p50_us,
        stats.sync_p99_us,
    );
    let storage = Arc::into_inner(storage).ok_or("a writer still runs")?;
    storage.close()?;
    Ok(())
}

/// Processor time of the committer, and of all other threads that still run: savepoints and the
/// index's own. The writers have ended and do not count.
fn cpu() -> (Duration, Duration) {
    let (mut commit, mut other) = (Duration::ZERO, Duration::ZERO);
    for task in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let nanos = read("schedstat")
            .split(' ')
            .next()
            .and_then(|ns| ns.parse().ok())
            .unwrap_or(0);
        let time = Duration::from_nanos(nanos);
        if read("comm").starts_with("storage-commit") {
            commit += time
        } else {
            other += time
        }
    }
    (commit, other)
}
