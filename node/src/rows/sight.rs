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
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        let mut lines = Vec::new();
        let mut read = |span: &Span| {
            let end = span.to.map_or(Bound::Unbounded, Bound::Included);
            let bounds = match direction {
                Direction::Forward => (later(from, Bound::Included(span.from)), end),
                Direction::Reverse => (Bound::Included(span.from), earlier(from, end)),
            };
            let more = limit - lines.len();
            lines.extend(self.lines(conversation, bounds, direction, more)?);
            Ok::<_, ReadError>(lines.len() >= limit)
        };
        let spans = sight.spans().iter();
        match direction {
            Direction::Forward => {
                for span in spans {
                    if read(span)? {
                        break;
                    }
                }
            }
            Direction::Reverse => {
                for span in spans.rev() {
                    if read(span)? {
                        break;
                    }
                }
            }
        }
        Ok(lines)
    }
}

/// Of two lower bounds the one that leaves less.
fn later(a: Bound<Place>, b: Bound<Place>) -> Bound<Place> {
    match (a, b) {
        (Bound::Unbounded, other) | (other, Bound::Unbounded) => other,
        (Bound::Excluded(x), Bound::Included(y)) | (Bound::Included(y), Bound::Excluded(x)) => {
            if x >= y {
                Bound::Excluded(x)
            } else {
                Bound::Included(y)
            }
        }
        (Bound::Included(x), Bound::Included(y)) => Bound::Included(x.max(y)),
        (Bound::Excluded(x), Bound::Excluded(y)) => Bound::Excluded(x.max(y)),
    }
}

/// Of two upper bounds the one that leaves less.
fn earlier(a: Bound<Place>, b: Bound<Place>) -> Bound<Place> {
    match (a, b) {
        (Bound::Unbounded, other) | (other, Bound::Unbounded) => other,
        (Bound::Excluded(x), Bound::Included(y)) | (Bound::Included(y), Bound::Excluded(x)) => {
            if x <= y {
                Bound::Excluded(x)
            } else {
                Bound::Included(y)
            }
        }
        (Bound::Included(x), Bound::Included(y)) => Bound::Included(x.min(y)),
        (Bound::Excluded(x), Bound::Excluded(y)) => Bound::Excluded(x.min(y)),
    }
}
