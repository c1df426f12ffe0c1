//! The stream of changes of one session: first what the change logs hold since the cursor, then
//! what happens. Nothing is lost or repeated at the seam, since both are ordered by record.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque, btree_map::Entry},
    sync::Arc,
};

use comity_protocol::{
    authority::{Cause, Sight},
    ids::{ConversationId, EventId, UserId},
    limits::UPDATE_ITEMS_MAX,
    role::Role,
    session::{Change, Code, ContentState, CursorState, Item, Reaction, VoidItem, WireError},
};
use comity_storage::ReadError;

use crate::{
    gateway::home::{Batch, Updates},
    hub::{Hub, Inbox, Live, News, Taken},
    items::Items,
    rows::{LogRow, Rows},
};

/// What a reader sees, by conversation.
type Sights = BTreeMap<ConversationId, Sight>;

/// Bytes of one update, well within a frame.
const UPDATE_BYTES: usize = 256 * 1024;
/// Entries read of one conversation at a time.
const READ_AHEAD: usize = 128;

/// See the module.
pub(crate) struct SessionUpdates {
    hub: Arc<Hub>,
    inbox: Arc<Inbox>,
    rows: Rows,
    user: UserId,
    cursor: CursorState,
    key: [u8; 32],
    /// Read to be sent, and the position that is reached with the last of them.
    ready: VecDeque<Change>,
    reached: Option<u64>,
    catch_up: Option<CatchUp>,
}

impl std::fmt::Debug for SessionUpdates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionUpdates")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Drop for SessionUpdates {
    fn drop(&mut self) {
        self.hub.close(&self.inbox);
    }
}

fn internal(error: &ReadError) -> WireError {
    tracing::error!(%error, "a session could not be read to");
    WireError::new(Code::Internal, "the store could not be read; try again")
}

impl SessionUpdates {
    /// Opens the stream after `cursor.position`. `inbox` must have been opened before.
    pub(crate) fn new(
        hub: Arc<Hub>,
        inbox: Arc<Inbox>,
        rows: Rows,
        user: UserId,
        cursor: CursorState,
        key: [u8; 32],
    ) -> Self {
        let catch_up = Some(CatchUp::default());
        let ready = VecDeque::new();
        Self {
            hub,
            inbox,
            rows,
            user,
            cursor,
            key,
            ready,
            reached: None,
            catch_up,
        }
    }

    /// Cuts a batch off what is ready.
    fn batch(&mut self) -> Option<Batch> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while let Some(change) = self.ready.pop_front() {
            bytes += size(&change);
            changes.push(change);
            if changes.len() >= UPDATE_ITEMS_MAX || bytes >= UPDATE_BYTES {
                break;
            }
        }
        if changes.is_empty() {
            return None;
        }
        // The cursor moves only once everything of its record is on the way.
        let reached = if self.ready.is_empty() {
            self.reached.take()
        } else {
            None
        };
        let cursor = reached.map(|position| {
            self.cursor.position = position;
            self.cursor.seal(&self.key)
        });
        Some(Batch { cursor, changes })
    }

    fn read_on(&mut self) -> Result<(), ReadError> {
        let Some(catch_up) = &mut self.catch_up else {
            return Ok(());
        };
        let position = self.cursor.position;
        let reached = catch_up.read(&self.rows, &self.user, position, &mut self.ready)?;
        if self.ready.is_empty() {
            self.cursor.position = reached;
        } else {
            self.reached = Some(reached);
        }
        if catch_up.done {
            self.catch_up = None;
        }
        Ok(())
    }

    /// A change that is told to all members alike, if it is of what this one sees. What comes behind
    /// everything shown comes behind whatever made him a member.
    fn seen(&self, change: &Change, sights: &mut Sights) -> Result<Option<Change>, ReadError> {
        let seen = match change {
            Change::Appeared { conversation, item } if item.late => {
                self.sight(conversation, sights)?.sees(item.place)
            }
            _ => true,
        };
        Ok(seen.then(|| change.clone()))
    }

    /// What this one sees, read once for all that one record changed.
    fn sight<'a>(
        &self,
        conversation: &ConversationId,
        sights: &'a mut Sights,
    ) -> Result<&'a Sight, ReadError> {
        Ok(match sights.entry(*conversation) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(none) => none.insert(self.rows.sight(conversation, &self.user)?),
        })
    }

    fn news(&mut self, news: &News) -> Result<(), ReadError> {
        if news
            .position
            .is_some_and(|position| position <= self.cursor.position)
        {
            return Ok(());
        }
        let (mut items, mut sights) = (Items::new(&self.rows), Sights::new());
        // A conversation is announced before its lines, and left after them.
        let (before, after): (Vec<_>, Vec<_>) = news
            .own
            .iter()
            .partition(|live| matches!(live, Live::Summary(_)));
        for live in before.into_iter().chain(news.common.iter()).chain(after) {
            let change = match live {
                Live::Ready(change) => self.seen(change, &mut sights)?,
                Live::Line(conversation, kind, event, place) => {
                    let place = match place {
                        Some(place) => Some(*place),
                        None => self.rows.event(event)?.map(|row| row.place),
                    };
                    let entry = place.map(|place| LogRow {
                        kind: *kind,
                        event: *event,
                        place,
                    });
                    match entry {
                        Some(entry) => {
                            let sight = self.sight(conversation, &mut sights)?;
                            items.change(*conversation, &entry, &self.user, sight)?
                        }
                        None => None,
                    }
                }
                Live::Summary(conversation) => items
                    .summary(conversation, &self.user)?
                    .map(|summary| Change::Conversation(Box::new(summary))),
            };
            self.ready.extend(change);
        }
        if let Some(position) = news.position {
            if self.ready.is_empty() {
                self.cursor.position = position;
            } else {
                self.reached = Some(position);
            }
        }
        Ok(())
    }
}

