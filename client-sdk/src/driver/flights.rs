//! Requests under way and the liveness of one session: pure, time comes in as milliseconds.

use std::collections::BTreeMap;

use comity_protocol::limits::{PING_MS, SESSION_SILENCE_MS};

use crate::limits::SEND_ANSWER_MS;

/// What the clock asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Due {
    /// Nothing before this time.
    Nothing(u64),
    /// Send a ping.
    Ping,
    /// Nothing was heard for two pings.
    Silent,
    /// A request has gone unanswered for too long while the server answers others.
    Unanswered,
}

/// Requests under way, each with a token that says what to do with its answer.
#[derive(Debug)]
pub(crate) struct Flights<T> {
    open: BTreeMap<u64, (u64, T)>,
    next_id: u64,
    last_heard: u64,
    last_asked: u64,
}

impl<T> Flights<T> {
    pub(crate) const fn new(now: u64) -> Self {
        Self {
            open: BTreeMap::new(),
            next_id: 1,
            last_heard: now,
            last_asked: now,
        }
    }

    /// The id of the next request.
    pub(crate) const fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Notes that the next request left.
    pub(crate) fn asked(&mut self, now: u64, token: T) {
        self.open.insert(self.next_id, (now, token));
        self.next_id += 1;
        self.last_asked = now;
    }

    /// Notes that a frame came.
    pub(crate) const fn heard(&mut self, now: u64) {
        self.last_heard = now;
    }

    /// The token of an answered request; none for an id that is not under way, as when an answer
    /// comes twice.
    pub(crate) fn answered(&mut self, id: u64) -> Option<T> {
        self.open.remove(&id).map(|(_, token)| token)
    }

    pub(crate) fn due(&self, now: u64) -> Due {
        let silent_at = self.last_heard + SESSION_SILENCE_MS;
        // Ids and times grow together: the first is the oldest.
        let oldest = self.open.values().next().map(|(asked, _)| *asked);
        let unanswered_at = oldest.map_or(u64::MAX, |asked| asked + SEND_ANSWER_MS);
        let ping_at = self.last_asked + PING_MS;
        if now >= silent_at {
            Due::Silent
        } else if now >= unanswered_at {
            Due::Unanswered
        } else if now >= ping_at {
            Due::Ping
        } else {
            Due::Nothing(silent_at.min(unanswered_at).min(ping_at))
        }
    }

    /// Every token still under way, oldest first.
    pub(crate) fn into_tokens(self) -> impl Iterator<Item = T> {
        self.open.into_values().map(|(_, token)| token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_session_is_pinged_and_a_dead_one_dropped_after_two_pings() {
        let mut flights = Flights::new(0);
        assert_eq!(flights.due(0), Due::Nothing(PING_MS));
        assert_eq!(flights.due(PING_MS), Due::Ping);
        flights.asked(PING_MS, ());
        assert_eq!(flights.due(2 * PING_MS), Due::Ping);
        flights.asked(2 * PING_MS, ());
        assert_eq!(flights.due(SESSION_SILENCE_MS), Due::Silent);
        flights.heard(SESSION_SILENCE_MS);
        assert_eq!(flights.due(SESSION_SILENCE_MS), Due::Nothing(3 * PING_MS));
    }

    #[test]
    fn a_request_that_is_never_answered_ends_a_session_that_still_talks() {
        let mut flights = Flights::new(0);
        flights.asked(0, "send");
        flights.asked(50_000, "ping");
        assert_eq!(flights.answered(2), Some("ping"));
        flights.heard(50_000);
        assert_eq!(
            flights.due(SEND_ANSWER_MS - 1),
            Due::Nothing(SEND_ANSWER_MS)
        );
        assert_eq!(flights.due(SEND_ANSWER_MS), Due::Unanswered);
        assert_eq!(flights.into_tokens().collect::<Vec<_>>(), ["send"]);
    }

    #[test]
    fn an_answer_counts_once() {
        let mut flights = Flights::new(0);
        flights.asked(0, ());
        assert_eq!((flights.answered(1), flights.answered(1)), (Some(()), None));
        assert_eq!(flights.answered(99), None);
    }
}
