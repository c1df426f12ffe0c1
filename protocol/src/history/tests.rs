use super::*;
use crate::{
    commit::{AuthorityChange, Commit, RawCommit, SignedCommit, UnverifiedCommit},
    event::Tip,
    ids::{Blob, CommitId, ConversationId, EventId, ServerId, Signature},
    limits::AHEAD_PARENT_MS,
    time::{Hlc, Timestamp},
};

const NOW: Timestamp = Timestamp(1_000_000);

fn home(name: u8) -> ServerId {
    ServerId::from_bytes([name; 32])
}

fn conversation() -> ConversationId {
    ConversationId::from_bytes([1; 32])
}

fn sign(commit: &Commit) -> SignedCommit {
    let raw = RawCommit {
        commit: Blob(commit.to_bytes()),
        signature: Signature::from_bytes([0; 64]),
    };
    UnverifiedCommit::decode(raw).unwrap().trusted()
}

fn event(number: u64) -> EventId {
    EventId::from_bytes(*blake3::hash(&number.to_be_bytes()).as_bytes())
}

/// A commit after `prev` that names `tips` and `parents`.
fn commit(
    of: u8,
    prev: Option<&SignedCommit>,
    number: u64,
    tips: &[&SignedCommit],
    parents: &[&SignedCommit],
) -> Commit {
    let mut tips: Vec<Tip> = tips.iter().map(|c| c.tip()).collect();
    tips.sort_unstable();
    let mut parents: Vec<CommitId> = parents.iter().map(|c| c.id()).collect();
    parents.sort_unstable();
    let change = AuthorityChange { tips, root: None };
    let last = prev.map_or(Hlc::default(), |p| p.commit().hlc);
    Commit {
        v: 1,
        conversation: conversation(),
        origin: home(of),
        epoch: 0,
        seq: prev.map_or(0, |p| p.commit().seq + 1),
        prev: prev.map(SignedCommit::id),
        hlc: last.next(Timestamp(number)),
        parents,
        authority: (prev.is_none() || !change.tips.is_empty()).then_some(change),
        events: vec![event(number)],
    }
}

fn plain(of: u8, prev: Option<&SignedCommit>, number: u64) -> SignedCommit {
    sign(&commit(of, prev, number, &[], &[]))
}

fn taken(graph: &mut Graph, commit: &SignedCommit) -> NodeIx {
    match graph.insert(commit) {
        Inserted::New(ix) => ix,
        other => panic!("{other:?}"),
    }
}

#[test]
fn commit_waits_for_prev_and_authority_and_not_for_parents() {
    let mut graph = Graph::new(conversation());
    let a = plain(1, None, 1);
    let p = plain(3, None, 2);
    let b = sign(&commit(2, None, 3, &[&a], &[&p]));
    let c = plain(2, Some(&b), 4);
    assert_eq!(graph.insert(&b), Inserted::Missing(vec![a.id()]));
    assert_eq!(graph.insert(&c), Inserted::Missing(vec![b.id()]));
    let at_a = taken(&mut graph, &a);
    let (at_b, at_c) = (taken(&mut graph, &b), taken(&mut graph, &c));
    assert_eq!(graph.insert(&b), Inserted::Duplicate(at_b));
    assert!(graph.in_past(at_a, at_c) && graph.in_past(at_b, at_c) && !graph.in_past(at_c, at_b));
    assert!(!graph.causally_whole(at_b) && !graph.causally_whole(at_c));
    assert!(graph.unheld_parents().eq([p.id()]));
    let at_p = taken(&mut graph, &p);
    assert!(graph.causally_whole(at_b) && graph.causally_whole(at_c));
    assert!(graph.causally_before(at_p, at_c) && !graph.in_past(at_p, at_c));
    assert_eq!(graph.unheld_parents().count(), 0);
}

