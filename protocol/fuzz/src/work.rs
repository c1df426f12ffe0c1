//! What the core's speed is measured on: histories of any size with real signatures, and the few
//! ways in which a server puts them through the core. No clock here; who measures has one.

mod crowd;

pub use crowd::{Crowd, One, checkpoint, crowd};

use comity_protocol::{
    authority::Authority,
    commit::SignedCommit,
    conversation::{CheckedBundle, Conversation, Received},
    document::{Change, ChangeKind, PackDocument},
    encoding,
    event::{Act, ContentRef, Event, Field, RawEvent, SealedContent, SignedEvent},
    history::{Graph, Inserted},
    ids::{Blob, CommitId, ContentHash, EventId, ServerId, UserId},
    limits::{COMMIT_EVENTS_MAX, LINK_FRAME_BYTES_MAX},
    link::Bundle,
    role::Role,
    session::Place,
    time::{Hlc, Timestamp},
};

use crate::{
    random::Random,
    world::{Chronicle, Said, T0, World},
};

/// Homes that take part.
pub const HOMES: usize = 4;
/// Commits that are on their way at any time: what the homes write is concurrent to so much.
const LAG: usize = 6;
/// Acts after which the homes begin to write apart again, and how many of these are written together.
const APART_EVERY: usize = 200;
const TOGETHER: usize = 150;
/// When everything measured happens.
pub const NOW: Timestamp = Timestamp(T0 + (1 << 40));

/// A talk of so many commits of one event each: of twenty, thirteen messages, three reactions, two
/// edits, a deletion and a title.
#[must_use]
pub fn talk(commits: usize) -> Chronicle {
    let mut history = Chronicle::new(World::new(HOMES, 10 * HOMES));
    history.found();
    history.lag = LAG;
    let mut random = Random::new(commits as u64);
    let mut said: Vec<(usize, Said)> = Vec::new();
    for n in 0..commits {
        let user = random.below(history.world.users.len());
        let home = history.world.users[user].home;
        // What everybody has seen by now.
        let known = said.len().saturating_sub(2 * LAG);
        let recent = known.saturating_sub(40);
        let of = (recent + random.below(known - recent)).min(said.len().saturating_sub(1));
        let event = match n % 20 {
            _ if known == 0 => history.world.message(user, "the first lines"),
            3 | 9 | 15 => {
                let act = Act::React {
                    target: said[of].1.event.id(),
                    emoji: ["a", "b", "c"][n % 3].to_owned(),
                    on: true,
                    version: None,
                };
                history.world.act(user, Role::Member, act)
            }
            5 | 12 => {
                let (author, message) = said[of].clone();
                let edit = history
                    .world
                    .edit(author, &message, "what was meant instead");
                history.append(history.world.users[author].home, vec![edit]);
                continue;
            }
            18 => {
                let (author, message) = said[of].clone();
                let target = message.event.id();
                let delete = history
                    .world
                    .act(author, Role::Member, Act::Delete { target });
                history.append(history.world.users[author].home, vec![delete]);
                continue;
            }
            19 => {
                let content = history.world.content("a title");
                let act = Act::State {
                    field: "title".to_owned(),
                    content: Some(content.reference()),
                };
                let mut title = history.world.act(home, Role::Moderator, act);
                title.content = Some(content);
                history.append(home, vec![title]);
                continue;
            }
            _ => history
                .world
                .message(user, "a line as people write them, neither short nor long"),
        };
        if event.content.is_some() {
            said.push((user, event.clone()));
        }
        history.append(home, vec![event]);
    }
    history
}

