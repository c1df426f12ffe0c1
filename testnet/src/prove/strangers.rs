//! The claim `strangers`: two servers that have only their names and certificates, and were never
//! configured with each other, exchange a message at once; where another key is written down for a
//! name, they refuse, and say why.
//!
//! Broken, the servers link with configured ones only.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use comity_sdk::{Event, Transport};
use tokio::time::timeout;

use super::directory;
use crate::{
    claims::{Claim, Context, Outcome, Promise, Run},
    network::{Network, Options, Strangers},
};

/// From the first call about the other one until he has the message, in seconds.
const SECONDS_MAX: f64 = 2.0;
/// What stands for never.
const NEVER_S: f64 = 1e9;
/// Time for a message that will not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// The claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct StrangersMeet;

impl Claim for StrangersMeet {
    fn name(&self) -> &'static str {
        "strangers"
    }

    fn says(&self) -> &'static str {
        "two servers with only names and certificates exchange a message within 2 s of the first \
         send, and refuse each other, saying why, where another key is written down"
    }

    fn promise(&self) -> Promise {
        Promise::P4
    }

    fn quick(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> Run<'a> {
        Box::pin(run(context, broken))
    }
}

async fn network(context: &Context, strangers: Strangers) -> anyhow::Result<Network> {
    let directory = directory(context, StrangersMeet.name())?;
    let options = Options {
        strangers: Some(strangers),
        ..Options::new(&directory, &["one", "two"])
    };
    Network::start(&options).await
}

async fn run(context: &Context, broken: bool) -> anyhow::Result<Outcome> {
    let strangers = Strangers {
        closed: broken,
        ..Strangers::default()
    };
    let met = meet(network(context, strangers).await?).await?;
    let strangers = Strangers {
        first_has_wrong_card: true,
        ..Strangers::default()
    };
    let refused = refused(network(context, strangers).await?).await?;
    Ok(Outcome::of(2)
        .figure("seconds_to_first_message", met.there.unwrap_or(NEVER_S))
        .max("seconds_to_first_message", SECONDS_MAX)
        .figure("seconds_to_answer", met.back.unwrap_or(NEVER_S))
        .max("seconds_to_answer", SECONDS_MAX)
        .figure("wrong_key_refused", refused.is_some())
        .equals("wrong_key_refused", true)
        .figure(
            "wrong_key_said",
            refused.is_some_and(|why| why.contains("is known as server")),
        )
        .equals("wrong_key_said", true))
}

/// Seconds from the first call until the message was there, and from that until the answer was.
struct Met {
    there: Option<f64>,
    back: Option<f64>,
}

async fn text_of(client: &comity_sdk::Client, wanted: &str) -> Option<()> {
    let mut events = client.events();
    let heard = async {
        while let Some(event) = events.next().await {
            if let Event::Message(message) = event
                && message.text() == wanted
            {
                return Some(());
            }
        }
        None
    };
    timeout(PATIENCE, heard).await.ok().flatten()
}

async fn meet(mut network: Network) -> anyhow::Result<Met> {
    let alice = network.join(0, "alice", Transport::Quic).await?;
    let bob = network.join(1, "bob", Transport::Quic).await?;
    let start = Instant::now();
    let (heard, opened) = tokio::join!(text_of(&bob.client, "hello, stranger"), async {
        let room = alice.client.open_direct(bob.address.as_str()).await?;
        room.send("hello, stranger").await?.accepted().await?;
        Ok::<_, comity_sdk::Error>(room)
    });
    let there = heard.map(|()| start.elapsed().as_secs_f64());
    let mut back = None;
    if let (Some(()), Ok(_)) = (heard, opened) {
        let start = Instant::now();
        let (heard, answered) = tokio::join!(text_of(&alice.client, "hello"), async {
            let room = bob.client.open_direct(alice.address.as_str()).await?;
            room.send("hello").await?.accepted().await
        });
        answered.context("answering")?;
        back = heard.map(|()| start.elapsed().as_secs_f64());
    }
    for member in [alice, bob] {
        member.client.close().await?;
    }
    network.stop().await?;
    Ok(Met { there, back })
}

/// What the second server's user is told, who wants to talk to one at the first; none if nothing.
async fn refused(mut network: Network) -> anyhow::Result<Option<String>> {
    let alice = network.join(0, "alice", Transport::Quic).await?;
    let bob = network.join(1, "bob", Transport::Quic).await?;
    let opened = bob.client.open_direct(alice.address.as_str()).await;
    let why = opened.err().map(|error| error.chain());
    for member in [alice, bob] {
        member.client.close().await?;
    }
    network.stop().await?;
    Ok(why)
}
