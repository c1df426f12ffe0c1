//! The claim `erasure` (P6): what its author deleted is on no server's disk within a minute, also
//! when an edit of it comes after the deletion; what a moderator deleted is hidden at once, can be
//! shown again until a checkpoint settles that, and is gone within a minute of it.
//!
//! Broken, the servers' stores remove rows and leave the bytes in their files.

mod raw;

use std::time::{Duration, Instant};

use comity_protocol::{event::Field, limits::CHECKPOINT_ACTS};
use comity_sdk::{Body, Client, Conversation, Draft, EventId, Message, Role, Transport};
use futures::StreamExt;

use super::directory;
use crate::{
    chaos::Random,
    claims::{Claim, Context, Outcome, Promise, Run},
    network::{Member, Network, Options},
};
use raw::{Seen, Wanted};

const SERVERS: usize = 3;
const MESSAGES: u64 = 40;
const MESSAGES_QUICK: u64 = 12;
/// Messages that a moderator deletes.
const MODERATED: u64 = 8;
const MODERATED_QUICK: u64 = 3;
/// Messages that nobody deletes, by which the search is known to find.
const KEPT: u64 = 8;
/// Characters of a text; one in four is longer, so that it fills pages and blocks.
const LETTERS: u64 = 60;
const LETTERS_LONG: u64 = 6_000;
/// Time from the last deletion until nothing is left.
const SECONDS_MAX: f64 = 60.0;
/// Time after which nothing more is waited for.
const GIVE_UP: Duration = Duration::from_secs(75);
/// Without the mechanism nothing goes however long one waits.
const GIVE_UP_BROKEN: Duration = Duration::from_secs(10);
/// What stands for never.
const NEVER_S: f64 = 1e9;
/// Time for links, and for everything to be everywhere.
const WHOLE: Duration = Duration::from_secs(30);
const SEED: u64 = 31;

/// See its `says`.
pub(super) struct Erasure;

impl Claim for Erasure {
    fn name(&self) -> &'static str {
        "erasure"
    }

    fn says(&self) -> &'static str {
        "within a minute of its author's deletion a text and all its edits are in no file of any \
         server, also when an edit comes after the deletion and servers were down or cut off; \
         likewise a moderator's deletion, from the checkpoint on that settles it"
    }

    fn promise(&self) -> Promise {
        Promise::P6
    }

    fn quick(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> Run<'a> {
        Box::pin(run(context, broken))
    }
}

/// Texts by number: those that are to go, and those that stay.
#[derive(Default)]
struct Texts {
    gone: Wanted,
    kept: Wanted,
    /// Those that a moderator deletes.
    moderated: Wanted,
    /// How many are to go.
    count: u32,
}

/// What a moderator deletes.
#[derive(Default)]
struct Moderated {
    messages: Vec<EventId>,
    texts: Vec<String>,
}

struct Scene {
    network: Network,
    author: Member,
    /// The author's other device.
    other: Client,
    readers: Vec<Member>,
    group: Conversation,
    texts: Texts,
    random: Random,
}

fn text(random: &mut Random, letters: u64) -> String {
    const SIGNS: &[char] = &[
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's',
        't', 'u', 'v', 'w', 'x', 'y', 'z', '1', '2', '3', '4', '5', '6', '7', '8', '9', ' ', 'ä',
        'é', 'ß', 'я', '你',
    ];
    let letter = |_| SIGNS[random.place(SIGNS.len())];
    (0..letters).map(letter).collect()
}

