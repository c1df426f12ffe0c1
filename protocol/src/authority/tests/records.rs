//! Root records: who owns the conversation, and what that settles.

use super::{
    super::RecordOutcome,
    differential::shuffled,
    examples::start,
    world::{How, NOW, Rng, Server, World, grant, home, message, user},
};
use crate::{
    event::{Act, Grant},
    ids::{Digest, PublicKey, ServerId},
    role::Role,
    root::{Made, Root, SignedRoot},
};

fn server(world: &World) -> Server {
    let mut server = Server::new(world);
    for i in 0..world.made.len() {
        server.take(world, i);
    }
    server
}

fn commit(world: &mut World, of: char, by: char, claims: Role, act: Act) -> usize {
    let event = world.event(user(by), claims, act);
    let how = How {
        seen: world.all() & !world.records(),
        prev: world.newest_of(home(of)),
        epoch: 0,
        at_ms: NOW.0,
    };
    world.commit(home(of), &how, vec![event])
}

/// The next record as the newest of `world` has it, changed by `change`.
fn next(world: &World, server: &Server, change: impl FnOnce(&mut Root)) -> Root {
    let before = server.authority.newest_record(&server.graph).unwrap();
    let frontier = server.authority.frontier_for_record(&server.graph, NOW);
    let (members, _) = server
        .authority
        .members_at(&server.graph, &frontier)
        .unwrap();
    let mut root = Root {
        n: before.n + 1,
        prev: Some(before.id),
        frontier,
        digest: Some(members.digest()),
        ..world.genesis.as_ref().unwrap().root().clone()
    };
    change(&mut root);
    root
}

fn by_owner(root: Root) -> SignedRoot {
    SignedRoot::unsigned(root, Made::ByOwner(PublicKey::from_bytes([0; 32])))
}

fn to(name: char) -> impl FnOnce(&mut Root) {
    move |root| (root.owner, root.home) = (user(name), home(name.to_ascii_lowercase()))
}

fn refused(server: &mut Server, record: &SignedRoot) -> bool {
    let outcome = server.authority.insert_record(&mut server.graph, record);
    matches!(outcome, RecordOutcome::Refused(_))
}

#[test]
fn a_record_whose_digest_is_not_that_of_the_members_is_refused() {
    let world = start();
    let mut server = server(&world);
    let lies = next(&world, &server, |root| {
        root.digest = Some(Digest::from_bytes([1; 32]));
    });
    assert!(refused(&mut server, &by_owner(lies)));
    let true_one = by_owner(next(&world, &server, |_| {}));
    assert!(!refused(&mut server, &true_one));
}

#[test]
fn of_former_owners_the_one_follows_who_gave_it_away_first() {
    let world = start();
    let mut server = server(&world);
    // A became known before B, and gave it away after him.
    for owner in ['B', 'A', 'O'] {
        let record = by_owner(next(&world, &server, to(owner)));
        assert!(!refused(&mut server, &record));
    }
    let frontier = server.authority.frontier_for_record(&server.graph, NOW);
    let heir = server.authority.members_at(&server.graph, &frontier);
    assert_eq!(heir.unwrap().1.unwrap().user, user('B'));
}

#[test]
fn a_lost_owner_is_followed_by_the_first_admin_and_by_nobody_else() {
    let world = start();
    let mut server = server(&world);
    for wrong in ['B', 'M', 'U', 'O', 'V'] {
        let root = next(&world, &server, to(wrong));
        let record = SignedRoot::unsigned(root, Made::Succession);
        assert!(refused(&mut server, &record), "{wrong} follows");
    }
    let elsewhere = next(&world, &server, |root| {
        to('A')(root);
        root.home = home('k');
    });
    assert!(refused(
        &mut server,
        &SignedRoot::unsigned(elsewhere, Made::Succession)
    ));
    let root = next(&world, &server, to('A'));
    let frontier = root.frontier.clone();
    let (_, heir) = server
        .authority
        .members_at(&server.graph, &frontier)
        .unwrap();
    assert_eq!(heir.unwrap().user, user('A'));
    let record = SignedRoot::unsigned(root, Made::Succession);
    let outcome = server.authority.insert_record(&mut server.graph, &record);
    assert!(matches!(outcome, RecordOutcome::Taken { stands: true, .. }));
    assert_eq!(server.authority.role(&user('A')), Role::Owner);
    assert_eq!(server.authority.role(&user('O')), Role::Admin);
}

#[test]
fn of_raced_transfers_the_lower_id_stands_in_every_order_and_both_are_proof() {
    let mut world = start();
    let seen = world.all();
    let first = world.record(user('B'), home('b'), seen, None);
    // The former owner and his server sign a second transfer on record 0.
    let second = world.record(user('A'), home('a'), seen, None);
    let by_b = commit(&mut world, 'b', 'B', Role::Owner, removal('M', 'm'));
    let ids = [first, second].map(|i| world.made[i].record.as_ref().unwrap().id());
    let winner = if ids[0] < ids[1] { 'B' } else { 'A' };
    let mut rng = Rng(3);
    for _ in 0..20 {
        let mut server = Server::new(&world);
        for i in shuffled(&world, &mut rng) {
            server.take(&world, i);
        }
        server.assert_told();
        let owners: Vec<char> = ['O', 'A', 'B']
            .into_iter()
            .filter(|name| server.authority.role(&user(*name)) == Role::Owner)
            .collect();
        assert_eq!(owners, [winner]);
        assert_eq!(server.authority.role(&user('O')), Role::Admin);
        // What the loser did as owner is void; it had not named a record at all here.
        assert!(!server.verdict(by_b, 0).stands());
        let twins = server.graph.twins();
        assert_eq!(twins.len(), 1);
        assert_eq!(twins[0].stands, *ids.iter().min().unwrap());
        assert_eq!(twins[0].loses, *ids.iter().max().unwrap());
    }
}

