//! Checks that a line was written by the user it names, without believing any server.
//!
//! The event's bytes hash to its id, its device's signature covers the id, the device is in its
//! author's identity log, which hashes to the author's id, and the content hashes to what the event
//! names. What fails is not shown.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use comity_protocol::{
    encoding,
    event::{Act, ContentRef, Event, Field, RawEvent, SealedContent, SignedEvent},
    identity::{IdentityLog, RawEntry},
    ids::{Blob, ConversationId, DeviceKey, EventId, UserId},
    limits::{ENTRY_BYTES_MAX, IDENTITY_ENTRIES_MAX},
    role::Role,
    session::{ContentState, Edited, Item, Reply, Request},
};
use tokio::time::{Duration, Instant};

use crate::{
    client::Shared,
    error::{Error, ErrorKind, Result},
    events::Warning,
    limits::{IDENTITIES_CACHED, IDENTITY_AGAIN_MS},
    message::{Body, Line},
};

/// Why there is no line.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It does not hold; counted and told already.
    Unverified,
    /// The author's identity could not be asked for now.
    Later(Error),
}

/// Which devices sign for whom, as proven by identity logs. Holds [`IDENTITIES_CACHED`] users; the
/// one that was fetched first makes room.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    users: HashMap<UserId, Known>,
    order: VecDeque<UserId>,
}

#[derive(Debug)]
struct Known {
    devices: BTreeSet<DeviceKey>,
    /// When the log was last asked for a device that it did not have.
    lacked: Option<Instant>,
}

enum Answer {
    Proven,
    Refuted,
    Ask,
}

impl Identities {
    fn judge(&self, user: &UserId, device: &DeviceKey) -> Answer {
        let Some(known) = self.users.get(user) else {
            return Answer::Ask;
        };
        if known.devices.contains(device) {
            return Answer::Proven;
        }
        // Somebody who makes devices up must not make this client ask without end; somebody who
        // just signed in with a new device is asked about at once.
        let pause = Duration::from_millis(IDENTITY_AGAIN_MS);
        match known.lacked {
            Some(lacked) if lacked.elapsed() < pause => Answer::Refuted,
            _ => Answer::Ask,
        }
    }

    fn learn(&mut self, user: UserId, devices: BTreeSet<DeviceKey>, lacks: bool) {
        let lacked = lacks.then(Instant::now);
        if let Some(known) = self.users.get_mut(&user) {
            known.devices.extend(devices);
            known.lacked = lacked;
            return;
        }
        if self.users.len() >= IDENTITIES_CACHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.users.remove(&oldest);
        }
        self.order.push_back(user);
        self.users.insert(user, Known { devices, lacked });
    }
}

/// The id of an event's bytes, whatever they are.
pub(crate) fn event_id(raw: &RawEvent) -> EventId {
    EventId::from_bytes(*blake3::hash(&raw.event.0).as_bytes())
}

/// A number that differs when what is shown of a line differs.
pub(crate) fn version(item: &Item) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let state = |state: &ContentState| match state {
        ContentState::Held(_) => 1u8,
        ContentState::Gone => 2,
        ContentState::Missing => 3,
        ContentState::None => 4,
        ContentState::Withheld => 5,
        ContentState::Expired => 6,
    };
    let marks = [item.deleted.is_some(), item.folded].map(u8::from);
    hasher.update(&[state(&item.content), marks[0], marks[1]]);
    if let Some(edited) = &item.edited {
        hasher.update(edited.event.signature.as_bytes());
        hasher.update(&[state(&edited.content)]);
    }
    for reaction in &item.reactions {
        hasher.update(reaction.emoji.as_bytes());
        hasher.update(&reaction.count.to_be_bytes());
        for user in reaction.users.iter().chain(&reaction.older) {
            hasher.update(user.as_bytes());
        }
    }
    for lost in &item.lost {
        hasher.update(lost.as_bytes());
    }
    let hash = hasher.finalize();
    hash.as_bytes()[..8]
        .iter()
        .fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Verifies a line, asking for its author's identity where it is not known yet.
pub(crate) async fn line(
    shared: &Shared,
    conversation: ConversationId,
    item: &Item,
    version: u64,
) -> Result<Arc<Line>, Failure> {
    let mut author = None;
    match checked(shared, conversation, item, version, &mut author).await {
        Ok(line) => {
            if let Act::Policy {
                field: Field::Posting,
                value,
            } = line.event.act
                && let Some(role) = u8::try_from(value)
                    .ok()
                    .and_then(|v| Role::try_from(v).ok())
            {
                shared.note_posting(conversation, role);
            }
            shared.note_shown(line.id, line.edited.as_ref().map(|(edit, _)| *edit));
            Ok(Arc::new(line))
        }
        Err(error) if later(&error) => Err(Failure::Later(error)),
        Err(error) => {
            shared.warn(Warning {
                conversation,
                author,
                reason: error.chain(),
            });
            Err(Failure::Unverified)
        }
    }
}

/// Whether it may be had another time.
pub(crate) fn later(error: &Error) -> bool {
    error.is_retryable() || matches!(error.kind(), ErrorKind::Closed | ErrorKind::Auth)
}

fn bad(reason: &str) -> Error {
    Error::new(ErrorKind::Protocol, reason)
}

