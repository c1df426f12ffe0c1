//! The load: pairs of clients, one sending and one receiving, with every message accounted for.
//!
//! A message carries its number and when sending began, by this process's one clock, so that the
//! receiver needs no table to know how long it took. Three tasks a pair for the whole run; nothing
//! is spawned for a message.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use comity_sdk::{Client, ConversationId, Event, Events, Message, Outgoing, Transport, Verified};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};

use super::ms;
use crate::{
    machine::percentile,
    network::{Member, Network},
};

/// Time for what was sent to arrive, once all is sent.
const ARRIVE: Duration = Duration::from_secs(30);
/// Time after the last one in which a second copy would still be seen.
const GRACE: Duration = Duration::from_millis(500);
/// Time for the first message of a pair.
const FIRST: Duration = Duration::from_secs(30);
/// Clients that sign in at once.
const JOINS: usize = 16;
/// Messages of a pair under way at once where only the number of messages matters.
const FILLING: usize = 64;
/// Bytes of a message's number and time.
const HEAD_BYTES: usize = 30;

/// A sender and a receiver with a direct conversation.
#[derive(Debug)]
pub struct Pair {
    /// Who sends.
    pub from: Member,
    /// Who receives.
    pub to: Member,
    /// Where.
    pub conversation: ConversationId,
    /// What the receiver receives.
    pub events: Events,
}

/// Where the two of a pair are at home.
#[derive(Clone, Copy, Debug)]
pub struct Homes {
    /// The sender's server.
    pub from: usize,
    /// The receiver's server.
    pub to: usize,
}

/// How this process's clients are made.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Their transport.
    pub transport: Transport,
    /// What they verified together, or every client verifies for itself.
    pub verified: Option<Verified>,
}

impl Clients {
    /// Every client verifies for itself: where the time of one message counts.
    #[must_use]
    pub const fn single(transport: Transport) -> Self {
        Self {
            transport,
            verified: None,
        }
    }

    /// A signature is verified once in this process: where the servers are pressed, so that one
    /// process that stands for many devices does not take the servers' processors.
    #[must_use]
    pub fn sharing(transport: Transport) -> Self {
        Self {
            transport,
            verified: Some(Verified::default()),
        }
    }
}

/// Makes an account and connects a client without a store.
///
/// # Errors
///
/// What the server or the SDK says.
pub async fn join(
    network: &Network,
    node: usize,
    handle: &str,
    clients: &Clients,
) -> anyhow::Result<Member> {
    let token = network.add_user(node, handle).await?;
    let mut builder = network.client(node, handle, &token, clients.transport);
    if let Some(verified) = &clients.verified {
        builder = builder.verified(verified);
    }
    let client = builder.connect().await;
    Ok(Member {
        node,
        address: format!("{handle}@{}", network.nodes[node].name),
        token,
        client: client.with_context(|| format!("connecting {handle}"))?,
    })
}

/// Makes so many pairs, each of whose conversations has had a message already.
///
/// # Errors
///
/// What a server or the SDK says.
pub async fn pairs(
    network: &Network,
    count: usize,
    homes: Homes,
    clients: &Clients,
) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(JOINS / 2) {
        let made = chunk
            .iter()
            .map(|number| pair(network, *number, homes, clients));
        pairs.extend(futures::future::try_join_all(made).await?);
    }
    Ok(pairs)
}

async fn pair(
    network: &Network,
    number: usize,
    homes: Homes,
    clients: &Clients,
) -> anyhow::Result<Pair> {
    let (from, to) = (format!("from-{number}"), format!("to-{number}"));
    let from = join(network, homes.from, &from, clients).await?;
    let to = join(network, homes.to, &to, clients).await?;
    let conversation = from.client.open_direct(to.address.as_str()).await?;
    let mut events = to.client.events();
    let first = conversation.send("first").await?;
    first.accepted().await?;
    let arrives = async {
        while let Some(event) = events.next().await {
            if matches!(event, Event::Message(message) if message.id() == first.event_id()) {
                return Ok(());
            }
        }
        anyhow::bail!("the receiver was closed")
    };
    let arrived = tokio::time::timeout(FIRST, arrives).await;
    arrived.with_context(|| format!("the first message to {} did not arrive", to.address))??;
    Ok(Pair {
        conversation: conversation.id(),
        from,
        to,
        events,
    })
}

