//! Contents that came withheld and are so still.

use std::ops::Bound;

use comity_protocol::{authority::Span, ids::ConversationId, session::Place};
use comity_storage::{Direction, ReadError};

use super::{Rows, id_at, key};

impl Rows {
    /// Where they are within a span of a conversation: the first ones, at most so many.
    pub(crate) fn withheld(
        &self,
        conversation: &ConversationId,
        within: &Span,
        limit: usize,
    ) -> Result<Vec<Place>, ReadError> {
        let low = key::withheld(conversation, &within.from);
        let high = match &within.to {
            Some(to) => key::withheld(conversation, to),
            None => [&low[..33], &[0xff; 42]].concat(),
        };
        if low > high {
            return Ok(Vec::new());
        }
        let (low, high) = (Bound::Included(&*low), Bound::Included(&*high));
        let rows = self.0.scan(low, high, Direction::Forward, limit)?;
        let place = |(key, _): &(Vec<u8>, _)| Place::from_key(key.get(33..)?);
        Ok(rows.iter().filter_map(place).collect())
    }

    /// Every conversation in which there are some.
    pub(crate) fn withheld_in(&self) -> Result<Vec<ConversationId>, ReadError> {
        let (mut all, mut low) = (Vec::new(), b"W".to_vec());
        let high = [b"W".as_slice(), &[0xff; 75]].concat();
        loop {
            let bounds = (Bound::Excluded(&*low), Bound::Included(&*high));
            let next = self.0.scan(bounds.0, bounds.1, Direction::Forward, 1)?;
            let Some(id) = next.first().and_then(|(key, _)| id_at(key, 1)) else {
                return Ok(all);
            };
            let id = ConversationId::from_bytes(id);
            all.push(id);
            // What else is withheld in it is not read.
            low = [b"W", id.as_bytes().as_slice(), &[0xff; 42]].concat();
        }
    }
}