#[test]
fn commit_that_breaks_a_rule_of_chains_is_a_verdict() {
    let mut graph = Graph::new(conversation());
    let a = plain(1, None, 10);
    let other = plain(2, None, 10);
    taken(&mut graph, &a);
    taken(&mut graph, &other);
    let next = || commit(1, Some(&a), 20, &[], &[]);
    let refused = |graph: &mut Graph, commit: Commit| match graph.insert(&sign(&commit)) {
        Inserted::Invalid(invalid) => invalid,
        other => panic!("{other:?}"),
    };
    let conversation = ConversationId::from_bytes([2; 32]);
    assert_eq!(
        refused(
            &mut graph,
            Commit {
                conversation,
                ..next()
            }
        ),
        Invalid::Conversation
    );
    assert_eq!(
        refused(
            &mut graph,
            Commit {
                origin: home(2),
                ..next()
            }
        ),
        Invalid::Home
    );
    assert_eq!(
        refused(&mut graph, Commit { seq: 2, ..next() }),
        Invalid::Seq
    );
    assert_eq!(
        refused(
            &mut graph,
            Commit {
                hlc: a.commit().hlc,
                ..next()
            }
        ),
        Invalid::Clock
    );
    let risen = sign(&Commit { epoch: 3, ..next() });
    taken(&mut graph, &risen);
    let falls = commit(1, Some(&risen), 30, &[], &[]);
    assert_eq!(refused(&mut graph, falls), Invalid::Epoch);
    let names = |tip: Tip| Commit {
        authority: Some(AuthorityChange {
            tips: vec![tip],
            root: None,
        }),
        ..commit(2, Some(&other), 20, &[], &[])
    };
    let tip = risen.tip();
    for wrong in [
        Tip { seq: 0, ..tip },
        Tip { epoch: 0, ..tip },
        Tip {
            home: home(2),
            ..tip
        },
    ] {
        assert_eq!(refused(&mut graph, names(wrong)), Invalid::Tip);
    }
    let seen = sign(&names(tip));
    taken(&mut graph, &seen);
    let again = Commit {
        authority: Some(AuthorityChange {
            tips: vec![a.tip()],
            root: None,
        }),
        ..commit(2, Some(&seen), 30, &[], &[])
    };
    assert_eq!(refused(&mut graph, again), Invalid::Frontier);
}

#[test]
fn fork_is_decided_by_epoch_then_id_whatever_arrives_first() {
    let root = plain(1, None, 1);
    let mut rivals: Vec<SignedCommit> = (2..6).map(|n| plain(1, Some(&root), n)).collect();
    rivals.sort_by_key(SignedCommit::id);
    let later = sign(&Commit {
        epoch: 1,
        ..commit(1, Some(&root), 9, &[], &[])
    });
    let on_last = plain(1, Some(&rivals[3]), 50);
    for turn in 0..4 {
        let mut graph = Graph::new(conversation());
        taken(&mut graph, &root);
        let mut order = rivals.clone();
        order.rotate_left(turn);
        for rival in &order {
            assert!(matches!(graph.insert_named(rival), Inserted::New(_)));
        }
        taken(&mut graph, &on_last);
        let standing = |graph: &Graph| graph.node(graph.standing_tip(&home(1)).unwrap()).id();
        assert_eq!(standing(&graph), rivals[0].id());
        assert_eq!(graph.frontier(), {
            let mut tips = vec![rivals[0].tip(), rivals[1].tip()];
            tips.sort_unstable();
            tips
        });
        let fork = graph.forks().next().unwrap();
        assert_eq!((fork.stands, fork.loses), (rivals[0].id(), rivals[1].id()));
        let at = taken(&mut graph, &later);
        assert_eq!(standing(&graph), later.id());
        assert_eq!(graph.fork_at(at).unwrap().stands, later.id());
        assert!(!graph.is_standing(graph.ix(&on_last.id()).unwrap()));
    }
}

