//! The task that takes updates in: verifies, tells what is new from what was told before, and
//! publishes. One update after the other, so that events keep the server's order.

mod jobs;
mod lines;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use comity_protocol::{
    authority::Cause,
    ids::{ConversationId, EventId},
    session::{Anchor, Change, Cursor, Item, Page, Place, Reply, Request, Summary},
};
use tokio::time;

use crate::{
    client::Shared,
    error::{Error, ErrorKind, Result},
    events::{Event, Mark, Notice, Warning},
    limits::{BACKLOG_SOFT_BYTES, CATCH_UP_NEWEST, CATCH_UP_PAGE_ITEMS, CATCH_UP_PAGES_MAX},
    preferences,
    store::Progress,
    verify::{self, Failure},
};
pub(crate) use jobs::{Job, Jobs};
use lines::Lines;

/// Tries to learn an author's identity before a line is given up.
const IDENTITY_TRIES: u32 = 5;
/// Wait between them.
const IDENTITY_WAIT: Duration = Duration::from_secs(2);

pub(crate) struct Intake {
    shared: Arc<Shared>,
    lines: Lines,
    /// Newest line taken in, by conversation.
    reached: BTreeMap<ConversationId, Place>,
}

impl Intake {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let notebook = shared.notebook();
        let lines = Lines::new(notebook.handled.iter().copied());
        let reached = notebook.reached.clone();
        drop(notebook);
        Self {
            shared,
            lines,
            reached,
        }
    }

    pub(crate) async fn run(mut self) {
        while let Some((job, waited)) = self.shared.jobs.next().await {
            // What could not be taken in any more comes again at the next start: nothing behind
            // it may be marked as read.
            if self.over().is_some() {
                return;
            }
            match job {
                Job::Welcome {
                    cursor,
                    reset,
                    first,
                } => {
                    if first {
                        self.begin(cursor).await;
                        continue;
                    }
                    if reset {
                        self.shared.hub.publish(Event::Reset);
                        self.catch_up_all().await;
                    }
                    self.mark(cursor);
                }
                Job::Update {
                    cursor, changes, ..
                } => {
                    if waited >= BACKLOG_SOFT_BYTES {
                        self.shared.wake.notify_one();
                    }
                    for change in changes {
                        self.change(change).await;
                    }
                    if let Some(cursor) = cursor {
                        self.mark(cursor);
                    }
                }
            }
            // Verified lines cost time and no waiting: others get a turn.
            tokio::task::consume_budget().await;
        }
    }

    fn over(&self) -> Option<Error> {
        self.shared.end()
    }

    fn mark(&self, cursor: Cursor) {
        if self.over().is_none() {
            self.shared.set_taken(cursor.clone());
            self.shared.mark(Mark::Cursor(cursor));
        }
    }

    async fn change(&mut self, change: Change) {
        match change {
            Change::Appeared { conversation, item } => {
                self.line(conversation, &item, true).await;
            }
            Change::Changed { conversation, item } => {
                self.line(conversation, &item, false).await;
            }
            Change::Vanished {
                conversation,
                event,
                reason,
                by,
            } => {
                self.lines.forget(&event);
                self.shared.hub.publish(Event::Vanished {
                    conversation,
                    event,
                    reason,
                    by,
                });
            }
            Change::Stands {
                conversation,
                event,
            } => {
                self.shared.hub.publish(Event::Stands {
                    conversation,
                    event,
                });
            }
            Change::Conversation(summary) => self.conversation(*summary),
            Change::Left { conversation, by } => self.left(conversation, by),
            Change::Delivery {
                conversation,
                event,
                replicated,
                of,
            } => {
                self.shared.outbox().delivered(&event, replicated, of);
                self.shared.hub.publish(Event::Delivery {
                    conversation,
                    event,
                    replicated,
                    of,
                });
            }
            Change::Gap { conversation } => {
                self.shared.hub.publish(Event::Gap { conversation });
                if let Err(error) = self.catch_up(conversation).await {
                    tracing::warn!(%conversation, error = error.chain(), "a gap stays open");
                }
            }
        }
    }

    fn conversation(&self, summary: Summary) {
        self.shared.wanted.note(&summary);
        let shown = Arc::new(summary.clone());
        if self.shared.notebook().know(summary) {
            self.shared.hub.publish(Notice::Conversation(shown));
        }
    }

    fn left(&mut self, conversation: ConversationId, by: Option<Cause>) {
        self.shared.notebook().left(conversation);
        self.reached.remove(&conversation);
        self.shared.hub.publish(Event::Left { conversation, by });
    }

    /// Takes in one line: drops it if it was told in this version, else verifies and publishes it.
    async fn line(&mut self, conversation: ConversationId, item: &Item, appeared: bool) {
        let (id, version) = (verify::event_id(&item.event), verify::version(item));
        if self.lines.has(&id, version) {
            return;
        }
        let Some(line) = self.verified(conversation, item, version).await else {
            return;
        };
        let (kind, lost) = self.lines.take(&line, appeared);
        let place = line.place;
        let reached = self.reached.entry(conversation).or_insert(place);
        *reached = place.max(*reached);
        let own = line.event.author == self.shared.me.user;
        if preferences::is_setting(&self.shared, &line) {
            // A value that was replaced meanwhile is nothing to tell: what replaced it follows.
            if let Some((setting, value)) = preferences::setting(&self.shared, &line) {
                let told = Event::Preference { setting, value };
                self.shared.hub.publish(told);
            }
        } else {
            let line = Arc::clone(&line);
            self.shared.hub.publish(Notice::Line(kind, line));
        }
        for edit in lost.into_iter().filter(|_| own) {
            let line = Arc::clone(&line);
            self.shared.hub.publish(Notice::EditLost(edit, line));
        }
        self.shared.mark(Mark::Line {
            conversation,
            place,
            event: id,
            version,
        });
    }

    async fn verified(
        &self,
        conversation: ConversationId,
        item: &Item,
        version: u64,
    ) -> Option<Arc<crate::message::Line>> {
        let mut tries = 0;
        loop {
            let line = verify::line(&self.shared, conversation, item, version).await;
            let error = match line {
                Ok(line) => return Some(line),
                Err(Failure::Unverified) => return None,
                Err(Failure::Later(error)) => error,
            };
            if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Auth) {
                return None;
            }
            tries += 1;
            if tries >= IDENTITY_TRIES {
                // Told as lost and not passed over in silence; the other lines go on.
                self.shared.warn(Warning {
                    conversation,
                    author: None,
                    reason: format!("the author's identity is not to be had: {}", error.chain()),
                });
                self.shared.hub.publish(Event::Gap { conversation });
                return None;
            }
            time::sleep(error.retry_after().unwrap_or(IDENTITY_WAIT)).await;
            // Without a session nothing else can be taken in either.
            if self.shared.wait_online().await.is_err() {
                return None;
            }
        }
    }

    async fn list(&self) -> Option<Vec<Summary>> {
        loop {
            match self.shared.list().await {
                Ok(list) => return Some(list),
                Err(error) if error.is_retryable() => {
                    time::sleep(error.retry_after().unwrap_or(IDENTITY_WAIT)).await;
                    self.shared.wait_online().await.ok()?;
                }
                Err(error) => {
                    tracing::warn!(error = error.chain(), "no list of conversations");
                    return None;
                }
            }
        }
    }

    /// A device that knows nothing yet: what is there now is history, what comes are events.
    async fn begin(&mut self, cursor: Cursor) {
        for summary in self.list().await.unwrap_or_default() {
            if let Some(newest) = summary.newest {
                let reached = self.reached.entry(summary.conversation).or_insert(newest);
                *reached = newest.max(*reached);
            }
            self.conversation(summary);
        }
        if self.over().is_some() {
            return;
        }
        // Nothing before this can be handed over, so it need not wait for the program to read.
        let reached: Vec<_> = self.reached.iter().map(|(c, p)| (*c, *p)).collect();
        let mut notebook = self.shared.notebook();
        for chunk in reached.chunks(1_000) {
            notebook.progress(Progress {
                reached: chunk.to_vec(),
                ..Progress::default()
            });
        }
        notebook.progress(Progress {
            cursor: Some(cursor),
            ..Progress::default()
        });
    }

    /// After a reset: the list, every line newer than the newest taken in, and what changed on the
    /// newest page of the latest conversations.
    async fn catch_up_all(&mut self) {
        let Some(list) = self.list().await else {
            return;
        };
        let gone: Vec<ConversationId> = {
            let notebook = self.shared.notebook();
            let listed: std::collections::BTreeSet<_> =
                list.iter().map(|s| s.conversation).collect();
            let known = notebook.known.keys();
            known.filter(|id| !listed.contains(id)).copied().collect()
        };
        for conversation in gone {
            self.left(conversation, None);
        }
        for (index, summary) in list.into_iter().enumerate() {
            let (conversation, newest) = (summary.conversation, summary.newest);
            self.conversation(summary);
            let caught = if newest > self.reached.get(&conversation).copied() {
                self.catch_up(conversation).await
            } else {
                Ok(true)
            };
            if !matches!(caught, Ok(true)) {
                self.shared.hub.publish(Event::Gap { conversation });
            }
            if index < CATCH_UP_NEWEST {
                self.look_again(conversation).await;
            }
        }
    }

    /// Reads every line after the newest one taken in. Gives whether that were all.
    async fn catch_up(&mut self, conversation: ConversationId) -> Result<bool> {
        let Some(mut after) = self.reached.get(&conversation).copied() else {
            // New to this device: its newest page is enough to begin with.
            let page = self.page(conversation, Anchor::Newest).await?;
            for item in &page.items {
                self.line(conversation, item, true).await;
            }
            return Ok(page.complete);
        };
        for _ in 0..CATCH_UP_PAGES_MAX {
            let page = self.page(conversation, Anchor::After(after)).await?;
            for item in &page.items {
                self.line(conversation, item, true).await;
            }
            if page.complete {
                return Ok(true);
            }
            match page.next.filter(|next| *next > after) {
                Some(next) => after = next,
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Looks for changes of lines that were told and are still remembered.
    async fn look_again(&mut self, conversation: ConversationId) {
        match self.page(conversation, Anchor::Newest).await {
            Ok(page) => {
                for item in &page.items {
                    let id: EventId = verify::event_id(&item.event);
                    if self.lines.knows(&id) {
                        self.line(conversation, item, false).await;
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%conversation, error = error.chain(), "not read again");
            }
        }
    }

    async fn page(&self, conversation: ConversationId, anchor: Anchor) -> Result<Page> {
        let request = Request::History {
            conversation,
            anchor,
            limit: CATCH_UP_PAGE_ITEMS,
        };
        match self.shared.call_for_intake(request).await? {
            Reply::Page(page) => Ok(page),
            _ => Err(Error::unexpected_reply()),
        }
    }
}

#[cfg(test)]
mod tests;
