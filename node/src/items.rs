//! What clients read, put together from rows and records.

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::{
    authority::Sight,
    commit::UnverifiedCommit,
    event::{Act, RawEvent, SealedContent, SignedEvent},
    ids::{Blob, ConversationId, EventId, ServerId, UserId},
    link::Offer,
    role::Role,
    session::{Change, ContentState, Edited, Item, OwnEvent, Place, Reaction, Summary, VoidItem},
};
use comity_storage::{ContentAt, ContentError, Direction, ReadError, StoredRecord};

use crate::{
    records::{self, CommitRecord, Slot},
    rows::{EventRow, LineRow, LogKind, LogRow, Rows},
};

/// Users named for one reaction; the count has them all.
const REACTION_USERS_MAX: usize = 64;
/// Lost edits named for one line.
const LOST_MAX: usize = 64;
/// Records kept while one page or batch is put together.
const CACHED_RECORDS: usize = 16;

struct Held {
    record: CommitRecord,
    origin: ServerId,
    contents: Vec<Option<Vec<u8>>>,
}

/// Puts items together. Lives for one page or batch: neighbours are often in one commit.
pub(crate) struct Items<'a> {
    rows: &'a Rows,
    cache: BTreeMap<u64, Arc<Held>>,
}

impl<'a> Items<'a> {
    pub(crate) fn new(rows: &'a Rows) -> Self {
        Self {
            rows,
            cache: BTreeMap::new(),
        }
    }

    fn held(&mut self, number: u64) -> Option<Arc<Held>> {
        if let Some(held) = self.cache.get(&number) {
            return Some(Arc::clone(held));
        }
        let stored: StoredRecord = match self.rows.0.record(number) {
            Ok(stored) => stored?,
            Err(error) => {
                tracing::error!(number, %error, "a record could not be read");
                return None;
            }
        };
        let record: CommitRecord = records::read(number, &stored.body).ok()?;
        let origin = UnverifiedCommit::decode(record.commit.clone())
            .ok()?
            .commit()
            .origin;
        let held = Arc::new(Held {
            record,
            origin,
            contents: stored.contents,
        });
        if self.cache.len() >= CACHED_RECORDS {
            self.cache.pop_first();
        }
        self.cache.insert(number, Arc::clone(&held));
        Some(held)
    }

    /// The home whose commit a record holds.
    pub(crate) fn origin(&mut self, record: u64) -> Option<ServerId> {
        self.held(record).map(|held| held.origin)
    }

    fn event(
        &mut self,
        number: u64,
        index: u16,
        slot: Slot,
    ) -> Option<(RawEvent, ContentState, ServerId)> {
        let held = self.held(number)?;
        let entry = held.record.events.get(usize::from(index))?;
        let content = match slot {
            Slot::None => ContentState::None,
            Slot::Gone => ContentState::Gone,
            Slot::Expired => ContentState::Expired,
            Slot::Withheld => ContentState::Missing,
            Slot::Later(record, at) => self.lost_content(record, at),
            Slot::Held(at) => match held.contents.get(usize::from(at)) {
                Some(Some(bytes)) => ContentState::Held(Blob(bytes.clone())),
                _ => self.lost_content(number, at),
            },
        };
        Some((entry.raw.clone(), content, held.origin))
    }

    /// Erased since the row was read, come later than its event, or damaged, which is reported and
    /// asked of peers.
    fn lost_content(&self, record: u64, index: u16) -> ContentState {
        match self.rows.0.content(ContentAt { record, index }) {
            Ok(bytes) => ContentState::Held(Blob(bytes)),
            Err(ContentError::Gone) => ContentState::Gone,
            Err(error) => {
                tracing::error!(record, index, %error, "a content could not be read");
                ContentState::Missing
            }
        }
    }

