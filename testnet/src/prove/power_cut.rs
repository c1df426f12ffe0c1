//! The power goes while lines are accepted, and no accepted one is missing afterwards.

use std::time::Duration;

use comity_sdk::{Client, Role, Transport};
use tokio::{sync::watch, task::JoinSet};

use super::{
    directory,
    ledger::{Audit, Ledger},
};
use crate::{
    chaos::Random,
    claims::{Claim, Context, Outcome, Promise, Run},
    network::{Member, Network, Node, Options},
};

const SERVERS: usize = 2;
/// Users who send, on each server; a further one reads.
const SENDERS: usize = 3;
const ROUNDS: u32 = 20;
const ROUNDS_QUICK: u32 = 5;
/// Without syncs the first cut loses everything.
const ROUNDS_BROKEN: u32 = 2;
const SEED: u64 = 11;
/// Time for links, and for everything to be everywhere.
const WHOLE: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);

/// See its `says`.
pub(super) struct PowerCut;

impl Claim for PowerCut {
    fn name(&self) -> &'static str {
        "power-cut"
    }

    fn says(&self) -> &'static str {
        "when servers lose every byte that was not synced, at any moment, no accepted message is \
         missing or there twice afterwards"
    }

    fn promise(&self) -> Promise {
        Promise::P1
    }

    fn quick(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> Run<'a> {
        Box::pin(run(context, broken))
    }
}

async fn run(context: &Context, broken: bool) -> anyhow::Result<Outcome> {
    let rounds = match (broken, context.quick) {
        (true, _) => ROUNDS_BROKEN,
        (false, true) => ROUNDS_QUICK,
        (false, false) => ROUNDS,
    };
    let place = directory(context, "power-cut")?;
    let regions = crate::cli::regions(SERVERS);
    let options = Options {
        regions,
        ..Options::new(place, &[])
    };
    let mut network = Network::start(&options).await?;
    network.linked(WHOLE).await?;
    let scene = Scene::set(&network).await?;
    arm(&mut network, broken).await?;
    network.linked(WHOLE).await?;

    let (end, ended) = watch::channel(false);
    let mut senders = JoinSet::new();
    for (node, home) in scene.homes.iter().enumerate() {
        for (number, client) in home.senders.iter().enumerate() {
            for (what, ledger) in [("all", &scene.shared), ("here", &home.ledger)] {
                let name = format!("{node}.{number} to {what}");
                let (ledger, client) = (ledger.clone(), client.clone());
                senders.spawn(ledger.send_until(client, node, name, ended.clone()));
            }
        }
    }
    let mut random = Random::new(SEED, 0);
    let mut sums = Sums::default();
    for _ in 0..rounds {
        tokio::time::sleep(random.time(150, 900)).await;
        let victims: &[usize] = [&[0][..], &[1], &[0, 1]][random.place(3)];
        cut(&mut network, victims, &mut sums).await?;
        for node in victims {
            sums.audit.add(scene.audit(*node).await?);
        }
    }
    end.send_replace(true);
    while let Some(sender) = senders.join_next().await {
        if let Err(error) = sender? {
            eprintln!("  a sender: {error:#}");
            sums.failures += 1;
        }
    }
    if !broken {
        network.settled(WHOLE).await?;
        for home in &scene.homes {
            sums.audit
                .add(scene.shared.audit(&home.reader, None).await?);
        }
    }
    network.stop().await?;
    let local = scene.homes.iter().map(|home| home.ledger.acked());
    let acked = scene.shared.acked() + local.sum::<u64>();
    Ok(Outcome::of(acked)
        .figure("rounds", u64::from(rounds))
        .figure("power_cuts", sums.cuts)
        .min("power_cuts", f64::from(rounds))
        // Each start has to take the machine for one that crashed.
        .figure("index_rebuilt", sums.rebuilt)
        .min("index_rebuilt", sums.cuts as f64)
        .figure("acked", acked)
        .figure("acked_read_back", sums.audit.found)
        .figure("acked_lost", sums.audit.lost)
        .equals("acked_lost", 0_u64)
        .figure("duplicate", sums.audit.duplicate)
        .equals("duplicate", 0_u64)
        .figure("foreign", sums.audit.foreign)
        .equals("foreign", 0_u64)
        .figure("failures", sums.failures)
        .equals("failures", 0_u64))
}

