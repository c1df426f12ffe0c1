//! Rows that records give, one after the other.

use comity_protocol::{
    authority::Sight,
    commit::{AuthorityChange, Commit},
    event::{Act, Content, Event, SealedContent},
    ids::{Nonce, Salt, UserId},
    link::Offer,
    session::Change,
    signing::SecretKey,
    time::{Hlc, Timestamp},
};
use comity_storage::{Config, ContentAt, Storage};

use super::*;

use crate::{items::Items, records::record, rows::Rows};

/// One event posted, taken away and given back, each by a record of its own.
struct Posted {
    event: EventId,
    conversation: ConversationId,
    place: Place,
    known: ConversationRecord,
    commits: [CommitRecord; 3],
}

fn posted(shown: bool, by: Cause, marks: &Marks) -> Posted {
    let (me, user) = (ServerId::from_bytes([1; 32]), UserId::from_bytes([2; 32]));
    let key = SecretKey::from_seed([3; 32]);
    let conversation = ConversationId::from_bytes([4; 32]);
    let text = Content::text(Salt::from_bytes([5; 16]), "hello");
    let event = Event {
        conversation,
        author: user,
        device: key.public(),
        nonce: Nonce::from_bytes([6; 16]),
        claims: Role::Member,
        act: Act::Message {
            content: SealedContent::seal(&text).unwrap().reference(),
        },
        sent_at: Timestamp(1),
    };
    let event = event.sign(&key);
    let commit = Commit {
        v: 1,
        conversation,
        origin: me,
        epoch: 1,
        seq: 0,
        prev: None,
        hlc: Hlc::new(Timestamp(1), 0),
        parents: vec![],
        authority: Some(AuthorityChange::default()),
        events: vec![event.id()],
    };
    let commit = commit.sign(&key);
    let place = Place {
        hlc: commit.commit().hlc,
        commit: commit.id(),
        index: 0,
    };
    let plain = CommitRecord {
        conversation,
        commit: commit.to_raw(),
        events: vec![],
        late: false,
        at: Timestamp(1),
        marks: vec![],
        void: vec![],
        void_by: vec![],
        void_outside: vec![],
        stand: vec![],
        moved: Vec::new(),
        folded: Vec::new(),
        erase: vec![],
        members: vec![],
        sights: vec![],
        history: None,
        tips: vec![],
        state: vec![],
        ended: vec![],
        fork: None,
        due: None,
    };
    let known = ConversationRecord {
        conversation,
        offer: Offer::Direct(user, user),
        at: Timestamp(1),
        members: vec![],
    };
    let posted = CommitRecord {
        events: vec![EventEntry {
            raw: event.to_raw(),
            slot: Slot::Gone,
            shown,
            void: None,
            void_by: None,
            folded: false,
        }],
        ..plain.clone()
    };
    let taken_away = CommitRecord {
        void: vec![(event.id(), "removed".to_owned())],
        void_by: vec![(event.id(), by)],
        ..plain.clone()
    };
    let given_back = CommitRecord {
        stand: vec![event.id()],
        marks: vec![(event.id(), marks.clone())],
        ..plain
    };
    Posted {
        event: event.id(),
        conversation,
        place,
        known,
        commits: [posted, taken_away, given_back],
    }
}

fn cause() -> Cause {
    Cause {
        event: EventId::from_bytes([8; 32]),
        author: UserId::from_bytes([9; 32]),
    }
}

fn opened(dir: &tempfile::TempDir) -> (Storage, Rows) {
    let me = ServerId::from_bytes([1; 32]);
    let config = Config::new(dir.path(), "boot");
    let (storage, _) = Storage::open(config, HomeProjection { me }).unwrap();
    let rows = Rows(storage.reader());
    (storage, rows)
}

