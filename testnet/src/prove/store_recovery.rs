//! A server's files are damaged while it is down. It comes back whole, or says why it does not.

mod damage;

use std::time::Duration;

use comity_sdk::{Client, Role, Transport};

use super::{
    directory,
    ledger::{Audit, Ledger},
};
use crate::{
    chaos::Random,
    claims::{Claim, Context, Outcome, Promise, Run},
    network::{Network, Options},
};
use damage::{Damage, LOG_DAMAGE};

const SERVERS: usize = 2;
/// Lines from each server.
const LINES: usize = 60;
/// Lines sent after each repair: it must not only read but go on.
const LINES_AFTER: usize = 3;
const SEEDS: u64 = 4;
const SEEDS_QUICK: u64 = 1;
/// Time for links, and for everything to be everywhere.
const WHOLE: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);

/// See its `says`.
pub(super) struct StoreRecovery;

impl Claim for StoreRecovery {
    fn name(&self) -> &'static str {
        "store-recovery"
    }

    fn says(&self) -> &'static str {
        "a server whose index was garbled, cut short or deleted comes back whole from its log, and \
         one whose log was damaged names the place and gets back from a peer what was there"
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

struct Scene {
    network: Network,
    /// On the server that is damaged, and on the other.
    readers: Vec<Client>,
    shared: Ledger,
    /// Known to the damaged server alone.
    local: Ledger,
    lines: usize,
}

#[derive(Default)]
struct Sums {
    cases: u64,
    /// Servers that did not start, and said why.
    refused: u64,
    audit: Audit,
    whole: u64,
    log_cases: u64,
    located: u64,
    repaired: u64,
}

async fn run(context: &Context, broken: bool) -> anyhow::Result<Outcome> {
    let mut scene = Scene::set(context).await?;
    let mut sums = Sums::default();
    let seeds = if context.quick || broken {
        SEEDS_QUICK
    } else {
        SEEDS
    };
    for seed in 0..seeds {
        let mut random = Random::new(seed, 5);
        for damage in Damage::OF_INDEX {
            scene
                .index_case(damage, broken, &mut random, &mut sums)
                .await?;
            if sums.refused > 0 {
                break;
            }
        }
        if broken {
            break;
        }
        for _ in 0..LOG_DAMAGE {
            scene.log_case(&mut random, &mut sums).await?;
        }
    }
    let acked = scene.shared.acked() + scene.local.acked();
    scene.network.stop().await?;
    let outcome = Outcome::of(sums.cases)
        .figure("acked", acked)
        .figure("acked_read_back", sums.audit.found)
        .figure("acked_lost", sums.audit.lost)
        .equals("acked_lost", 0_u64)
        .figure("duplicate", sums.audit.duplicate)
        .equals("duplicate", 0_u64)
        .figure("foreign", sums.audit.foreign)
        .equals("foreign", 0_u64)
        .figure("refused_to_start", sums.refused)
        .figure("whole_or_refused", sums.whole + sums.refused)
        .min("whole_or_refused", sums.cases as f64)
        .figure("log_cases", sums.log_cases)
        .figure("log_damage_located", sums.located)
        .figure("log_damage_repaired", sums.repaired);
    Ok(if broken {
        outcome
    } else {
        outcome
            .min("log_cases", 1.0)
            .min("log_damage_located", sums.log_cases as f64)
            .min("log_damage_repaired", sums.log_cases as f64)
    })
}

impl Scene {
    async fn set(context: &Context) -> anyhow::Result<Self> {
        let place = directory(context, "store-recovery")?;
        let regions = crate::cli::regions(SERVERS);
        let options = Options {
            regions,
            proxied: true,
            ..Options::new(place, &[])
        };
        let network = Network::start(&options).await?;
        network.linked(WHOLE).await?;
        let here = network.join(0, "here", Transport::Quic).await?;
        let there = network.join(1, "there", Transport::WebSocket).await?;
        let group = here.client.create_group("both", [&*there.address]).await?;
        group.open_door(Role::Member).await?.accepted().await?;
        let alone = here.client.create_group("alone", [""; 0]).await?;
        alone.set_topic("mine").await?.accepted().await?;
        network.settled(WHOLE).await?;
        let mut scene = Self {
            network,
            readers: vec![here.client, there.client],
            shared: Ledger::new(group.id()),
            local: Ledger::new(alone.id()),
            lines: 0,
        };
        for _ in 0..LINES {
            scene.say().await?;
        }
        scene.network.settled(WHOLE).await?;
        Ok(scene)
    }