async fn run(context: &Context, broken: bool) -> anyhow::Result<Outcome> {
    let (count, moderated_count) = if context.quick || broken {
        (MESSAGES_QUICK, MODERATED_QUICK)
    } else {
        (MESSAGES, MODERATED)
    };
    let mut scene = Scene::set(context, broken).await?;
    let messages = scene.talk(count).await?;
    scene.network.settled(WHOLE).await?;
    let before = scene.look(|texts| &texts.gone)?;
    let there = before.iter().map(|seen| seen.texts.len() as u64);
    let (there, sent) = (there.sum::<u64>(), u64::from(scene.texts.count));

    let deleted = scene.delete(&messages).await?;
    let (seconds, left) = scene.until_gone(deleted, broken).await?;
    if left > 0 {
        scene.tell_left()?;
    }

    // Whole again, everybody reads the same.
    scene.network.settled(WHOLE).await?;
    let mut shown = scene.shown(&messages).await?;

    let moderated = scene.moderate(moderated_count).await?;
    let unsettled = scene.look(|texts| &texts.moderated)?;
    let unsettled = unsettled.iter().map(|seen| seen.texts.len() as u64);
    let unsettled = unsettled.sum::<u64>();
    shown += scene.shown(&moderated.messages).await?;
    let settled = scene.settle(&moderated).await?;
    let (seconds_settled, left_settled) = scene.until_gone(settled, broken).await?;
    if left_settled > left {
        scene.tell_left()?;
    }

    // Then what a clean stop and a start write.
    scene.network.stop().await?;
    let stopped = scene.look(|texts| &texts.gone)?;
    for node in &mut scene.network.nodes {
        node.process.restart().await?;
    }
    let restarted = scene.look(|texts| &texts.gone)?;
    let kept = scene.look(|texts| &texts.kept)?;
    scene.network.stop().await?;

    let found = |seen: &[Seen]| seen.iter().map(|s| s.texts.len() as u64).sum::<u64>();
    let sum = |of: fn(&Seen) -> u64| restarted.iter().map(of).sum::<u64>();
    Ok(Outcome::of(u64::from(scene.texts.count))
        .figure("messages_deleted", count)
        .figure("texts", u64::from(scene.texts.count))
        // Every text that was sent before was on every server's disk: the search finds.
        .figure("found_before", there)
        .min("found_before", (sent * SERVERS as u64) as f64)
        .figure("seconds_until_gone", seconds)
        .max("seconds_until_gone", SECONDS_MAX)
        .figure("left_on_disk", left)
        .equals("left_on_disk", 0_u64)
        .figure("messages_moderated", moderated_count)
        // Until it is settled a moderator's deletion may fall, and its text be shown again.
        .figure("held_until_settled", unsettled)
        .min(
            "held_until_settled",
            (moderated.texts.len() * SERVERS) as f64,
        )
        .figure("seconds_from_checkpoint", seconds_settled)
        .max("seconds_from_checkpoint", SECONDS_MAX)
        .figure("left_after_checkpoint", left_settled)
        .equals("left_after_checkpoint", 0_u64)
        .figure("left_after_stop", found(&stopped))
        .equals("left_after_stop", 0_u64)
        .figure("left_after_restart", found(&restarted))
        .equals("left_after_restart", 0_u64)
        .figure("shown_to_readers", shown)
        .equals("shown_to_readers", 0_u64)
        .figure("kept_found", found(&kept))
        .min("kept_found", (KEPT * SERVERS as u64) as f64)
        .figure("compressed_unread", sum(|seen| seen.unread))
        .equals("compressed_unread", 0_u64)
        .figure("compressed_read", sum(|seen| seen.inflated))
        .figure("files", sum(|seen| seen.files))
        .figure("bytes", sum(|seen| seen.bytes)))
}

impl Scene {
    async fn set(context: &Context, broken: bool) -> anyhow::Result<Self> {
        let mut options = Options {
            regions: crate::cli::regions(SERVERS),
            proxied: true,
            ..Options::new(directory(context, "erasure")?, &[])
        };
        if broken {
            options.server_args.push("--keep-erased".to_owned());
        }
        let network = Network::start(&options).await?;
        network.linked(WHOLE).await?;
        let author = network.join(0, "author", Transport::Quic).await?;
        let other = network.client(0, "author", &author.token, Transport::WebSocket);
        let other = other.connect().await?;
        let mut readers = vec![];
        for node in 1..SERVERS {
            let transport = [Transport::Quic, Transport::WebSocket][node % 2];
            readers.push(
                network
                    .join(node, &format!("reader{node}"), transport)
                    .await?,
            );
        }
        let addresses: Vec<String> = readers.iter().map(|r| r.address.clone()).collect();
        let group = author.client.create_group("all", addresses).await?;
        let moderator = readers[0].client.user();
        let grant = group.set_role(moderator, Role::Moderator).await?;
        grant.accepted().await?;
        network.settled(WHOLE).await?;
        Ok(Self {
            network,
            author,
            other,
            readers,
            group,
            texts: Texts::default(),
            random: Random::new(SEED, 0),
        })
    }

    /// A new text that is to go.
    fn secret(&mut self) -> String {
        let letters = if self.random.one_in(4) {
            LETTERS_LONG
        } else {
            LETTERS
        };
        let text = text(&mut self.random, letters);
        self.texts.gone.add(self.texts.count, &text);
        self.texts.count += 1;
        text
    }

    /// Messages with edits and reactions, and between them some that stay.
    async fn talk(&mut self, count: u64) -> anyhow::Result<Vec<EventId>> {
        let mut messages = vec![];
        for n in 0..count {
            let secret = self.secret();
            let sent = self.group.send(secret).await?;
            sent.accepted().await?;
            for _ in 0..self.random.below(3) {
                let secret = self.secret();
                let edit = self.group.edit(sent.event_id(), secret).await?;
                edit.accepted().await?;
            }
            let reaction = self.group.react(sent.event_id(), "👀").await?;
            reaction.accepted().await?;
            messages.push(sent.event_id());
            if n < KEPT {
                let kept = text(&mut self.random, LETTERS);
                self.texts.kept.add(u32::try_from(n)?, &kept);
                self.group.send(kept).await?.accepted().await?;
            }
        }
        // And a draft, which the author's own devices share: replaced, then cleared.
        for _ in 0..2 {
            let draft = Draft::text(self.private());
            let kept = self.author.client.set_draft(self.group.id(), Some(draft));
            kept.await?.accepted().await?;
        }
        Ok(messages)
    }

    /// A text that only the author's server ever has.
    fn private(&mut self) -> String {
        let text = text(&mut self.random, LETTERS);
        self.texts.gone.add(PRIVATE, &text);
        text
    }

