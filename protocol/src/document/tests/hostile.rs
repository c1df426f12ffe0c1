//! Changes that are typed and nothing more, under a `seen` that lies.

use crate::{
    document::{Change, ChangeKind, PackDocument, Seen, StateDocument},
    event::ContentRef,
    ids::{CommitId, ContentHash, EventId, ServerId, UserId},
    session::Place,
    time::Hlc,
};

/// A small deterministic generator (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn id(&mut self, of: u64) -> [u8; 32] {
        *blake3::hash(&self.below(of).to_be_bytes()).as_bytes()
    }

    fn change(&mut self, target_count: u64) -> Change {
        let target = EventId::from_bytes(self.id(target_count));
        let user = UserId::from_bytes(self.id(5));
        let at = Place {
            hlc: Hlc::from_bits(self.below(3)),
            commit: CommitId::from_bytes(self.id(3)),
            index: 0,
        };
        let content = ContentRef {
            hash: ContentHash::from_bytes(self.id(3)),
            len: u32::MAX,
        };
        let value = (self.below(2) == 0).then_some(content);
        let on = self.below(2) == 0;
        let kind = match self.below(40) {
            0 => ChangeKind::Delete { target, by: user },
            1..=5 => ChangeKind::Edit {
                target,
                content,
                author: user,
                at,
            },
            6 => ChangeKind::State {
                field: ["title", "", "\u{7}", "|"][usize::try_from(self.below(4)).unwrap()]
                    .to_owned(),
                value,
                at,
            },
            7 => ChangeKind::Pin { target, on },
            8 => ChangeKind::Name { user, value, at },
            n => ChangeKind::React {
                target,
                emoji: match n {
                    9 => "x".repeat(64),
                    10 => "x".repeat(65),
                    11 => "\u{1b}[31m".to_owned(),
                    12 => "|".to_owned(),
                    _ => "👍".to_owned(),
                },
                user,
                on,
                version: on.then_some(target),
            },
        };
        Change {
            event: EventId::from_bytes(self.id(8_000)),
            home: ServerId::from_bytes(self.id(6)),
            epoch: [0, 1, 2, u64::MAX][usize::try_from(self.below(4)).unwrap()],
            kind,
        }
    }
}

fn flood(seed: u64, changes: usize, targets: u64, seen: &Seen<'_>) {
    let mut chance = Chance(seed);
    let mut pack = PackDocument::new();
    let mut state = StateDocument::new();
    let mut left = changes;
    while left > 0 {
        let size = usize::try_from(1 + chance.below(2_000)).unwrap().min(left);
        left -= size;
        let batch: Vec<Change> = (0..size).map(|_| chance.change(targets)).collect();
        pack.apply(batch.clone(), seen);
        state.apply(batch, seen);
    }
    let loaded = PackDocument::load(&pack.save().unwrap(), &pack.heads()).unwrap();
    assert!(loaded.len() > 1_000);
    for target in pack.targets() {
        assert_eq!(
            loaded.message(target).unwrap(),
            pack.message(target).unwrap()
        );
    }
    let loaded = StateDocument::load(&state.save().unwrap(), &state.heads()).unwrap();
    assert_eq!(loaded.state().unwrap(), state.state().unwrap());
}

fn mixed(a: EventId, b: EventId) -> u64 {
    let word = |id: EventId| u64::from_be_bytes(*id.as_bytes().first_chunk().unwrap());
    Chance(word(a) ^ word(b).rotate_left(17)).next()
}

#[test]
fn always_false_leaves_a_document_that_loads() {
    flood(1, 20_000, 40, &|_, _| false);
}

#[test]
fn always_true_leaves_a_document_that_loads() {
    flood(2, 20_000, 40, &|_, _| true);
}

#[test]
fn circles_leave_a_document_that_loads() {
    flood(3, 20_000, 40, &|a, b| mixed(a, b).is_multiple_of(2));
}

#[test]
fn reversed_order_leaves_a_document_that_loads() {
    flood(4, 20_000, 40, &|a, b| a > b);
}

#[test]
fn flood_on_one_message_leaves_a_document_that_loads() {
    flood(5, 20_000, 1, &|a, b| {
        a < b && !mixed(a, b).is_multiple_of(10)
    });
}

#[test]
fn answers_that_change_leave_a_document_that_loads() {
    let calls = std::cell::Cell::new(0u64);
    flood(6, 10_000, 40, &|a, b| {
        calls.set(calls.get() + 1);
        Chance(mixed(a, b) ^ calls.get()).below(3) == 0
    });
}
