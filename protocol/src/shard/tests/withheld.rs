//! Servers that come to have what they were not given at first.

use super::*;
use crate::{
    authority::Span,
    commit::SignedCommit,
    conversation::Slot,
    event::{Field, Grant, Target},
    link::{Bundle, ContentSlot, Range},
    replication::PeerWant,
};

fn user(n: u8) -> (UserId, SecretKey) {
    match n {
        1 => owner(),
        n => (UserId::from_bytes([n; 32]), SecretKey::from_seed([n; 32])),
    }
}

fn room() -> ConversationId {
    genesis(1).conversation()
}

/// What one server stored.
struct Log {
    me: u8,
    commits: RefCell<Vec<(SignedCommit, Vec<SignedEvent>)>>,
    bundles: RefCell<BTreeMap<CommitId, ForPeers>>,
    full: RefCell<bool>,
}

impl Log {
    /// Where contents are, by place.
    fn slots(&self) -> BTreeMap<Place, (EventId, ContentSlot)> {
        let mut slots = BTreeMap::new();
        for (commit, events) in self.commits.borrow().iter() {
            let (bundle, _) = self.bundles.borrow()[&commit.id()].clone();
            let mut contents = bundle.contents.into_iter();
            for (index, event) in (0u16..).zip(events) {
                if event.event().act.content().is_some() {
                    let place = Place {
                        hlc: commit.commit().hlc,
                        commit: commit.id(),
                        index,
                    };
                    slots.insert(place, (event.id(), contents.next().unwrap()));
                }
            }
        }
        slots
    }

    fn keep(&self, what: &What) {
        match what {
            What::Commit { taken, .. } => {
                let events = taken.events.iter().map(|e| e.event.clone()).collect();
                let bundle = (taken.commit.id(), taken.to_bundle());
                self.bundles.borrow_mut().extend([bundle]);
                let mut commits = self.commits.borrow_mut();
                commits.push((taken.commit.clone(), events));
            }
            What::Contents(came) => {
                for came in came {
                    let slots = self.slots();
                    let (place, (_, held)) = slots
                        .iter()
                        .find(|(_, (event, _))| *event == came.event)
                        .unwrap();
                    assert_eq!(*held, ContentSlot::Withheld, "it was held already");
                    let nth = slots
                        .range(..place)
                        .filter(|(p, _)| p.commit == place.commit);
                    let nth = nth.count();
                    let mut bundles = self.bundles.borrow_mut();
                    let (bundle, _) = bundles.get_mut(&place.commit).unwrap();
                    bundle.contents[nth] = match &came.slot {
                        Slot::Held(content) => {
                            ContentSlot::Held(crate::ids::Blob(content.bytes().to_vec()))
                        }
                        Slot::Gone | Slot::Expired => ContentSlot::Gone,
                        other => panic!("{other:?}"),
                    };
                }
            }
            _ => {}
        }
    }
}

impl Store for Log {
    fn read(&self, _: &ConversationId) -> Result<Option<Stored>, WireError> {
        let mut machine = Conversation::group(&genesis(1), server(self.me), 1);
        for (commit, events) in self.commits.borrow().iter() {
            machine.restore(commit, events).unwrap();
        }
        let members = machine.authority().members();
        let members = members.map(|member| (member.user, member.home.unwrap()));
        Ok(Some(Stored {
            members: members.collect(),
            machine,
            acked: BTreeMap::new(),
            own_end: None,
            steward: None,
            due: Due::default(),
        }))
    }

    fn bundle(&self, _: &ConversationId, commit: &CommitId, contents: bool) -> Option<ForPeers> {
        let (mut bundle, users) = self.bundles.borrow().get(commit).cloned()?;
        if !contents {
            bundle.contents.fill(ContentSlot::Withheld);
        }
        Some((bundle, users))
    }

    fn had_device(&self, of: &UserId, device: &DeviceKey) -> Option<bool> {
        let mut users = (1..=9).map(user);
        Some(users.any(|(user, key)| user == *of && key.public() == *device))
    }

    fn had_home_key(&self, _: &UserId, _: &PublicKey) -> Option<bool> {
        Some(false)
    }

