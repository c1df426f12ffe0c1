//! What users are told of conversations that they are no members of any more: which of their events
//! turned void, and nothing else.

use std::ops::Bound;

use comity_protocol::ids::{EventId, UserId};
use comity_storage::{Direction, ReadError};

use super::{Rows, id_at, key, parse};

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
        if low >= high {
            return Ok(Vec::new());
        }
        let (low, high) = (Bound::Excluded(&*low), Bound::Included(&*high));
        let rows = self.0.scan(low, high, Direction::Forward, limit)?;
        let parsed = rows.iter().filter_map(|(key, bytes)| {
            let record = u64::from_be_bytes(id_at(key, 33)?);
            let index = u16::from_be_bytes(id_at(key, 41)?);
            Some((record, index, parse(bytes)?))
        });
        Ok(parsed.collect())
    }
}