/// How much is sent, and how fast, by each pair.
#[derive(Clone, Debug)]
pub struct Load {
    /// Bytes of a message's text.
    pub body_bytes: usize,
    /// Messages under way at once; a slot becomes free when its message is delivered.
    pub outstanding: usize,
    /// Time between two messages, or as fast as slots become free.
    pub every: Option<Duration>,
    /// When to stop.
    pub until: Until,
}

/// When a load ends.
#[derive(Clone, Debug)]
pub enum Until {
    /// After so many messages of each pair.
    Count(u64),
    /// When told.
    Told(watch::Receiver<bool>),
}

/// What became of the messages.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Sent.
    pub sent: u64,
    /// Accepted: durable at the sender's home.
    pub accepted: u64,
    /// What the receivers got.
    pub received: Received,
    /// From calling `send` until accepted.
    pub acks: Vec<Duration>,
}

impl Outcome {
    /// The counts.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        Counts {
            sent: self.sent,
            accepted: self.accepted,
            delivered: self.received.delivered,
            duplicates: self.received.duplicates,
            out_of_order: self.received.out_of_order,
            lagged: self.received.lagged,
        }
    }
}

/// How many messages became what.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Accepted: durable at the sender's home.
    pub accepted: u64,
    /// Different messages delivered.
    pub delivered: u64,
    /// Further copies of one.
    pub duplicates: u64,
    /// Messages after a later one of the same conversation.
    pub out_of_order: u64,
    /// Events that receivers lost because they came too fast.
    pub lagged: u64,
}

impl Counts {
    /// Everything sent was accepted and arrived once and in order.
    #[must_use]
    pub const fn whole(&self) -> bool {
        self.sent > 0
            && self.accepted == self.sent
            && self.delivered == self.sent
            && self.duplicates + self.out_of_order + self.lagged == 0
    }
}

/// What receivers got.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Different messages.
    pub delivered: u64,
    /// Further copies of one.
    pub duplicates: u64,
    /// Messages after a later one.
    pub out_of_order: u64,
    /// Events that came too fast for the receiver; they count as not delivered.
    pub lagged: u64,
    /// From calling `send` until the receiver's event.
    pub took: Vec<Duration>,
    /// When the last new one came.
    pub last: Option<Instant>,
}

impl Received {
    fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.lagged += other.lagged;
        self.took.extend(other.took);
        self.last = self.last.max(other.last);
    }
}

/// Half of the times, 99 of 100, 999 of 1,000 and all of them took at most this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// In milliseconds.
    pub p50_ms: f64,
    /// In milliseconds.
    pub p99_ms: f64,
    /// In milliseconds.
    pub p999_ms: f64,
    /// In milliseconds.
    pub max_ms: f64,
}

impl Spread {
    /// Of these times.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |per_mille| percentile(&times, per_mille).map_or(0.0, ms);
        Self {
            p50_ms: at(500),
            p99_ms: at(990),
            p999_ms: at(999),
            max_ms: at(1_000),
        }
    }
}