#[derive(Default)]
struct Sums {
    audit: Audit,
    cuts: u64,
    rebuilt: u64,
    failures: u64,
}

struct Home {
    senders: Vec<Client>,
    reader: Client,
    /// A conversation that no other server knows: nobody could give back what is lost of it.
    ledger: Ledger,
}

struct Scene {
    homes: Vec<Home>,
    shared: Ledger,
}

impl Scene {
    /// Users and conversations, made while bytes still reach the disk.
    async fn set(network: &Network) -> anyhow::Result<Self> {
        let mut members: Vec<Vec<Member>> = Vec::new();
        for node in 0..network.nodes.len() {
            let mut here = Vec::new();
            for number in 0..=SENDERS {
                let transport = [Transport::Quic, Transport::WebSocket][number % 2];
                let handle = format!("user{number}");
                here.push(network.join(node, &handle, transport).await?);
            }
            members.push(here);
        }
        let mut all: Vec<String> = Vec::new();
        for member in members.iter().flatten().skip(1) {
            all.push(member.address.clone());
        }
        let owner = &members[0][0].client;
        let group = owner.create_group("all", all).await?;
        group.open_door(Role::Member).await?.accepted().await?;
        let shared = Ledger::new(group.id());
        let mut homes = Vec::new();
        for here in &members {
            let mut others: Vec<String> = Vec::new();
            for member in &here[1..] {
                others.push(member.address.clone());
            }
            let group = here[0].client.create_group("here", others).await?;
            // Accepted after the invitations: all are members then.
            group.set_topic("home").await?.accepted().await?;
            homes.push(Home {
                reader: here[0].client.clone(),
                senders: here[1..].iter().map(|m| m.client.clone()).collect(),
                ledger: Ledger::new(group.id()),
            });
        }
        network.settled(WHOLE).await?;
        Ok(Self { homes, shared })
    }

    /// What a server shows of what it accepted itself.
    async fn audit(&self, node: usize) -> anyhow::Result<Audit> {
        let home = &self.homes[node];
        let mut audit = home.ledger.audit(&home.reader, Some(node)).await?;
        audit.add(self.shared.audit(&home.reader, Some(node)).await?);
        Ok(audit)
    }
}

/// From here on unsynced bytes live in the servers' memory only.
async fn arm(network: &mut Network, broken: bool) -> anyhow::Result<()> {
    for node in &mut network.nodes {
        node.process.stop(STOP).await?;
        node.process.add_args(["--lossy"]);
        if broken {
            node.process.add_args(["--no-sync"]);
        }
        node.process.restart().await?;
    }
    Ok(())
}

/// Cuts the power of some servers at one moment, and starts them again.
async fn cut(network: &mut Network, victims: &[usize], sums: &mut Sums) -> anyhow::Result<()> {
    let nodes = network.nodes.iter_mut().enumerate();
    let mut nodes: Vec<&mut Node> = nodes
        .filter(|(at, _)| victims.contains(at))
        .map(|(_, node)| node)
        .collect();
    let kills = nodes.iter_mut().map(|node| node.process.kill());
    futures::future::try_join_all(kills).await?;
    let starts = nodes.iter_mut().map(|node| node.process.restart());
    futures::future::try_join_all(starts).await?;
    for node in nodes {
        sums.cuts += 1;
        sums.rebuilt += u64::from(node.ready()?.opened.contains("index rebuilt"));
    }
    Ok(())
}
