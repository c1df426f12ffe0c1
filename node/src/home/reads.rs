//! What only reads. Who may read what is asked of the member rows, which are the durable verdict.

use std::sync::Arc;

use comity_protocol::{
    authority::Sight,
    identity::IdentityLog,
    ids::{ConversationId, EventId, UserId},
    limits::PAGE_ITEMS_MAX,
    link::Query,
    name::UserAddress,
    session::{Anchor, Code, LookedUp, Member, Page, Place, Reply, StateField, WireError},
};
use comity_storage::{Direction, ReadError};

use super::{HomeServer, not_found, unreadable};
use crate::{
    engine::Command,
    gateway::home::Who,
    items::Items,
    rows::{LineRow, Rows},
};

/// Bytes of items in a page, within a session frame.
const PAGE_BYTES: usize = 512 * 1024;

impl HomeServer {
    /// Reads on a thread that may wait for the disk.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, WireError> {
        match tokio::task::spawn_blocking(read).await {
            Ok(read) => read.map_err(|error| unreadable(&error)),
            Err(_) => Err(WireError::new(
                Code::Internal,
                "the read was given up; try again",
            )),
        }
    }

    /// A conversation that the user is not a member of is the same as one that is not there.
    fn member_only(&self, conversation: &ConversationId, user: &UserId) -> Result<(), WireError> {
        let member = self.0.engine.shared.rows.member(conversation, user);
        match member.map_err(|error| unreadable(&error))? {
            Some(_) => Ok(()),
            None => Err(not_found("conversation")),
        }
    }

    pub(super) async fn conversations(
        &self,
        who: Who,
        offset: u32,
        limit: u32,
    ) -> Result<Reply, WireError> {
        let rows = self.0.engine.shared.rows.clone();
        let (offset, limit) = (offset as usize, limit.min(PAGE_ITEMS_MAX) as usize);
        self.read(move || {
            let mut all = Vec::new();
            for (conversation, _) in rows.user_conversations(&who.user)? {
                all.push((rows.newest_change(&conversation)?, conversation));
            }
            all.sort_unstable_by(|a, b| b.cmp(a));
            let mut items = Items::new(&rows);
            let (mut summaries, mut skipped, mut complete) = (Vec::new(), 0, true);
            for (_, conversation) in all {
                let Some(summary) = items.summary(&conversation, &who.user)? else {
                    continue;
                };
                if skipped < offset {
                    skipped += 1;
                } else if summaries.len() < limit {
                    summaries.push(summary);
                } else {
                    complete = false;
                    break;
                }
            }
            Ok(Reply::Conversations {
                summaries,
                complete,
            })
        })
        .await
    }

    pub(super) async fn members(
        &self,
        who: Who,
        conversation: ConversationId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Reply, WireError> {
        self.member_only(&conversation, &who.user)?;
        let shared = Arc::clone(&self.0.engine.shared);
        let limit = limit.min(PAGE_ITEMS_MAX) as usize;
        self.read(move || {
            let mut found = shared
                .rows
                .members(&conversation, after.as_ref(), limit + 1)?;
            let complete = found.len() <= limit;
            found.truncate(limit);
            let mut items = Items::new(&shared.rows);
            let mut members = Vec::with_capacity(found.len());
            for (user, row) in found {
                let log = shared.identities.get(&user)?;
                let name = match row.name {
                    Some(event) => items.state_text(&event)?,
                    None => None,
                };
                let handle = log.map(|log| log.handle().to_string());
                members.push(Member {
                    user,
                    role: row.role,
                    home: row.home,
                    handle,
                    name,
                });
            }
            Ok(Reply::Members { members, complete })
        })
        .await
    }

    pub(super) async fn history(
        &self,
        who: Who,
        conversation: ConversationId,
        anchor: Anchor,
        limit: u32,
    ) -> Result<Reply, WireError> {
        self.member_only(&conversation, &who.user)?;
        let rows = self.0.engine.shared.rows.clone();
        let limit = limit.clamp(1, PAGE_ITEMS_MAX) as usize;
        self.read(move || {
            let sight = rows.sight(&conversation, &who.user)?;
            page(&rows, &conversation, &sight, anchor, limit).map(Reply::Page)
        })
        .await
    }

    pub(super) async fn item(
        &self,
        who: Who,
        conversation: ConversationId,
        event: EventId,
    ) -> Result<Reply, WireError> {
        self.member_only(&conversation, &who.user)?;
        let rows = self.0.engine.shared.rows.clone();
        let item = self.read(move || {
            let row = rows
                .event(&event)?
                .filter(|row| row.conversation == conversation);
            let sight = rows.sight(&conversation, &who.user)?;
            match row.filter(|row| sight.sees(row.place)) {
                Some(row) => Items::new(&rows).item_at(&conversation, row.place, &sight),
                None => Ok(None),
            }
        });
        item.await?
            .map(|item| Reply::Item(Box::new(item)))
            .ok_or_else(|| not_found("message"))
    }

    pub(super) async fn voided(
        &self,
        who: Who,
        conversation: ConversationId,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Reply, WireError> {
        self.member_only(&conversation, &who.user)?;
        let rows = self.0.engine.shared.rows.clone();
        let limit = limit.clamp(1, PAGE_ITEMS_MAX) as usize;
        self.read(move || {
            let found = rows.voided(&conversation, &who.user, after.as_ref(), limit + 1)?;
            let sight = rows.sight(&conversation, &who.user)?;
            let mut reader = Items::new(&rows);
            let (mut items, mut bytes, mut reached) = (Vec::new(), 0, None);
            let (mut read, count) = (0, found.len());
            for (place, event) in found.into_iter().take(limit) {
                if bytes >= PAGE_BYTES {
                    break;
                }
                (read, reached) = (read + 1, Some(place));
                if let Some(item) = reader.void_item(&event, &who.user, &sight)? {
                    bytes += crate::updates::void_item_size(&item);
                    items.push(item);
                }
            }
            let next = reached.filter(|_| read < count);
            Ok(Reply::Voided { items, next })
        })
        .await
    }

    /// An own event that is no line. What its author signed he may always read, member or not.
    pub(super) async fn own(
        &self,
        who: Who,
        conversation: ConversationId,
        event: EventId,
    ) -> Result<Reply, WireError> {
        let rows = self.0.engine.shared.rows.clone();
        let own = self.read(move || {
            let row = rows.event(&event)?;
            let row = row.filter(|row| row.conversation == conversation);
            let row = row.filter(|row| row.void.is_some() || !row.shown);
            Ok(row.and_then(|row| Items::new(&rows).own(&row, &who.user)))
        });
        own.await?.map(Reply::Own).ok_or_else(|| not_found("event"))
    }

    pub(super) async fn state(
        &self,
        who: Who,
        conversation: ConversationId,
        after: Option<String>,
        limit: u32,
    ) -> Result<Reply, WireError> {
        self.member_only(&conversation, &who.user)?;
        let rows = self.0.engine.shared.rows.clone();
        let limit = limit.clamp(1, PAGE_ITEMS_MAX) as usize;
        self.read(move || {
            let found = rows.state(&conversation, after.as_deref(), limit + 1)?;
            let mut complete = found.len() <= limit;
            let mut items = Items::new(&rows);
            let (mut fields, mut bytes) = (Vec::new(), 0);
            for (field, event) in found.into_iter().take(limit) {
                if bytes >= PAGE_BYTES {
                    complete = false;
                    break;
                }
                let Some(row) = rows.event(&event)? else {
                    continue;
                };
                // How the conversation is now is for every member, whenever it was said.
                let all = Sight::everything();
                if let Some(item) = items.item_at(&conversation, row.place, &all)? {
                    bytes += crate::updates::item_size(&item);
                    fields.push(StateField { field, item });
                }
            }
            Ok(Reply::State { fields, complete })
        })
        .await
    }

    /// The identity log of a user, from here or from a peer.
    pub(super) async fn identity_log(
        &self,
        user: UserId,
    ) -> Result<Option<Arc<IdentityLog>>, WireError> {
        let shared = &self.0.engine.shared;
        if let Some(log) = shared
            .identities
            .get(&user)
            .map_err(|error| unreadable(&error))?
        {
            return Ok(Some(log));
        }
        Ok(shared.replication.lookup(None, Query::User(user)).await)
    }

    pub(super) async fn lookup(&self, address: &str) -> Result<Reply, WireError> {
        let shared = &self.0.engine.shared;
        let invalid = |error: String| WireError::new(Code::InvalidName, error);
        let (handle, server) = if address.contains('@') {
            let parsed: UserAddress = address
                .parse()
                .map_err(|error| invalid(format!("{address}: {error}")))?;
            (parsed.handle.as_str().to_owned(), Some(parsed.server))
        } else {
            (address.to_owned(), None)
        };
        let handle =
            crate::accounts::canonical(&handle).map_err(|error| invalid(error.to_string()))?;
        if server.is_none() || server == shared.servers.name_of(&shared.me) {
            let account = shared
                .rows
                .account(handle.as_str())
                .map_err(|e| unreadable(&e))?;
            let account = account.ok_or_else(|| not_found("user"))?;
            return Ok(Reply::LookedUp(LookedUp {
                user: account.user,
                home: shared.me,
                handle: account.handle,
            }));
        }
        let Some(name) = server else {
            return Err(not_found("user"));
        };
        let peer = self.meet(&name).await?;
        let connected = shared
            .replication
            .peers()
            .iter()
            .any(|p| p.server == peer && p.connected);
        let query = Query::Handle(handle.as_str().to_owned());
        // A link that is being made is waited for.
        let asked = shared.replication.ask_about(peer, query);
        let Some(log) = asked.await else {
            return Err(if connected {
                not_found("user")
            } else {
                WireError::new(Code::Unreachable, "the user's server cannot be reached now")
            });
        };
        // The answer is the peer's word on a handle; the log proves only whose keys these are.
        if log.home() != peer || log.handle().as_str() != handle.as_str() {
            return Err(not_found("user"));
        }
        let (user, handle) = (log.user(), log.handle().to_string());
        Ok(Reply::LookedUp(LookedUp {
            user,
            home: peer,
            handle,
        }))
    }

    pub(super) async fn grantee(
        &self,
        who: Who,
        conversation: ConversationId,
        user: Option<UserId>,
    ) -> Result<Reply, WireError> {
        let home = match user {
            Some(user) => self.identity_log(user).await?.map(|log| log.home()),
            None => None,
        };
        let asker = who.user;
        let command = |reply| Command::Grantee {
            conversation,
            asker,
            user,
            home,
            reply,
        };
        self.0
            .engine
            .ask(&conversation, command)
            .await
            .map(Reply::Grantee)
    }

    pub(super) async fn delivery(
        &self,
        who: Who,
        conversation: ConversationId,
        event: EventId,
    ) -> Result<Reply, WireError> {
        self.member_only(&conversation, &who.user)?;
        let command = |reply| Command::Delivery {
            conversation,
            event,
            reply,
        };
        let (replicated, of, waiting) = self.0.engine.ask(&conversation, command).await?;
        Ok(Reply::Delivery {
            replicated,
            of,
            waiting,
        })
    }
}

/// A page: bounded by places, so it does not shift while lines arrive.
pub(crate) fn page(
    rows: &Rows,
    conversation: &ConversationId,
    sight: &Sight,
    anchor: Anchor,
    limit: usize,
) -> Result<Page, ReadError> {
    let (from, direction) = match anchor {
        Anchor::Newest => (None, Direction::Reverse),
        Anchor::Oldest => (None, Direction::Forward),
        Anchor::Before(place) => (Some(place), Direction::Reverse),
        Anchor::After(place) => (Some(place), Direction::Forward),
    };
    let found = rows.seen_lines(conversation, sight, from, direction, limit + 1)?;
    let mut complete = found.len() <= limit;
    let mut items = Items::new(rows);
    let (mut read, mut next, mut bytes) = (Vec::new(), None, 0);
    let lines: Vec<(Place, LineRow)> = found.into_iter().take(limit).collect();
    for (place, line) in lines {
        if bytes >= PAGE_BYTES {
            complete = false;
            break;
        }
        next = Some(place);
        if let Some(item) = items.item(place, &line, sight)? {
            bytes += crate::updates::item_size(&item);
            read.push(item);
        }
    }
    if direction == Direction::Reverse {
        read.reverse();
    }
    Ok(Page {
        items: read,
        complete,
        next,
    })
}
