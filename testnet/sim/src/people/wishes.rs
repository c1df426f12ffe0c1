//! What users do, decided by what their homes show them.

use comity_protocol::{
    event::{Act, Content, Field, Grant, SealedContent, Target},
    ids::{ConversationId, EventId, Salt},
    link::Offer,
    role::Role,
};

use crate::{random::Random, server::Server};

use super::{Made, User, Wish};

/// A text that can be found on a disk, and its number.
pub(crate) fn text(texts: &mut u64, random: &mut Random) -> SealedContent {
    *texts += 1;
    let text = format!("words #{texts}# and more of them");
    let content = Content::text(Salt::from_bytes(random.bytes()), text);
    SealedContent::seal(&content).expect("a short text")
}

/// What somebody does who opens his client at one of his homes now: decided by what that shows him.
pub(crate) fn wish(
    who: usize,
    at: usize,
    users: &[User],
    server: &mut Server,
    texts: &mut u64,
    random: &mut Random,
) -> Option<Wish> {
    let user = &users[who];
    let kind = random.below(100);
    match kind {
        0..2 => return Some(Wish::AddDevice),
        2..5 => {
            let other = random.pick(&(0..users.len()).collect::<Vec<_>>())?;
            return Some(Wish::Direct(users[other].id));
        }
        _ => {}
    }
    let known = server.rows.known.iter();
    let mine: Vec<ConversationId> = known
        .filter(|(id, known)| known.members.contains_key(&user.id) && user.home_in(id) == at)
        .map(|(id, _)| *id)
        .collect();
    if random.percent(3) {
        let owns = |id: &&ConversationId| {
            let role = server.rows.known[id].members.get(&user.id);
            role.is_some_and(|(role, _)| *role == Role::Owner)
        };
        let owned: Vec<_> = mine.iter().filter(owns).copied().collect();
        if let Some(conversation) = random.pick(&owned) {
            return Some(Wish::HandOver(conversation));
        }
    }
    if kind == 8 {
        // The sides of a direct conversation stay where they are.
        let is_group =
            |id: &&ConversationId| matches!(server.rows.known[id].offer, Offer::Group(_));
        let groups: Vec<_> = mine.iter().filter(is_group).copied().collect();
        return random.pick(&groups).map(Wish::Move);
    }
    let conversation = if (5..8).contains(&kind) {
        // Somewhere he is not, through a door if it is open.
        let all: Vec<_> = server.rows.known.keys().copied().collect();
        let others: Vec<_> = all.into_iter().filter(|id| !mine.contains(id)).collect();
        random.pick(&others)?
    } else {
        random.pick(&mine)?
    };
    let (act, content) = if (5..8).contains(&kind) {
        let role = [Role::Member, Role::Guest][random.place(2)];
        let home = server.id;
        (Act::Join { role, home }, None)
    } else {
        act(kind, who, users, conversation, server, texts, random)?
    };
    let made = make(user, conversation, act, content, server, random)?;
    Some(Wish::Send(Box::new(made)))
}

/// One of each thing that a member can do in one conversation, to be given to [`wish_in`].
pub(crate) const EVERYTHING: [u64; 13] = [9, 50, 58, 64, 74, 77, 80, 82, 83, 84, 93, 96, 98];

/// Something that a member does in one conversation.
pub(crate) fn wish_in(
    kind: u64,
    who: usize,
    users: &[User],
    conversation: ConversationId,
    server: &mut Server,
    texts: &mut u64,
    random: &mut Random,
) -> Option<Made> {
    let (act, content) = act(kind, who, users, conversation, server, texts, random)?;
    make(&users[who], conversation, act, content, server, random)
}

/// Signs an act with the claim that it is best made with.
pub(crate) fn make(
    user: &User,
    conversation: ConversationId,
    act: Act,
    content: Option<SealedContent>,
    server: &mut Server,
    random: &mut Random,
) -> Option<Made> {
    // Opens the conversation.
    server.grantee(&conversation, &user.id, Some(user.id), None);
    let machine = server.shard.conversation(&conversation)?;
    let mut claims = machine
        .authority()
        .claim_for(machine.graph(), &user.id, &act);
    if matches!(act, Act::Delete { target } if machine.authority().author_of(machine.graph(), &target) == Some(user.id))
    {
        claims = claims.min(machine.authority().role(&user.id));
    }
    let event = user.sign(conversation, claims, act, random);
    Some(Made { event, content })
}