/// Runs a load on all pairs. `delivered` counts as it goes on.
///
/// # Errors
///
/// The first message that was not taken or was refused. What did not arrive is no error.
pub async fn run(
    pairs: Vec<Pair>,
    load: &Load,
    delivered: &Arc<AtomicU64>,
) -> anyhow::Result<(Outcome, Vec<Pair>)> {
    let base = Instant::now();
    let mut tasks = JoinSet::new();
    for pair in pairs {
        tasks.spawn(run_pair(pair, load.clone(), base, Arc::clone(delivered)));
    }
    let (mut all, mut pairs) = (Outcome::default(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (outcome, pair) = done??;
        all.sent += outcome.sent;
        all.accepted += outcome.accepted;
        all.received.add(outcome.received);
        all.acks.extend(outcome.acks);
        pairs.push(pair);
    }
    Ok((all, pairs))
}

/// Fills a server with `messages` of `body_bytes`, sent by several pairs at once.
///
/// # Errors
///
/// As [`run`], and if not all of them arrived.
pub async fn fill(
    pairs: Vec<Pair>,
    messages: u64,
    body_bytes: usize,
) -> anyhow::Result<(Outcome, Vec<Pair>)> {
    let load = Load {
        body_bytes,
        outstanding: FILLING,
        every: None,
        until: Until::Count(messages / pairs.len().max(1) as u64),
    };
    let (outcome, pairs) = run(pairs, &load, &Arc::default()).await?;
    let counts = outcome.counts();
    ensure!(
        counts.whole() && counts.sent == messages,
        "not all messages arrived: {counts:?}"
    );
    Ok((outcome, pairs))
}

async fn run_pair(
    mut pair: Pair,
    load: Load,
    base: Instant,
    delivered: Arc<AtomicU64>,
) -> anyhow::Result<(Outcome, Pair)> {
    let slots = Arc::new(Semaphore::new(load.outstanding));
    let (total, told) = watch::channel(None);
    // Acceptances come about when deliveries do: more than the slots never wait for long.
    let (to_ack, acked) = mpsc::channel(4 * load.outstanding);
    let acks = tokio::spawn(accept(acked));
    let sends = {
        let (from, slots) = (pair.from.client.clone(), Arc::clone(&slots));
        let conversation = pair.conversation;
        tokio::spawn(async move {
            let sent = send(&from, conversation, &load, base, &slots, to_ack).await?;
            // The receiver is gone only after an error of its own.
            let _ = total.send(Some(sent));
            anyhow::Ok(sent)
        })
    };
    let sink = Sink {
        conversation: pair.conversation,
        base,
        slots,
        delivered,
    };
    let received = receive(&mut pair.events, &sink, told).await?;
    let (sent, acks) = (sends.await??, acks.await??);
    let outcome = Outcome {
        sent,
        accepted: acks.len() as u64,
        received,
        acks,
    };
    Ok((outcome, pair))
}

async fn send(
    from: &Client,
    conversation: ConversationId,
    load: &Load,
    base: Instant,
    slots: &Semaphore,
    acks: mpsc::Sender<(Instant, Outgoing)>,
) -> anyhow::Result<u64> {
    let conversation = from.conversation(conversation);
    let mut ticks = load.every.map(|every| {
        let mut ticks = tokio::time::interval(every);
        // A late message does not make the next one early.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let mut sent = 0;
    loop {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        slots.acquire().await?.forget();
        let over = match &load.until {
            Until::Count(count) => sent == *count,
            Until::Told(told) => *told.borrow(),
        };
        if over {
            return Ok(sent);
        }
        let start = Instant::now();
        let text = text(sent, start.duration_since(base), load.body_bytes);
        let outgoing = conversation.send(text).await?;
        acks.send((start, outgoing)).await?;
        sent += 1;
    }
}

async fn accept(mut acks: mpsc::Receiver<(Instant, Outgoing)>) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    while let Some((start, outgoing)) = acks.recv().await {
        outgoing.accepted().await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Where deliveries are counted.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) conversation: ConversationId,
    pub(crate) base: Instant,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) delivered: Arc<AtomicU64>,
}

/// Takes messages until `total` is told and all of them are there, or do not come.
pub(crate) async fn receive(
    events: &mut Events,
    sink: &Sink,
    mut total: watch::Receiver<Option<u64>>,
) -> anyhow::Result<Received> {
    let (mut got, mut seen) = (Received::default(), Vec::<bool>::new());
    let mut end: Option<Instant> = None;
    let mut complete = false;
    loop {
        let known = *total.borrow();
        if let Some(total) = known {
            let now = Instant::now();
            end.get_or_insert(now + ARRIVE);
            if got.delivered >= total && !complete {
                complete = true;
                end = Some(now + GRACE);
            }
        }
        let event = match end {
            Some(end) => match tokio::time::timeout_at(end.into(), events.next()).await {
                Ok(event) => event,
                Err(_) => return Ok(got),
            },
            None => tokio::select! {
                biased;
                event = events.next() => event,
                told = total.changed() => {
                    ensure!(told.is_ok() || total.borrow().is_some(), "sending failed");
                    continue;
                }
            },
        };
        match event.context("the receiver was closed")? {
            Event::Message(message) => note(&message, sink, &mut got, &mut seen),
            Event::Lagged(events) => got.lagged += events,
            _ => {}
        }
    }
}

fn note(message: &Message, sink: &Sink, got: &mut Received, seen: &mut Vec<bool>) {
    if message.conversation_id() != sink.conversation {
        return;
    }
    let Some((number, start)) = head(message.text()) else {
        return;
    };
    let Ok(index) = usize::try_from(number) else {
        return;
    };
    let now = Instant::now();
    match seen.get_mut(index) {
        Some(seen) if *seen => {
            got.duplicates += 1;
            return;
        }
        Some(seen) => {
            got.out_of_order += 1;
            *seen = true;
        }
        None => {
            seen.resize(index, false);
            seen.push(true);
        }
    }
    got.delivered += 1;
    got.took.push((now - sink.base).saturating_sub(start));
    got.last = Some(now);
    sink.slots.add_permits(1);
    sink.delivered.fetch_add(1, Ordering::Relaxed);
}

/// A message's text: its number, when sending began, and letters up to `bytes`.
pub(crate) fn text(number: u64, start: Duration, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes.max(HEAD_BYTES));
    let _ = write!(text, "{number:010}{:020}", start.as_nanos());
    // Letters that no compression on the way makes much of.
    let mut random = number | 1 << 63;
    while text.len() < bytes {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        for shift in [59, 54, 49, 44] {
            let letter = u8::try_from(random >> shift & 31).unwrap_or(0);
            text.push(char::from(b'A' + letter));
        }
    }
    text.truncate(bytes.max(HEAD_BYTES));
    text
}

