//! What users are told of conversations that they are no members of any more: which of their events
//! turned void, and nothing else.

use comity_protocol::ids::{EventId, UserId};
use comity_storage::ReadError;

use super::{Rows, key};

impl Rows {
    /// A user's void events that fell while he was outside, by record and index, after a position and
    /// up to a record.
    pub(crate) fn outside(
        &self,
        user: &UserId,
        after: (u64, u16),
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, u16, EventId)>, ReadError> {
        let low = key::outside(user, after.0, after.1);
        let high = key::outside(user, to, u16::MAX);
        self.by_position(&low, &high, limit)
    }
}
