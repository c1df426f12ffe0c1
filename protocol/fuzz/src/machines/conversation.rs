//! A conversation in which one home is hostile: it signs what it likes with its own key and its
//! users', of whom one is an admin, so that all of it passes the signatures and reaches the rules.

use std::cell::OnceCell;

use comity_protocol::{
    commit::{AuthorityChange, Commit, RootRef, UnverifiedCommit},
    conversation::{CheckedBundle, CheckedEvent, Conversation, Devices, Received, Slot},
    event::{Act, Event, Field, Grant, Target, Tip},
    ids::{CommitId, ContentHash, EventId, RootId, ServerId},
    limits::WAITING_ITEMS_MAX,
    role::Role,
    time::{Hlc, Timestamp},
};

use super::Choices;
use crate::world::{Chronicle, T0, World};

/// The home that keeps no rule.
const HOSTILE: usize = 2;
/// Hostile commits made of one sequence of choices.
const HOSTILE_MAX: usize = 8;

/// A history of two honest homes, checked already: signatures cost more than all the rest.
struct Prepared {
    world: World,
    founding: Vec<CheckedBundle>,
    honest: Vec<CheckedBundle>,
    hostile_end: Option<Tip>,
}

fn prepared() -> Prepared {
    let mut history = Chronicle::new(World::new(3, 6));
    history.found();
    let hostile = history.world.message(HOSTILE, "so far all is well");
    history.append(HOSTILE, vec![hostile]);
    let founding: Vec<CheckedBundle> = checked(&history, 0);
    let first = history.world.message(1, "one");
    let target = first.event.id();
    let edit = history.world.edit(1, &first, "one, edited");
    let react = Act::React {
        target,
        emoji: "a".to_owned(),
        on: true,
        version: Some(edit.event.id()),
    };
    let react = history.world.act(0, Role::Member, react);
    let second = history.world.message(3, "two");
    history.append(1, vec![first]);
    history.append(0, vec![react]);
    history.append(1, vec![edit]);
    history.append(0, vec![second]);
    let policy = Act::Policy {
        field: Field::Rate,
        value: 5,
    };
    let policy = history.world.act(1, Role::Admin, policy);
    history.append(1, vec![policy]);
    let third = history.world.message(0, "three");
    history.append(0, vec![third]);
    let honest = checked(&history, founding.len());
    Prepared {
        hostile_end: history.end(HOSTILE),
        world: history.world,
        founding,
        honest,
    }
}

fn checked(history: &Chronicle, from: usize) -> Vec<CheckedBundle> {
    let key = |server: &ServerId, _| history.world.key_of(server);
    let bundles = history.bundles().into_iter().skip(from);
    bundles
        .map(|bundle| CheckedBundle::check(bundle, key).expect("an honest commit is sound"))
        .collect()
}

/// Sends honest commits with hostile ones between them. Nothing panics, what waits is bounded, and
/// every honest commit is part of the conversation in the end, with the roles that it gives; a home
/// that gets the same commits in another order agrees on all of it.
///
/// # Panics
///
/// If not.
#[must_use]
pub fn conversation(bytes: &[u8]) -> bool {
    thread_local! {
        static PREPARED: OnceCell<Prepared> = const { OnceCell::new() };
    }
    PREPARED.with(|it| attack(it.get_or_init(prepared), &mut Choices::new(bytes)))
}

