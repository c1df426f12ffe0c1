//! The same commits in any order, with hostile ones and repeats among them, end in the same state,
//! and so does a machine that is read back from its records.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::*;
use crate::{
    conversation::{Conversation, Received},
    document::MessageState,
    event::{Act, Field},
    ids::EventId,
    limits::AGAIN_WAIT_MS,
    link::{Bundle, Offer},
    role::Role,
    root::Genesis,
};

#[derive(Clone, Debug)]
struct Step {
    user: usize,
    kind: u8,
    pick: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..5usize, 0..20u8, 0..1_000usize);
    let step = step.prop_map(|(user, kind, pick)| Step { user, kind, pick });
    proptest::collection::vec(step, 10..70)
}

/// A history made by three homes that hear of each other now and then, and by a fourth that only
/// does harm. Gives every bundle there is.
fn live(steps: &[Step]) -> (World, Vec<Bundle>, Vec<EventId>) {
    let mut world = World::group();
    let (mut messages, mut hostile): (Vec<(EventId, usize)>, Vec<Bundle>) = (vec![], vec![]);
    for step in steps {
        world.now += 1_000;
        let home = world.users[step.user].home;
        let any = |messages: &[(EventId, usize)]| {
            (!messages.is_empty()).then(|| messages[step.pick % messages.len()].0)
        };
        let own: Vec<_> = messages
            .iter()
            .filter(|(_, u)| *u == step.user)
            .copied()
            .collect();
        match step.kind {
            0..4 => {
                if let Ok(id) = world.say(step.user, "text") {
                    messages.push((id, step.user));
                }
            }
            4 | 5 => {
                if let Some(target) = any(&own) {
                    let _ = world.edit(step.user, target, "other text");
                }
            }
            6 => {
                if let Some(target) = any(&own) {
                    let _ = world.act(step.user, Act::Delete { target });
                }
            }
            7 => {
                if let Some(target) = any(&messages) {
                    let _ = world.act(step.user, Act::Delete { target });
                }
            }
            8 | 9 => {
                if let Some(target) = any(&messages) {
                    let emoji = ["a", "b"][step.pick % 2].into();
                    let on = step.pick % 3 != 0;
                    let _ = world.act(
                        step.user,
                        Act::React {
                            target,
                            emoji,
                            on,
                            version: None,
                        },
                    );
                }
            }
            10 => {
                let sealed = world.content("title");
                let act = Act::State {
                    field: ["title", "topic", "name"][step.pick % 3].into(),
                    content: Some(sealed.reference()),
                };
                let claims = world.claims(step.user, &act);
                let event = world.sign(step.user, claims, act);
                let now = world.time();
                let _ = world.homes[home].submit(now, (event, Some(sealed)));
            }
            11 | 12 => {
                let role = [Role::None, Role::Member, Role::Moderator, Role::Admin][step.pick % 4];
                let act = world.grant(home, step.pick / 4 % 5, role);
                let _ = world.act(step.user, act);
            }
            13 if step.user != OWNER => {
                let machine = &world.homes[home].machine;
                let id = world.users[step.user].id;
                let cut = machine
                    .authority()
                    .cut_for(machine.graph(), world.time(), &id);
                let _ = world.act(step.user, Act::Leave { cut });
            }
            15 => {
                let act = Act::Policy {
                    field: Field::Rate,
                    value: (step.pick % 4) as u64,
                };
                let _ = world.act(step.user, act);
            }
            14 => {
                // A stranger's home, and one that commits what another home's user signed.
                let event = world.message(step.user, "stolen");
                let origin = [3, (home + 1) % 3][step.pick % 2];
                let prev = hostile
                    .iter()
                    .rev()
                    .map(commit_of)
                    .find(|c| c.commit().origin == server(origin));
                if origin != 3 && prev.is_some() {
                    // A third branch is refused, and what builds on it waits for ever.
                    continue;
                }
                let prev = if origin == 3 {
                    prev
                } else {
                    world.newest(origin)
                };
                let bundle = world.forge(origin, prev.as_ref(), world.now + 7, &[event]);
                hostile.push(bundle);
            }
            _ => {
                let from = step.pick % 3;
                world.gossip(from, (from + 1 + step.pick / 3 % 2) % 3);
            }
        }
        if step.pick % 2 == 0 {
            world.commit(home);
        }
    }
    for home in 0..3 {
        while world.commit(home).is_some() {}
    }
    let mut all: BTreeMap<_, Bundle> = BTreeMap::new();
    for home in &world.homes {
        all.extend(home.bundles.iter().map(|b| (id_of(b), b.clone())));
    }
    let mut all: Vec<_> = all.into_values().collect();
    all.extend(hostile);
    let messages = messages.into_iter().map(|(id, _)| id).collect();
    (world, all, messages)
}

