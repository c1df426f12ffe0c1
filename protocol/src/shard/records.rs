//! Root records of the conversations: those of peers, and the checkpoints of this home.

use super::{Output, Shard, Store, What, open::Open, work::Work};
use crate::{
    commit::RootRef,
    conversation::{CheckpointPace, Homes, ReceivedRecord, RecordKeys, TakenRecord},
    ids::{ConversationId, DeviceKey, PublicKey, ServerId, UserId},
    limits::LINK_FRAME_BYTES_MAX,
    link::RECORDS_MAX,
    replication::{Committed, RecordsNeed, RecordsOf},
    root::RawRoot,
    time::Timestamp,
};

impl Open {
    /// From which number on records are asked for, so that `record` can be taken.
    pub(super) fn lacks_from(&self, record: RootRef) -> u64 {
        let newest = self.machine.newest_record();
        let held = newest.map_or(0, |(newest, _)| newest.n);
        // What follows a twin of a held one needs that too.
        if record.n > held { held + 1 } else { 1 }
    }
}

impl Shard {
    /// Judges root records of a peer: answered with [`Output::RecordsTaken`].
    pub fn records(
        &mut self,
        now: Timestamp,
        of: RecordsOf,
        records: Vec<RawRoot>,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let id = of.conversation;
        let (mut need, mut any) = (RecordsNeed::default(), false);
        let known = store.cannot_store().is_none() && self.known(&id, store).is_ok();
        for raw in records.into_iter().filter(|_| known) {
            let Some(open) = self.open.get_mut(&id) else {
                break;
            };
            match with_keys(store, |keys| open.machine.receive_record(raw, keys)) {
                ReceivedRecord::Taken(taken) => {
                    any = true;
                    self.taken_record(id, *taken, out);
                }
                ReceivedRecord::Known => {}
                ReceivedRecord::Waiting {
                    record,
                    commits,
                    users,
                } => {
                    need.missing.extend(commits);
                    need.users.extend(users);
                    // Records come in order, so the one before was not sent: all of them are asked
                    // for, since it may follow a twin.
                    need.from = need.from.or(record.map(|_| 1));
                }
                ReceivedRecord::Refused(_, why) => {
                    need.refused += 1;
                    out.push(Output::Refused(Some(id), why.to_owned()));
                }
            }
        }
        out.push(Output::RecordsTaken(of, need));
        if any {
            self.records_followed(now, id, store, out);
        }
    }

    /// What waited for records that were taken.
    pub(super) fn records_followed(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        self.commits_released(now, id, store, out);
        self.records_released(now, id, store, out);
    }

    /// Root records from a number on, for a peer that takes part or once did; as many as fit a frame.
    pub fn serve_records(&mut self, of: &RecordsOf, from: u64, store: &dyn Store) -> Vec<RawRoot> {
        let Ok(open) = self.known(&of.conversation, store) else {
            return Vec::new();
        };
        // The act that ends the part of a home may have seen a record that the home lacks.
        if !open.peers.contains(&of.peer) && !open.machine.authority().is_named(&of.peer) {
            return Vec::new();
        }
        let mut bytes = 0;
        let fits = |raw: &&RawRoot| {
            bytes += raw.root.0.len() + 256 * raw.signatures.len();
            bytes <= LINK_FRAME_BYTES_MAX / 2
        };
        let records = open.machine.records_from(from).take(RECORDS_MAX);
        records.take_while(fits).cloned().collect()
    }

    /// Makes checkpoints at another pace than daily.
    pub const fn set_checkpoint_pace(&mut self, pace: CheckpointPace) {
        self.pace = pace;
    }

    /// Makes a checkpoint at once where this home is the only steward, and signed nothing that may
    /// be the next record already.
    pub(super) fn checkpoint_alone(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) -> bool {
        let nonce = self.seed.draw().nonce();
        let epoch = self.epoch;
        let open = self.open.get_mut(&id);
        let Some(open) = open.filter(|open| open.machine.is_only_steward()) else {
            return false;
        };
        if open.has_signed() {
            return false;
        }
        let owner = open.machine.newest_record().map(|(_, root)| root.owner);
        let home_key = owner.and_then(|owner| store.home_key(&owner));
        let machine = &mut open.machine;
        let taken =
            home_key.and_then(|key| machine.make_checkpoint(now, nonce, &key, (epoch, &self.key)));
        if let Some(taken) = taken {
            self.taken_record(id, taken, out);
        }
        true
    }

    /// Something came that records may have waited for.
    pub(super) fn release_records(
        &mut self,
        now: Timestamp,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let waiting = |(_, open): &(&ConversationId, &Open)| open.machine.has_waiting_records();
        let ids: Vec<_> = self
            .open
            .iter()
            .filter(waiting)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.records_released(now, id, store, out);
        }
    }

    /// Something was taken: records that waited for it, and commits that waited for those. Mostly
    /// no record waits, and then this costs nothing.
    pub(super) fn records_released(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        loop {
            let waiting = |open: &&mut Open| open.machine.has_waiting_records();
            let Some(open) = self.open.get_mut(&id).filter(waiting) else {
                return;
            };
            let records = with_keys(store, |keys| open.machine.release_records(keys));
            if records.is_empty() {
                return;
            }
            // A commit that is released may name a record that was, not the other way about: what
            // a record waits for was taken before this.
            for taken in records {
                self.taken_record(id, taken, out);
            }
            self.commits_released(now, id, store, out);
        }
    }

    /// Commits that waited for records.
    fn commits_released(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let devices = |user: &UserId, device: &DeviceKey| store.had_device(user, device);
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let commits = open.machine.release_waiting(now, &devices);
        open.answer_given_up(out);
        for taken in commits {
            self.taken(id, taken, out);
        }
    }

    /// Sends a taken record on its way to the disk.
    pub(super) fn taken_record(
        &mut self,
        id: ConversationId,
        taken: TakenRecord,
        out: &mut Vec<Output>,
    ) {
        let me = self.me;
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let Some((newest, _)) = open.machine.newest_record() else {
            return;
        };
        open.note_sights(&me, None, &taken.changes);
        let users = open.roles(&me, &taken.changes.roles);
        let Homes { joined, left } = open.homes(&me, &taken.changes.homes);
        let own_tip = open.own_tip;
        let ended = left.iter().map(|home| (*home, own_tip)).collect();
        let committed = Committed::Record {
            conversation: id,
            newest,
            raw: taken.raw.clone(),
            own_tip,
            joined,
            left,
        };
        let twins = open.machine.twins_of(&taken.record);
        open.recording.insert(taken.record);
        if open.ballot.is_some() {
            self.overtaken.push(id);
        }
        // It may have settled for how long contents are kept.
        let machine = &open.machine;
        if machine.authority().keep_days(machine.graph()).is_some() {
            self.retention.look_at(id);
        }
        let work = Work::Record(taken.record);
        let what = What::Record {
            taken: Box::new(taken),
            newest,
            twins,
            ended,
        };
        self.submit(id, what, users, Some(committed), work, out);
    }
}

pub(super) fn with_keys<T>(store: &dyn Store, f: impl FnOnce(&RecordKeys<'_>) -> T) -> T {
    let server = |server: &ServerId, epoch| store.key_of(server, epoch);
    let device = |user: &UserId, device: &DeviceKey| store.had_device(user, device);
    let home = |user: &UserId, key: &PublicKey| store.had_home_key(user, key);
    f(&RecordKeys {
        server: &server,
        device: &device,
        home: &home,
    })
}