fn attack(it: &Prepared, choices: &mut Choices<'_>) -> bool {
    let me = it.world.homes[choices.below(2)].id;
    let foe = it.world.homes[HOSTILE].id;
    let mut machine = Conversation::group(&it.world.genesis, me, 1);
    let now = Timestamp(T0 + 10_000);
    let devices = |user: &_, device: &_| it.world.has_device(user, device);
    let mut taken = false;
    let mut made: Vec<CheckedBundle> = Vec::new();
    // Some begin in the middle: then all waits until the founding comes.
    let late = choices.below(4) == 0;
    if !late {
        receive_all(&mut machine, now, &it.founding, &devices, &foe);
    }
    for honest in it.honest.iter().chain(&it.founding) {
        for _ in 0..choices.below(4) {
            if made.len() >= HOSTILE_MAX {
                break;
            }
            let hostile = hostile(it, &made, choices);
            made.push(hostile.clone());
            let received = machine.receive(now, hostile, &devices);
            taken |= matches!(received, Received::Taken(_));
        }
        if choices.below(8) == 0 {
            machine.release_waiting(Timestamp(now.0 + 600_000), &devices);
        }
        machine.receive(now, honest.clone(), &devices);
    }
    receive_all(&mut machine, now, &it.founding, &devices, &foe);
    receive_all(&mut machine, now, &it.honest, &devices, &foe);
    let given_up = machine.take_given_up().len();
    assert!(given_up <= WAITING_ITEMS_MAX, "what is given up is bounded");
    for honest in it.founding.iter().chain(&it.honest) {
        // Its own earlier words a hostile home can take back: by forks, or as its users.
        if honest.commit.commit().origin == foe {
            continue;
        }
        let held = machine.graph().ix(&honest.commit.id()).is_some();
        assert!(held, "an honest commit is taken whatever others send");
        // Its admin may remove members, and what they say then is his to let stand.
        let ranks = |author| it.world.users[..2].iter().any(|user| user.id == author);
        for event in &honest.events {
            let (id, event) = (event.event.id(), event.event.event());
            let shown = !ranks(event.author) || machine.place_of(&id).is_some();
            assert!(shown, "what owner and admin say is shown: {event:?}");
        }
    }
    for (user, role) in it.world.users.iter().zip([Role::Owner, Role::Admin]) {
        let now = machine.authority().role(&user.id);
        assert_eq!(now, role, "nobody at the hostile home ranks above them");
    }
    compare(it, &machine, &made, now);
    taken
}

/// Whoever holds the same commits holds the same conversation, however they came: a second home gets
/// them the other way round.
fn compare(it: &Prepared, machine: &Conversation, made: &[CheckedBundle], now: Timestamp) {
    let all: Vec<&CheckedBundle> = it.founding.iter().chain(&it.honest).chain(made).collect();
    let me = it.world.homes[0].id;
    let mut other = Conversation::group(&it.world.genesis, me, 1);
    let devices = |user: &_, device: &_| it.world.has_device(user, device);
    // What waits for something that was refused meanwhile comes once more.
    for bundle in all.iter().rev().chain(all.iter()).chain(all.iter()) {
        other.receive(now, (*bundle).clone(), &devices);
    }
    let held = |machine: &Conversation| -> Vec<bool> {
        let held = |bundle: &&CheckedBundle| machine.graph().ix(&bundle.commit.id()).is_some();
        all.iter().map(held).collect()
    };
    // Of many branches of one fork it depends on the order which are held.
    if held(machine) != held(&other) {
        return;
    }
    assert_eq!(
        machine.frontier(),
        other.frontier(),
        "the same chains stand"
    );
    let members = |machine: &Conversation| machine.authority().members().collect::<Vec<_>>();
    assert_eq!(
        members(machine),
        members(&other),
        "the same members and roles"
    );
    for event in all.iter().flat_map(|bundle| &bundle.events) {
        let id = event.event.id();
        let shown = |machine: &Conversation| {
            let at = machine.authority().shown(machine.graph(), &id)?;
            Some(machine.graph().place(at))
        };
        assert_eq!(
            shown(machine),
            shown(&other),
            "an event is shown at one place, or nowhere"
        );
    }
}

fn receive_all(
    machine: &mut Conversation,
    now: Timestamp,
    bundles: &[CheckedBundle],
    devices: &Devices<'_>,
    hostile: &ServerId,
) {
    for bundle in bundles {
        let received = machine.receive(now, bundle.clone(), devices);
        // A home that forked twice has made its own earlier commits a branch too many.
        if let Received::Refused(code, why) = received
            && bundle.commit.commit().origin != *hostile
        {
            panic!("an honest commit is refused: {code}, {why}");
        }
    }
}

