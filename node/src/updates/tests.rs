//! A session that is cut and resumed at any point, overrun and left alone, ends with what a page
//! then shows: nothing lost, nothing told twice. Pages read while lines arrive skip and repeat none.
//! The store, its rows and the hub are the real ones; only sockets are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use comity_fuzz::{
    work,
    world::{Chronicle, World},
};
use comity_protocol::{
    conversation::{CheckedBundle, Conversation, Received, RoleChange, Taken},
    event::{Act, Tip},
    ids::{ConversationId, DeviceKey, EventId, ServerId, UserId},
    role::Role,
    session::{Anchor, Cursor as Sealed, CursorVerdict, Page, Place},
    shard::What,
    time::Timestamp,
};
use comity_storage::{Config, Storage};
use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::{engine::live::record_of, home::reads::page, hub::Live, projection::HomeProjection};

const KEY: [u8; 32] = [7; 32];
/// News that overrun a session which does not read.
const FLOOD: usize = comity_protocol::limits::SESSION_QUEUE_FRAMES + 1;
/// The home under test, and the reader: a member there, who is not the owner.
const HOME: usize = 0;
const READER: usize = work::HOMES;
/// Bundles from which the next to arrive is chosen.
const WINDOW: usize = 8;

/// A home server without its sockets, and what is still to come to it.
struct Home {
    storage: Storage,
    rows: Rows,
    hub: Arc<Hub>,
    machine: Conversation,
    history: Chronicle,
    coming: Vec<CheckedBundle>,
    /// Lines that were taken away and stand again.
    again: BTreeSet<EventId>,
    _dir: tempfile::TempDir,
}

/// A talk, and at its end somebody removed while he speaks on elsewhere.
fn history(commits: usize) -> Chronicle {
    let mut history = work::talk(commits);
    history.meet();
    history.apart = true;
    let removed = work::HOMES + 2;
    for _ in 0..4 {
        let said = history.world.message(removed, "said beyond the cut");
        history.append(2, vec![said]);
    }
    let cut: Vec<Tip> = history.end_known(1, 2).into_iter().collect();
    let act = history.grant(removed, Role::None, cut);
    let kick = history.world.act(1, Role::Admin, act);
    history.append(1, vec![kick]);
    history.meet();
    for home in 0..work::HOMES {
        let said = history.world.message(home, "afterwards");
        let target = said.event.id();
        history.append(home, vec![said]);
        let emoji = "z".to_owned();
        let react = Act::React {
            target,
            emoji,
            on: true,
            version: None,
        };
        let react = history.world.act(home, Role::Member, react);
        history.append(home, vec![react]);
    }
    history
}

impl Home {
    fn new(commits: usize) -> Self {
        let history = history(commits);
        let world = &history.world;
        let me = world.homes[HOME].id;
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path(), "a boot");
        let (storage, _) = Storage::open(config, HomeProjection { me }).unwrap();
        let key = |server: &ServerId, _| world.key_of(server);
        let check = |bundle| CheckedBundle::check(bundle, key).unwrap();
        let coming = history.bundles().into_iter().map(check).collect();
        let home = Self {
            rows: Rows(storage.reader()),
            storage,
            hub: Arc::new(Hub::default()),
            machine: Conversation::group(&world.genesis, me, 1),
            history,
            coming,
            again: BTreeSet::new(),
            _dir: dir,
        };
        let owner = &home.history.world.users[0];
        let members = vec![RoleChange {
            user: owner.id,
            role: Role::Owner,
            home: me,
        }];
        let offer = home.machine.offer().clone();
        home.store(What::Conversation { offer, members });
        home
    }

    fn conversation(&self) -> ConversationId {
        self.machine.id()
    }

    fn page(&self, anchor: Anchor, limit: usize) -> Result<Page, ReadError> {
        let sight = self.rows.sight(&self.conversation(), &self.reader())?;
        page(&self.rows, &self.conversation(), &sight, anchor, limit)
    }

    fn reader(&self) -> UserId {
        self.history.world.users[READER].id
    }

    /// Makes it durable and tells sessions, as the committer does.
    fn store(&self, what: What) {
        let world = &self.history.world;
        let local = world.users.iter().filter(|user| user.home == HOME);
        let users: Arc<Vec<UserId>> = Arc::new(local.map(|user| user.id).collect());
        let (record, told) = record_of(
            &world.homes[HOME].id,
            self.conversation(),
            (what, None),
            users,
        );
        let durable = self.storage.submit_and_wait(vec![record]).unwrap();
        let position = Some(durable.first);
        self.hub
            .publish(position, told.users.iter(), &told.common, &told.own);
    }

    /// One of the next few commits arrives, which one `pick` says. False when none is left.
    fn arrive(&mut self, pick: usize) -> bool {
        if self.coming.is_empty() {
            return false;
        }
        let bundle = self.coming.remove(pick % self.coming.len().min(WINDOW));
        let world: &World = &self.history.world;
        let devices = |user: &UserId, device: &DeviceKey| world.has_device(user, device);
        let received = self
            .machine
            .receive(Timestamp(u64::MAX >> 16), bundle, &devices);
        match received {
            Received::Taken(all) => all.into_iter().for_each(|taken: Taken| {
                let tips = self.machine.frontier();
                self.again.extend(&taken.changes.stands_again);
                self.store(What::Commit {
                    taken: Box::new(taken),
                    tips,
                    fork: None,
                    ended: Vec::new(),
                });
            }),
            Received::Known | Received::Waiting { .. } => {}
            other => panic!("an honest commit is {other:?}"),
        }
        true
    }

    /// More states than a session's queue holds.
    fn flood(&self) {
        let state = Change::Gap {
            conversation: self.conversation(),
        };
        let common = Arc::new(vec![Live::Ready(state)]);
        let users = [self.reader()];
        for _ in 0..FLOOD {
            self.hub.publish(None, &users, &common, &BTreeMap::new());
        }
    }

    fn session(&self, position: u64) -> SessionUpdates {
        let user = self.reader();
        let inbox = self.hub.open(user, DeviceKey::from_bytes([1; 32]));
        let cursor = CursorState { position, ..now() };
        SessionUpdates::new(
            Arc::clone(&self.hub),
            inbox,
            self.rows.clone(),
            user,
            cursor,
            KEY,
        )
    }
}

