use comity_protocol::root::{Ballot, RawRoot};
use comity_storage::{Config, Record, Storage};

use super::*;
use crate::{
    projection::HomeProjection,
    records::{RootRecord, StewardRecord, UnreachedRecord, kind, record},
};

const ROOM: ConversationId = ConversationId::from_bytes([4; 32]);
const ME: ServerId = ServerId::from_bytes([1; 32]);
const PEER: ServerId = ServerId::from_bytes([2; 32]);

fn root(n: u64, id: u8) -> RootRef {
    RootRef {
        n,
        id: RootId::from_bytes([id; 32]),
    }
}

fn promised(round: u64) -> Steward {
    let before = root(0, 4);
    let mut steward = Steward::after(before);
    let ballot = Ballot { round, by: PEER };
    steward
        .prepare(Timestamp(1), &before, ballot, Vec::new)
        .unwrap();
    steward
}

fn root_record(id: u8, twins: Option<TwinsRow>) -> Record {
    let body = RootRecord {
        conversation: ROOM,
        root: RawRoot {
            root: Blob(vec![id]),
            ballot: None,
            signatures: vec![],
        },
        id: root(1, id).id,
        before: None,
        frontier: vec![],
        newest: root(1, id),
        twins,
        at: Timestamp(1),
        marks: vec![],
        void: vec![],
        void_by: vec![],
        void_outside: vec![],
        stand: vec![],
        moved: vec![],
        folded: vec![],
        erase: vec![],
        members: vec![],
        sights: vec![],
        history: None,
        state: vec![],
        ended: vec![],
        due: None,
    };
    record(kind::ROOT, &body, vec![])
}

#[test]
fn what_a_steward_did_and_saw_is_read_back_from_the_log_alone() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let config = Config::new(dir.path(), "boot");
        Storage::open(config, HomeProjection { me: ME }).unwrap().0
    };
    let check = |storage: &Storage| {
        let rows = Rows(storage.reader());
        assert_eq!(rows.steward(&ROOM).unwrap(), Some(promised(7)));
        assert_eq!(rows.unreached().unwrap(), [(PEER, 3_600_000)]);
        let twins = rows.twins().unwrap();
        let [(room, pair)] = &twins[..] else {
            panic!("{twins:?}");
        };
        assert_eq!((*room, pair.n, pair.loses), (ROOM, 1, root(1, 9).id));
        assert_eq!(pair.signed_both, [PEER]);
    };
    let storage = open();
    let steward = |round| StewardRecord {
        conversation: ROOM,
        steward: promised(round),
        due: None,
    };
    let unreached = |ms| UnreachedRecord { peer: PEER, ms };
    let twins = TwinsRow {
        n: 1,
        stands: root(1, 8).id,
        loses: root(1, 9).id,
        signed_both: vec![PEER],
    };
    let records = vec![
        record(kind::STEWARD, &steward(3), vec![]),
        record(kind::UNREACHED, &unreached(0), vec![]),
        record(kind::STEWARD, &steward(7), vec![]),
        record(kind::UNREACHED, &unreached(3_600_000), vec![]),
        root_record(9, None),
        root_record(8, Some(twins)),
    ];
    storage.submit_and_wait(records).unwrap();
    check(&storage);
    drop(storage);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    check(&open());
}