/// A log of so many acts of authority, one a commit, by the owner and an admin of each home: members
/// come, are raised, lowered, removed and come back, moderators let members in, and policies change.
/// A quarter of it is written while no home hears of the others, so that a removal meets what the
/// removed one did meanwhile.
#[must_use]
pub fn acts(count: usize) -> Chronicle {
    let members = (count / 10).max(20);
    let mut history = Chronicle::new(World::new(HOMES, HOMES + members));
    let admins = (1..HOMES)
        .map(|user| {
            let act = history.grant(user, Role::Admin, vec![]);
            history.world.act(0, Role::Owner, act)
        })
        .collect();
    history.append(0, admins);
    let mut random = Random::new(count as u64);
    let mut roles = vec![Role::None; members];
    for n in 0..count {
        let by = n % HOMES;
        match n % APART_EVERY {
            0 => history.meet(),
            TOGETHER => history.apart = true,
            _ => {}
        }
        let act = if n % 50 == 49 {
            Act::Policy {
                field: Field::Rate,
                value: (n % 60) as u64,
            }
        } else {
            let member = random.below(members);
            let user = HOMES + member;
            let role = match (roles[member], random.below(4)) {
                (Role::None, _) => Role::Member,
                (Role::Member, 0) => Role::None,
                (Role::Member, _) => Role::Moderator,
                (_, 0) => Role::None,
                (_, _) => Role::Member,
            };
            let lowers = role < roles[member];
            roles[member] = role;
            let home = history.world.users[user].home;
            let cut = history
                .end_known(by, home)
                .filter(|_| lowers)
                .into_iter()
                .collect();
            history.grant(user, role, cut)
        };
        // A moderator of this home, if it has one, lets somebody in now and then.
        let moderator = (0..members).find(|member| {
            let user = HOMES + member;
            roles[*member] == Role::Moderator && history.world.users[user].home == by
        });
        let gives_member = matches!(&act, Act::Grant(grant) if grant.role == Role::Member);
        let (user, claims) = match moderator {
            Some(member) if gives_member && n % 3 == 0 => (HOMES + member, Role::Moderator),
            _ if by == 0 => (by, Role::Owner),
            _ => (by, Role::Admin),
        };
        let act = history.world.act(user, claims, act);
        history.append(by, vec![act]);
    }
    history.meet();
    history
}

/// A commit whose signatures were verified before, with its events.
pub type Verified = (SignedCommit, Vec<(EventId, Event)>);

/// The commits of a history as a server finds them in its store.
#[must_use]
pub fn verified(history: &Chronicle) -> Vec<Verified> {
    (0..history.len())
        .map(|at| verified_at(history, at))
        .collect()
}

/// One of them.
///
/// # Panics
///
/// If there are not so many.
#[must_use]
pub fn verified_at(history: &Chronicle, at: usize) -> Verified {
    let event = |said: &Said| (said.event.id(), said.event.event().clone());
    let events = history.events(at).iter().map(event).collect();
    (history.at(at).clone(), events)
}

/// Resolves a log from nothing.
#[must_use]
pub fn resolve(world: &World, log: &[Verified]) -> (Graph, Authority) {
    let mut graph = Graph::new(world.genesis.conversation());
    let mut authority = Authority::group(&world.genesis);
    for one in log {
        resolve_one(&mut graph, &mut authority, one);
    }
    (graph, authority)
}

/// Adds one commit to what is resolved; gives how many of its events stand.
///
/// # Panics
///
/// If the commit is not new, or names what is not there.
pub fn resolve_one(graph: &mut Graph, authority: &mut Authority, one: &Verified) -> usize {
    let (commit, events) = one;
    let Inserted::New(node) = graph.insert(commit) else {
        panic!("a history is in order, and whole");
    };
    let events: Vec<(EventId, &Event)> = events.iter().map(|(id, event)| (*id, event)).collect();
    let effects = authority.insert(graph, node, &events);
    effects
        .verdicts
        .iter()
        .filter(|verdict| verdict.stands())
        .count()
}

/// An event as a client sends it.
pub type Sent = (RawEvent, Option<Blob>);

/// So many messages of the users of home 0, as they are sent.
#[must_use]
pub fn sent(world: &mut World, count: usize) -> Vec<Sent> {
    let users: Vec<usize> = (0..world.users.len())
        .filter(|u| world.users[*u].home == 0)
        .collect();
    (0..count)
        .map(|n| {
            let said = world.message(users[n % users.len()], "a line as people write them");
            let content = said.content.map(|content| Blob(content.into_bytes()));
            (said.event.to_raw(), content)
        })
        .collect()
}

