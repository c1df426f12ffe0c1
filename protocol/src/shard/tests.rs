//! A shard with a store in memory: what it says, and when.

mod sight;

use std::{cell::RefCell, collections::BTreeMap};

use super::*;
use crate::{
    event::{Act, Content, Event},
    ids::{EventId, Nonce, Salt},
    replication::{RecordsNeed, RecordsOf, Ticket},
    root::{Genesis, Root},
};

mod stewards;
mod withheld;

const T0: Timestamp = Timestamp(1_800_000_000_000);

fn server(n: u8) -> ServerId {
    ServerId::from_bytes([n; 32])
}

fn server_key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn owner() -> (UserId, SecretKey) {
    (UserId::from_bytes([7; 32]), SecretKey::from_seed([7; 32]))
}

/// The key by which home 1 speaks for the owner.
fn speaks_for_owner() -> SecretKey {
    SecretKey::from_seed([70; 32])
}

fn genesis(home: u8) -> Genesis {
    let root = Root {
        v: 1,
        n: 0,
        prev: None,
        owner: owner().0,
        home: server(home),
        stewards: vec![server(home)],
        frontier: vec![],
        digest: None,
        nonce: Nonce::from_bytes([1; 16]),
        created_at: T0,
    };
    Genesis::sign(root, &owner().1)
}

fn message(n: u8) -> (SignedEvent, Option<SealedContent>) {
    let (author, key) = owner();
    let content = Content::text(Salt::from_bytes([n; 16]), "hello");
    let sealed = SealedContent::seal(&content).unwrap();
    let event = Event {
        conversation: genesis(1).conversation(),
        author,
        device: key.public(),
        nonce: Nonce::from_bytes([n; 16]),
        claims: Role::Member,
        act: Act::Message {
            content: sealed.reference(),
        },
        sent_at: T0,
    };
    (event.sign(&key), Some(sealed))
}

/// What was stored.
#[derive(Default)]
struct Disk {
    me: u8,
    known: bool,
    commits: RefCell<Vec<(crate::commit::SignedCommit, Vec<SignedEvent>)>>,
    bundles: RefCell<BTreeMap<CommitId, ForPeers>>,
    own_end: Option<u64>,
    /// Peers by the members' rows.
    homes: Vec<u8>,
    reads: RefCell<usize>,
    no_logs: bool,
    /// Events whose contents are erased.
    gone: RefCell<BTreeSet<EventId>>,
}

impl Store for Disk {
    fn read(&self, _: &ConversationId) -> Result<Option<Stored>, WireError> {
        *self.reads.borrow_mut() += 1;
        if !self.known {
            return Ok(None);
        }
        let mut machine = Conversation::group(&genesis(1), server(self.me), 1);
        for (commit, events) in self.commits.borrow().iter() {
            machine.restore(commit, events).unwrap();
        }
        let home = |n: &u8| (UserId::from_bytes([*n; 32]), server(*n));
        Ok(Some(Stored {
            machine,
            members: self.homes.iter().map(home).collect(),
            acked: BTreeMap::new(),
            own_end: self.own_end,
            steward: None,
            due: Due::default(),
        }))
    }

    fn bundle(&self, _: &ConversationId, commit: &CommitId, _: bool) -> Option<ForPeers> {
        self.bundles.borrow().get(commit).cloned()
    }

    fn had_device(&self, _: &UserId, device: &DeviceKey) -> Option<bool> {
        (!self.no_logs).then(|| *device == owner().1.public())
    }

    fn had_home_key(&self, _: &UserId, key: &PublicKey) -> Option<bool> {
        Some(*key == speaks_for_owner().public())
    }

    fn home_key(&self, user: &UserId) -> Option<SecretKey> {
        (self.me == 1 && *user == owner().0).then(speaks_for_owner)
    }

    fn withheld(&self, _: &ConversationId, _: &Span, _: usize) -> Vec<Place> {
        Vec::new()
    }

    fn holds(&self, event: &EventId) -> bool {
        !self.gone.borrow().contains(event)
    }

    fn key_of(&self, origin: &ServerId, _: u64) -> Option<PublicKey> {
        (1..3)
            .find(|n| server(*n) == *origin)
            .map(|n| server_key(n).public())
    }