    fn home_key(&self, _: &UserId) -> Option<SecretKey> {
        None
    }

    fn key_of(&self, origin: &ServerId, _: u64) -> Option<PublicKey> {
        (1..=9)
            .find(|n| server(*n) == *origin)
            .map(|n| server_key(n).public())
    }

    fn holds(&self, _: &EventId) -> bool {
        false
    }

    fn withheld(&self, _: &ConversationId, within: &Span, limit: usize) -> Vec<Place> {
        let slots = self.slots().into_iter();
        let withheld = slots.filter(|(_, (_, slot))| *slot == ContentSlot::Withheld);
        let places = withheld.map(|(place, _)| place);
        places.filter(|p| within.holds(*p)).take(limit).collect()
    }

    fn unreached_ms(&self, _: &ServerId) -> u64 {
        0
    }

    fn cannot_store(&self) -> Option<WireError> {
        let full = WireError::new(Code::DiskFull, "full");
        self.full.borrow().then_some(full)
    }
}

/// Servers whose users are in one group; the owner is at server 1.
struct Net {
    now: Timestamp,
    shards: Vec<(Shard, Log)>,
    nonce: u8,
    /// Servers that answer nothing.
    mute: BTreeSet<u8>,
    /// Who was asked for which commits, by seq of their chain.
    asked: Vec<(u8, u8, u64, u64)>,
}

impl Net {
    fn new(count: u8) -> Self {
        let log = |me| Log {
            me,
            commits: RefCell::default(),
            bundles: RefCell::default(),
            full: RefCell::default(),
        };
        Self {
            now: T0,
            shards: (1..=count).map(|n| (shard(n), log(n))).collect(),
            nonce: 0,
            mute: BTreeSet::new(),
            asked: Vec::new(),
        }
    }

    /// Gives a shard something to do, and does what it says.
    fn with<T>(&mut self, n: u8, f: impl FnOnce(&mut Shard, &Log, &mut Vec<Output>) -> T) -> T {
        let (shard, log) = &mut self.shards[usize::from(n) - 1];
        let mut out = Vec::new();
        let given = f(shard, log, &mut out);
        let mut asks = Vec::new();
        while !out.is_empty() || !shard.is_at_rest() {
            if out.is_empty() {
                shard.commit(self.now, log, &mut out);
            }
            for output in std::mem::take(&mut out) {
                match output {
                    Output::Store(submission) => {
                        log.keep(&submission.what);
                        shard.stored(submission.done, Ok(()), &mut out);
                    }
                    Output::Accepted(_, result) => drop(result.unwrap()),
                    Output::Refused(_, why) => panic!("{why}"),
                    Output::Ask(peer, range) => asks.push((peer, range)),
                    _ => {}
                }
            }
        }
        for (peer, range) in asks {
            let peer = peer.as_bytes()[0];
            let home = range.home.as_bytes()[0];
            self.asked.push((peer, home, range.from, range.to));
            if !self.mute.contains(&peer) {
                self.fetch(n, peer, range);
            }
        }
        given
    }

    fn fetch(&mut self, n: u8, of: u8, range: Range) {
        let want = PeerWant {
            peer: server(n),
            session: 1,
            id: 1,
            range,
            max_bytes: 1 << 20,
        };
        let (served, next) = self.with(of, |shard, log, _| shard.serve(&want, log));
        assert_eq!(next, None);
        for (bundle, _) in served {
            self.give(n, of, bundle);
        }
    }

    fn give(&mut self, n: u8, from: u8, bundle: Bundle) {
        let (peer, session, id) = (server(from), 1, 1);
        let ticket = Ticket::Fetched { peer, session, id };
        let now = self.now;
        self.with(n, |shard, log, out| {
            shard.judge(now, bundle, ticket, log, out);
        });
    }

    fn tips(&mut self, n: u8) -> Vec<crate::event::Tip> {
        self.with(n, |shard, log, _| {
            shard.known(&room(), log).unwrap().machine.frontier()
        })
    }