    /// Deletes all of them while one server is cut off and another is killed, with edits that come
    /// after the deletions. Gives the time of the last.
    async fn delete(&mut self, messages: &[EventId]) -> anyhow::Result<Instant> {
        self.network.cut(0, 2, true);
        self.network.cut(1, 2, true);
        for message in messages {
            self.group.delete(*message).await?.accepted().await?;
        }
        let cleared = self.author.client.set_draft(self.group.id(), None).await?;
        cleared.accepted().await?;
        let deleted = Instant::now();
        let from_elsewhere = self.other.conversation(self.group.id());
        for message in messages {
            let late = self.secret();
            let edit = from_elsewhere.edit(*message, late).await?;
            edit.accepted().await?;
        }
        // Decided and perhaps not carried out: it must be taken up again.
        self.network.nodes[0].process.kill().await?;
        self.network.nodes[0].process.restart().await?;
        self.network.cut(0, 2, false);
        self.network.cut(1, 2, false);
        Ok(deleted)
    }

    /// Messages with an edit each, which somebody at another server deletes as a moderator while a
    /// third one is cut off.
    async fn moderate(&mut self, count: u64) -> anyhow::Result<Moderated> {
        let mut moderated = Moderated::default();
        for n in 0..count {
            let letters = if n % 4 == 0 { LETTERS_LONG } else { LETTERS };
            let first = text(&mut self.random, letters);
            let edited = text(&mut self.random, LETTERS);
            let sent = self.group.send(first.clone()).await?;
            sent.accepted().await?;
            let edit = self.group.edit(sent.event_id(), edited.clone()).await?;
            edit.accepted().await?;
            moderated.messages.push(sent.event_id());
            moderated.texts.extend([first, edited]);
        }
        for (number, text) in (0u32..).zip(&moderated.texts) {
            self.texts.moderated.add(number, text);
        }
        self.network.settled(WHOLE).await?;
        self.network.cut(0, 2, true);
        self.network.cut(1, 2, true);
        let group = self.readers[0].client.conversation(self.group.id());
        for message in &moderated.messages {
            let delete = group.delete_as_moderator(*message).await?;
            delete.accepted().await?;
        }
        self.network.cut(0, 2, false);
        self.network.cut(1, 2, false);
        self.network.settled(WHOLE).await?;
        Ok(moderated)
    }

    /// Acts until the next checkpoint is due. Gives the time of the last one, before which it was
    /// not made.
    async fn settle(&mut self, moderated: &Moderated) -> anyhow::Result<Instant> {
        let mut acts = vec![];
        for _ in 0..CHECKPOINT_ACTS {
            acts.push(self.group.set_policy(Field::Posting, 2).await?);
        }
        let last = acts.pop();
        for act in acts {
            act.accepted().await?;
        }
        let settled = Instant::now();
        if let Some(last) = last {
            last.accepted().await?;
        }
        for (number, text) in (self.texts.count..).zip(&moderated.texts) {
            self.texts.gone.add(number, text);
        }
        Ok(settled)
    }

    /// Looks until nothing is left. Gives the seconds that took, and how many are left.
    async fn until_gone(&self, since: Instant, broken: bool) -> anyhow::Result<(f64, u64)> {
        let give_up = if broken { GIVE_UP_BROKEN } else { GIVE_UP };
        // The deletion itself has to be everywhere, or nothing found says nothing.
        self.network.settled(WHOLE).await?;
        loop {
            let seen = self.look(|texts| &texts.gone)?;
            let left: u64 = seen.iter().map(|seen| seen.texts.len() as u64).sum();
            if left == 0 {
                return Ok((since.elapsed().as_secs_f64(), 0));
            }
            if since.elapsed() > give_up {
                return Ok((NEVER_S, left));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn tell_left(&self) -> anyhow::Result<()> {
        for seen in self.look(|texts| &texts.gone)? {
            for place in seen.places {
                eprintln!("  left in {}", place.display());
            }
        }
        Ok(())
    }

    /// What lies on each server's disk, in all of its directory.
    fn look(&self, which: fn(&Texts) -> &Wanted) -> anyhow::Result<Vec<Seen>> {
        let wanted = which(&self.texts);
        let mut all = vec![];
        for node in &self.network.nodes {
            let mut seen = Seen::default();
            tokio::task::block_in_place(|| wanted.look(&node.directory, &mut seen))?;
            all.push(seen);
        }
        Ok(all)
    }

    /// Deleted messages that some reader is still shown a text of.
    async fn shown(&self, messages: &[EventId]) -> anyhow::Result<u64> {
        let mut shown = 0;
        let readers = self.readers.iter().map(|reader| &reader.client);
        for client in readers.chain([&self.author.client, &self.other]) {
            let history = client.conversation(self.group.id()).history();
            let mut lines = Box::pin(history.oldest().limit(200).stream());
            while let Some(line) = lines.next().await {
                let line: Message = line?;
                let hidden = matches!(line.body(), Body::Gone) && line.deleted().is_some();
                if messages.contains(&line.id()) && !hidden {
                    shown += 1;
                }
            }
        }
        Ok(shown)
    }
}

/// Number of the texts that only one server has.
const PRIVATE: u32 = u32::MAX;