    fn unreached_ms(&self, _: &ServerId) -> u64 {
        0
    }

    fn cannot_store(&self) -> Option<WireError> {
        None
    }
}

impl Disk {
    fn keep(&self, submission: &Submission) {
        if let What::Commit { taken, .. } = &submission.what {
            let events = taken.events.iter().map(|e| e.event.clone()).collect();
            let bundle = (taken.commit.id(), taken.to_bundle());
            self.bundles.borrow_mut().extend([bundle]);
            self.commits
                .borrow_mut()
                .push((taken.commit.clone(), events));
        }
    }
}

fn shard(n: u8) -> Shard {
    Shard::new(server(n), 1, server_key(n), [n; 32])
}

/// Takes out what is to be stored.
fn submissions(out: &mut Vec<Output>) -> Vec<Submission> {
    let (mut found, mut rest) = (Vec::new(), Vec::new());
    for output in std::mem::take(out) {
        match output {
            Output::Store(submission) => found.push(*submission),
            other => rest.push(other),
        }
    }
    *out = rest;
    found
}

fn accepted(out: &[Output]) -> Vec<(ReplyTo, Result<EventId, Code>)> {
    let of = |output: &Output| match output {
        Output::Accepted(to, Ok(accepted)) => Some((*to, Ok(accepted.event))),
        Output::Accepted(to, Err(error)) => Some((*to, Err(error.code))),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

fn judged(out: &[Output]) -> Vec<(Verdict, bool)> {
    let of = |output: &Output| match output {
        Output::Judged(_, judged) => Some((judged.verdict, judged.again)),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

fn known(homes: &[u8]) -> Disk {
    Disk {
        me: 1,
        known: true,
        homes: homes.to_vec(),
        ..Disk::default()
    }
}

#[test]
fn nobody_is_told_of_a_conversation_before_it_is_durable() {
    let (mut shard, mut out) = (shard(1), Vec::new());
    let disk = Disk::default();
    let new = NewConversation::Group(Box::new(genesis(1)));
    shard.create(&new, Some(ReplyTo(1)), &disk, &mut out);
    shard.create(&new, Some(ReplyTo(2)), &disk, &mut out);
    let stored = submissions(&mut out);
    assert_eq!((stored.len(), out.len()), (1, 0));
    for submission in stored {
        shard.stored(submission.done, Ok(()), &mut out);
    }
    assert!(matches!(
        out[..],
        [
            Output::Created(ReplyTo(1), Ok(())),
            Output::Created(ReplyTo(2), Ok(()))
        ]
    ));
}

#[test]
fn a_retry_shares_the_answer_of_the_first_try_and_of_its_commit() {
    let (mut shard, disk, mut out) = (shard(1), known(&[1]), Vec::new());
    for reply in [1, 2] {
        let (event, content) = message(1);
        shard.send(T0, event, content, ReplyTo(reply), &disk, &mut out);
    }
    shard.commit(T0, &disk, &mut out);
    assert!(accepted(&out).is_empty());
    let stored = submissions(&mut out);
    assert_eq!(stored.len(), 1);
    for submission in stored {
        shard.stored(submission.done, Ok(()), &mut out);
    }
    let (event, content) = message(1);
    let id = event.id();
    shard.send(T0, event, content, ReplyTo(3), &disk, &mut out);
    let all = [1, 2, 3].map(|n| (ReplyTo(n), Ok(id)));
    assert_eq!(accepted(&out), all);
    assert!(submissions(&mut out).is_empty());
}

#[test]
fn what_failed_is_read_back_only_when_nothing_of_it_is_on_its_way() {
    let (mut shard, disk, mut out) = (shard(1), known(&[1, 2]), Vec::new());
    let mut peer = Conversation::group(&genesis(1), server(1), 1);
    let (event, content) = message(9);
    peer.submit(T0, event, content).unwrap();
    let foreign = peer.next_commit(T0, &server_key(1)).unwrap();
    let (event, content) = message(1);
    shard.send(T0, event, content, ReplyTo(1), &disk, &mut out);
    shard.commit(T0, &disk, &mut out);
    // A commit of its own that it does not know, as after damage: a second submission.
    let ticket = Ticket::Fetched {
        peer: server(2),
        session: 1,
        id: 1,
    };
    let bundle = foreign.to_bundle().0;
    shard.judge(T0, bundle.clone(), ticket, &disk, &mut out);
    let mut stored = submissions(&mut out);
    assert_eq!(stored.len(), 2);
    let full = || Err(WireError::new(Code::DiskFull, "full"));
    shard.stored(stored.remove(0).done, full(), &mut out);
    assert_eq!(accepted(&out), [(ReplyTo(1), Err(Code::DiskFull))]);
    assert_eq!(judged(&out), [(Verdict::Refused(Code::DiskFull), false)]);
    out.clear();
    let reads = *disk.reads.borrow();
    let (event, content) = message(2);
    shard.send(
        T0,
        event.clone(),
        content.clone(),
        ReplyTo(2),
        &disk,
        &mut out,
    );
    assert_eq!(accepted(&out), [(ReplyTo(2), Err(Code::Busy))]);
    assert_eq!(*disk.reads.borrow(), reads);
    shard.stored(stored.remove(0).done, full(), &mut out);
    shard.send(T0, event, content, ReplyTo(3), &disk, &mut out);
    shard.commit(T0, &disk, &mut out);
    assert_eq!(*disk.reads.borrow(), reads + 1);
    assert_eq!(submissions(&mut out).len(), 1);
}

#[test]
fn an_item_that_waits_is_answered_again_once_it_is_durable() {
    let mut author = Conversation::group(&genesis(1), server(1), 1);
    let bundles: Vec<_> = (1..3)
        .map(|n| {
            let (event, content) = message(n);
            author.submit(T0, event, content).unwrap();
            let taken = author.next_commit(T0, &server_key(1)).unwrap();
            author.durable(&taken.commit.id());
            taken.to_bundle().0
        })
        .collect();
    let mut disk = known(&[1]);
    disk.me = 2;
    let (mut shard, mut out) = (shard(2), Vec::new());
    let ticket = |n| Ticket::Pushed {
        peer: server(1),
        session: 1,
        n,
    };
    shard.judge(T0, bundles[1].clone(), ticket(1), &disk, &mut out);
    assert_eq!(judged(&out), [(Verdict::Waiting, false)]);
    out.clear();
    shard.judge(T0, bundles[0].clone(), ticket(0), &disk, &mut out);
    let stored = submissions(&mut out);
    assert_eq!((stored.len(), judged(&out).len()), (2, 0));
    for submission in stored {
        disk.keep(&submission);
        shard.stored(submission.done, Ok(()), &mut out);
    }
    let stored = Verdict::Stored;
    assert_eq!(judged(&out), [(stored, false), (stored, true)]);
    out.clear();
    shard.judge(T0, bundles[1].clone(), ticket(2), &disk, &mut out);
    assert_eq!(judged(&out), [(stored, false)]);
}

#[test]
fn a_log_that_an_item_waits_for_is_asked_for_again() {
    let mut author = Conversation::group(&genesis(1), server(1), 1);
    let (event, content) = message(1);
    author.submit(T0, event, content).unwrap();
    let bundle = author.next_commit(T0, &server_key(1)).unwrap().to_bundle();
    let mut disk = known(&[1]);
    (disk.me, disk.no_logs) = (2, true);
    let (mut shard, mut out) = (shard(2), Vec::new());
    let ticket = Ticket::Pushed {
        peer: server(1),
        session: 1,
        n: 0,
    };
    shard.judge(T0, bundle.0, ticket, &disk, &mut out);
    out.clear();
    for _ in 0..ASK_AGAIN {
        shard.release(T0, &disk, &mut out);
    }
    let [Output::Judged(to, judged)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((*to, judged.verdict), (ticket, Verdict::Waiting));
    assert_eq!((judged.again, &judged.users[..]), (true, &[owner().0][..]));
}

#[test]
fn nothing_is_committed_on_an_own_chain_that_peers_may_hold_more_of() {
    let mut disk = known(&[1, 2]);
    disk.own_end = Some(3);
    let (mut shard, mut out) = (shard(1), Vec::new());
    let (event, content) = message(1);
    shard.send(
        T0,
        event.clone(),
        content.clone(),
        ReplyTo(1),
        &disk,
        &mut out,
    );
    assert_eq!(accepted(&out), [(ReplyTo(1), Err(Code::Busy))]);
    // Without peers nobody holds it.
    disk.homes = vec![1];
    let mut shard = Shard::new(server(1), 1, server_key(1), [1; 32]);
    shard.send(T0, event, content, ReplyTo(2), &disk, &mut out);
    shard.commit(T0, &disk, &mut out);
    assert_eq!(submissions(&mut out).len(), 1);
}

/// A grant by the owner, committed and stored.
fn grant(shard: &mut Shard, disk: &Disk, n: u8, out: &mut Vec<Output>) {
    let (author, key) = owner();
    let event = Event {
        conversation: genesis(1).conversation(),
        author,
        device: key.public(),
        nonce: Nonce::from_bytes([n; 16]),
        claims: Role::Owner,
        act: Act::Grant(crate::event::Grant {
            target: crate::event::Target::User {
                user: UserId::from_bytes([9; 32]),
                home: server(2),
            },
            role: Role::Admin,
            cut: vec![],
            ban: false,
            lifts: vec![],
        }),
        sent_at: T0,
    };
    shard.send(T0, event.sign(&key), None, ReplyTo(0), disk, out);
    shard.commit(T0, disk, out);
}

fn of(session: u64) -> RecordsOf {
    RecordsOf {
        peer: server(2),
        session,
        conversation: genesis(1).conversation(),
    }
}

#[test]
fn who_moved_away_is_told_of_it_and_of_nothing_after() {
    let machine = Conversation::group(&genesis(1), server(1), 1);
    let user = owner().0;
    let mut open = Open::new(machine, vec![user], BTreeSet::new(), Opening(1));
    let at = |home| RoleChange {
        user,
        role: Role::Owner,
        home: server(home),
    };
    assert_eq!(*open.roles(&server(1), &[at(2)]), [user]);
    assert!(open.roles(&server(1), &[]).is_empty());
    assert_eq!(*open.roles(&server(1), &[at(1)]), [user]);
    assert_eq!(*open.roles(&server(1), &[]), [user]);
}

#[test]
fn a_checkpoint_is_made_once_it_is_due_and_told_once_it_is_durable() {
    let (mut shard, disk, mut out) = (shard(1), known(&[1]), Vec::new());
    grant(&mut shard, &disk, 1, &mut out);
    for submission in submissions(&mut out) {
        shard.stored(submission.done, Ok(()), &mut out);
    }
    shard.tend(T0, &disk, &mut out);
    assert!(submissions(&mut out).is_empty(), "not due");
    let day = T0.plus_ms(crate::limits::CHECKPOINT_MS);
    shard.tend(day, &disk, &mut out);
    let made = submissions(&mut out);
    let [
        Submission {
            what: What::Record { taken, newest, .. },
            committed: Some(Committed::Record { raw, .. }),
            ..
        },
    ] = &made[..]
    else {
        panic!("{made:?}");
    };
    assert_eq!((taken.record, newest.n, taken.stands), (*newest, 1, true));
    assert_eq!(*raw, taken.raw);
    shard.tend(day, &disk, &mut out);
    assert!(submissions(&mut out).is_empty(), "made already");
    // The peer that takes part now gets it, another does not.
    assert_eq!(shard.serve_records(&of(1), 1, &disk), vec![raw.clone()]);
    assert!(shard.serve_records(&of(1), 2, &disk).is_empty());
    let stranger = RecordsOf {
        peer: server(5),
        ..of(1)
    };
    assert!(shard.serve_records(&stranger, 1, &disk).is_empty());
}

#[test]
fn a_record_of_a_peer_waits_for_commits_and_releases_what_waited_for_it() {
    let (mut owners, disk, mut out) = (shard(1), known(&[1]), Vec::new());
    grant(&mut owners, &disk, 1, &mut out);
    let mut bundles = Vec::new();
    let mut settle = |shard: &mut Shard, out: &mut Vec<Output>| {
        let mut records = Vec::new();
        for submission in submissions(out) {
            match &submission.what {
                What::Commit { taken, .. } => bundles.push(taken.to_bundle().0),
                What::Record { taken, .. } => records.push(taken.raw.clone()),
                What::Conversation { .. } | What::Steward(_) => {}
                What::Expired(_) | What::Contents(_) => {}
            }
            shard.stored(submission.done, Ok(()), out);
        }
        records
    };
    settle(&mut owners, &mut out);
    let day = T0.plus_ms(crate::limits::CHECKPOINT_MS);
    owners.tend(day, &disk, &mut out);
    let records = settle(&mut owners, &mut out);
    let (event, content) = message(2);
    owners.send(day, event, content, ReplyTo(1), &disk, &mut out);
    owners.commit(day, &disk, &mut out);
    settle(&mut owners, &mut out);
    let [first, second] = &bundles[..] else {
        panic!("{bundles:?}");
    };

    let (mut other, mut out) = (shard(2), Vec::new());
    let disk = Disk {
        me: 2,
        ..known(&[1, 2])
    };
    other.records(day, of(1), records.clone(), &disk, &mut out);
    let needs = |out: &mut Vec<Output>| {
        let need = out.iter().find_map(|o| match o {
            Output::RecordsTaken(_, need) => Some(need.clone()),
            _ => None,
        });
        out.clear();
        need.unwrap()
    };
    let need = needs(&mut out);
    assert_eq!((need.missing.len(), need.from, need.refused), (1, None, 0));
    let ticket = |id| Ticket::Fetched {
        peer: server(1),
        session: 1,
        id,
    };
    // The commit that names the record comes before what the record waits for.
    other.judge(day, second.clone(), ticket(1), &disk, &mut out);
    let waits = out.iter().find_map(|o| match o {
        Output::Judged(_, judged) => Some((judged.verdict, judged.records)),
        _ => None,
    });
    let from = Some((genesis(1).conversation(), 1));
    assert_eq!(waits, Some((Verdict::Waiting, from)));
    out.clear();
    other.judge(day, first.clone(), ticket(2), &disk, &mut out);
    let kinds: Vec<&str> = submissions(&mut out)
        .iter()
        .map(|submission| match submission.what {
            What::Conversation { .. } => "conversation",
            What::Record { .. } => "record",
            What::Expired(_) => "expired",
            What::Contents(_) => "contents",
            What::Commit { .. } => "commit",
            What::Steward(_) => "steward",
        })
        .collect();
    assert_eq!(kinds, ["commit", "record", "commit"], "what was waited for");
    // The same again, and one that follows nothing held.
    other.records(day, of(1), records, &disk, &mut out);
    assert_eq!(needs(&mut out), RecordsNeed::default());
}

/// Makes everything durable that is to be stored. Gives the events of own commits, in order.
fn store_all(shard: &mut Shard, disk: &Disk, out: &mut Vec<Output>) -> Vec<(u64, Vec<EventId>)> {
    let mut stored = Vec::new();
    for submission in submissions(out) {
        disk.keep(&submission);
        if let What::Commit { taken, .. } = &submission.what {
            let commit = taken.commit.commit();
            if commit.origin == shard.me {
                stored.push((commit.epoch, commit.events.clone()));
            }
        }
        shard.stored(submission.done, Ok(()), out);
    }
    stored
}

#[test]
fn what_the_own_chain_lost_is_read_from_the_store_and_committed_again_before_anything_new() {
    let (mut shard, disk, mut out) = (shard(1), known(&[1, 2]), Vec::new());
    let (event, content) = message(1);
    shard.send(T0, event, content, ReplyTo(1), &disk, &mut out);
    shard.commit(T0, &disk, &mut out);
    let first = store_all(&mut shard, &disk, &mut out);
    // What this home had done before a backup was restored, from a peer.
    let mut before = Conversation::group(&genesis(1), server(1), 1);
    let (event, content) = message(2);
    before.submit(T0, event, content).unwrap();
    let other = before.next_commit(T0.plus_ms(5), &server_key(1)).unwrap();
    let ticket = Ticket::Fetched {
        peer: server(2),
        session: 1,
        id: 1,
    };
    let bundle = other.to_bundle().0;
    shard.judge(T0, bundle, ticket, &disk, &mut out);
    let second = store_all(&mut shard, &disk, &mut out);
    let (event, content) = message(3);
    shard.send(T0, event.clone(), content, ReplyTo(3), &disk, &mut out);
    shard.commit(T0, &disk, &mut out);
    assert!(submissions(&mut out).is_empty(), "more may be on its way");
    let later = T0.plus_ms(crate::limits::AGAIN_WAIT_MS);
    shard.release(later, &disk, &mut out);
    shard.commit(later, &disk, &mut out);
    let again = store_all(&mut shard, &disk, &mut out);
    shard.commit(later, &disk, &mut out);
    let new = store_all(&mut shard, &disk, &mut out);
    let lost = if shard_stands(&shard, &first[0].1[0]) {
        &second
    } else {
        &first
    };
    assert_eq!(again, [(2, lost[0].1.clone())]);
    assert_eq!(new, [(2, vec![event.id()])]);
    shard.commit(later, &disk, &mut out);
    assert!(submissions(&mut out).is_empty() && shard.is_at_rest());
}

/// Whether the first commit with an event stands.
fn shard_stands(shard: &Shard, event: &EventId) -> bool {
    let machine = shard.conversation(&genesis(1).conversation()).unwrap();
    let graph = machine.graph();
    let first = graph.find_event(event).min_by_key(|at| graph.place(*at));
    graph.is_standing(first.unwrap().node)
}

#[test]
fn contents_whose_days_are_over_are_erased_batch_by_batch_and_one_batch_at_a_time() {
    let (mut shard, disk, mut out) = (shard(1), known(&[1]), Vec::new());
    let settle = |shard: &mut Shard, out: &mut Vec<Output>| {
        let made = submissions(out);
        for submission in &made {
            shard.stored(submission.done.clone(), Ok(()), out);
        }
        made
    };
    let (author, key) = owner();
    let policy = Event {
        conversation: genesis(1).conversation(),
        author,
        device: key.public(),
        nonce: Nonce::from_bytes([0xee; 16]),
        claims: Role::Owner,
        act: Act::Policy {
            field: crate::event::Field::KeepDays,
            value: 1,
        },
        sent_at: T0,
    };
    let mut said = 150;
    for n in 0..said {
        let (event, content) = message(n);
        shard.send(T0, event, content, ReplyTo(u64::from(n)), &disk, &mut out);
    }
    shard.send(T0, policy.sign(&key), None, ReplyTo(999), &disk, &mut out);
    shard.commit(T0, &disk, &mut out);
    settle(&mut shard, &mut out);
    let late = T0.plus_ms(2 * crate::limits::DAY_MS);
    assert!(shard.retention_due(late) && !shard.retention_due(late));
    shard.retain_in([genesis(1).conversation()]);
    shard.retain(late, &disk, &mut out);
    assert!(
        submissions(&mut out).is_empty(),
        "the policy is not settled"
    );
    // The checkpoint that settles it has the conversation looked at.
    shard.tend(late, &disk, &mut out);
    settle(&mut shard, &mut out);
    while said > 0 {
        shard.retain(late, &disk, &mut out);
        let made = submissions(&mut out);
        let [
            Submission {
                what: What::Expired(expired),
                committed: None,
                done,
                ..
            },
        ] = &made[..]
        else {
            panic!("{made:?}");
        };
        assert!(expired.len() <= crate::limits::RETENTION_BATCH);
        said -= u8::try_from(expired.len()).unwrap();
        shard.retain(late, &disk, &mut out);
        assert!(submissions(&mut out).is_empty(), "one is on its way");
        disk.gone
            .borrow_mut()
            .extend(expired.iter().map(|e| e.event));
        shard.stored(done.clone(), Ok(()), &mut out);
    }
    for _ in 0..3 {
        shard.retain(late, &disk, &mut out);
        assert!(submissions(&mut out).is_empty(), "all of them are gone");
    }
}