/// Home 0's machine with a history in it.
///
/// # Panics
///
/// If the history is not in order.
#[must_use]
pub fn machine(history: &Chronicle) -> Conversation {
    let world = &history.world;
    let mut machine = Conversation::group(&world.genesis, world.homes[0].id, 1);
    for at in 0..history.len() {
        restore_one(&mut machine, history, at);
    }
    machine
}

/// Takes one commit more of a history into a machine, as from the store.
///
/// # Panics
///
/// If the history is not in order.
pub fn restore_one(machine: &mut Conversation, history: &Chronicle, at: usize) {
    let events: Vec<SignedEvent> = history
        .events(at)
        .iter()
        .map(|said| said.event.clone())
        .collect();
    machine
        .restore(history.at(at), &events)
        .expect("a history is in order");
}

/// Validates and appends events of own users: decoded, their signatures and contents checked,
/// judged, put into commits of at most `batch`, and those signed. Gives how many are in.
///
/// # Panics
///
/// If one is refused: all are sound.
pub fn append(machine: &mut Conversation, world: &World, sent: Vec<Sent>, batch: usize) -> usize {
    let key = &world.homes[0].key;
    let (mut waiting, mut appended) = (0, 0);
    let mut commit = |machine: &mut Conversation| {
        while let Some(taken) = machine.next_commit(NOW, key) {
            appended += taken
                .events
                .iter()
                .filter(|event| event.void.is_none())
                .count();
            machine.durable(&taken.commit.id());
        }
    };
    for (raw, content) in sent {
        let event = SignedEvent::verify(raw).expect("a sound signature");
        let content = content.map(|bytes| SealedContent::open(bytes.0).expect("a sound content"));
        machine
            .submit(NOW, event, content)
            .expect("a member may post");
        waiting += 1;
        if waiting == batch.min(COMMIT_EVENTS_MAX) {
            waiting = 0;
            commit(machine);
        }
    }
    commit(machine);
    appended
}

/// The commits of a history as they travel.
#[must_use]
pub fn frames(history: &Chronicle) -> Vec<Vec<u8>> {
    history.bundles().iter().map(encoding::encode).collect()
}

/// Catches up with a history: each commit is decoded, its signatures are verified, it is inserted
/// and judged, and the documents follow. Gives the machine and how many commits it took.
///
/// # Panics
///
/// If one is refused: all are sound and in order.
#[must_use]
pub fn catch_up(world: &World, frames: &[Vec<u8>]) -> (Conversation, usize) {
    let me = crate::world::home(HOMES).id;
    let mut machine = Conversation::group(&world.genesis, me, 1);
    let key = |server: &ServerId, _| world.key_of(server);
    let known: std::collections::BTreeMap<_, _> = world
        .users
        .iter()
        .map(|user| (user.id, user.device()))
        .collect();
    let devices = |user: &UserId, device: &_| known.get(user).map(|own| own == device);
    let mut taken = 0;
    for frame in frames {
        let bundle: Bundle =
            encoding::decode_frame(frame, LINK_FRAME_BYTES_MAX).expect("a sound frame");
        let bundle = CheckedBundle::check(bundle, key).expect("sound signatures");
        match machine.receive(NOW, bundle, &devices) {
            Received::Taken(all) => taken += all.len(),
            other => panic!("a history is in order: {other:?}"),
        }
    }
    (machine, taken)
}

/// Homes whose changes a measured document holds.
const WRITERS: u64 = 3;
/// Changes after which all of them have seen everything.
const SYNC: u64 = 30;

/// The causal order of [`changes`].
#[must_use]
pub fn seen(earlier: EventId, later: EventId) -> bool {
    let number = |event: EventId| {
        u64::from_be_bytes(*event.as_bytes().first_chunk().expect("8 of 32 bytes"))
    };
    let (a, b) = (number(earlier), number(later));
    a < b && (a % WRITERS == b % WRITERS || a / SYNC < b / SYNC)
}