    /// One server fetches of another what it lacks, as after a frontier.
    fn pull(&mut self, n: u8, of: u8) {
        let held = self.tips(n);
        for tip in self.tips(of) {
            let of_home = held.iter().find(|held| held.home == tip.home);
            let range = Range {
                conversation: room(),
                home: tip.home,
                tip: tip.id,
                from: of_home.map_or(0, |held| held.seq + 1),
                to: tip.seq,
            };
            if range.from <= range.to {
                self.fetch(n, of, range);
            }
        }
    }

    /// A second passes for one server, so many times.
    fn seconds(&mut self, n: u8, count: u64) {
        for _ in 0..count {
            self.now = self.now.plus_ms(1_000);
            let now = self.now;
            self.with(n, |shard, log, out| shard.release(now, log, out));
        }
    }

    /// Starts anew from its log, as a server does.
    fn restart(&mut self, n: u8) {
        let (old, _) = &mut self.shards[usize::from(n) - 1];
        *old = shard(n);
        old.lacks_in([room()]);
    }

    fn does(&mut self, by: u8, at: u8, claims: Role, act: Act, content: Option<SealedContent>) {
        self.nonce += 1;
        self.now = self.now.plus_ms(1);
        let (now, (author, key)) = (self.now, user(by));
        let event = Event {
            conversation: room(),
            author,
            device: key.public(),
            nonce: Nonce::from_bytes([self.nonce; 16]),
            claims,
            act,
            sent_at: now,
        };
        self.with(at, |shard, log, out| {
            shard.send(now, event.sign(&key), content, ReplyTo(0), log, out);
        });
    }

    /// User `n` at home at server `n` says something.
    fn says(&mut self, n: u8) {
        let (event, content) = message(self.nonce + 1);
        let act = event.event().act.clone();
        self.does(n, n, Role::Member, act, content);
    }

    fn policy(&mut self, by: u8, joined: bool) {
        let (field, value) = (Field::History, u64::from(joined));
        let claims = if by == 1 { Role::Owner } else { Role::Admin };
        self.does(by, by, claims, Act::Policy { field, value }, None);
    }

    fn grants(&mut self, n: u8, role: Role) {
        self.grants_at(n, n, role);
    }

    fn grants_at(&mut self, n: u8, home: u8, role: Role) {
        let cut = if role > Role::None {
            vec![]
        } else {
            let of = user(n).0;
            let now = self.now;
            self.with(1, |shard, log, _| {
                let grantee = shard.grantee(now, &room(), &owner().0, Some(of), None, log);
                grantee.unwrap().cut
            })
        };
        let target = Target::User {
            user: user(n).0,
            home: server(home),
        };
        let grant = Grant {
            target,
            role,
            cut,
            ban: false,
            lifts: vec![],
        };
        self.does(1, 1, Role::Owner, Act::Grant(grant), None);
    }

    /// What a server holds of everything with a content, in the order: h held, w withheld, g gone.
    fn holds(&self, n: u8) -> String {
        let (_, log) = &self.shards[usize::from(n) - 1];
        let told = |(_, slot)| match slot {
            ContentSlot::Held(_) => 'h',
            ContentSlot::Withheld => 'w',
            ContentSlot::Gone => 'g',
        };
        log.slots().into_values().map(told).collect()
    }

    fn asked(&mut self) -> Vec<(u8, u8, u64, u64)> {
        std::mem::take(&mut self.asked)
    }
}

/// Server 2 takes part, but what was said before its member came is not his.
fn came_late(count: u8) -> Net {
    let mut net = Net::new(count);
    net.policy(1, true);
    for _ in 0..3 {
        net.says(1);
    }
    net.grants(2, Role::Member);
    net.says(1);
    net.pull(2, 1);
    assert_eq!(net.holds(2), "wwwh");
    net.seconds(2, 3);
    assert_eq!(net.asked(), [], "nothing that it may not have is asked for");
    net
}