/// Hands over everything in an order of its own, some of it twice.
fn deliver(world: &mut World, to: usize, all: &[Bundle], seed: u64) {
    let mut order: Vec<usize> = (0..all.len()).chain(0..all.len() / 3).collect();
    let mut state = seed | 1;
    for at in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(at, usize::try_from(state % (at as u64 + 1)).unwrap());
    }
    for at in order {
        let received = world.give(to, &all[at]);
        assert!(
            !matches!(received, Received::Refused(code, _) if code != crate::session::Code::Conflict),
            "{received:?}"
        );
    }
    // What waits is asked for; here it comes by itself.
    for bundle in all {
        world.give(to, bundle);
    }
}

/// Reacts to every message: whatever is touched is told whole.
fn touch_all(world: &mut World, messages: &[EventId]) -> Vec<Bundle> {
    let before = world.homes[0].bundles.len();
    world.now += 60_000;
    for target in messages {
        let act = Act::React {
            target: *target,
            emoji: "end".into(),
            on: true,
            version: None,
        };
        let _ = world.act(OWNER, act);
    }
    while world.commit(0).is_some() {}
    world.homes[0].bundles[before..].to_vec()
}

fn restored(home: &Home) -> Conversation {
    let Offer::Group(raw) = home.machine.offer().clone() else {
        unreachable!("a group")
    };
    let genesis = Genesis::verify(raw).unwrap();
    let mut machine = Conversation::group(&genesis, server(home.n), 1);
    for (commit, events) in &home.records {
        machine.restore(commit, events).unwrap();
    }
    machine
}

fn states_of(home: &Home, messages: &[EventId]) -> BTreeMap<EventId, MessageState> {
    let of = |id: &EventId| Some((*id, home.states.get(id)?.clone()));
    messages.iter().filter_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_order_of_delivery_ends_in_one_state(steps in steps(), seed in any::<u64>()) {
        let (mut world, all, messages) = live(&steps);
        for home in 0..3 {
            deliver(&mut world, home, &all, seed.wrapping_add(home as u64 * 77));
        }
        // A home that hears of all of it only now, in one more order.
        let Offer::Group(raw) = world.homes[0].machine.offer().clone() else {
            unreachable!("a group")
        };
        let genesis = Genesis::verify(raw).unwrap();
        world.homes.push(Home::new(3, Conversation::group(&genesis, server(3), 1)));
        deliver(&mut world, 3, &all, seed ^ 0xabcdef);

        // Homes in whose names others forked commit again what they lost by it.
        world.now += AGAIN_WAIT_MS;
        for home in 0..3 {
            for taken in world.commit_all_lost(home) {
                for other in (0..4).filter(|other| *other != home) {
                    prop_assert!(is_taken(&world.give(other, &bundle_of(&taken))));
                }
            }
        }
        let mut machines: Vec<_> = world.homes.iter().map(restored).collect();
        let end = touch_all(&mut world, &messages);
        for bundle in &end {
            for home in 1..4 {
                prop_assert!(is_taken(&world.give(home, bundle)));
            }
        }
        let expected = states_of(&world.homes[0], &messages);
        for home in &world.homes {
            prop_assert!(home.machine.is_idle());
            prop_assert_eq!(home.digest(), world.homes[0].digest(), "home {}", home.n);
            prop_assert_eq!(&states_of(home, &messages), &expected, "home {}", home.n);
            super::rate::assert_told(home, &home.machine);
            prop_assert_eq!(super::rate::folded(&home.machine), super::rate::folded(&world.homes[0].machine));
            // What was told change by change is what the machine says.
            // What was told change by change is what the machine says: whatever does not count, of
            // any kind, was told to be void.
            for (event, counts) in &home.told {
                let stands = home.machine.authority().shown(home.machine.graph(), event);
                prop_assert_eq!(*counts, stands.is_some(), "home {} event {}", home.n, event);
            }
            for (user, role) in &home.roles {
                prop_assert_eq!(home.machine.authority().role(user), *role);
            }
        }
        // Machines read back from their records go on like those that lived.
        let devices = world.devices();
        for (machine, home) in machines.iter_mut().zip(&world.homes) {
            let mut touched = BTreeMap::new();
            for bundle in &end {
                match machine.receive(world.time(), checked(bundle).unwrap(), &devices) {
                    Received::Taken(all) => {
                        touched.extend(all.into_iter().flat_map(|t| t.changes.touched));
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(machine.frontier(), home.machine.frontier());
            super::rate::assert_told(home, machine);
            let members = |m: &Conversation| m.authority().members().collect::<Vec<_>>();
            prop_assert_eq!(members(machine), members(&home.machine));
            for (id, state) in touched {
                prop_assert_eq!(Some(&state), home.states.get(&id));
            }
        }
    }
}

#[test]
fn a_machine_read_back_in_another_order_than_it_was_stored_says_so() {
    let mut world = World::group();
    world.said(OWNER, "one");
    let home = &world.homes[0];
    let (second, events) = home.records.last().unwrap().clone();
    let Offer::Group(raw) = home.machine.offer().clone() else {
        unreachable!("a group")
    };
    let mut machine = Conversation::group(&Genesis::verify(raw).unwrap(), server(0), 1);
    assert!(machine.restore(&second, &events).is_err());
}