#[test]
fn what_stands_again_reads_as_its_record_says() {
    let marks = Marks {
        deleted: Some(EventId::from_bytes([7; 32])),
        ..Marks::default()
    };
    let posted = posted(true, cause(), &marks);
    let dir = tempfile::tempdir().unwrap();
    let (storage, rows) = opened(&dir);
    let commits = posted.commits;
    let commits = commits.map(|body| record(kind::COMMIT, &body, vec![]));
    let records = [record(kind::CONVERSATION, &posted.known, vec![])];
    let records = records.into_iter().chain(commits).collect();
    storage.submit_and_wait(records).unwrap();
    let line = rows.line(&posted.conversation, &posted.place);
    assert_eq!(line.unwrap().unwrap().marks, marks);
}

#[test]
fn of_an_event_without_a_line_the_log_has_the_latest_and_its_row_who_took_it_away() {
    let posted = posted(false, cause(), &Marks::default());
    let dir = tempfile::tempdir().unwrap();
    let (storage, rows) = opened(&dir);
    let submit = |kind, body| storage.submit_and_wait(vec![record(kind, body, vec![])]);
    storage
        .submit_and_wait(vec![record(kind::CONVERSATION, &posted.known, vec![])])
        .unwrap();
    let [first, taken_away, given_back] = &posted.commits;
    submit(kind::COMMIT, first).unwrap();
    let (reader, everyone) = (UserId::from_bytes([2; 32]), Sight::everything());
    for _ in 0..3 {
        for (record, by) in [(taken_away, Some(cause())), (given_back, None)] {
            submit(kind::COMMIT, record).unwrap();
            let row = rows.event(&posted.event).unwrap().unwrap();
            assert_eq!(row.void_by, by);
            let log = rows.log(&posted.conversation, (0, 0), u64::MAX, 10);
            let log = log.unwrap();
            assert_eq!(log.len(), 1, "the latest alone: {log:?}");
            let mut items = Items::new(&rows);
            let told = items.change(posted.conversation, &log[0].2, &reader, &everyone);
            let (conversation, event) = (posted.conversation, posted.event);
            let expected = match by {
                Some(_) => Change::Vanished {
                    conversation,
                    event,
                    reason: "removed".to_owned(),
                    by,
                },
                None => Change::Stands {
                    conversation,
                    event,
                },
            };
            assert_eq!(told.unwrap(), Some(expected));
        }
    }
}

fn local(user: UserId) -> AccountRecord {
    AccountRecord {
        user,
        handle: "somebody".to_owned(),
        password: None,
        created_at: Timestamp(1),
    }
}

/// The list of who took things away, and the change log as this reader is told.
fn seen_by(
    rows: &Rows,
    posted: &Posted,
    reader: UserId,
) -> (Vec<(Place, EventId)>, Vec<Option<Change>>) {
    let list = rows.voided(&posted.conversation, &reader, None, 10);
    let log = rows.log(&posted.conversation, (0, 0), u64::MAX, 10);
    let (mut items, everyone) = (Items::new(rows), Sight::everything());
    let told = log.unwrap().into_iter().map(|(_, _, entry)| {
        let told = items.change(posted.conversation, &entry, &reader, &everyone);
        told.unwrap()
    });
    (list.unwrap(), told.collect())
}