fn now() -> CursorState {
    CursorState {
        server: ServerId::from_bytes([1; 32]),
        incarnation: [2; 16],
        position: u64::MAX,
    }
}

/// What a client holds: lines as of its cursor, and what it was told since.
#[derive(Default)]
struct Client {
    position: u64,
    lines: BTreeMap<EventId, Item>,
    left: bool,
    pending: Vec<Change>,
    /// What may appear once more: that it had vanished is not told who was away for both.
    again: BTreeSet<EventId>,
}

fn event_of(item: &Item) -> EventId {
    EventId::from_bytes(*blake3::hash(&item.event.event.0).as_bytes())
}

impl Client {
    fn take(&mut self, batch: Batch) -> Result<(), TestCaseError> {
        prop_assert!(
            batch.changes.len() <= UPDATE_ITEMS_MAX + 4,
            "{}",
            batch.changes.len()
        );
        self.pending.extend(batch.changes);
        let Some(cursor) = batch.cursor else {
            return Ok(());
        };
        for change in std::mem::take(&mut self.pending) {
            self.apply(change)?;
        }
        let Sealed(_) = &cursor;
        let CursorVerdict::Resume(position) = now().judge(&KEY, &cursor) else {
            return Err(TestCaseError::fail("a cursor of its own is of no use"));
        };
        prop_assert!(position >= self.position, "a cursor never goes back");
        self.position = position;
        Ok(())
    }

    fn apply(&mut self, change: Change) -> Result<(), TestCaseError> {
        match change {
            Change::Appeared { item, .. } => {
                let event = event_of(&item);
                let twice = self.lines.insert(event, *item);
                let once = twice.is_none() || self.again.contains(&event);
                prop_assert!(once, "a line appeared twice: {twice:?}");
            }
            // Of a line that changed while the client was away the change alone is told.
            Change::Changed { item, .. } => drop(self.lines.insert(event_of(&item), *item)),
            Change::Vanished { event, .. } => drop(self.lines.remove(&event)),
            Change::Left { .. } => self.left = true,
            _ => {}
        }
        Ok(())
    }
}

/// Reads pages one after the other in one direction.
struct Reader {
    anchor: Anchor,
    /// Lines there were when it began.
    there: BTreeSet<EventId>,
    read: Vec<(Place, EventId)>,
    done: bool,
}

impl Reader {
    fn new(home: &Home, anchor: Anchor) -> Result<Self, ReadError> {
        Ok(Self {
            anchor,
            there: all_lines(home)?.into_keys().collect(),
            read: Vec::new(),
            done: false,
        })
    }

    fn read(&mut self, home: &Home, limit: usize) -> Result<(), ReadError> {
        if self.done {
            return Ok(());
        }
        let backwards = matches!(self.anchor, Anchor::Newest | Anchor::Before(_));
        let mut found = home.page(self.anchor, limit)?;
        if backwards {
            found.items.reverse();
        }
        self.read
            .extend(found.items.iter().map(|item| (item.place, event_of(item))));
        self.done = found.complete;
        match found.next {
            Some(next) if backwards => self.anchor = Anchor::Before(next),
            Some(next) => self.anchor = Anchor::After(next),
            None => self.done = true,
        }
        Ok(())
    }

