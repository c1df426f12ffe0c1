//! What acts of this user took away, and saying it again under his own name.
//!
//! Whoever removes an admin takes away everything he did that the removal has not seen: people he
//! brought in, titles he set. None of that is lost in silence. It is listed for who removed him,
//! who may confirm it.

use std::collections::BTreeMap;

use comity_protocol::{
    event::{Act, Event, Field, Grant, SealedContent, Target},
    ids::{EventId, Nonce, UserId},
    limits::PAGE_ITEMS_MAX,
    role::Role,
    session::{Code, Place, Reply, Request, VoidItem},
};

use super::{Conversation, Draft, seal};
use crate::{
    error::{Error, ErrorKind, Result},
    events::Warning,
    message::Body,
    sending::Outgoing,
    verify,
};

/// Something that somebody did and that an act of this user made void. The signature of who did it
/// was checked.
#[derive(Clone, Debug)]
pub struct Voided {
    id: EventId,
    place: Place,
    event: Event,
    body: Body,
    reason: String,
    by: EventId,
}

impl Voided {
    /// The event's id.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// Who did it.
    #[must_use]
    pub const fn author(&self) -> UserId {
        self.event.author
    }

    /// What was done.
    #[must_use]
    pub const fn act(&self) -> &Act {
        &self.event.act
    }

    /// Where it would be shown: what was done first comes first.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The text of a title, a topic or another field, if that is what was set.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// Why it does not count, as a code of the protocol.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The own act that took it away.
    #[must_use]
    pub const fn by(&self) -> EventId {
        self.by
    }

    /// Whether somebody else can say it again: what is about roles, doors, policies, the title, pins
    /// and others' messages, and not what its author wrote himself.
    #[must_use]
    pub fn can_be_confirmed(&self) -> bool {
        self.subject().is_some()
    }

    /// What it is about: of several acts about the same the last one counts.
    fn subject(&self) -> Option<Subject<'_>> {
        Some(match &self.event.act {
            Act::Grant(Grant { target, .. }) => match target {
                Target::User { user, .. } => Subject::User(*user),
                Target::Anyone => Subject::Door,
            },
            Act::Policy { field, .. } => Subject::Policy(*field),
            Act::State { field, .. } if field != "name" => Subject::Field(field),
            Act::Pin { target, .. } => Subject::Pin(*target),
            // One's own deletion is never taken away.
            Act::Delete { target } => Subject::Deletion(*target),
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Subject<'a> {
    User(UserId),
    Door,
    Policy(Field),
    Field(&'a str),
    Pin(EventId),
    Deletion(EventId),
}

/// What became of one act that was to be confirmed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Confirmed {
    /// It was said again, by this event, which the home server has.
    Accepted(EventId),
    /// It is so, or this device said it before.
    Already,
    /// A later one that was given says something else of the same.
    Overtaken,
    /// Nobody else can say it: see [`Voided::can_be_confirmed`]. Of a text that is not held any more
    /// neither.
    NotForOthers,
    /// It could not be said again.
    Refused(Error),
}

impl Conversation {
    /// Everything that acts of this user took away from others, what was done first first: also what
    /// came later and was void for it. What counts again is not in it any more; what was confirmed
    /// is, since the first act stays void.
    ///
    /// # Errors
    ///
    /// The server's refusal, or [`ErrorKind::Offline`].
    pub async fn voided(&self) -> Result<Vec<Voided>> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let request = Request::Voided {
                conversation: self.id,
                after,
                limit: PAGE_ITEMS_MAX,
            };
            let Reply::Voided { items, next } = self.client.shared().call(request).await? else {
                return Err(Error::unexpected_reply());
            };
            for item in items {
                all.extend(self.checked(item).await?);
            }
            // A server whose pages do not move on would keep this loop going for ever.
            match next {
                None => return Ok(all),
                Some(next) if after.is_some_and(|after| next <= after) => {
                    return Err(Error::unexpected_reply());
                }
                next => after = next,
            }
        }
    }

    /// None for what is not proven to be its author's: it is told as a warning.
    async fn checked(&self, item: VoidItem) -> Result<Option<Voided>> {
        let shared = self.client.shared();
        let checked = async {
            let (id, event) = verify::signed(shared, self.id, &item.event).await?;
            let body = verify::body(event.act.content(), &item.content)?;
            Ok((id, event, body))
        };
        match checked.await {
            Ok((id, event, body)) => Ok(Some(Voided {
                id,
                place: item.place,
                event,
                body,
                reason: item.reason,
                by: item.by,
            })),
            Err(error) if verify::later(&error) => Err(error),
            Err(error) => {
                shared.warn(Warning {
                    conversation: self.id,
                    author: None,
                    reason: error.chain(),
                });
                Ok(None)
            }
        }
    }

