//! Speed of a link over loopback: `cargo run --release -p comity-links --example link_speed`.
//!
//! Two servers in one process. Prints frames per second one way, the CPU time a frame costs both
//! ends together, and the round trip of one frame at a time: alone, and while the bulk channel is
//! kept full. All these frames have 300 bytes, bulk ones 64 KiB.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use bytes::Bytes;
use comity_links::{
    Channel, Config, Events, LinkEvent, Links, PeerKey, Reach, SendError, StaticPeer,
};

const FRAME_BYTES: usize = 300;
const FRAMES: u64 = 2_000_000;
const BULK_BYTES: usize = 64 * 1024;
const ROUND_TRIPS: usize = 20_000;
/// Of the Linux kernel's `USER_HZ`, the unit of `/proc/self/stat`.
const TICK: Duration = Duration::from_millis(10);

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (a, mut at_a, b, mut at_b) = pair().await?;
    let link_a = up(&mut at_a).await?;
    let link_b = up(&mut at_b).await?;
    let frame = Bytes::from(vec![0x5A; FRAME_BYTES]);

    let sender = a.clone();
    let (to, data) = (b.local_key(), frame.clone());
    let (start, cpu) = (Instant::now(), cpu_time()?);
    let sending = tokio::spawn(async move {
        for _ in 0..FRAMES {
            send(&sender, &mut at_a, to, link_a, data.clone()).await?;
        }
        Ok::<_, Failure>(at_a)
    });
    for _ in 0..FRAMES {
        received(&mut at_b).await?;
    }
    let mut at_a = sending.await??;
    let (wall, cpu) = (start.elapsed(), cpu_time()? - cpu);
    let rate = FRAMES as f64 / wall.as_secs_f64();
    let each = cpu.as_secs_f64() * 1e6 / FRAMES as f64;
    println!("{rate:.0} frames/s, {each:.2} us CPU per frame (both ends together)");

    let (echo, back) = (b.clone(), a.local_key());
    tokio::spawn(async move {
        while let Ok((channel, bytes)) = received(&mut at_b).await {
            let sent = match channel {
                Channel::Live => echo.try_send(back, link_b, channel, bytes),
                Channel::Bulk => Ok(()),
            };
            if sent.is_err() {
                break;
            }
        }
    });
    let quiet = round_trips(&a, &mut at_a, to, link_a, &frame).await?;
    println!("round trip, nothing else: {quiet}");

    let flooding = a.clone();
    let flood = tokio::spawn(async move {
        let bulk = Bytes::from(vec![0x5A; BULK_BYTES]);
        loop {
            while flooding
                .try_send(to, link_a, Channel::Bulk, bulk.clone())
                .is_ok()
            {}
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let before = a.status()[0].bytes_out;
    let start = Instant::now();
    let busy = round_trips(&a, &mut at_a, to, link_a, &frame).await?;
    let moved = (a.status()[0].bytes_out - before) as f64 / 1e6 / start.elapsed().as_secs_f64();
    flood.abort();
    println!("round trip, with {moved:.0} MB/s of bulk: {busy}");
    Ok(())
}

async fn round_trips(
    links: &Links,
    events: &mut Events,
    to: PeerKey,
    link: u64,
    frame: &Bytes,
) -> Result<String, Failure> {
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let start = Instant::now();
        links.try_send(to, link, Channel::Live, frame.clone())?;
        received(events).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let (p50, p99) = (times[ROUND_TRIPS / 2], times[ROUND_TRIPS * 99 / 100]);
    Ok(format!("p50 {p50:?}, p99 {p99:?}"))
}

async fn pair() -> Result<(Links, Events, Links, Events), Failure> {
    let start = |seed: u8, peers| {
        let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()];
        Links::start(Config {
            seed: [seed; 32],
            listen,
            peers,
        })
    };
    let waiting = StaticPeer {
        key: PeerKey::of_seed([2; 32]),
        addresses: Vec::new(),
        reach: Reach::anywhere(),
    };
    let (a, at_a) = start(1, vec![waiting]).await?;
    let known = StaticPeer {
        key: a.local_key(),
        addresses: a.listen_addresses(),
        reach: Reach::anywhere(),
    };
    let (b, at_b) = start(2, vec![known]).await?;
    Ok((a, at_a, b, at_b))
}

async fn up(events: &mut Events) -> Result<u64, Failure> {
    match events.recv().await {
        Some(LinkEvent::Up { link, .. }) => Ok(link),
        other => Err(format!("no link: {other:?}").into()),
    }
}

async fn received(events: &mut Events) -> Result<(Channel, Bytes), Failure> {
    loop {
        match events.recv().await {
            Some(LinkEvent::Frame { channel, bytes, .. }) => return Ok((channel, bytes)),
            Some(LinkEvent::Writable { .. }) => {}
            other => return Err(format!("link ended: {other:?}").into()),
        }
    }
}

async fn send(
    links: &Links,
    events: &mut Events,
    to: PeerKey,
    link: u64,
    frame: Bytes,
) -> Result<(), Failure> {
    loop {
        match links.try_send(to, link, Channel::Live, frame.clone()) {
            Ok(()) => return Ok(()),
            Err(SendError::Full { .. }) => match events.recv().await {
                Some(LinkEvent::Writable { .. }) => {}
                other => return Err(format!("not writable: {other:?}").into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// User and system time of this process (`man 5 proc`, fields 14 and 15 of `stat`).
fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Result<Vec<u32>, _> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect();
    Ok(TICK * ticks?.iter().sum())
}