    /// The item of a line. `None` if its record cannot be read, which was logged.
    /// Its reader sees its place; of an edit whose place he does not see, he is told that there is
    /// one.
    pub(crate) fn item(
        &mut self,
        place: Place,
        line: &LineRow,
        sight: &Sight,
    ) -> Result<Option<Item>, ReadError> {
        let Some((event, content, origin)) = self.event(line.record, line.at, line.slot) else {
            return Ok(None);
        };
        let edited = match line.marks.edit {
            Some(edit) if line.marks.deleted.is_none() => self.edited(&edit, sight)?,
            _ => None,
        };
        let reaction = |(emoji, users): &(String, Vec<UserId>)| {
            let older = line.marks.older.iter().find(|(other, _)| other == emoji);
            let older = older.map_or(&[][..], |(_, users)| users);
            let named = users.iter().take(REACTION_USERS_MAX).copied();
            let users_named: Vec<_> = named.collect();
            Reaction {
                emoji: emoji.clone(),
                older: users_named
                    .iter()
                    .filter(|user| older.binary_search(user).is_ok())
                    .copied()
                    .collect(),
                users: users_named,
                count: users.len() as u64,
            }
        };
        Ok(Some(Item {
            place,
            origin,
            event,
            content: if line.marks.deleted.is_some() {
                ContentState::Gone
            } else {
                content
            },
            edited,
            lost: if line.marks.deleted.is_some() {
                Vec::new()
            } else {
                line.marks.lost.iter().take(LOST_MAX).copied().collect()
            },
            deleted: line.marks.deleted,
            reactions: line.marks.reactions.iter().map(reaction).collect(),
            late: line.late,
            folded: line.folded,
        }))
    }

    fn edited(&mut self, edit: &EventId, sight: &Sight) -> Result<Option<Edited>, ReadError> {
        let Some(row) = self.rows.event(edit)? else {
            return Ok(None);
        };
        let found = self.event(row.record, row.at, row.slot);
        Ok(found.map(|(event, content, _)| Edited {
            event,
            content: match content {
                ContentState::Held(_) | ContentState::Missing if !sight.sees(row.place) => {
                    ContentState::Withheld
                }
                content => content,
            },
        }))
    }

    /// The item of a line at a place, if it is shown there now.
    pub(crate) fn item_at(
        &mut self,
        conversation: &ConversationId,
        place: Place,
        sight: &Sight,
    ) -> Result<Option<Item>, ReadError> {
        match self.rows.line(conversation, &place)? {
            Some(line) => self.item(place, &line, sight),
            None => Ok(None),
        }
    }

    /// The change that an entry of the change log tells of, as things stand now; none if it is of
    /// what the reader does not see.
    pub(crate) fn change(
        &mut self,
        conversation: ConversationId,
        entry: &LogRow,
        reader: &UserId,
        sight: &Sight,
    ) -> Result<Option<Change>, ReadError> {
        if matches!(entry.kind, LogKind::Vanished | LogKind::Voided) {
            let row = self.rows.event(&entry.event)?;
            let (reason, by) = row.map(|row| (row.void, row.void_by)).unwrap_or_default();
            let his = by.is_some_and(|by| by.author == *reader);
            let told = entry.kind == LogKind::Vanished || his;
            return Ok(told.then(|| Change::Vanished {
                conversation,
                event: entry.event,
                reason: reason.unwrap_or_default(),
                by,
            }));
        }
        if entry.kind == LogKind::Stands {
            let row = self.rows.event(&entry.event)?;
            if row.is_some_and(|row| !row.shown && row.void.is_none()) {
                let event = entry.event;
                return Ok(Some(Change::Stands {
                    conversation,
                    event,
                }));
            }
        }
        if !sight.sees(entry.place) {
            return Ok(None);
        }
        let item = self
            .item_at(&conversation, entry.place, sight)?
            .map(Box::new);
        Ok(item.map(|item| match entry.kind {
            LogKind::Appeared | LogKind::Stands => Change::Appeared { conversation, item },
            _ => Change::Changed { conversation, item },
        }))
    }