#[test]
fn third_branch_is_taken_only_if_it_stands_or_others_built_on_it() {
    let mut rivals: Vec<SignedCommit> = (2..8).map(|n| plain(1, None, n)).collect();
    rivals.sort_by_key(SignedCommit::id);
    let mut graph = Graph::new(conversation());
    taken(&mut graph, &rivals[2]);
    taken(&mut graph, &rivals[3]);
    assert_eq!(graph.insert(&rivals[4]), Inserted::Surplus);
    let child = plain(1, Some(&rivals[4]), 20);
    assert_eq!(
        graph.insert(&child),
        Inserted::Missing(vec![rivals[4].id()])
    );
    assert!(matches!(graph.insert_named(&rivals[4]), Inserted::New(_)));
    taken(&mut graph, &rivals[0]);
    assert_eq!(graph.standing_tip(&home(1)), graph.ix(&rivals[0].id()));
}

#[test]
fn branches_of_one_home_are_bounded_but_the_standing_one_is_always_taken() {
    let mut graph = Graph::new(conversation());
    let mut chain = vec![plain(1, None, 1)];
    for n in 1..200 {
        chain.push(plain(1, chain.last(), n * 10));
    }
    for c in &chain {
        taken(&mut graph, c);
    }
    let mut refused = 0;
    for (n, prev) in (3_000..).zip(&chain) {
        // On a losing or on a winning branch: both count.
        match graph.insert(&plain(1, Some(prev), n)) {
            Inserted::Surplus => refused += 1,
            Inserted::New(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0);
    let best = sign(&Commit {
        epoch: 9,
        ..commit(1, None, 5_000, &[], &[])
    });
    taken(&mut graph, &best);
    assert_eq!(
        graph
            .frontier()
            .iter()
            .filter(|t| t.id == best.id())
            .count(),
        1
    );
}

#[test]
fn chains_are_walked_by_seq_across_branches() {
    let mut graph = Graph::new(conversation());
    let mut chain = vec![plain(1, None, 1)];
    for n in 2..=20 {
        chain.push(plain(1, chain.last(), n));
    }
    for c in &chain {
        taken(&mut graph, c);
    }
    let side = sign(&Commit {
        epoch: 1,
        ..commit(1, Some(&chain[9]), 100, &[], &[])
    });
    let tip = plain_in(1, &side, 101, 1);
    taken(&mut graph, &side);
    taken(&mut graph, &tip);
    let ids = |from, to| -> Vec<CommitId> {
        graph
            .range(&home(1), &tip.id(), from..=to)
            .map(|n| graph.node(n).id())
            .collect()
    };
    let expected = [chain[8].id(), chain[9].id(), side.id(), tip.id()];
    assert_eq!(ids(8, 99), expected);
    assert_eq!(ids(12, 99), []);
    assert_eq!(graph.range(&home(2), &tip.id(), 0..=9).count(), 0);
    let at = |c: &SignedCommit| graph.ix(&c.id()).unwrap();
    assert!(graph.on_chain(&tip.id(), at(&chain[9])) && graph.on_chain(&tip.id(), at(&tip)));
    assert!(!graph.on_chain(&tip.id(), at(&chain[10])));
    assert!(!graph.on_chain(&chain[9].id(), at(&side)));
    assert!(!graph.on_chain(&CommitId::from_bytes([0; 32]), at(&chain[0])));
}

fn plain_in(of: u8, prev: &SignedCommit, number: u64, epoch: u64) -> SignedCommit {
    sign(&Commit {
        epoch,
        ..commit(of, Some(prev), number, &[], &[])
    })
}

#[test]
fn two_histories_become_one_by_what_their_frontiers_say_is_missing() {
    let mut all = Vec::new();
    for of in 1..=3u8 {
        let mut last: Option<SignedCommit> = None;
        for n in 0..30 {
            let next = plain(of, last.as_ref(), n * 7 + u64::from(of));
            last = Some(next.clone());
            all.push(next);
        }
    }
    let fork = sign(&Commit {
        epoch: 2,
        ..commit(1, Some(&all[4]), 500, &[], &[])
    });
    let (mut x, mut y) = (Graph::new(conversation()), Graph::new(conversation()));
    for (i, c) in all.iter().enumerate() {
        let seq = i % 30;
        if i / 30 != 1 || seq < 10 {
            taken(&mut x, c);
        }
        if i / 30 != 2 && seq < 20 {
            taken(&mut y, c);
        }
    }
    taken(&mut y, &fork);
    let key = [7; 32];
    assert_ne!(x.fingerprint(&key), y.fingerprint(&key));
    let find = |id: CommitId| all.iter().chain([&fork]).find(|c| c.id() == id).unwrap();
    let fetch = |from: &Graph, to: &mut Graph| {
        let mut wanted = to.missing_from(&from.frontier());
        let mut rounds = 0;
        while let Some(span) = wanted.pop() {
            rounds += 1;
            assert!(rounds < 20);
            for node in from.range(&span.home, &span.tip, span.from..=span.to) {
                if let Inserted::Missing(ids) = to.insert(find(from.node(node).id())) {
                    let tip = from.node(from.ix(&ids[0]).unwrap());
                    let below = tip.seq().saturating_sub(64);
                    wanted.push(span);
                    wanted.push(Span {
                        tip: tip.id(),
                        from: below,
                        to: tip.seq(),
                        ..span
                    });
                    break;
                }
            }
        }
    };
    let offered: u64 = x
        .missing_at(&y.frontier())
        .iter()
        .map(|s| s.to - s.from + 1)
        .sum();
    // Home 1: 10 above y's 20; home 3: all 30; home 2, where y is ahead: the tip alone.
    assert_eq!(offered, 10 + 30 + 1);
    fetch(&y, &mut x);
    fetch(&x, &mut y);
    assert_eq!(x.frontier(), y.frontier());
    assert_eq!(x.fingerprint(&key), y.fingerprint(&key));
    assert_ne!(x.fingerprint(&key), x.fingerprint(&[8; 32]));
    assert!(x.missing_at(&y.frontier()).is_empty());
    assert!(y.missing_from(&x.frontier()).is_empty());
}

#[test]
fn parents_are_new_whole_and_not_far_ahead() {
    let mut graph = Graph::new(conversation());
    let own = plain(1, None, 1);
    let b = plain(2, None, NOW.0);
    let ahead = plain(2, Some(&b), NOW.0 + AHEAD_PARENT_MS + 1);
    let absent = plain(9, None, 5);
    let c = plain(3, None, 7);
    let unwhole = sign(&commit(3, Some(&c), 8, &[], &[&absent]));
    for commit in [&own, &b, &ahead, &c, &unwhole] {
        taken(&mut graph, commit);
    }
    let mut expected = vec![b.id(), c.id()];
    expected.sort_unstable();
    assert_eq!(graph.tips_for_parents(NOW, &home(1), 16), expected);
    assert_eq!(
        graph.tips_for_parents(NOW, &home(1), 1),
        [b.id()],
        "the newest"
    );
    let next = sign(&commit(1, Some(&own), NOW.0, &[], &[&b, &c]));
    taken(&mut graph, &next);
    assert_eq!(graph.tips_for_parents(NOW, &home(1), 16), []);
    let later = Timestamp(NOW.0 + 2);
    assert_eq!(graph.tips_for_parents(later, &home(1), 16), [ahead.id()]);
}

#[test]
fn appearances_of_an_event_are_found_and_ordered_by_place() {
    let mut graph = Graph::new(conversation());
    let a = plain(1, None, 50);
    let b = sign(&Commit {
        hlc: Hlc::new(Timestamp(9), 0),
        ..commit(2, None, 50, &[], &[])
    });
    let at = [taken(&mut graph, &a), taken(&mut graph, &b)];
    let found: Vec<NodeIx> = graph.find_event(&event(50)).map(|a| a.node).collect();
    assert_eq!(found, at);
    let first = graph
        .find_event(&event(50))
        .min_by_key(|a| graph.place(*a))
        .unwrap();
    assert_eq!(first.node, at[1]);
    assert_eq!(graph.find_event(&event(51)).count(), 0);
}

/// A commit, what its past begins with, and what its causal past does.
type Drawn = (SignedCommit, Vec<usize>, Vec<usize>);

/// Random histories: pasts and causal pasts equal those found by walking.
#[test]
fn vectors_hold_exactly_what_walking_finds() {
    for seed in 1..40u64 {
        let mut state = seed;
        let mut random = move |n: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % n.max(1)
        };
        let mut made: Vec<Drawn> = Vec::new();
        for n in 0..300u64 {
            let of = u8::try_from(random(4)).unwrap();
            let own: Vec<usize> = (0..made.len())
                .filter(|i| made[*i].0.commit().origin == home(of))
                .collect();
            let prev = if own.is_empty() || random(40) == 0 {
                None
            } else if random(15) == 0 {
                Some(own[random(own.len())])
            } else {
                own.last().copied()
            };
            let past = |from: &[usize], made: &[Drawn]| {
                let mut found = vec![false; made.len()];
                let mut stack = from.to_vec();
                while let Some(i) = stack.pop() {
                    if !std::mem::replace(&mut found[i], true) {
                        stack.extend(&made[i].1);
                    }
                }
                found
            };
            let known = past(&prev.into_iter().collect::<Vec<_>>(), &made);
            let mut tips = Vec::new();
            if !made.is_empty() && random(5) == 0 {
                let tip = random(made.len());
                if !known[tip] {
                    tips.push(tip);
                }
            }
            let parents: Vec<usize> = (0..random(3))
                .filter(|_| !made.is_empty())
                .map(|_| random(made.len()))
                .collect();
            let tip_commits: Vec<&SignedCommit> = tips.iter().map(|i| &made[*i].0).collect();
            let mut parent_ids: Vec<usize> = parents.clone();
            parent_ids.sort_unstable();
            parent_ids.dedup();
            let parent_commits: Vec<&SignedCommit> =
                parent_ids.iter().map(|i| &made[*i].0).collect();
            let c = commit(
                of,
                prev.map(|p| &made[p].0),
                n + 1,
                &tip_commits,
                &parent_commits,
            );
            let signed = sign(&c);
            let named: Vec<usize> = prev.into_iter().chain(tips).collect();
            let causal = named.iter().copied().chain(parent_ids).collect();
            made.push((signed, named, causal));
        }
        // Parents do not hold anything up, so they may come much later.
        let mut graph = Graph::new(conversation());
        let mut left: Vec<usize> = (0..made.len()).collect();
        let mut at = vec![NodeIx(0); made.len()];
        while !left.is_empty() {
            let i = left[random(left.len().min(40))];
            if let Inserted::New(ix) = graph.insert_named(&made[i].0) {
                at[i] = ix;
                left.retain(|j| *j != i);
            }
        }
        for y in (0..made.len()).step_by(7) {
            assert!(graph.causally_whole(at[y]));
            let walk = |edges: fn(&Drawn) -> &Vec<usize>| {
                let mut found = vec![false; made.len()];
                let mut stack = edges(&made[y]).clone();
                while let Some(i) = stack.pop() {
                    if !std::mem::replace(&mut found[i], true) {
                        stack.extend(edges(&made[i]));
                    }
                }
                found
            };
            let (past, causal) = (walk(|m| &m.1), walk(|m| &m.2));
            let vector = graph.causal_past(at[y]);
            for x in 0..made.len() {
                assert_eq!(graph.in_past(at[x], at[y]), past[x], "SEED={seed} {x} {y}");
                assert_eq!(
                    vector.holds(&graph, at[x]),
                    causal[x],
                    "SEED={seed} {x} {y}"
                );
            }
        }
    }
}