async fn checked(
    shared: &Shared,
    conversation: ConversationId,
    item: &Item,
    version: u64,
    author: &mut Option<UserId>,
) -> Result<Line> {
    let (id, event) = signed(shared, conversation, &item.event).await?;
    *author = Some(event.author);
    let body = body(event.act.content(), &item.content)?;
    let edited = match &item.edited {
        None => None,
        Some(edited) => match checked_edit(shared, conversation, id, &event, edited).await {
            Ok(edited) => Some(edited),
            Err(error) if later(&error) => return Err(error),
            // The message itself is proven: show it as it was written.
            Err(error) => {
                shared.warn(Warning {
                    conversation,
                    author: Some(event.author),
                    reason: format!("an edit: {}", error.chain()),
                });
                None
            }
        },
    };
    Ok(Line {
        conversation,
        place: item.place,
        origin: item.origin,
        id,
        event,
        body,
        edited,
        lost: item.lost.clone(),
        deleted: item.deleted,
        reactions: item.reactions.clone(),
        late: item.late,
        folded: item.folded,
        version,
    })
}

async fn checked_edit(
    shared: &Shared,
    conversation: ConversationId,
    message: EventId,
    original: &Event,
    edited: &Edited,
) -> Result<(EventId, Body)> {
    let (id, event) = signed(shared, conversation, &edited.event).await?;
    if event.author != original.author {
        return Err(bad("it is not of the message's author"));
    }
    if !matches!(event.act, Act::Edit { target, .. } if target == message) {
        return Err(bad("it is no edit of this message"));
    }
    Ok((id, body(event.act.content(), &edited.content)?))
}

/// Verifies an event by itself, with its content.
pub(crate) async fn own(
    shared: &Shared,
    conversation: ConversationId,
    raw: &RawEvent,
    content: &ContentState,
) -> Result<(EventId, Event, Body)> {
    let (id, event) = signed(shared, conversation, raw).await?;
    let body = body(event.act.content(), content)?;
    Ok((id, event, body))
}

/// Checks an event by itself: its author's signature, and that the device is his.
pub(crate) async fn signed(
    shared: &Shared,
    conversation: ConversationId,
    raw: &RawEvent,
) -> Result<(EventId, Event)> {
    let id = event_id(raw);
    let signed = if shared.verified.has(&id, &raw.signature) {
        SignedEvent::from_trusted(raw.clone()).map_err(|e| bad("a bad event").because(e))?
    } else {
        let signed = SignedEvent::verify(raw.clone()).map_err(|e| bad("a bad event").because(e))?;
        shared.verified.note(id, raw.signature);
        signed
    };
    let event = signed.event();
    if event.conversation != conversation {
        return Err(bad("an event of another conversation"));
    }
    if event.device != shared.me.key.public() || event.author != shared.me.user {
        check_device(shared, event.author, event.device).await?;
    }
    Ok((id, event.clone()))
}

/// What is left of the content that an event names.
pub(crate) fn body(named: Option<ContentRef>, state: &ContentState) -> Result<Body> {
    match (named, state) {
        (Some(named), ContentState::Held(Blob(bytes))) => {
            let sealed =
                SealedContent::open(bytes.clone()).map_err(|e| bad("a bad content").because(e))?;
            if sealed.reference() != named {
                return Err(bad("a content that the event does not name"));
            }
            Ok(Body::Held(sealed.content().clone()))
        }
        (Some(_), ContentState::Gone) => Ok(Body::Gone),
        (Some(_), ContentState::Expired) => Ok(Body::Expired),
        (Some(_), ContentState::Missing | ContentState::None) => Ok(Body::Missing),
        (Some(_), ContentState::Withheld) => Ok(Body::Withheld),
        (None, ContentState::Held(_)) => Err(bad("a content that the event does not name")),
        (None, _) => Ok(Body::None),
    }
}

async fn check_device(shared: &Shared, user: UserId, device: DeviceKey) -> Result<()> {
    let refuted = || bad("a device that is not the author's");
    let answer = shared.identities().judge(&user, &device);
    match answer {
        Answer::Proven => return Ok(()),
        Answer::Refuted => return Err(refuted()),
        Answer::Ask => {}
    }
    let reply = shared.call_for_intake(Request::Identity { user }).await;
    let entries = match reply {
        Ok(Reply::Identity { entries }) => entries,
        Ok(_) => return Err(Error::unexpected_reply()),
        Err(error) if later(&error) => return Err(error),
        Err(error) => {
            shared.identities().learn(user, BTreeSet::new(), true);
            return Err(bad("the author's identity is not to be had").because(error));
        }
    };
    let devices = proven(user, &entries, &device)?;
    let known = devices.contains(&device);
    shared.identities().learn(user, devices, !known);
    if known { Ok(()) } else { Err(refuted()) }
}

/// The devices that a log proves to be the user's, of those now current and the one asked about.
fn proven(user: UserId, entries: &[Blob], device: &DeviceKey) -> Result<BTreeSet<DeviceKey>> {
    if entries.len() > IDENTITY_ENTRIES_MAX {
        return Err(bad("an identity log that is too long"));
    }
    let decoded: Result<Vec<RawEntry>, _> = entries
        .iter()
        .map(|Blob(bytes)| encoding::decode_frame(bytes, ENTRY_BYTES_MAX + 1_024))
        .collect();
    let decoded = decoded.map_err(|e| bad("a bad identity log").because(e))?;
    let log = IdentityLog::verify(&decoded).map_err(|e| bad("a bad identity log").because(e))?;
    if log.user() != user {
        return Err(bad("another user's identity log"));
    }
    let mut devices: BTreeSet<_> = log.devices().map(|d| d.key).collect();
    if log.had_device(device) {
        devices.insert(*device);
    }
    Ok(devices)
}
