//! Who is in a conversation and with which role.
//!
//! The role claimed by an addition is the least that suffices, so that it stands when its author
//! is demoted later; a removal, a demotion, a ban claims the author's own, so that it reaches as
//! far as the author meant.

use comity_protocol::{
    event::{Act, Field, Grant, Target, Tip},
    ids::{EventId, ServerId, UserId},
    limits::{CUT_TIPS_MAX, LIFTS_MAX},
    role::Role,
    session::{Grantee, Reply, Request},
};

use super::Conversation;
use crate::{
    address::Who,
    error::{Error, ErrorKind, Result},
    sending::Outgoing,
};

pub(super) struct Subject {
    user: UserId,
    home: ServerId,
    pub(super) grantee: Grantee,
}

impl Conversation {
    /// Gives a user a role: invites, promotes, or lifts a ban and invites again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forbidden`] unless the own role is above the one given and the user's,
    /// [`ErrorKind::Conflict`] if the user has that role, [`ErrorKind::NotFound`], or
    /// [`ErrorKind::Offline`]; nothing was sent then.
    pub async fn invite(&self, who: impl Into<Who>, role: Role) -> Result<Outgoing> {
        let (user, home) = self.find(who.into()).await?;
        self.invite_found(user, home, role).await
    }

    pub(crate) async fn invite_found(
        &self,
        user: UserId,
        home: Option<ServerId>,
        role: Role,
    ) -> Result<Outgoing> {
        let subject = self.subject_at(user, home).await?;
        if subject.grantee.role > role {
            let text = format!("already {}: use set_role to demote", subject.grantee.role);
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        self.grant(&subject, role, false)
    }

    /// Gives a member another role, higher or lower.
    ///
    /// # Errors
    ///
    /// As [`invite`](Self::invite).
    pub async fn set_role(&self, who: impl Into<Who>, role: Role) -> Result<Outgoing> {
        let subject = self.subject(who.into()).await?;
        self.grant(&subject, role, false)
    }

    /// Removes a member, who may be invited or let in again.
    ///
    /// # Errors
    ///
    /// As [`invite`](Self::invite).
    pub async fn remove(&self, who: impl Into<Who>) -> Result<Outgoing> {
        let subject = self.subject(who.into()).await?;
        self.grant(&subject, Role::None, false)
    }

    /// Bans a user, member or not: no invitation or door brings them back until it is lifted.
    ///
    /// # Errors
    ///
    /// As [`invite`](Self::invite).
    pub async fn ban(&self, who: impl Into<Who>) -> Result<Outgoing> {
        let subject = self.subject(who.into()).await?;
        self.grant(&subject, Role::None, true)
    }

    /// Lifts every ban on a user without making them a member.
    ///
    /// # Errors
    ///
    /// As [`invite`](Self::invite); [`ErrorKind::Conflict`] if there is no ban.
    pub async fn unban(&self, who: impl Into<Who>) -> Result<Outgoing> {
        let subject = self.subject(who.into()).await?;
        if subject.grantee.bans.is_empty() {
            return Err(Error::new(ErrorKind::Conflict, "not banned"));
        }
        let claims = subject.grantee.own_role;
        above(claims, Role::None)?;
        let grant = subject.to_grant(Role::None, false, &subject.grantee.bans);
        self.queue(claims, Act::Grant(grant), None)
    }

    /// Lets everybody in who knows the conversation's id, up to member.
    ///
    /// # Errors
    ///
    /// As [`invite`](Self::invite).
    pub async fn open_door(&self, role: Role) -> Result<Outgoing> {
        if !matches!(role, Role::Guest | Role::Member) {
            let text = "a door gives guest or member";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let own = self.grantee(None).await?.own_role;
        above(own, role)?;
        self.queue(own.min(Role::Admin), Act::Grant(door(role)), None)
    }

    /// Closes the door. Who came in stays.
    ///
    /// # Errors
    ///
    /// As [`invite`](Self::invite).
    pub async fn close_door(&self) -> Result<Outgoing> {
        let own = self.grantee(None).await?.own_role;
        above(own, Role::Member)?;
        self.queue(own, Act::Grant(door(Role::None)), None)
    }

    /// Comes in through an open door, with the role that it gives.
    ///
    /// # Errors
    ///
    /// The server's refusal, where the conversation is not known or has no open door.
    pub async fn join(&self) -> Result<Outgoing> {
        let door = self.door().await?;
        if door == Role::None {
            let text = "the conversation is not open to everybody";
            return Err(Error::new(ErrorKind::Forbidden, text));
        }
        let act = Act::Join {
            role: door,
            home: self.client.server(),
        };
        self.queue(door, act, None)
    }

    /// Leaves, or declines an invitation.
    ///
    /// # Errors
    ///
    /// The server's refusal, or [`ErrorKind::Offline`]: what stands of the own messages has to be
    /// asked for first.
    pub async fn leave(&self) -> Result<Outgoing> {
        let own = self.grantee(Some(self.client.user())).await?;
        self.queue(Role::None, Act::Leave { cut: cut(&own.cut) }, None)
    }

    /// Sets a policy. Needs an admin.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[expect(clippy::unused_async, reason = "as `send`")]
    pub async fn set_policy(&self, field: Field, value: u64) -> Result<Outgoing> {
        self.queue(Role::Admin, Act::Policy { field, value }, None)
    }

    pub(super) fn grant(&self, subject: &Subject, role: Role, ban: bool) -> Result<Outgoing> {
        let Grantee {
            role: now,
            own_role: own,
            bans,
            ..
        } = &subject.grantee;
        if role == *now && !ban && bans.is_empty() {
            let text = format!("the user's role is {now} already");
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        if role == Role::Owner {
            let text = "ownership is not given by a grant";
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let least = above(*own, role.max(*now))?;
        // A lift counts only against bans of at most the role claimed, which is not told here.
        let addition = role > *now && bans.is_empty();
        let claims = if addition { least } else { *own };
        let lifts: &[EventId] = if role == Role::None { &[] } else { bans };
        let grant = subject.to_grant(role, ban, lifts);
        self.queue(claims, Act::Grant(grant), None)
    }

    pub(super) async fn find(&self, who: Who) -> Result<(UserId, Option<ServerId>)> {
        Ok(match who {
            Who::Id(user) => (user, None),
            Who::Address(address) => {
                let found = self.client.lookup(address).await?;
                (found.user, Some(found.home))
            }
        })
    }

    async fn subject(&self, who: Who) -> Result<Subject> {
        let (user, home) = self.find(who).await?;
        self.subject_at(user, home).await
    }

    pub(super) async fn subject_at(&self, user: UserId, home: Option<ServerId>) -> Result<Subject> {
        let grantee = self.grantee(Some(user)).await?;
        let Some(home) = grantee.home.or(home) else {
            let text = "the user's home server is not known here: name the user by address";
            return Err(Error::new(ErrorKind::NotFound, text));
        };
        Ok(Subject {
            user,
            home,
            grantee,
        })
    }

    /// The role that the open door gives; none: it is closed.
    pub(super) async fn door(&self) -> Result<Role> {
        Ok(self.grantee(None).await?.role)
    }

    async fn grantee(&self, user: Option<UserId>) -> Result<Grantee> {
        let request = Request::Grantee {
            conversation: self.id,
            user,
        };
        match self.client.shared().call(request).await? {
            Reply::Grantee(grantee) => Ok(grantee),
            _ => Err(Error::unexpected_reply()),
        }
    }
}

impl Subject {
    fn to_grant(&self, role: Role, ban: bool, lifts: &[EventId]) -> Grant {
        let mut lifts = lifts.to_vec();
        lifts.sort_unstable();
        lifts.dedup();
        lifts.truncate(LIFTS_MAX);
        Grant {
            target: Target::User {
                user: self.user,
                home: self.home,
            },
            role,
            cut: cut(&self.grantee.cut),
            ban,
            lifts,
        }
    }
}

const fn door(role: Role) -> Grant {
    Grant {
        target: Target::Anyone,
        role,
        cut: vec![],
        ban: false,
        lifts: vec![],
    }
}

fn cut(tips: &[Tip]) -> Vec<Tip> {
    let mut tips = tips.to_vec();
    tips.sort_unstable();
    tips.dedup();
    tips.truncate(CUT_TIPS_MAX);
    tips
}

/// The least role above `role`, if `own` reaches it.
fn above(own: Role, role: Role) -> Result<Role> {
    let least = Role::try_from(u8::from(role) + 1).ok();
    least.filter(|least| own >= *least).ok_or_else(|| {
        let text = format!("a role above {role} is needed, the own one is {own}");
        Error::new(ErrorKind::Forbidden, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_needs_a_role_above_the_one_it_is_about() {
        assert_eq!(above(Role::Owner, Role::Member).unwrap(), Role::Moderator);
        assert_eq!(
            above(Role::Moderator, Role::Member).unwrap(),
            Role::Moderator
        );
        for (own, role) in [(Role::Member, Role::Member), (Role::Owner, Role::Owner)] {
            assert_eq!(above(own, role).unwrap_err().kind(), ErrorKind::Forbidden);
        }
    }
}