/// The number and the time in a message's text.
pub(crate) fn head(text: &str) -> Option<(u64, Duration)> {
    let number = text.get(..10)?.parse().ok()?;
    let nanos = text.get(10..HEAD_BYTES)?.parse().ok()?;
    Some((number, Duration::from_nanos(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_its_length_and_gives_its_number_and_time_back() {
        let start = Duration::from_nanos(1_234_567_891);
        for bytes in [30, 31, 200, 5_000] {
            let text = text(42, start, bytes);
            assert_eq!(text.len(), bytes);
            assert_eq!(head(&text), Some((42, start)));
        }
        assert_eq!(text(7, start, 1).len(), HEAD_BYTES);
        assert_ne!(text(1, start, 200)[30..], text(2, start, 200)[30..]);
        assert_eq!(head("first"), None);
    }

    #[test]
    fn a_spread_is_of_sorted_times() {
        let times = (1..=1_000).rev().map(Duration::from_millis).collect();
        let spread = Spread::of(times);
        assert_eq!((spread.p50_ms, spread.p99_ms), (500.0, 990.0));
        assert_eq!((spread.p999_ms, spread.max_ms), (999.0, 1_000.0));
        assert_eq!(Spread::of(vec![]), Spread::default());
    }

    #[test]
    fn counts_are_whole_only_if_all_is_there_once_and_in_order() {
        let whole = Counts {
            sent: 2,
            accepted: 2,
            delivered: 2,
            ..Counts::default()
        };
        assert!(whole.whole());
        assert!(!Counts::default().whole());
        let with = |change: fn(&mut Counts)| {
            let mut other = whole;
            change(&mut other);
            other.whole()
        };
        assert!(!with(|counts| counts.accepted = 1));
        assert!(!with(|counts| counts.delivered = 1));
        assert!(!with(|counts| counts.duplicates = 1));
        assert!(!with(|counts| counts.out_of_order = 1));
        assert!(!with(|counts| counts.lagged = 1));
    }
}
