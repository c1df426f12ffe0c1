//! Who was promised what: senders that never stop by themselves, and the book of what they were
//! told is accepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use comity_sdk::{Client, ConversationId, EventId};
use futures::StreamExt as _;
use tokio::{sync::watch, task::JoinSet};

/// Lines that one sender has under way.
const UNDER_WAY: usize = 8;
/// Time between two lines of one sender: enough are on their way to the disk at any moment, and
/// few enough in all to be read back after every cut.
const PACE: Duration = Duration::from_millis(40);
/// Time in which a line under way must be accepted.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time in which a history must be readable.
const READABLE: Duration = Duration::from_secs(60);

/// What was sent to one conversation.
#[derive(Debug, Default)]
struct Book {
    /// Everything, with its text.
    sent: BTreeMap<EventId, String>,
    /// What its sender was told is accepted, and by which server.
    acked: BTreeMap<EventId, usize>,
}

/// The book of one conversation.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) conversation: ConversationId,
    book: Arc<Mutex<Book>>,
}

/// What a server shows of what it promised.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Audit {
    /// Acked and not shown.
    pub(super) lost: u64,
    /// Shown more than once, or a text under two ids.
    pub(super) duplicate: u64,
    /// Shown and never sent, or with another text.
    pub(super) foreign: u64,
    /// Acked and shown.
    pub(super) found: u64,
}

impl Audit {
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicate += other.duplicate;
        self.foreign += other.foreign;
        self.found += other.found;
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicate == 0 && self.foreign == 0
    }
}

impl Ledger {
    pub(super) fn new(conversation: ConversationId) -> Self {
        Self {
            conversation,
            book: Arc::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn acked(&self) -> u64 {
        self.book().acked.len() as u64
    }

    /// Sends one line through a server and waits until it is accepted.
    pub(super) async fn send(
        &self,
        client: &Client,
        node: usize,
        text: String,
    ) -> anyhow::Result<EventId> {
        let outgoing = client.conversation(self.conversation).send(&*text).await?;
        let event = outgoing.event_id();
        self.book().sent.insert(event, text);
        let accepted = tokio::time::timeout(PATIENCE, outgoing.accepted()).await;
        accepted.context("not accepted in time")??;
        self.book().acked.insert(event, node);
        Ok(event)
    }

    /// Sends lines, several at once, until told to end; then waits for those under way.
    pub(super) async fn send_until(
        self,
        client: Client,
        node: usize,
        name: String,
        mut end: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut under_way = JoinSet::new();
        let mut number = 0_u64;
        while !*end.borrow() {
            let (ledger, client) = (self.clone(), client.clone());
            let text = format!("{name} says {number}");
            under_way.spawn(async move { ledger.send(&client, node, text).await });
            number += 1;
            tokio::time::sleep(PACE).await;
            while under_way.len() >= UNDER_WAY {
                tokio::select! {
                    done = under_way.join_next() => drop(done.context("nothing under way")???),
                    _ = end.wait_for(|end| *end) => break,
                }
            }
        }
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Reads everything back and compares it with the book as it was before: with what one server
    /// accepted, or with all.
    pub(super) async fn audit(&self, reader: &Client, of: Option<usize>) -> anyhow::Result<Audit> {
        let book = self.book().acked.clone();
        let acked = book
            .into_iter()
            .filter(|(_, node)| of.is_none_or(|of| of == *node));
        let acked: BTreeSet<EventId> = acked.map(|(event, _)| event).collect();
        let shown = tokio::time::timeout(READABLE, self.read(reader)).await;
        let shown = shown.with_context(|| format!("{} reads nothing", reader.address()))??;
        let book = self.book();
        let mut audit = Audit::default();
        let (mut ids, mut texts) = (BTreeSet::new(), BTreeSet::new());
        for (event, text) in &shown {
            audit.duplicate += u64::from(!ids.insert(*event) || !texts.insert(text.clone()));
            if book.sent.get(event) != Some(text) {
                audit.foreign += 1;
                eprintln!(
                    "  {event} reads {text:?} and was {:?}",
                    book.sent.get(event)
                );
            }
        }
        audit.found = acked.intersection(&ids).count() as u64;
        audit.lost = acked.len() as u64 - audit.found;
        Ok(audit)
    }

    async fn read(&self, reader: &Client) -> anyhow::Result<Vec<(EventId, String)>> {
        loop {
            let history = reader.conversation(self.conversation).history();
            let mut lines = history.oldest().limit(200).stream();
            let (mut shown, mut failed) = (Vec::new(), None);
            while let Some(line) = lines.next().await {
                match line {
                    Ok(line) if line.is_message() => {
                        shown.push((line.id(), line.text().to_owned()));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            match failed {
                None => return Ok(shown),
                Some(error) if error.is_retryable() => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Some(error) => return Err(error.into()),
            }
        }
    }
}