impl Updates for SessionUpdates {
    async fn next(&mut self) -> Result<Batch, WireError> {
        loop {
            if let Some(batch) = self.batch() {
                return Ok(batch);
            }
            if self.catch_up.is_some() {
                self.read_on().map_err(|e| internal(&e))?;
                continue;
            }
            // Several small records make one update, so that a busy session costs few frames.
            while self.ready.len() < UPDATE_ITEMS_MAX / 2 && self.catch_up.is_none() {
                match self.inbox.take() {
                    Taken::News(news) => self.news(&news).map_err(|e| internal(&e))?,
                    Taken::Overflowed => {
                        // What is ready was taken in order; go on after it from the log.
                        self.cursor.position = self.reached.unwrap_or(self.cursor.position);
                        self.catch_up = Some(CatchUp::default());
                    }
                    Taken::Ended(error) => return Err(error),
                    Taken::Nothing => break,
                }
            }
            if self.ready.is_empty() && self.catch_up.is_none() {
                self.inbox.wait().await;
            }
        }
    }
}

fn content_size(state: &ContentState) -> usize {
    match state {
        ContentState::Held(bytes) => bytes.0.len(),
        _ => 0,
    }
}

/// Bytes of an item in a frame, about.
pub(crate) fn item_size(item: &Item) -> usize {
    let edited = item
        .edited
        .as_ref()
        .map_or(0, |e| e.event.event.0.len() + content_size(&e.content));
    let reaction = |r: &Reaction| 48 + (r.users.len() + r.older.len()) * 34;
    let reactions: usize = item.reactions.iter().map(reaction).sum();
    let reactions = reactions + item.lost.len() * 34;
    item.event.event.0.len() + content_size(&item.content) + edited + reactions + 200
}

/// The same of one that was taken away.
pub(crate) fn void_item_size(item: &VoidItem) -> usize {
    item.event.event.0.len() + content_size(&item.content) + 200
}

pub(crate) fn size(change: &Change) -> usize {
    match change {
        Change::Appeared { item, .. } | Change::Changed { item, .. } => item_size(item),
        Change::Conversation(summary) => 400 + summary.servers.len() * 34,
        _ => 120,
    }
}

/// Reads the change logs of a user's conversations, merged in the order of records.
#[derive(Debug, Default)]
struct CatchUp {
    started: bool,
    done: bool,
    to: u64,
    /// Where the reader's device is to have stewards named.
    to_name_stewards: Vec<ConversationId>,
    conversations: Vec<Cursor>,
    /// Next entry of each conversation that has one, and of [`OUTSIDE`].
    heads: BinaryHeap<Reverse<(u64, u16, usize)>>,
    /// Where the user's own void events are read to that fell while he was no member.
    outside_to: (u64, u16),
    outside: VecDeque<(u64, u16, EventId)>,
}

/// Stands among the heads for no conversation.
const OUTSIDE: usize = usize::MAX;

#[derive(Debug)]
struct Cursor {
    conversation: ConversationId,
    read_to: (u64, u16),
    /// Nothing beyond this record is for the reader.
    end: u64,
    /// Announce the conversation when this record is reached.
    announce: Option<u64>,
    /// Say that the reader left at the end, and what ended it.
    left: bool,
    ended_by: Option<Cause>,
    entries: VecDeque<(u64, u16, LogRow)>,
    sight: Sight,
}