#[test]
fn who_brings_a_member_from_elsewhere_gets_what_he_was_there_for_and_the_next_reader_as_well() {
    let mut net = Net::new(3);
    net.policy(1, true);
    net.grants(3, Role::Member);
    net.says(1);
    net.says(1);
    net.grants(2, Role::Member);
    net.says(1);
    net.pull(2, 1);
    net.pull(3, 1);
    assert_eq!((net.holds(2), net.holds(3)), ("wwh".into(), "hhh".into()));
    // He moves from server 3 to server 2, which says so for him.
    let now = net.now;
    let cut = net.with(3, |shard, log, _| {
        let of = Some(user(3).0);
        let grantee = shard.grantee(now, &room(), &user(3).0, of, None, log);
        grantee.unwrap().cut
    });
    let act = Act::Move {
        home: server(2),
        n: 1,
        cut,
    };
    net.does(3, 2, Role::None, act, None);
    net.pull(1, 2);
    net.seconds(2, 3);
    assert_eq!(net.holds(2), "hhh");
    assert_eq!(net.asked(), [(1, 1, 2, 3)], "both with one want");
    net.seconds(2, 700);
    assert_eq!(net.asked(), [], "there is nothing left to ask for");
}

#[test]
fn a_policy_that_falls_gives_every_home_what_was_withheld_for_it() {
    let mut net = Net::new(2);
    net.grants_at(3, 1, Role::Admin);
    let (act, claims) = (
        Act::Policy {
            field: Field::History,
            value: 1,
        },
        Role::Admin,
    );
    net.does(3, 1, claims, act, None);
    net.says(1);
    net.grants(2, Role::Member);
    net.pull(2, 1);
    assert_eq!(net.holds(2), "w");
    // He who set it had been removed without knowing: his policy was never one.
    let target = Target::User {
        user: user(3).0,
        home: server(1),
    };
    let grant = Grant {
        target,
        role: Role::None,
        cut: vec![],
        ban: false,
        lifts: vec![],
    };
    net.does(1, 1, Role::Owner, Act::Grant(grant), None);
    net.pull(2, 1);
    net.seconds(2, 2);
    assert_eq!(net.holds(2), "h");
}

#[test]
fn who_comes_back_gets_what_was_said_before_he_went_and_nothing_of_between() {
    let mut net = Net::new(2);
    net.policy(1, true);
    net.grants(2, Role::Member);
    net.says(1);
    net.pull(2, 1);
    // This it is handed once its member is gone again, by a server that knows of that.
    net.says(1);
    net.grants(2, Role::None);
    net.says(1);
    for seq in [3, 4] {
        let mut bundle = bundle_of(&net, seq);
        bundle.contents.fill(ContentSlot::Withheld);
        net.give(2, 1, bundle);
    }
    net.seconds(2, 2);
    assert_eq!(
        net.asked(),
        [(1, 1, 3, 3)],
        "what it saw while it had a member"
    );
    assert_eq!(net.holds(2), "hw");
    net.grants(2, Role::Member);
    net.says(1);
    net.pull(2, 1);
    net.seconds(2, 3);
    assert_eq!(net.holds(2), "hhwh");
}

#[test]
fn what_was_asked_for_too_early_is_asked_for_again_when_the_other_knows_and_not_for_ever() {
    let mut net = Net::new(3);
    net.policy(1, true);
    net.grants(3, Role::Admin);
    net.says(1);
    net.pull(3, 1);
    net.grants(2, Role::Member);
    net.says(1);
    // Server 3 has the line, and nothing of server 2 but what it was handed.
    let lines = net.tips(1)[0];
    let whole = Range {
        conversation: room(),
        home: server(1),
        tip: lines.id,
        from: 0,
        to: lines.seq,
    };
    let third = chain(&net, 3);
    net.fetch(
        2,
        1,
        Range {
            to: 3,
            tip: third,
            ..whole
        },
    );
    let mut line = bundle_of(&net, 4);
    line.contents.fill(ContentSlot::Withheld);
    net.give(2, 3, line);
    assert_eq!(net.holds(2), "ww");
    net.mute.insert(1);
    net.seconds(2, 1);
    // Its own home, which gives no answer, and after that the other, which does not know.
    assert_eq!(net.asked(), [(1, 1, 4, 4)]);
    net.seconds(2, 4_000);
    let asked = net.asked();
    let of = |peer| asked.iter().filter(|(p, ..)| *p == peer).count();
    assert!((4..40).contains(&of(1)) && of(3) >= 1, "{asked:?}");
    assert_eq!(net.holds(2), "ww");
    net.pull(3, 1);
    net.seconds(2, 700);
    assert_eq!(net.holds(2), "wh");
    net.asked();
    net.seconds(2, 4_000);
    assert_eq!(net.asked(), []);
}