fn removal(name: char, at: char) -> Act {
    Act::Grant(Grant {
        cut: vec![],
        ..grant(name, at, Role::None)
    })
}

#[test]
fn nothing_that_comes_late_changes_what_is_settled() {
    let mut world = start();
    let post = commit(&mut world, 'u', 'U', Role::Member, message());
    let seen = world.all();
    world.record(user('O'), home('o'), seen, None);
    // A removal of the author with no cut would void the post.
    let removal = commit(&mut world, 'a', 'A', Role::Admin, removal('U', 'u'));
    let held = server(&world);
    assert_eq!(held.authority.role(&user('U')), Role::None);
    assert!(held.verdict(removal, 0).stands());
    assert!(held.verdict(post, 0).stands());
    let at = crate::history::Appearance {
        node: held.nodes[post].unwrap(),
        index: 0,
    };
    assert!(held.authority.is_settled(at));
    held.assert_told();
    // Without the record it does.
    let mut bare = Server::new(&world);
    for i in 0..world.made.len() {
        if world.made[i].record.is_none() {
            bare.take(&world, i);
        }
    }
    assert!(!bare.verdict(post, 0).stands());
}

fn settled(server: &Server, made: usize) -> bool {
    let at = crate::history::Appearance {
        node: server.nodes[made].unwrap(),
        index: 0,
    };
    server.authority.is_settled(at)
}

#[test]
fn a_cut_lets_stand_below_a_record_only_what_it_names_there() {
    let mut world = start();
    let post = commit(&mut world, 'u', 'U', Role::Member, message());
    let later = commit(&mut world, 'u', 'U', Role::Member, message());
    let act = Act::Grant(Grant {
        cut: vec![world.tip(later)],
        ..grant('U', 'u', Role::None)
    });
    let without = world.all() & !(1 << later);
    let event = world.event(user('A'), Role::Admin, act);
    let how = How {
        seen: without,
        prev: None,
        epoch: 0,
        at_ms: NOW.0,
    };
    let removal = world.commit(home('a'), &how, vec![event]);
    // The record has seen the removal and the post, and not the commit that the cut names.
    let record = world.record(user('O'), home('o'), without | 1 << removal, None);
    for order in [
        [post, later, removal, record],
        [post, removal, record, later],
    ] {
        let mut server = Server::new(&world);
        for i in (0..post).chain(order) {
            server.take(&world, i);
        }
        assert!(settled(&server, post));
        assert!(!server.verdict(post, 0).stands(), "what settles has no cut");
        assert!(!settled(&server, later));
        server.assert_told();
    }
}

#[test]
fn what_waits_below_a_record_is_settled_by_the_next_that_has_seen_what_it_waits_for() {
    let mut world = start();
    let post = commit(&mut world, 'u', 'U', Role::Member, message());
    let without = world.all() & !(1 << post);
    let on = Act::React {
        target: world.made[post].events[0].0,
        emoji: "+".to_owned(),
        on: true,
        version: None,
    };
    let event = world.event(user('M'), Role::Member, on);
    let how = How {
        seen: without,
        prev: None,
        epoch: 0,
        at_ms: NOW.0,
    };
    let react = world.commit(home('m'), &how, vec![event]);
    let first = world.record(user('O'), home('o'), without | 1 << react, None);
    let second = world.record(user('O'), home('o'), world.all(), Some(first));
    for order in [[post, react, first, second], [react, first, post, second]] {
        let mut server = Server::new(&world);
        for i in (0..post).chain(order) {
            server.take(&world, i);
            if i == first {
                assert!(!settled(&server, react), "its target was not seen");
            }
        }
        assert!(settled(&server, react) && server.verdict(react, 0).stands());
    }
}

#[test]
fn a_record_waits_for_its_frontier_and_for_the_record_before() {
    let mut world = start();
    let seen = world.all();
    let first = world.record(user('O'), home('o'), seen, None);
    let second = world.record(user('B'), home('b'), seen, Some(first));
    let record = |i: usize| world.made[i].record.clone().unwrap();
    let mut server = Server::new(&world);
    let missing = server
        .authority
        .insert_record(&mut server.graph, &record(first));
    assert!(
        matches!(missing, RecordOutcome::Missing { commits, record: None } if !commits.is_empty())
    );
    for i in 0..first {
        server.take(&world, i);
    }
    let missing = server
        .authority
        .insert_record(&mut server.graph, &record(second));
    assert!(matches!(
        missing,
        RecordOutcome::Missing {
            record: Some(_),
            ..
        }
    ));
    server.take(&world, first);
    server.take(&world, second);
    let again = server
        .authority
        .insert_record(&mut server.graph, &record(second));
    assert_eq!(again, RecordOutcome::Known);
    assert_eq!(server.authority.role(&user('B')), Role::Owner);
}

#[test]
fn a_direct_conversation_has_no_records_and_homes_see_who_takes_part() {
    let direct = World::direct(user('A'), user('B'));
    let group = start();
    let record = by_owner(next(&group, &server(&group), |_| {}));
    let mut held = Server::new(&direct);
    assert!(refused(&mut held, &record));
    let homes: Vec<ServerId> = server(&group).authority.homes().collect();
    assert_eq!(homes.len(), 5);
}
