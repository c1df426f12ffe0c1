//! A receiver's server that is down while messages are sent to it.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use comity_sdk::{Client, ConversationId};
use futures::StreamExt as _;
use serde::Serialize;
use tokio::{
    sync::{Semaphore, watch},
    time::{sleep, sleep_until, timeout},
};

use super::{
    Report, Setting, Watch,
    load::{self, Clients, Counts, Homes, Received, Sink, Spread},
    meter::Meter,
    ms, rounded,
};
use crate::process::Stopped;

/// Messages sent meanwhile.
pub const MESSAGES: u64 = 100;
/// Between two messages, each of which waits for the acceptance of the one before.
const EVERY: Duration = Duration::from_millis(100);
/// How long the server is down, at least.
const DOWN: Duration = Duration::from_secs(10);
/// Bytes of a message.
const BODY_BYTES: usize = 200;
/// Time for the server to stop by itself.
const STOP: Duration = Duration::from_secs(30);
/// Time after the restart in which the messages must be on the receiver's server.
const WHOLE: Duration = Duration::from_secs(30);
/// Between two looks at the receiver's history.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// What became of the messages.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Outage {
    /// At the receiver's client, which was open all the time and reconnected by itself.
    #[serde(flatten)]
    pub counts: Counts,
    /// Different messages in the history on the restarted server.
    pub in_history: u64,
    /// Copies or displaced messages in that history.
    pub wrong_in_history: u64,
    /// From sending until accepted, while the receiver's server was down.
    pub ack: Spread,
    /// How long the server was down.
    pub down_s: f64,
    /// From the restart's beginning until the server served, in milliseconds.
    pub ready_ms: f64,
    /// From the restart's beginning until all messages were in the receiver's history on that
    /// server, read through a client that signed in after the restart. `None` if they never were.
    pub seconds_after_restart: Option<f64>,
    /// The same until the client that was open all the time had the last one; the pauses between
    /// its attempts to reconnect are part of it.
    pub seconds_open_client: Option<f64>,
}

/// Measures it. With `cut` the restarted server has no links.
///
/// # Errors
///
/// What failed. What did not arrive is no error.
pub async fn run(setting: &Setting<'_>, cut: bool) -> anyhow::Result<Report<Outage>> {
    let mut network = setting.network(2, true).await?;
    let homes = Homes { from: 0, to: 1 };
    let clients = Clients::single(setting.transport);
    let mut pairs = load::pairs(&network, 1, homes, &clients).await?;
    let mut pair = pairs.pop().context("no pair")?;
    // Its client stays open; another device of the same user signs in after the restart.
    let (from, to) = (pair.from.client.clone(), pair.to.clone());
    let watch = Watch::start(network.directory()).await?;
    let sink = Sink {
        conversation: pair.conversation,
        base: Instant::now(),
        slots: Arc::new(Semaphore::new(0)),
        delivered: Arc::new(AtomicU64::new(0)),
    };
    let (base, conversation) = (sink.base, sink.conversation);
    let (total, told) = watch::channel(None);
    let receiver = tokio::spawn(async move {
        let received = load::receive(&mut pair.events, &sink, told).await;
        received.map(|received| (received, pair))
    });
    let stopped = network.nodes[1].process.stop(STOP).await?;
    ensure!(
        stopped != Stopped::Killed,
        "the server did not stop by itself"
    );
    let down = Instant::now();
    let acks = send(&from, conversation, base).await?;
    sleep_until((down + DOWN).into()).await;
    if cut {
        network.cut(0, 1, true);
    }
    let start = Instant::now();
    network.nodes[1].process.restart().await?;
    let ready = start.elapsed();
    let meter = Meter::read(&network)?;
    let fresh = network
        .client(1, "to-0", &to.token, setting.transport)
        .connect()
        .await?;
    let whole = timeout(WHOLE, until_whole(&fresh, conversation)).await;
    let whole = whole.map_or(Ok(None), |done| done.map(Some))?;
    total.send_replace(Some(MESSAGES));
    let (received, _open) = receiver.await??;
    let history = read(&fresh, conversation).await?;
    let cost = meter.until(&Meter::read(&network)?, received.delivered);
    let syncs = watch.stop(&network).await?;
    let _ = fresh.close().await;
    network.stop().await?;
    let since = |end: Instant| rounded((end - start).as_secs_f64());
    Ok(Report {
        figures: Outage {
            in_history: history.iter().collect::<BTreeSet<_>>().len() as u64,
            wrong_in_history: wrong(&history),
            down_s: rounded((start - down).as_secs_f64()),
            ready_ms: ms(ready),
            seconds_after_restart: whole.map(since),
            seconds_open_client: last_of_all(&received).map(since),
            counts: Counts {
                sent: MESSAGES,
                accepted: acks.len() as u64,
                delivered: received.delivered,
                duplicates: received.duplicates,
                out_of_order: received.out_of_order,
                lagged: received.lagged,
            },
            ack: Spread::of(acks),
        },
        cost,
        syncs,
    })
}

async fn send(
    from: &Client,
    conversation: ConversationId,
    base: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let conversation = from.conversation(conversation);
    let mut ticks = tokio::time::interval(EVERY);
    let mut acks = Vec::new();
    for number in 0..MESSAGES {
        ticks.tick().await;
        let start = Instant::now();
        let text = load::text(number, start - base, BODY_BYTES);
        conversation.send(text).await?.accepted().await?;
        acks.push(start.elapsed());
    }
    Ok(acks)
}

/// When the whole history was there.
async fn until_whole(client: &Client, conversation: ConversationId) -> anyhow::Result<Instant> {
    loop {
        let different: BTreeSet<u64> = read(client, conversation).await?.into_iter().collect();
        if different.len() as u64 == MESSAGES {
            return Ok(Instant::now());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The numbers of the messages in the history, in its order.
async fn read(client: &Client, conversation: ConversationId) -> anyhow::Result<Vec<u64>> {
    let history = client.conversation(conversation).history();
    let mut lines = history.oldest().limit(200).stream();
    let mut numbers = Vec::new();
    while let Some(line) = lines.next().await {
        numbers.extend(load::head(line?.text()).map(|(number, _)| number));
    }
    Ok(numbers)
}

/// Messages that are not directly after the one before.
fn wrong(history: &[u64]) -> u64 {
    let pairs = history.windows(2);
    pairs.filter(|pair| pair[0] >= pair[1]).count() as u64
}

fn last_of_all(received: &Received) -> Option<Instant> {
    received.last.filter(|_| received.delivered == MESSAGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_displaced_messages_are_wrong() {
        assert_eq!(wrong(&[]), 0);
        assert_eq!(wrong(&[0, 1, 2]), 0);
        assert_eq!(wrong(&[0, 1, 1, 2]), 1);
        assert_eq!(wrong(&[0, 2, 1, 3]), 1);
    }
}