/// The commit of server 1 with a seq.
fn chain(net: &Net, seq: usize) -> CommitId {
    net.shards[0].1.commits.borrow()[seq].0.id()
}

fn bundle_of(net: &Net, seq: usize) -> Bundle {
    let id = chain(net, seq);
    net.shards[0].1.bundles.borrow()[&id].0.clone()
}

#[test]
fn a_peer_that_goes_on_to_withhold_is_asked_a_few_times_and_again_once_more_may_be_had() {
    let mut net = Net::new(2);
    net.policy(1, true);
    net.grants(2, Role::Member);
    net.says(1);
    net.fetch_all_withheld();
    assert_eq!(net.holds(2), "w");
    net.shards[0]
        .1
        .bundles
        .borrow_mut()
        .values_mut()
        .for_each(|(bundle, _)| {
            bundle.contents.fill(ContentSlot::Withheld);
        });
    net.seconds(2, 100_000);
    let asked = net.asked().len();
    assert_eq!(asked, 6, "a few times, ever more slowly");
    net.grants_at(4, 2, Role::Member);
    net.pull(2, 1);
    net.seconds(2, 2);
    assert_eq!(net.asked().len(), 0, "he sees nothing that was withheld");
    net.grants(2, Role::None);
    net.grants(2, Role::Member);
    net.pull(2, 1);
    net.seconds(2, 2);
    assert_eq!(net.asked().len(), 1);
}

impl Net {
    /// Server 2 takes all commits of server 1, and no content.
    fn fetch_all_withheld(&mut self) {
        let count = self.shards[0].1.commits.borrow().len();
        for seq in 0..count {
            let mut bundle = bundle_of(self, seq);
            bundle.contents.fill(ContentSlot::Withheld);
            self.give(2, 1, bundle);
        }
    }
}

#[test]
fn what_may_be_had_is_asked_for_after_a_restart_and_when_the_disk_takes_it_again() {
    let mut net = Net::new(2);
    net.policy(1, true);
    net.grants(2, Role::Member);
    for _ in 0..200 {
        net.says(1);
    }
    net.fetch_all_withheld();
    net.restart(2);
    *net.shards[1].1.full.borrow_mut() = true;
    net.seconds(2, 60);
    assert_eq!(net.asked(), []);
    *net.shards[1].1.full.borrow_mut() = false;
    net.seconds(2, 5);
    assert_eq!(net.holds(2), "h".repeat(200));
    assert_eq!(
        net.asked(),
        [(1, 1, 2, 129), (1, 1, 130, 201)],
        "batch by batch"
    );
    net.restart(2);
    net.seconds(2, 60);
    assert_eq!(net.asked(), []);
}

#[test]
fn that_a_content_is_gone_is_believed_of_its_own_home_alone() {
    let mut net = Net::new(3);
    net.policy(1, true);
    net.grants(2, Role::Member);
    net.grants(3, Role::Member);
    net.says(1);
    net.fetch_all_withheld();
    let mut gone = bundle_of(&net, 3);
    gone.contents.fill(ContentSlot::Gone);
    net.give(2, 3, gone.clone());
    assert_eq!(net.holds(2), "w");
    net.give(2, 1, gone);
    assert_eq!(net.holds(2), "g");
}

#[test]
fn contents_that_the_members_here_do_not_see_are_not_taken_from_who_gives_them() {
    let mut net = came_late(2);
    for seq in 1..=3 {
        let bundle = bundle_of(&net, seq);
        net.give(2, 1, bundle);
    }
    assert_eq!(net.holds(2), "wwwh");
}