fn hash(domain: u64, n: u64) -> [u8; 32] {
    *blake3::hash(&[domain.to_be_bytes(), n.to_be_bytes()].concat()).as_bytes()
}

/// The message that the `n`th ten of [`changes`] are about.
#[must_use]
pub fn message_of(n: u64) -> EventId {
    EventId::from_bytes(hash(1, n))
}

/// Changes of a pack's document from one number on: of ten, eight reactions, an edit, and a deletion
/// of a message that had none.
#[must_use]
pub fn changes(from: usize, count: usize) -> Vec<Change> {
    let change = |n: u64| {
        let mut event = hash(0, n);
        event[..8].copy_from_slice(&n.to_be_bytes());
        let target = message_of(n / 10);
        let user = UserId::from_bytes(hash(2, n % 200));
        let kind = match n % 10 {
            0 => ChangeKind::Edit {
                target,
                content: ContentRef {
                    hash: ContentHash::from_bytes(hash(3, n)),
                    len: 200,
                },
                author: user,
                at: Place {
                    hlc: Hlc::from_bits(n),
                    commit: CommitId::from_bytes(hash(4, n)),
                    index: 0,
                },
            },
            1 => ChangeKind::Delete {
                target: EventId::from_bytes(hash(5, n)),
                by: user,
            },
            _ => ChangeKind::React {
                target,
                emoji: "👍".to_owned(),
                user,
                on: true,
                version: None,
            },
        };
        Change {
            event: EventId::from_bytes(event),
            home: ServerId::from_bytes(hash(6, n % WRITERS)),
            epoch: 1,
            kind,
        }
    };
    (from as u64..(from + count) as u64).map(change).collect()
}

/// Applies changes to a document in batches; gives how many it refused.
pub fn apply(document: &mut PackDocument, changes: Vec<Change>, batch: usize) -> usize {
    let mut refused = 0;
    let mut changes = changes.into_iter().peekable();
    while changes.peek().is_some() {
        let some = changes.by_ref().take(batch);
        refused += document.apply(some, &seen).refused.len();
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_talk_is_caught_up_with_whole_and_all_of_it_stands() {
        let history = talk(300);
        let frames = frames(&history);
        let (machine, taken) = catch_up(&history.world, &frames);
        assert_eq!(taken, frames.len());
        let (mut graph, mut authority) = resolve(&history.world, &[]);
        let stood: usize = verified(&history)
            .iter()
            .map(|one| resolve_one(&mut graph, &mut authority, one))
            .sum();
        let events: usize = (0..frames.len()).map(|at| history.events(at).len()).sum();
        assert_eq!(stood, events, "nothing in it is void");
        assert_eq!(machine.graph().len(), graph.len());
    }

    #[test]
    fn acts_stand_and_change_roles() {
        let history = acts(400);
        let log = verified(&history);
        let (mut graph, mut authority) = resolve(&history.world, &[]);
        let stood: usize = log
            .iter()
            .map(|one| resolve_one(&mut graph, &mut authority, one))
            .sum();
        assert!(stood > 300, "most of it stands: {stood}");
        assert!(
            stood < 400 + HOMES - 1,
            "some of it meets and is void: {stood}"
        );
        assert!(authority.members().count() > HOMES);
    }

    #[test]
    fn all_that_is_sent_is_appended() {
        let mut history = talk(50);
        let mut machine = machine(&history);
        let sent = sent(&mut history.world, 600);
        assert_eq!(append(&mut machine, &history.world, sent, 256), 600);
    }

    #[test]
    fn documents_take_all_changes_in_any_batches() {
        let mut documents = [1, 7, 100].map(|batch| {
            let mut document = PackDocument::new();
            assert_eq!(apply(&mut document, changes(0, 500), batch), 0);
            document.heads().digest()
        });
        documents.sort_unstable();
        assert_eq!(documents[0], documents[2]);
    }
}