    /// Every line that was there when it began, and is still, was read once, in order.
    fn check(&self, home: &Home) -> Result<(), TestCaseError> {
        let backwards = matches!(self.anchor, Anchor::Newest | Anchor::Before(_));
        let in_order = self
            .read
            .windows(2)
            .all(|pair| (pair[0].0 > pair[1].0) == backwards);
        prop_assert!(in_order, "lines in order, none twice");
        let read: BTreeSet<EventId> = self.read.iter().map(|(_, event)| *event).collect();
        let still: BTreeSet<EventId> = all_lines(home).unwrap().into_keys().collect();
        for event in self.there.intersection(&still) {
            prop_assert!(read.contains(event), "a line was skipped");
        }
        Ok(())
    }
}

fn all_lines(home: &Home) -> Result<BTreeMap<EventId, Item>, ReadError> {
    let mut lines = BTreeMap::new();
    let mut anchor = Anchor::Oldest;
    loop {
        let found = home.page(anchor, 500)?;
        lines.extend(found.items.into_iter().map(|item| (event_of(&item), item)));
        match found.next {
            Some(next) if !found.complete => anchor = Anchor::After(next),
            _ => return Ok(lines),
        }
    }
}

/// Takes what there is; `most` batches at most.
fn drain(
    session: &mut SessionUpdates,
    client: &mut Client,
    most: usize,
) -> Result<(), TestCaseError> {
    for _ in 0..most {
        match session.next().now_or_never() {
            None => break,
            Some(batch) => client.take(batch.unwrap())?,
        }
    }
    Ok(())
}

fn live(commits: usize, steps: &[(u8, u8)]) -> Result<(), TestCaseError> {
    let mut home = Home::new(commits);
    let mut client = Client::default();
    let mut session = home.session(client.position);
    let mut readers: Vec<Reader> = Vec::new();
    let away = steps.iter().any(|(step, _)| matches!(step % 12, 8 | 9));
    for (step, pick) in steps {
        let pick = usize::from(*pick);
        if away {
            client.again.clone_from(&home.again);
        }
        match step % 12 {
            0..=4 => {
                for _ in 0..=pick % 4 {
                    home.arrive(pick);
                }
            }
            5 => drain(&mut session, &mut client, usize::MAX)?,
            6 | 7 => drain(&mut session, &mut client, 1)?,
            8 => {
                // Cut: what came behind the last cursor comes again.
                client.pending.clear();
                session = home.session(client.position);
            }
            9 => home.flood(),
            10 => {
                let anchor = [Anchor::Newest, Anchor::Oldest][pick % 2];
                readers.push(Reader::new(&home, anchor).unwrap());
            }
            _ => {
                for reader in &mut readers {
                    reader.read(&home, pick % 7 + 1).unwrap();
                }
            }
        }
    }
    while home.arrive(0) {}
    if away {
        client.again.clone_from(&home.again);
    }
    drain(&mut session, &mut client, usize::MAX)?;
    // States move no cursor: what is pending behind the last one are states alone.
    let states = client
        .pending
        .iter()
        .all(|change| matches!(change, Change::Gap { .. }));
    prop_assert!(states, "what is told has a cursor: {:?}", client.pending);
    prop_assert!(!client.left);
    let shown = all_lines(&home).unwrap();
    prop_assert!(shown.len() > commits / 3, "there was a talk");
    prop_assert_eq!(
        client.lines.keys().collect::<Vec<_>>(),
        shown.keys().collect::<Vec<_>>()
    );
    for (event, item) in &shown {
        prop_assert_eq!(&client.lines[event], item, "as the page shows it");
    }
    for mut reader in readers {
        while !reader.done {
            reader.read(&home, 5).unwrap();
        }
        reader.check(&home)?;
    }
    drop(session);
    home.storage.close().unwrap();
    Ok(())
}

proptest! {
    // Each case opens a store of its own, with its threads and files.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cut_overrun_and_resumed_sessions_lose_nothing_and_are_told_nothing_twice(
        commits in 20..70_usize,
        steps in proptest::collection::vec((any::<u8>(), any::<u8>()), 10..80),
    ) {
        live(commits, &steps)?;
    }
}

#[test]
fn a_session_that_was_away_for_all_of_it_is_told_each_line_once() {
    let mut home = Home::new(60);
    while home.arrive(3) {}
    let mut client = Client::default();
    let mut session = home.session(0);
    drain(&mut session, &mut client, usize::MAX).unwrap();
    assert_eq!(client.lines.len(), all_lines(&home).unwrap().len());
}

/// What was done to a line that counted for nothing is not told before the line.
#[test]
fn a_line_that_stands_again_appears_before_anything_else_is_told_of_it() {
    let steps = [
        (0, 77),
        (0, 3),
        (0, 82),
        (0, 11),
        (3, 74),
        (2, 85),
        (4, 36),
        (4, 155),
        (1, 74),
        (7, 67),
    ];
    live(22, &steps).unwrap();
}