    /// Says again, under this user's name, what his acts took away. Waits until the home server has
    /// taken or refused each; gives what became of each, in the order given. Whoever is a member by
    /// now with as high a role, or is banned, is left as he is.
    ///
    /// Confirming twice is harmless: what this device confirmed is [`Confirmed::Already`].
    pub async fn confirm(&self, acts: &[Voided]) -> Vec<Confirmed> {
        let mut last = BTreeMap::new();
        for (index, act) in acts.iter().enumerate() {
            if let Some(subject) = act.subject() {
                let newest = last.entry(subject).or_insert(index);
                if acts[*newest].place < act.place {
                    *newest = index;
                }
            }
        }
        let mut sent = Vec::with_capacity(acts.len());
        for (index, act) in acts.iter().enumerate() {
            let subject = act.subject().map(|subject| last[&subject]);
            sent.push(match subject {
                None => Err(Confirmed::NotForOthers),
                Some(newest) if newest != index => Err(Confirmed::Overtaken),
                Some(_) => match self.say_again(act).await {
                    Ok(Some(outgoing)) => Ok(outgoing),
                    Ok(None) => Err(Confirmed::Already),
                    Err(error) => Err(of_error(error)),
                },
            });
        }
        let mut outcomes = Vec::with_capacity(sent.len());
        for sent in sent {
            outcomes.push(match sent {
                Err(outcome) => outcome,
                Ok(outgoing) => match outgoing.accepted().await {
                    Ok(_) => Confirmed::Accepted(outgoing.event_id()),
                    Err(error) => of_error(error),
                },
            });
        }
        outcomes
    }

    /// None if it is so.
    async fn say_again(&self, act: &Voided) -> Result<Option<Outgoing>> {
        // The same from this device whenever it is asked for: it is taken once.
        let nonce = Nonce::from_bytes(nonce_of(&act.id));
        match &act.event.act {
            Act::Grant(grant) => self.grant_again(act.event.claims, grant).await,
            again @ Act::Policy { .. } => {
                let again = again.clone();
                self.queue_as(Role::Admin, again, None, nonce).map(Some)
            }
            again @ (Act::Pin { .. } | Act::Delete { .. }) => {
                let again = again.clone();
                self.queue_as(Role::Moderator, again, None, nonce).map(Some)
            }
            Act::State { field, content } => {
                let sealed = match (content, &act.body) {
                    (None, _) => None,
                    (Some(_), Body::Held(content)) => {
                        Some(seal(Draft::text(content.text.clone()).content)?)
                    }
                    (Some(_), _) => {
                        let text = "the text is not held any more";
                        return Err(Error::new(ErrorKind::NotFound, text));
                    }
                };
                let again = Act::State {
                    field: field.clone(),
                    content: sealed.as_ref().map(SealedContent::reference),
                };
                self.queue_as(Role::Moderator, again, sealed, nonce)
                    .map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn grant_again(&self, claimed: Role, grant: &Grant) -> Result<Option<Outgoing>> {
        let Target::User { user, home } = grant.target else {
            let now = self.door().await?;
            return match grant.role {
                role if role == now => Ok(None),
                Role::None => self.close_door().await.map(Some),
                role => self.open_door(role).await.map(Some),
            };
        };
        let subject = self.subject_at(user, Some(home)).await?;
        let (now, bans) = (subject.grantee.role, &subject.grantee.bans);
        let lifting = !grant.lifts.is_empty();
        if grant.role == Role::None && lifting {
            if bans.iter().any(|ban| grant.lifts.contains(ban)) {
                return self.unban(user).await.map(Some);
            }
            return Ok(None);
        }
        if grant.ban {
            if now == Role::None && !bans.is_empty() {
                return Ok(None);
            }
            return self.grant(&subject, Role::None, true).map(Some);
        }
        // Whoever gives a role claims one above it, whoever takes one away as much as he has.
        let takes = grant.role == Role::None || (claimed > one_above(grant.role) && !lifting);
        let is_so = if takes {
            now <= grant.role
        } else {
            now >= grant.role
        };
        if is_so {
            return Ok(None);
        }
        if !takes && !bans.is_empty() {
            let text = "the user is banned: lift that first";
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        self.grant(&subject, grant.role, false).map(Some)
    }
}

fn one_above(role: Role) -> Role {
    Role::try_from(u8::from(role) + 1).unwrap_or(Role::Owner)
}

fn nonce_of(event: &EventId) -> [u8; 16] {
    let hash = blake3::derive_key("comity confirmation v1", event.as_bytes());
    let mut nonce = [0; 16];
    nonce.copy_from_slice(&hash[..16]);
    nonce
}

fn of_error(error: Error) -> Confirmed {
    if error.wire_code() == Some(Code::Conflict) {
        Confirmed::Already
    } else {
        Confirmed::Refused(error)
    }
}

#[cfg(test)]
mod tests;