impl CatchUp {
    /// Reads some changes and gives the position that they reach.
    fn read(
        &mut self,
        rows: &Rows,
        user: &UserId,
        position: u64,
        out: &mut VecDeque<Change>,
    ) -> Result<u64, ReadError> {
        let mut items = Items::new(rows);
        if !self.started {
            self.start(rows, user, position)?;
            // His device may have been away when that was told.
            for conversation in std::mem::take(&mut self.to_name_stewards) {
                let summary = items.summary(&conversation, user)?;
                out.extend(summary.map(|summary| Change::Conversation(Box::new(summary))));
            }
        }
        let mut last = None;
        while let Some(Reverse((record, index, at))) = self.heads.pop() {
            if out.len() >= UPDATE_ITEMS_MAX && last.is_some_and(|last| last < record) {
                self.heads.push(Reverse((record, index, at)));
                return Ok(record - 1);
            }
            last = Some(record);
            if at == OUTSIDE {
                let event = self.outside.pop_front().map(|(.., event)| event);
                let told = event.map(|event| items.outside(&event)).transpose()?;
                out.extend(told.flatten());
                self.advance_outside(rows, user)?;
                continue;
            }
            let cursor = &mut self.conversations[at];
            let conversation = cursor.conversation;
            if cursor
                .announce
                .take_if(|announced| *announced <= record)
                .is_some()
            {
                let summary = items.summary(&conversation, user)?;
                out.extend(summary.map(|summary| Change::Conversation(Box::new(summary))));
            }
            if index == u16::MAX {
                // The mark behind a conversation's last entry.
                let by = cursor.ended_by;
                out.extend(cursor.left.then_some(Change::Left { conversation, by }));
                continue;
            }
            let is_front = |front: &&(u64, u16, LogRow)| (front.0, front.1) == (record, index);
            if cursor.entries.front().filter(is_front).is_none() {
                // The mark of the announcement alone.
                continue;
            }
            if let Some((_, _, entry)) = cursor.entries.pop_front() {
                out.extend(items.change(conversation, &entry, user, &cursor.sight)?);
            }
            Self::advance(&mut self.heads, rows, cursor, at)?;
        }
        self.done = true;
        Ok(self.to)
    }

    fn start(&mut self, rows: &Rows, user: &UserId, position: u64) -> Result<(), ReadError> {
        self.started = true;
        self.to = rows.0.newest();
        for (conversation, row) in rows.user_conversations(user)? {
            let left = row.role == Role::None;
            if left && row.since <= position {
                continue;
            }
            if row.role == Role::Owner && rows.due(&conversation)?.stewards == Some(*user) {
                self.to_name_stewards.push(conversation);
            }
            let from = position.max(row.joined.saturating_sub(1));
            let mut cursor = Cursor {
                conversation,
                read_to: (from, u16::MAX),
                end: if left { row.since } else { self.to },
                announce: (!left && row.since > position).then_some(row.since),
                left,
                ended_by: row.by,
                entries: VecDeque::new(),
                sight: rows.sight(&conversation, user)?,
            };
            let at = self.conversations.len();
            Self::advance(&mut self.heads, rows, &mut cursor, at)?;
            if let Some(record) = cursor.announce {
                // At its own place among the records: a session that is cut behind it, before the
                // conversation's first line, would never hear of the conversation.
                self.heads.push(Reverse((record, 0, at)));
            }
            self.conversations.push(cursor);
        }
        self.outside_to = (position, u16::MAX);
        self.advance_outside(rows, user)
    }

    /// Puts the next own event that fell while the user was outside among the heads.
    fn advance_outside(&mut self, rows: &Rows, user: &UserId) -> Result<(), ReadError> {
        if self.outside.is_empty() {
            let read = rows.outside(user, self.outside_to, self.to, READ_AHEAD)?;
            if let Some((record, index, _)) = read.last() {
                self.outside_to = (*record, *index);
            }
            self.outside = read.into();
        }
        if let Some((record, index, _)) = self.outside.front() {
            self.heads.push(Reverse((*record, *index, OUTSIDE)));
        }
        Ok(())
    }

    /// Puts the conversation's next entry among the heads, or the mark behind its last.
    fn advance(
        heads: &mut BinaryHeap<Reverse<(u64, u16, usize)>>,
        rows: &Rows,
        cursor: &mut Cursor,
        at: usize,
    ) -> Result<(), ReadError> {
        if cursor.entries.is_empty() {
            let read = rows.log(&cursor.conversation, cursor.read_to, cursor.end, READ_AHEAD)?;
            if let Some((record, index, _)) = read.last() {
                cursor.read_to = (*record, *index);
            }
            cursor.entries = read.into();
        }
        match cursor.entries.front() {
            Some((record, index, _)) => heads.push(Reverse((*record, *index, at))),
            None if cursor.left => heads.push(Reverse((cursor.end, u16::MAX, at))),
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