/// A commit of the hostile home, signed with its own key.
fn hostile(it: &Prepared, made: &[CheckedBundle], choices: &mut Choices<'_>) -> CheckedBundle {
    let below = match choices.below(4) {
        0 | 1 => it.hostile_end,
        2 => made.last().map(|bundle| bundle.commit.tip()),
        _ => None,
    };
    let events: Vec<CheckedEvent> = (0..=choices.below(2))
        .map(|_| hostile_event(it, made, choices))
        .collect();
    let mut commit = Commit {
        v: 1,
        conversation: it.world.genesis.conversation(),
        origin: it.world.homes[HOSTILE].id,
        epoch: below.map_or(1, |tip| tip.epoch),
        seq: below.map_or(0, |tip| tip.seq.wrapping_add(1)),
        prev: below.map(|tip| tip.id),
        hlc: Hlc::new(Timestamp(T0 + 100 + made.len() as u64), 0),
        parents: vec![],
        authority: below.is_none().then(|| AuthorityChange {
            tips: vec![],
            root: Some(RootRef {
                n: 0,
                id: it.world.genesis.id(),
            }),
        }),
        events: events.iter().map(|event| event.event.id()).collect(),
    };
    for _ in 0..choices.below(3) {
        spoil(&mut commit, it, made, choices);
    }
    let key = &it.world.homes[HOSTILE].key;
    let signed = commit.sign(key);
    // Shapes that no server would decode are the decoders' to refuse.
    match UnverifiedCommit::decode(signed.to_raw()) {
        Ok(commit) => CheckedBundle {
            commit: commit
                .verify(&key.public())
                .expect("it was signed just now"),
            events,
        },
        Err(_) => it.honest[0].clone(),
    }
}

fn any_tip(it: &Prepared, made: &[CheckedBundle], choices: &mut Choices<'_>) -> Tip {
    let all: Vec<Tip> = it
        .founding
        .iter()
        .chain(&it.honest)
        .chain(made)
        .map(|bundle| bundle.commit.tip())
        .collect();
    let mut tip = all[choices.below(all.len())];
    match choices.below(8) {
        0 => tip.seq = u64::MAX,
        1 => tip.seq = tip.seq.wrapping_add(1),
        2 => tip.epoch = u64::MAX,
        3 => tip.home = it.world.homes[choices.below(3)].id,
        4 => tip.id = CommitId::from_bytes([choices.byte(); 32]),
        _ => {}
    }
    tip
}

fn spoil(commit: &mut Commit, it: &Prepared, made: &[CheckedBundle], choices: &mut Choices<'_>) {
    match choices.below(8) {
        0 => {
            commit.seq = *[
                0,
                1,
                u64::from(u32::MAX),
                u64::MAX,
                commit.seq.wrapping_add(1),
            ]
            .get(choices.below(5))
            .unwrap_or(&0)
        }
        1 => commit.epoch = [0, 1, 2, u64::MAX][choices.below(4)],
        2 => commit.prev = Some(any_tip(it, made, choices).id),
        3 => {
            let at = [0, T0 - 1, T0 + 70_000, T0 + 400_000, 1 << 47, u64::MAX][choices.below(6)];
            commit.hlc = Hlc::new(Timestamp(at), u16::from(choices.byte()));
        }
        4 => {
            commit.parents = (0..choices.below(4))
                .map(|_| any_tip(it, made, choices).id)
                .collect();
            commit.parents.sort_unstable();
            commit.parents.dedup();
        }
        5 | 6 => {
            let mut tips: Vec<Tip> = (0..choices.below(4))
                .map(|_| any_tip(it, made, choices))
                .collect();
            tips.sort_unstable();
            tips.dedup();
            let root = commit
                .authority
                .as_ref()
                .and_then(|authority| authority.root);
            commit.authority = Some(AuthorityChange { tips, root });
        }
        _ => {
            if let Some(authority) = &mut commit.authority {
                authority.root = Some(RootRef {
                    n: u64::from(choices.byte()),
                    id: RootId::from_bytes([choices.byte(); 32]),
                });
            }
        }
    }
    if commit.seq == 0 {
        commit.prev = None;
    }
}

