//! What a reader sees of a conversation.

use std::ops::Bound;

use comity_protocol::{
    authority::{Sight, Span, Switch},
    ids::{ConversationId, UserId},
    session::Place,
};
use comity_storage::{Direction, ReadError};

use super::{LineRow, Rows, get, key};

impl Rows {
    /// What a local user sees of a conversation; of one that he is no member of, nothing that was
    /// for members.
    pub(crate) fn sight(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Sight, ReadError> {
        let spans: Option<Vec<Span>> = get(&self.0, &key::sight(conversation, user))?;
        let switches: Option<Vec<Switch>> = get(&self.0, &key::switches(conversation))?;
        Ok(Sight::new(
            &spans.unwrap_or_default(),
            &switches.unwrap_or_default(),
        ))
    }

    /// Lines that are seen, from a place (excluded) on, in one direction.
    pub(crate) fn seen_lines(
        &self,
        conversation: &ConversationId,
        sight: &Sight,
        from: Option<Place>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Place, LineRow)>, ReadError> {
        let forward = direction == Direction::Forward;
        let mut spans: Vec<&Span> = sight.spans().iter().collect();
        if !forward {
            spans.reverse();
        }
        let mut lines = Vec::new();
        for span in spans {
            if lines.len() >= limit {
                break;
            }
            let (low, high) = (from.filter(|_| forward), from.filter(|_| !forward));
            let low = match low {
                Some(from) if from >= span.from => Bound::Excluded(from),
                _ => Bound::Included(span.from),
            };
            let high = match (high, span.to) {
                (Some(from), to) if to.is_none_or(|to| from <= to) => Bound::Excluded(from),
                (_, Some(to)) => Bound::Included(to),
                (_, None) => Bound::Unbounded,
            };
            let more = limit - lines.len();
            lines.extend(self.lines(conversation, (low, high), direction, more)?);
        }
        Ok(lines)
    }
}
