//! Which contents a peer is given.

use super::*;
use crate::{
    event::{Field, Grant, Target},
    link::{Bundle, ContentSlot, Range},
    replication::{OwnRead, PeerWant},
};

/// A home whose owner does one thing after the other, each in a commit of its own.
struct Host {
    shard: Shard,
    disk: Disk,
    done: u8,
    /// Whether the last commit went to all peers at once.
    pushed: bool,
}

impl Host {
    fn new() -> Self {
        Self {
            shard: shard(1),
            disk: known(&[1]),
            done: 0,
            pushed: false,
        }
    }

    fn does(&mut self, claims: Role, act: Act, content: Option<SealedContent>) {
        self.done += 1;
        let (author, key) = owner();
        let event = Event {
            conversation: genesis(1).conversation(),
            author,
            device: key.public(),
            nonce: Nonce::from_bytes([self.done; 16]),
            claims,
            act,
            sent_at: T0,
        };
        let now = T0.plus_ms(u64::from(self.done));
        let (mut out, reply) = (Vec::new(), ReplyTo(u64::from(self.done)));
        self.shard
            .send(now, event.sign(&key), content, reply, &self.disk, &mut out);
        self.shard.commit(now, &self.disk, &mut out);
        for submission in submissions(&mut out) {
            self.disk.keep(&submission);
            self.pushed = matches!(
                submission.committed,
                Some(Committed::Commit {
                    own: Some((_, Some(_))),
                    ..
                })
            );
            self.shard.stored(submission.done, Ok(()), &mut out);
        }
        let answers = accepted(&out);
        assert!(matches!(answers[..], [(_, Ok(_))]), "{answers:?}");
    }

    fn says(&mut self) {
        let (event, content) = message(self.done + 1);
        self.does(Role::Member, event.event().act.clone(), content);
    }

    fn policy(&mut self, joined: bool) {
        let (field, value) = (Field::History, u64::from(joined));
        self.does(Role::Owner, Act::Policy { field, value }, None);
    }

    fn titles(&mut self) {
        let (_, content) = message(self.done + 1);
        let field = "title".to_owned();
        let act = Act::State {
            field,
            content: content.as_ref().map(SealedContent::reference),
        };
        self.does(Role::Moderator, act, content);
    }

    /// Makes the user of a home a member, or none.
    fn grants(&mut self, n: u8, role: Role) {
        let grant = Grant {
            target: Target::User {
                user: UserId::from_bytes([n; 32]),
                home: server(n),
            },
            role,
            cut: vec![],
            ban: false,
            lifts: vec![],
        };
        self.does(Role::Owner, Act::Grant(grant), None);
    }

    fn range(&self) -> Range {
        let open = self.shard.conversation(&genesis(1).conversation()).unwrap();
        let tip = open.frontier()[0];
        Range {
            conversation: open.id(),
            home: server(1),
            tip: tip.id,
            from: 0,
            to: tip.seq,
        }
    }

    /// What a peer is given of everything, both when it asks and as what is pushed: h held,
    /// w withheld, and a point for commits without content.
    fn gives(&mut self, peer: u8) -> String {
        let want = PeerWant {
            peer: server(peer),
            session: 1,
            id: 1,
            range: self.range(),
            max_bytes: 1 << 20,
        };
        let (served, next) = self.shard.serve(&want, &self.disk);
        assert_eq!(next, None);
        let read = OwnRead {
            peer: server(peer),
            session: 1,
            conversation: want.range.conversation,
            from: 0,
            max_bytes: 1 << 20,
        };
        let told = |bundle: &Bundle| match bundle.contents.as_slice() {
            [] => '.',
            [ContentSlot::Held(_)] => 'h',
            [ContentSlot::Withheld] => 'w',
            other => panic!("{other:?}"),
        };
        let told = |all: &[ForPeers]| all.iter().map(|(bundle, _)| told(bundle)).collect();
        let (served, pushed): (String, String) =
            (told(&served), told(&self.shard.read_own(&read, &self.disk)));
        if !served.is_empty() {
            assert_eq!(served, pushed);
        }
        served
    }
}

#[test]
fn a_home_is_given_what_its_members_see_and_the_state_as_it_is() {
    let mut host = Host::new();
    host.says();
    host.policy(true);
    host.says();
    host.titles();
    host.grants(2, Role::Member);
    host.says();
    assert!(host.pushed, "home 2 may have it");
    assert_eq!(host.gives(2), "h.wh.h");
    // Home 3 is given what its member sees, whatever home 2 has.
    host.grants(3, Role::Member);
    host.says();
    assert_eq!(host.gives(3), "h.wh.w.h");
    assert_eq!(host.gives(2), "h.wh.h.h");
    // Open again: what was said while it was not stays with who was there.
    host.policy(false);
    host.says();
    host.grants(4, Role::Member);
    assert_eq!(host.gives(4), "h.wh.w.w.h.");
    assert_eq!(host.gives(5), "", "nobody of home 5 was ever here");
}

#[test]
fn a_home_that_comes_back_is_given_up_to_the_removal_and_from_the_return() {
    let mut host = Host::new();
    host.policy(true);
    host.grants(2, Role::Member);
    host.says();
    host.grants(2, Role::None);
    host.says();
    assert_eq!(host.gives(2), "", "it takes part no longer");
    host.grants(2, Role::Member);
    host.says();
    assert_eq!(host.gives(2), "..h.w.h");
}

#[test]
fn what_members_of_one_home_see_together_is_theirs() {
    let mut host = Host::new();
    host.policy(true);
    host.grants(2, Role::Member);
    host.says();
    // Asked in between, so that what is kept has to be kept up to date.
    assert_eq!(host.gives(2), "..h");
    let grant = Grant {
        target: Target::User {
            user: UserId::from_bytes([22; 32]),
            home: server(2),
        },
        role: Role::Member,
        cut: vec![],
        ban: false,
        lifts: vec![],
    };
    host.does(Role::Owner, Act::Grant(grant), None);
    host.says();
    assert_eq!(host.gives(2), "..h.h");
    // Who was there first goes: what only he had seen is his home's no more.
    host.grants(2, Role::None);
    host.says();
    assert_eq!(host.gives(2), "..w.h.h");
}