#[test]
fn what_is_void_when_it_comes_is_listed_for_who_took_it_away_and_told_to_nobody_else() {
    for shown in [false, true] {
        let (dir, posted) = (
            tempfile::tempdir().unwrap(),
            posted(shown, cause(), &Marks::default()),
        );
        let (storage, rows) = opened(&dir);
        let submit = |kind, body| storage.submit_and_wait(vec![record(kind, body, vec![])]);
        let account = record(kind::ACCOUNT, &local(cause().author), vec![]);
        let known = record(kind::CONVERSATION, &posted.known, vec![]);
        storage.submit_and_wait(vec![account, known]).unwrap();
        let mut late = posted.commits[0].clone();
        late.events[0].void = Some("removed".to_owned());
        late.events[0].void_by = Some(cause());
        submit(kind::COMMIT, &late).unwrap();
        let vanished = Change::Vanished {
            conversation: posted.conversation,
            event: posted.event,
            reason: "removed".to_owned(),
            by: Some(cause()),
        };
        let (list, told) = seen_by(&rows, &posted, cause().author);
        assert_eq!(list, [(posted.place, posted.event)]);
        assert_eq!(told, [Some(vanished.clone())]);
        let (list, told) = seen_by(&rows, &posted, UserId::from_bytes([2; 32]));
        assert_eq!((list, told), (vec![], vec![None]));
        for _ in 0..2 {
            submit(kind::COMMIT, &posted.commits[2]).unwrap();
            let (list, told) = seen_by(&rows, &posted, cause().author);
            assert_eq!((list.len(), told.len()), (0, 1), "{told:?}");
            assert!(told[0].is_some() && told[0] != Some(vanished.clone()));
            submit(kind::COMMIT, &posted.commits[1]).unwrap();
            let (list, told) = seen_by(&rows, &posted, cause().author);
            assert_eq!(list, [(posted.place, posted.event)]);
            assert_eq!(told, [Some(vanished.clone())]);
        }
    }
}

#[test]
fn what_no_act_of_a_local_user_took_away_is_on_no_list() {
    let stranger = posted(true, cause(), &Marks::default());
    let dir = tempfile::tempdir().unwrap();
    let (storage, rows) = opened(&dir);
    let submit = |kind, body| storage.submit_and_wait(vec![record(kind, body, vec![])]);
    let known = record(kind::CONVERSATION, &stranger.known, vec![]);
    storage.submit_and_wait(vec![known]).unwrap();
    submit(kind::COMMIT, &stranger.commits[0]).unwrap();
    submit(kind::COMMIT, &stranger.commits[1]).unwrap();
    assert_eq!(seen_by(&rows, &stranger, cause().author).0, []);
    let account = record(kind::ACCOUNT, &local(cause().author), vec![]);
    storage.submit_and_wait(vec![account]).unwrap();
    submit(kind::COMMIT, &stranger.commits[2]).unwrap();
    let mut outranked = stranger.commits[1].clone();
    outranked.void[0].1 = "outranked".to_owned();
    submit(kind::COMMIT, &outranked).unwrap();
    assert_eq!(seen_by(&rows, &stranger, cause().author).0, []);
}

#[test]
fn what_came_void_and_counts_once_its_days_are_over_is_on_no_disk() {
    let posted = posted(true, cause(), &Marks::default());
    let dir = tempfile::tempdir().unwrap();
    let (storage, rows) = opened(&dir);
    let text = b"older than is kept".to_vec();
    let mut void = posted.commits[0].clone();
    void.events[0].slot = Slot::Held(0);
    void.events[0].void = Some("removed".to_owned());
    let mut again = void.clone();
    again.events[0].void = Some("lost_branch".to_owned());
    let mut counts = posted.commits[0].clone();
    counts.events[0].slot = Slot::Expired;
    let known = record(kind::CONVERSATION, &posted.known, vec![]);
    storage
        .submit_and_wait(vec![
            known,
            record(kind::COMMIT, &void, vec![text.clone()]),
            record(kind::COMMIT, &again, vec![text.clone()]),
        ])
        .unwrap();
    let held: Vec<_> = (1..=rows.0.newest())
        .filter(|number| {
            let at = ContentAt {
                record: *number,
                index: 0,
            };
            rows.0.content(at).is_ok()
        })
        .collect();
    assert_eq!(held.len(), 2, "both appearances hold it");
    let counts = record(kind::COMMIT, &counts, vec![]);
    storage.submit_and_wait(vec![counts]).unwrap();
    for number in held {
        let at = ContentAt {
            record: number,
            index: 0,
        };
        assert!(rows.0.content(at).is_err(), "record {number}");
    }
    let row = rows.event(&posted.event).unwrap().unwrap();
    assert_eq!(row.slot, Slot::Expired);
}