fn message(texts: &mut u64, random: &mut Random) -> (Act, Option<SealedContent>) {
    let content = text(texts, random);
    let act = Act::Message {
        content: content.reference(),
    };
    (act, Some(content))
}

fn act(
    kind: u64,
    who: usize,
    users: &[User],
    conversation: ConversationId,
    server: &mut Server,
    texts: &mut u64,
    random: &mut Random,
) -> Option<(Act, Option<SealedContent>)> {
    let user = &users[who];
    let known = server.rows.known.get(&conversation)?;
    let lines: Vec<EventId> = known.lines.values().rev().take(12).map(|l| l.0).collect();
    let target = random.pick(&lines);
    let own = |event: &&EventId| {
        let machine = server.shard.conversation(&conversation);
        machine.is_some_and(|m| m.authority().author_of(m.graph(), event) == Some(user.id))
    };
    let mine = lines.iter().find(own).copied();
    let on = random.percent(75);
    Some(match kind {
        9..50 => message(texts, random),
        50..58 => {
            let content = text(texts, random);
            let target = mine?;
            let act = Act::Edit {
                target,
                content: content.reference(),
            };
            (act, Some(content))
        }
        58..64 => {
            let target = if random.percent(75) { mine? } else { target? };
            (Act::Delete { target }, None)
        }
        64..74 => {
            let emoji = ["+1", "heart", "eyes"][random.place(3)].to_owned();
            let target = target?;
            let version = None;
            let act = Act::React {
                target,
                emoji,
                on,
                version,
            };
            (act, None)
        }
        74..77 => {
            let target = target?;
            (Act::Pin { target, on }, None)
        }
        77..80 => {
            let field = ["title", "topic", "name"][random.place(3)].to_owned();
            let content = on.then(|| text(texts, random));
            let reference = content.as_ref().map(SealedContent::reference);
            let act = Act::State {
                field,
                content: reference,
            };
            (act, content)
        }
        80..83 => (leave_or_policy(user, conversation, server, random)?, None),
        83..84 => {
            let role = if on { Role::Member } else { Role::None };
            (door(role), None)
        }
        _ => {
            let other = &users[random.place(users.len())];
            let change = if kind < 93 {
                Change::Give
            } else if kind < 96 {
                Change::Remove
            } else if kind < 98 {
                Change::Ban
            } else {
                Change::Lift
            };
            (
                grant(change, user, other, conversation, server, random)?,
                None,
            )
        }
    })
}

const fn door(role: Role) -> Act {
    Act::Grant(Grant {
        target: Target::Anyone,
        role,
        cut: vec![],
        ban: false,
        lifts: vec![],
    })
}

fn leave_or_policy(
    user: &User,
    conversation: ConversationId,
    server: &mut Server,
    random: &mut Random,
) -> Option<Act> {
    if random.percent(33) {
        let about = server.grantee(&conversation, &user.id, Some(user.id), None)?;
        return Some(Act::Leave { cut: about.cut });
    }
    let (field, value) = match random.below(8) {
        0..=2 => (Field::Posting, random.between(1, 4)),
        3 => (Field::History, random.below(2)),
        // Days are few here, and some want to keep everything again.
        _ => (Field::KeepDays, random.below(8)),
    };
    Some(Act::Policy { field, value })
}

/// How a role is changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Give,
    Remove,
    Ban,
    Lift,
}

/// A grant about another user, with what the home says it has to name.
pub(crate) fn grant(
    change: Change,
    user: &User,
    other: &User,
    conversation: ConversationId,
    server: &mut Server,
    random: &mut Random,
) -> Option<Act> {
    let home = Some(other.log.home());
    let about = server.grantee(&conversation, &user.id, Some(other.id), home)?;
    let own = u8::from(about.own_role);
    let below = random.between(1, u64::from(own.max(2)));
    let role = match change {
        Change::Give | Change::Lift => Role::try_from(u8::try_from(below).ok()?).ok()?,
        Change::Remove | Change::Ban => Role::None,
    };
    let cut = if role < about.role {
        about.cut.clone()
    } else {
        vec![]
    };
    Some(Act::Grant(Grant {
        target: Target::User {
            user: other.id,
            home: about.home.or(home)?,
        },
        role,
        cut,
        ban: change == Change::Ban,
        lifts: if change == Change::Remove || change == Change::Ban {
            vec![]
        } else {
            about.bans
        },
    }))
}