fn hostile_event(it: &Prepared, made: &[CheckedBundle], choices: &mut Choices<'_>) -> CheckedEvent {
    let all: Vec<&CheckedEvent> = it
        .founding
        .iter()
        .chain(&it.honest)
        .chain(made)
        .flat_map(|bundle| &bundle.events)
        .collect();
    let target = all[choices.below(all.len())];
    // What others signed, taken into an own commit.
    if choices.below(4) == 0 {
        return target.clone();
    }
    let own = [2, 5][choices.below(2)];
    let author = &it.world.users[own];
    let target = match choices.below(4) {
        0 => EventId::from_bytes([choices.byte(); 32]),
        _ => target.event.id(),
    };
    let user = &it.world.users[choices.below(it.world.users.len())];
    let cut = |choices: &mut Choices<'_>| {
        let mut cut: Vec<Tip> = (0..choices.below(3))
            .map(|_| any_tip(it, made, choices))
            .collect();
        cut.sort_unstable();
        cut.dedup();
        cut
    };
    let role = |choices: &mut Choices<'_>| {
        [
            Role::None,
            Role::Guest,
            Role::Member,
            Role::Moderator,
            Role::Admin,
        ][choices.below(5)]
    };
    let act = match choices.below(12) {
        0 => Act::Delete { target },
        1 => {
            let on = choices.below(2) == 0;
            Act::React {
                target,
                emoji: "x".to_owned(),
                on,
                version: on.then_some(target),
            }
        }
        2 => Act::Pin { target, on: true },
        3..=5 => {
            let (role, ban) = (role(choices), choices.below(2) == 0);
            Act::Grant(Grant {
                target: Target::User {
                    user: user.id,
                    home: it.world.homes[choices.below(3)].id,
                },
                role: if ban { Role::None } else { role },
                cut: cut(choices),
                ban,
                lifts: if choices.below(2) == 0 {
                    vec![]
                } else {
                    vec![target]
                },
            })
        }
        6 => Act::Join {
            role: role(choices),
            home: it.world.homes[choices.below(3)].id,
        },
        7 => Act::Leave { cut: cut(choices) },
        8 => Act::Move {
            home: it.world.homes[choices.below(3)].id,
            n: u64::from(choices.byte()),
            cut: cut(choices),
        },
        9 => Act::Policy {
            field: [Field::Posting, Field::History, Field::KeepDays, Field::Rate][choices.below(4)],
            value: [0, 1, 5, u64::MAX][choices.below(4)],
        },
        10 => Act::State {
            field: "title".to_owned(),
            content: None,
        },
        _ => Act::Edit {
            target,
            content: comity_protocol::event::ContentRef {
                hash: ContentHash::from_bytes([choices.byte(); 32]),
                len: u32::from(choices.byte()),
            },
        },
    };
    let gone = act.content().is_some();
    let event = Event {
        conversation: it.world.genesis.conversation(),
        author: author.id,
        device: author.device(),
        nonce: comity_protocol::ids::Nonce::from_bytes([choices.byte(); 16]),
        claims: [
            Role::Guest,
            Role::Member,
            Role::Moderator,
            Role::Admin,
            Role::Owner,
        ][choices.below(5)],
        act,
        sent_at: Timestamp(T0),
    };
    CheckedEvent {
        event: event.sign(&author.key),
        slot: if gone { Slot::Gone } else { Slot::None },
    }
}