    /// An event that an act took away, for who did that; none for one of his own.
    pub(crate) fn void_item(
        &mut self,
        event: &EventId,
        reader: &UserId,
        sight: &Sight,
    ) -> Result<Option<VoidItem>, ReadError> {
        let Some(row) = self.rows.event(event)? else {
            return Ok(None);
        };
        let (Some(reason), Some(by)) = (row.void, row.void_by) else {
            return Ok(None);
        };
        let Some((raw, content, _)) = self.event(row.record, row.at, row.slot) else {
            return Ok(None);
        };
        let signed = SignedEvent::from_trusted(raw.clone()).ok();
        let Some(signed) = signed.filter(|signed| signed.event().author != *reader) else {
            return Ok(None);
        };
        // Nothing else can be said again under another's name.
        let is_value = matches!(signed.event().act, Act::State { .. });
        let content = match content {
            ContentState::None => ContentState::None,
            content if is_value && sight.sees(row.place) => content,
            _ => ContentState::Withheld,
        };
        Ok(Some(VoidItem {
            place: row.place,
            event: raw,
            content,
            reason,
            by: by.event,
        }))
    }

    /// An event with its content as its author may read it; none for anybody else.
    pub(crate) fn own(&mut self, row: &EventRow, user: &UserId) -> Option<OwnEvent> {
        let (event, content, _) = self.event(row.record, row.at, row.slot)?;
        let signed = SignedEvent::from_trusted(event.clone()).ok()?;
        let void = row.void.clone();
        (signed.event().author == *user).then_some(OwnEvent {
            event,
            content,
            void,
        })
    }

    /// What the author of a void event is told who is no member any more; none if it counts again.
    pub(crate) fn outside(&self, event: &EventId) -> Result<Option<Change>, ReadError> {
        let row = self.rows.event(event)?;
        Ok(row.and_then(|row| {
            Some(Change::Vanished {
                conversation: row.conversation,
                event: *event,
                reason: row.void?,
                by: None,
            })
        }))
    }

    /// The text of a state field's value.
    pub(crate) fn state_text(&mut self, event: &EventId) -> Result<Option<String>, ReadError> {
        let Some(row) = self.rows.event(event)? else {
            return Ok(None);
        };
        let content = self.event(row.record, row.at, row.slot);
        let Some((_, ContentState::Held(bytes), _)) = content else {
            return Ok(None);
        };
        Ok(SealedContent::open(bytes.0)
            .ok()
            .map(|sealed| sealed.content().text.clone()))
    }

    /// A conversation as a local user's list shows it; `None` if he is no member.
    pub(crate) fn summary(
        &mut self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Option<Summary>, ReadError> {
        let Some(member) = self.rows.member(conversation, user)? else {
            return Ok(None);
        };
        let Some(row) = self.rows.conversation(conversation)? else {
            return Ok(None);
        };
        let mut text = |name: &str| match row.state.iter().find(|(field, _)| field == name) {
            Some((_, event)) => self.state_text(event),
            None => Ok(None),
        };
        let (title, topic) = (text("title")?, text("topic")?);
        let sight = self.rows.sight(conversation, user)?;
        let newest = self
            .rows
            .seen_lines(conversation, &sight, None, Direction::Reverse, 1)?;
        let newest = newest.first().map(|(place, _)| *place);
        Ok(Some(Summary {
            conversation: *conversation,
            direct: matches!(row.offer, Offer::Direct(..)),
            title,
            topic,
            role: member.role.max(Role::Guest),
            members: row.members,
            servers: self.servers(conversation)?,
            newest,
            changed_at: newest.map_or(row.at, |place| place.hlc.timestamp()),
            names_stewards: self.rows.due(conversation)?.stewards == Some(*user),
        }))
    }

    fn servers(&self, conversation: &ConversationId) -> Result<Vec<ServerId>, ReadError> {
        let members = self.rows.members(conversation, None, 10_000)?;
        let mut servers: Vec<_> = members.iter().map(|(_, row)| row.home).collect();
        servers.sort_unstable();
        servers.dedup();
        Ok(servers)
    }
}
