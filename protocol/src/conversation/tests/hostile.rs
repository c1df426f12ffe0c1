//! Bundles made to harm.

use super::world::*;
use crate::{
    commit::{AuthorityChange, Commit},
    conversation::{Conversation, Received},
    event::{Act, RawEvent, SignedEvent},
    ids::{Blob, Signature},
    link::{Bundle, ContentSlot, Offer},
    role::Role,
    root::Genesis,
    session::Code,
    time::{Hlc, Timestamp},
};

#[test]
fn a_bundle_is_refused_for_any_wrong_byte_of_it() {
    let mut world = World::group();
    world.said(MEMBER, "true");
    world.said(MEMBER, "also true");
    let all = &world.homes[1].bundles;
    let (good, other) = (all[all.len() - 2].clone(), all[all.len() - 1].clone());
    let code = |bundle| checked(&bundle).unwrap_err().code();
    let mut bad = good.clone();
    bad.commit.signature = Signature::from_bytes([1; 64]);
    assert_eq!(code(bad), Code::WrongSignature);
    let mut bad = good.clone();
    bad.events[0].signature = Signature::from_bytes([1; 64]);
    assert_eq!(code(bad), Code::WrongSignature);
    let mut bad = good.clone();
    bad.contents = other.contents.clone();
    assert_eq!(code(bad), Code::ContentMismatch);
    let mut bad = good.clone();
    bad.contents.push(ContentSlot::Gone);
    assert_eq!(code(bad), Code::ContentMismatch);
    let mut bad = good.clone();
    bad.contents.clear();
    assert_eq!(code(bad), Code::ContentMismatch);
    let mut bad = good.clone();
    bad.events = other.events.clone();
    assert_eq!(code(bad), Code::Malformed);
    let mut bad = good.clone();
    bad.events.clear();
    assert_eq!(code(bad), Code::Malformed);
    for at in 0..good.commit.commit.0.len() {
        let mut bad = good.clone();
        bad.commit.commit.0[at] ^= 1;
        assert!(checked(&bad).is_err(), "byte {at}");
    }
    let mut bad = good.clone();
    bad.commit.commit.0.truncate(40);
    assert_eq!(code(bad), Code::Malformed);
    let mut bad = good.clone();
    bad.events[0] = RawEvent {
        event: Blob(vec![0xff; 70_000]),
        ..bad.events[0].clone()
    };
    assert!(checked(&bad).is_err());
    assert!(checked(&good).is_ok());
}

#[test]
fn an_event_of_another_homes_user_is_void_and_his_own_home_is_not_hindered() {
    let mut world = World::group();
    let stolen = world.message(MEMBER, "mine");
    let id = stolen.0.id();
    let bundle = world.forge(2, None, world.now, std::slice::from_ref(&stolen));
    let Received::Taken(all) = world.give(0, &bundle) else {
        panic!("the commit is well-formed");
    };
    assert_eq!(all[0].events[0].void, Some("wrong_home"));
    assert!(!world.homes[0].shown.contains(&id));
    world.give(1, &bundle);
    assert!(
        world.homes[1].machine.place_of(&id).is_none(),
        "what a thief committed is no answer to the author"
    );
    let now = world.time();
    world.homes[1].submit(now, stolen).unwrap();
    world.commit(1);
    world.gossip(1, 0);
    assert!(world.homes[0].shown.contains(&id));
    assert!(world.homes[1].shown.contains(&id));
}

#[test]
fn a_home_that_never_had_a_member_shows_nobody_anything() {
    let mut world = World::group();
    world.users.push(user(66, 3));
    let event = world.message(5, "spam");
    let bundle = world.forge(3, None, world.now, &[event]);
    let Received::Taken(all) = world.give(0, &bundle) else {
        panic!("the commit is well-formed");
    };
    assert!(all[0].events.iter().all(|e| e.void.is_some()));
    assert_eq!(world.homes[0].shown.len(), 4);
    assert!(all[0].changes.roles.is_empty() && all[0].changes.homes.joined.is_empty());
}

