//! Documents that are open, bounded in bytes: what was used longest ago is closed first.
//!
//! A pack that is touched for the first time is *cold*: only the messages that the changes are
//! about are put together, each from its own changes. Its document is built when it is touched
//! again, or for many messages at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{OPEN_BYTES_MAX, PackId};
use crate::document::{PackDocument, SPLIT_ABOVE, StateDocument};

/// Messages of a cold pack that are put together one by one; more open its document.
const COLD_MESSAGES_MAX: usize = 8;

#[derive(Debug)]
struct OpenPack {
    document: PackDocument,
    used: u64,
    bytes: usize,
}

/// The open documents of one conversation.
#[derive(Debug, Default)]
pub(super) struct OpenDocuments {
    packs: BTreeMap<PackId, OpenPack>,
    /// Packs that were touched and not opened.
    touched: BTreeSet<PackId>,
    uses: u64,
    bytes: usize,
    pub(super) state: Option<StateDocument>,
}

impl OpenDocuments {
    /// Bytes of all of them, roughly.
    pub(super) fn bytes(&self) -> usize {
        let state = self.state.as_ref();
        self.bytes + state.map_or(0, StateDocument::bytes_estimate)
    }

    /// Closes all of them. They are built again when they are needed.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    /// How many packs are open.
    pub(super) fn len(&self) -> usize {
        self.packs.len()
    }

    /// Whether a pack's document is to be used for so many of its messages, out of so many changes.
    /// The answer is remembered: a pack that is touched again is cold no more.
    pub(super) fn wants(&mut self, pack: PackId, messages: usize, changes: usize) -> bool {
        let cold = !self.packs.contains_key(&pack) && self.touched.insert(pack);
        // A full document refuses what a message's own changes would not know of.
        !cold || messages > COLD_MESSAGES_MAX || changes > SPLIT_ABOVE
    }

    /// An open pack, used now.
    pub(super) fn pack(&mut self, pack: PackId) -> Option<&mut PackDocument> {
        self.uses += 1;
        let open = self.packs.get_mut(&pack)?;
        open.used = self.uses;
        Some(&mut open.document)
    }

    /// Takes note of the size of a pack that was changed, and closes others if all are too large.
    pub(super) fn changed(&mut self, pack: PackId) {
        if let Some(open) = self.packs.get_mut(&pack) {
            self.bytes -= open.bytes;
            open.bytes = open.document.bytes_estimate();
            self.bytes += open.bytes;
        }
        while self.bytes > OPEN_BYTES_MAX {
            let others = self.packs.iter().filter(|(other, _)| **other != pack);
            let oldest = others.min_by_key(|(_, open)| open.used).map(|(id, _)| *id);
            let Some(oldest) = oldest else { break };
            self.close_pack(oldest);
        }
    }

    pub(super) fn open(&mut self, pack: PackId, document: PackDocument) {
        self.close_pack(pack);
        self.touched.insert(pack);
        self.uses += 1;
        let used = self.uses;
        let bytes = 0;
        self.packs.insert(
            pack,
            OpenPack {
                document,
                used,
                bytes,
            },
        );
        self.changed(pack);
    }

    /// Closes a pack: it has to be built again, or is cold.
    pub(super) fn close_pack(&mut self, pack: PackId) {
        self.touched.remove(&pack);
        if let Some(open) = self.packs.remove(&pack) {
            self.bytes -= open.bytes;
        }
    }
}
