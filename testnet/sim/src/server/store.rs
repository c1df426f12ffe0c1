//! What a server has stored, as its machines ask for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use comity_protocol::{
    authority::Span,
    card::CardChain,
    commit::UnverifiedCommit,
    conversation::Conversation,
    event::SignedEvent,
    identity::{IdentityLog, home_key},
    ids::{CommitId, ConversationId, DeviceKey, EventId, PublicKey, ServerId, UserId},
    limits::SUCCESSION_MS,
    replication::{Directory, ForPeers, Replication},
    session::{Code, Place, WireError},
    shard::{Due, Store, Stored},
    signing::SecretKey,
};

use super::Cards;
use crate::{
    disk::Disk,
    planted::Planted,
    rows::{Body, Rows},
};

pub(super) struct View<'a> {
    pub(super) me: ServerId,
    pub(super) rows: &'a Rows,
    pub(super) disk: &'a Disk,
    pub(super) identities: &'a BTreeMap<UserId, Arc<IdentityLog>>,
    pub(super) cards: &'a Cards,
    pub(super) key: &'a SecretKey,
    pub(super) links: &'a Replication,
    pub(super) linked: &'a BTreeSet<ServerId>,
    pub(super) now_ms: u64,
    pub(super) planted: Option<Planted>,
}

impl View<'_> {
    fn restore(&self, machine: &mut Conversation, number: usize) -> Option<()> {
        let record = match &self.disk.log[number].body {
            Body::Commit(record) => record,
            Body::Root(record) => return machine.restore_record(record.raw.clone()).ok(),
            _ => return None,
        };
        let commit = UnverifiedCommit::decode(record.commit.clone()).ok()?;
        let events: Result<Vec<_>, _> = record
            .events
            .iter()
            .map(|entry| SignedEvent::from_trusted(entry.raw.clone()))
            .collect();
        machine.restore(&commit.trusted(), &events.ok()?).ok()
    }
}

impl Store for View<'_> {
    fn read(&self, conversation: &ConversationId) -> Result<Option<Stored>, WireError> {
        let Some(known) = self.rows.known.get(conversation) else {
            return Ok(None);
        };
        let unreadable = || WireError::new(Code::Internal, "the store cannot be read");
        let mut machine =
            Conversation::of_offer(&known.offer, self.me, 1).ok_or_else(unreadable)?;
        for number in &known.order {
            self.restore(&mut machine, *number).ok_or_else(unreadable)?;
        }
        let members = known.members.iter();
        let acked = self.rows.acked.iter();
        let acked = acked.filter(|((of, _), _)| of == conversation);
        Ok(Some(Stored {
            machine,
            members: members.map(|(user, (_, home))| (*user, *home)).collect(),
            acked: acked.map(|((_, peer), seq)| (*peer, *seq)).collect(),
            own_end: None,
            steward: known.steward.clone(),
            // Runs are shorter than what would be due: it is told anew with each opening.
            due: Due::default(),
        }))
    }

    fn bundle(
        &self,
        conversation: &ConversationId,
        commit: &CommitId,
        with_contents: bool,
    ) -> Option<ForPeers> {
        self.rows
            .bundle(conversation, commit, with_contents, &self.disk.log)
    }

    fn had_device(&self, user: &UserId, device: &DeviceKey) -> Option<bool> {
        if self.planted == Some(Planted::BelieveAnyDevice) {
            return Some(true);
        }
        self.identities.get(user).map(|log| log.had_device(device))
    }

    fn had_home_key(&self, user: &UserId, key: &PublicKey) -> Option<bool> {
        self.identities.get(user).map(|log| log.had_home_key(key))
    }

    fn home_key(&self, user: &UserId) -> Option<SecretKey> {
        let log = self.identities.get(user)?;
        (log.home() == self.me).then(|| home_key(self.key, log.nonce()))
    }

    fn key_of(&self, origin: &ServerId, _: u64) -> Option<PublicKey> {
        self.cards.0.get(origin).copied()
    }

    fn unreached_ms(&self, server: &ServerId) -> u64 {
        if self.planted == Some(Planted::HastyHeir) && !self.linked.contains(server) {
            return SUCCESSION_MS;
        }
        self.links.unreached_ms(server)
    }

    fn withheld(&self, conversation: &ConversationId, within: &Span, limit: usize) -> Vec<Place> {
        self.rows
            .withheld(conversation, within, limit, &self.disk.log)
    }

    fn holds(&self, event: &EventId) -> bool {
        self.rows.holds(event)
    }

    fn cannot_store(&self) -> Option<WireError> {
        self.disk.cannot_store(self.now_ms)
    }
}

pub(super) struct Learning<'a> {
    pub(super) identities: &'a mut BTreeMap<UserId, Arc<IdentityLog>>,
    pub(super) learnt: Vec<Arc<IdentityLog>>,
}

impl Directory for Learning<'_> {
    fn log(&self, user: &UserId) -> Option<Arc<IdentityLog>> {
        self.identities.get(user).cloned()
    }

    fn user_of(&self, handle: &str) -> Option<UserId> {
        let mut logs = self.identities.values();
        let log = logs.find(|log| log.handle().as_str() == handle)?;
        Some(log.user())
    }

    fn learn(&mut self, log: Arc<IdentityLog>) {
        self.identities.insert(log.user(), Arc::clone(&log));
        self.learnt.push(log);
    }

    // Every simulated server knows the keys of all from the start.
    fn cards(&self, _: &ServerId) -> Option<Arc<CardChain>> {
        None
    }

    fn learn_cards(&mut self, _: Arc<CardChain>) {}
}
