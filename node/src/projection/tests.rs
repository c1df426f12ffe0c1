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
use comity_storage::{Config, Storage};

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
    let everyone = Sight::everything();
    for _ in 0..3 {
        for (record, by) in [(taken_away, Some(cause())), (given_back, None)] {
            submit(kind::COMMIT, record).unwrap();
            let row = rows.event(&posted.event).unwrap().unwrap();
            assert_eq!(row.void_by, by);
            let log = rows.log(&posted.conversation, (0, 0), u64::MAX, 10);
            let log = log.unwrap();
            assert_eq!(log.len(), 1, "the latest alone: {log:?}");
            let mut items = Items::new(&rows);
            let told = items.change(posted.conversation, &log[0].2, &everyone);
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
