//! How long a message to many takes until the last of them has it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use comity_sdk::{ConversationId, Event, Events};
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, timeout, timeout_at},
};

use super::{
    Report, Setting, Watch,
    load::{self, Clients, Spread},
    meter::Meter,
};
use crate::network::{Member, Network};

/// Members, the sender among them.
const MEMBERS: usize = 200;
/// Clients that sign in at once.
const JOINS: usize = 16;
/// Between two messages.
const EVERY: Duration = Duration::from_millis(50);
/// Messages measured.
const MESSAGES: u64 = 300;
/// Messages before those.
const WARM_UP: u64 = 20;
/// Bytes of a message.
const BODY_BYTES: usize = 200;
/// Time for everybody to be a member, and to receive what was sent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time in which a second copy would still be seen.
const GRACE: Duration = Duration::from_millis(500);

/// How long messages took to all.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Group {
    /// From calling `send` until the last member's event.
    pub last_member: Spread,
    /// The same to each member: of all deliveries.
    #[serde(flatten)]
    pub each: Spread,
    /// Members, the sender among them.
    pub members: usize,
    /// Bytes of a message's text.
    pub body_bytes: usize,
    /// Messages sent and accepted.
    pub sent: u64,
    /// Deliveries that should be.
    pub deliveries_expected: u64,
    /// Deliveries of different messages.
    pub deliveries: u64,
    /// Further copies.
    pub duplicates: u64,
    /// Messages after a later one.
    pub out_of_order: u64,
    /// Events that members lost.
    pub lagged: u64,
}

impl Group {
    /// Everything sent arrived everywhere once and in order.
    #[must_use]
    pub const fn whole(&self) -> bool {
        self.deliveries_expected > 0
            && self.deliveries == self.deliveries_expected
            && self.duplicates + self.out_of_order + self.lagged == 0
    }
}

/// What one member got: by number, how long it took.
#[derive(Debug, Default)]
struct Got {
    took: BTreeMap<u64, Duration>,
    duplicates: u64,
    out_of_order: u64,
    lagged: u64,
}

/// Measures it.
///
/// # Errors
///
/// What failed. What did not arrive is no error.
pub async fn run(setting: &Setting<'_>) -> anyhow::Result<Report<Group>> {
    let mut network = setting.network(1, false).await?;
    let members = join(&network, &Clients::sharing(setting.transport)).await?;
    let (sender, others) = members.split_first().context("no members")?;
    let addresses = others.iter().map(|member| member.address.as_str());
    let group = sender.client.create_group("bench", addresses).await?;
    for outgoing in sender.client.pending() {
        outgoing.accepted().await?;
    }
    let (base, watch) = (Instant::now(), Watch::start(network.directory()).await?);
    let (total, told) = watch::channel(false);
    let told = Arc::new(told);
    let mut tasks = JoinSet::new();
    let (arrived, mut arrivals) = watch::channel(0);
    let arrived = Arc::new(arrived);
    for member in others {
        let events = member.client.events();
        let (told, arrived) = ((*told).clone(), Arc::clone(&arrived));
        tasks.spawn(receive(events, group.id(), base, told, arrived));
    }
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut start = None;
    let mut sent = Vec::new();
    for number in 0..WARM_UP + MESSAGES {
        if number == WARM_UP {
            // Everybody listens: the first messages are everywhere.
            let all = arrivals.wait_for(|arrived| *arrived == others.len());
            timeout(PATIENCE, all)
                .await
                .context("members that hear nothing")??;
            start = Some(Meter::read(&network)?);
            ticks.reset();
        }
        ticks.tick().await;
        let text = load::text(number, base.elapsed(), BODY_BYTES);
        sent.push(group.send(text).await?);
    }
    for outgoing in &sent {
        outgoing.accepted().await?;
    }
    total.send_replace(true);
    let mut got = Vec::new();
    while let Some(one) = tasks.join_next().await {
        got.push(one??);
    }
    let start = start.context("nothing was measured")?;
    let cost = start.until(&Meter::read(&network)?, MESSAGES);
    let syncs = watch.stop(&network).await?;
    drop(members);
    network.stop().await?;
    Ok(Report {
        figures: figures(&got),
        cost,
        syncs,
    })
}

async fn join(network: &Network, clients: &Clients) -> anyhow::Result<Vec<Member>> {
    let handles: Vec<String> = (0..MEMBERS).map(|n| format!("member-{n}")).collect();
    let mut members = Vec::new();
    for chunk in handles.chunks(JOINS) {
        let joins = chunk
            .iter()
            .map(|handle| load::join(network, 0, handle, clients));
        members.extend(futures::future::try_join_all(joins).await?);
    }
    Ok(members)
}

/// Takes messages until all that were sent are there; `arrived` counts who has the warm-up.
async fn receive(
    mut events: Events,
    conversation: ConversationId,
    base: Instant,
    mut told: watch::Receiver<bool>,
    arrived: Arc<watch::Sender<usize>>,
) -> anyhow::Result<Got> {
    let mut got = Got::default();
    let mut end = None;
    loop {
        let complete = got.took.len() as u64 == WARM_UP + MESSAGES;
        if *told.borrow() && (end.is_none() || complete) {
            let left = if complete { GRACE } else { PATIENCE };
            let soonest = Instant::now() + left;
            end = Some(end.map_or(soonest, |end: Instant| end.min(soonest)));
        }
        let event = match end {
            Some(end) => match timeout_at(end.into(), events.next()).await {
                Ok(event) => event,
                Err(_) => return Ok(got),
            },
            None => tokio::select! {
                biased;
                event = events.next() => event,
                _ = told.changed() => continue,
            },
        };
        match event.context("a member was closed")? {
            Event::Message(message) if message.conversation_id() == conversation => {
                let Some((number, start)) = load::head(message.text()) else {
                    continue;
                };
                let newest = got.took.last_key_value().map(|(newest, _)| *newest);
                let took = base.elapsed().saturating_sub(start);
                if got.took.contains_key(&number) {
                    got.duplicates += 1;
                    continue;
                }
                got.out_of_order += u64::from(newest > Some(number));
                got.took.insert(number, took);
                if got.took.len() as u64 == WARM_UP {
                    arrived.send_modify(|arrived| *arrived += 1);
                }
            }
            Event::Lagged(events) => got.lagged += events,
            _ => {}
        }
    }
}

fn figures(got: &[Got]) -> Group {
    let measured =
        |one: &Got| -> Vec<Duration> { one.took.range(WARM_UP..).map(|(_, took)| *took).collect() };
    let each: Vec<Duration> = got.iter().flat_map(measured).collect();
    let mut last = BTreeMap::<u64, Duration>::new();
    for (number, took) in got.iter().flat_map(|one| one.took.range(WARM_UP..)) {
        let longest = last.entry(*number).or_default();
        *longest = (*longest).max(*took);
    }
    let sum = |of: fn(&Got) -> u64| got.iter().map(of).sum::<u64>();
    Group {
        members: MEMBERS,
        body_bytes: BODY_BYTES,
        sent: MESSAGES,
        deliveries_expected: MESSAGES * got.len() as u64,
        deliveries: each.len() as u64,
        duplicates: sum(|one| one.duplicates),
        out_of_order: sum(|one| one.out_of_order),
        lagged: sum(|one| one.lagged),
        last_member: Spread::of(last.into_values().collect()),
        each: Spread::of(each),
    }
}