#[test]
fn broken_chains_are_refused_for_good() {
    let mut world = World::group();
    world.said(OTHER, "one");
    world.gossip(2, 0);
    let tip = world.newest(2).unwrap();
    let event = world.message(OTHER, "before its prev");
    let earlier = world.forge(2, Some(&tip), T0 - 1_000, std::slice::from_ref(&event));
    assert!(matches!(
        world.give(0, &earlier),
        Received::Refused(Code::Malformed, _)
    ));
    let foreign = world.newest(0).unwrap();
    let stolen = world.forge(2, Some(&foreign), world.now + 5, &[event]);
    assert!(matches!(
        world.give(0, &stolen),
        Received::Refused(Code::Malformed, _)
    ));
    assert!(world.homes[0].machine.is_idle());
}

#[test]
fn branches_of_a_fork_beyond_the_second_are_refused_and_all_agree_which_stands() {
    let mut world = World::group();
    world.said(OTHER, "one");
    world.gossip(2, 0);
    world.gossip(2, 1);
    let tip = world.newest(2).unwrap();
    let mut forks = vec![];
    for n in 0..6 {
        let event = world.message(OTHER, &format!("fork {n}"));
        forks.push(world.forge(2, Some(&tip), world.now + 5, &[event]));
    }
    for bundle in &forks {
        world.give(0, bundle);
    }
    for bundle in forks.iter().rev() {
        world.give(1, bundle);
    }
    let best = forks.iter().map(id_of).min().unwrap();
    for home in [0, 1] {
        let graph = world.homes[home].machine.graph();
        let tip = graph.standing_tip(&server(2)).unwrap();
        assert_eq!(graph.node(tip).id(), best);
    }
    assert_eq!(world.homes[0].shown, world.homes[1].shown);
}

/// Found by the fuzzer: two homes that held the same commits showed another history for ever.
#[test]
fn a_grant_that_another_home_committed_too_gives_the_same_whichever_copy_comes_first() {
    let mut world = World::group();
    let target = world.said(OWNER, "to be pinned");
    let founding = world.homes[0].bundles.clone();
    let pin = Act::Pin { target, on: true };
    let pin = world.sign(ADMIN, Role::Moderator, pin);
    // The admin's home has seen his grant in no other commit than its own, where it is void.
    let grant = SignedEvent::verify(founding[0].events[0].clone()).unwrap();
    let commit = Commit {
        v: 1,
        conversation: world.conversation,
        origin: server(1),
        epoch: 1,
        seq: 0,
        prev: None,
        hlc: Hlc::new(Timestamp(world.now + 5), 0),
        parents: vec![],
        authority: Some(AuthorityChange::default()),
        events: vec![grant.id(), pin.id()],
    };
    let copied = Bundle {
        commit: commit.sign(&server_key(1)).to_raw(),
        events: vec![grant.to_raw(), pin.to_raw()],
        contents: vec![],
    };
    let Offer::Group(raw) = world.homes[0].machine.offer().clone() else {
        unreachable!("a group")
    };
    let genesis = Genesis::verify(raw).unwrap();
    let (now, devices) = (world.time(), world.devices());
    let place = |order: &[&Bundle]| {
        let mut machine = Conversation::group(&genesis, server(2), 1);
        for bundle in order {
            let received = machine.receive(now, checked(bundle).unwrap(), &devices);
            assert!(is_taken(&received), "{received:?}");
        }
        machine.place_of(&pin.id())
    };
    let first = place(&[&founding[0], &founding[1], &copied]);
    assert!(
        first.is_some(),
        "the grant stands where its home committed it"
    );
    assert_eq!(first, place(&[&copied, &founding[0], &founding[1]]));
    assert_eq!(first, place(&[&founding[0], &copied, &founding[1]]));
}