    /// One line by each to the other, and one to himself.
    async fn say(&mut self) -> anyhow::Result<()> {
        let text = |what: &str| format!("{what} {}", self.lines);
        let [here, there] = &self.readers[..] else {
            anyhow::bail!("two readers");
        };
        tokio::try_join!(
            self.shared.send(here, 0, text("from here")),
            self.shared.send(there, 1, text("from there")),
            self.local.send(here, 0, text("to myself")),
        )?;
        self.lines += 1;
        Ok(())
    }

    /// The index is damaged; the link is cut, so that only the server's own log can help.
    async fn index_case(
        &mut self,
        damage: Damage,
        broken: bool,
        random: &mut Random,
        sums: &mut Sums,
    ) -> anyhow::Result<()> {
        sums.cases += 1;
        self.network.cut(0, 1, true);
        let node = &mut self.network.nodes[0];
        // Both ends occur: after a clean one the index is trusted more.
        if random.one_in(2) {
            node.process.kill().await?;
        } else {
            node.process.stop(STOP).await?;
        }
        let data = node.directory.join("data");
        damage::index(&data, damage, random)?;
        if broken {
            damage::delete_log(&data)?;
        }
        if let Err(error) = node.process.restart().await {
            eprintln!("  {damage:?}: {error}");
            sums.refused += 1;
            return Ok(());
        }
        let opened = node.ready()?.opened;
        if broken {
            // The accounts are gone with the log: nobody can sign in to read.
            sums.audit.lost += self.shared.acked() + self.local.acked();
            return Ok(());
        }
        let mut audit = self.shared.audit(&self.readers[0], None).await?;
        audit.add(self.local.audit(&self.readers[0], None).await?);
        if audit.is_clean() {
            sums.whole += 1;
        } else {
            eprintln!("  {damage:?}: {audit:?} after {opened}");
        }
        sums.audit.add(audit);
        self.network.cut(0, 1, false);
        self.go_on().await
    }

    /// A record in the log is damaged, and the index with it. The peer has what was there.
    async fn log_case(&mut self, random: &mut Random, sums: &mut Sums) -> anyhow::Result<()> {
        sums.cases += 1;
        sums.log_cases += 1;
        let node = &mut self.network.nodes[0];
        node.process.stop(STOP).await?;
        let data = node.directory.join("data");
        let text = format!(
            "from {} {}",
            ["here", "there"][random.place(2)],
            random.below(self.lines as u64)
        );
        let at = damage::log(&data, &text)?;
        damage::index(&data, Damage::Deleted, random)?;
        node.process.restart().await?;
        let opened = node.status().await?["opened"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let named = opened.contains("damage: ") && opened.contains(".log");
        sums.located += u64::from(named);
        self.network.settled(WHOLE).await?;
        let audit = self.shared.audit(&self.readers[0], None).await?;
        if audit.is_clean() && named {
            sums.whole += 1;
        } else {
            eprintln!("  {text:?} at byte {at}: {audit:?} after {opened}");
        }
        sums.repaired += u64::from(audit.is_clean());
        sums.audit.add(audit);
        self.go_on().await
    }

    /// A server that came back goes on taking lines, in both directions.
    async fn go_on(&mut self) -> anyhow::Result<()> {
        for _ in 0..LINES_AFTER {
            self.say().await?;
        }
        self.network.settled(WHOLE).await?;
        for reader in &self.readers {
            let audit = self.shared.audit(reader, None).await?;
            anyhow::ensure!(
                audit.is_clean(),
                "{}: {audit:?} after going on",
                reader.address()
            );
        }
        Ok(())
    }
}
