//! Bounds the documents that a shard's conversations have open, all together.

use super::{Shard, open::Open};
use crate::{ids::ConversationId, limits::SHARD_DOCUMENT_BYTES_MAX};

impl Shard {
    /// Bytes of all open documents, roughly.
    #[must_use]
    pub const fn document_bytes(&self) -> usize {
        self.document_bytes
    }

    /// Takes note of a conversation's documents after it was changed. Beyond the limit, documents
    /// of conversations that were not used for longest are closed; they are built again from what
    /// is held when they are needed.
    pub(super) fn bound_documents(&mut self, changed: ConversationId) {
        if let Some(open) = self.open.get_mut(&changed) {
            let bytes = open.machine.document_bytes();
            self.document_bytes = self.document_bytes - open.document_bytes + bytes;
            open.document_bytes = bytes;
        }
        if self.document_bytes <= SHARD_DOCUMENT_BYTES_MAX {
            return;
        }
        let others = self.open.iter().filter(|(id, _)| **id != changed);
        let mut others: Vec<_> = others
            .filter(|(_, open)| open.document_bytes > 0)
            .map(|(id, open)| (open.used, *id))
            .collect();
        others.sort_unstable();
        for (_, id) in others {
            // Some room is made at once, so that not every commit has to look for more.
            if self.document_bytes <= SHARD_DOCUMENT_BYTES_MAX / 4 * 3 {
                break;
            }
            if let Some(open) = self.open.get_mut(&id) {
                open.machine.close_documents();
                self.document_bytes -= std::mem::take(&mut open.document_bytes);
            }
        }
    }

    /// Takes a conversation out of the open ones.
    pub(super) fn put_away(&mut self, id: &ConversationId) -> Option<Open> {
        let open = self.open.remove(id)?;
        self.document_bytes -= open.document_bytes;
        Some(open)
    }
}
