//! Identity logs that are asked of peers, and what waits for them.

use std::collections::BTreeMap;

use crate::{
    ids::{ConversationId, ServerId, UserId},
    link::{Offer, Query},
    time::Timestamp,
};

/// A lookup without answer for this long has none, in milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// Lookups under way.
const UNDER_WAY_MAX: usize = 4_096;

/// Why a lookup was made.
#[derive(Debug)]
pub(super) enum Why {
    /// Items wait for the log of this user.
    Items(UserId),
    /// A conversation was offered.
    Offer(ConversationId, Offer),
    /// Items, or a home that takes part, wait for the cards of this server.
    Cards(ServerId),
    /// A request, perhaps asked of several servers.
    Request(u64),
}

#[derive(Debug)]
struct UnderWay {
    server: ServerId,
    why: Why,
    query: Query,
    since: Timestamp,
}

/// What an answer settles.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// What the lookup was made for, unless for a request.
    pub(super) why: Option<Why>,
    /// A request that is answered now.
    pub(super) request: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Lookups {
    next: u64,
    under_way: BTreeMap<u64, UnderWay>,
    /// Requests, and how many servers have not answered.
    requests: BTreeMap<u64, usize>,
}

impl Lookups {
    /// Notes a lookup at a server and gives its id; `None` if there is one, or no room.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        server: ServerId,
        why: Why,
        query: Query,
    ) -> Option<u64> {
        let same = |other: &UnderWay| match (&other.why, &why) {
            (Why::Items(a), Why::Items(b)) => other.server == server && a == b,
            (Why::Offer(a, _), Why::Offer(b, _)) => other.server == server && a == b,
            (Why::Cards(a), Why::Cards(b)) => other.server == server && a == b,
            _ => false,
        };
        if self.under_way.len() >= UNDER_WAY_MAX || self.under_way.values().any(same) {
            return None;
        }
        self.next += 1;
        self.under_way.insert(
            self.next,
            UnderWay {
                server,
                why,
                query,
                since: now,
            },
        );
        Some(self.next)
    }

    /// Whether a log of this user answers what the server was asked. A peer that answers with
    /// somebody else's would have this server take his home for the other's.
    pub(super) fn is_about(&self, id: u64, server: &ServerId, user: &UserId) -> bool {
        self.under_way.get(&id).is_some_and(|asked| {
            let fits = match &asked.query {
                Query::User(wanted) => wanted == user,
                Query::Handle(_) => true,
                Query::Server(_) => false,
            };
            fits && asked.server == *server
        })
    }

    /// Whether cards of this server answer what a peer was asked.
    pub(super) fn is_about_server(&self, id: u64, peer: &ServerId, server: &ServerId) -> bool {
        self.under_way.get(&id).is_some_and(|asked| {
            asked.server == *peer && matches!(&asked.query, Query::Server(of) if of == server)
        })
    }

    /// A request that several servers are asked about: who, and with which id. Nobody: it has no
    /// answer.
    pub(super) fn request(
        &mut self,
        now: Timestamp,
        request: u64,
        servers: &[ServerId],
        query: &Query,
    ) -> Vec<(ServerId, u64)> {
        let asked: Vec<_> = servers
            .iter()
            .filter_map(|server| {
                let id = self.begin(now, *server, Why::Request(request), query.clone())?;
                Some((*server, id))
            })
            .collect();
        if !asked.is_empty() {
            self.requests.insert(request, asked.len());
        }
        asked
    }

    /// An answer came, with a log or an empty one.
    pub(super) fn answered(&mut self, id: u64, some: bool) -> Answered {
        let Some(UnderWay { why, .. }) = self.under_way.remove(&id) else {
            return Answered::default();
        };
        if let Why::Request(request) = why {
            let request = self.settle(request, some);
            return Answered { why: None, request };
        }
        let request = None;
        Answered {
            why: Some(why),
            request,
        }
    }

    /// The first log answers a request; nothing does once nobody is left to answer.
    fn settle(&mut self, request: u64, some: bool) -> Option<u64> {
        let open = self.requests.get_mut(&request)?;
        *open -= 1;
        let done = some || *open == 0;
        done.then(|| {
            self.requests.remove(&request);
            request
        })
    }

    /// Gives up what nobody answered; the requests that have no answer for it.
    pub(super) fn give_up_old(&mut self, now: Timestamp) -> Vec<u64> {
        let old: Vec<u64> = self
            .under_way
            .iter()
            .filter(|(_, asked)| now.ms_since(asked.since) > PATIENCE_MS)
            .map(|(id, _)| *id)
            .collect();
        old.into_iter()
            .filter_map(|id| self.answered(id, false).request)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(7);

    fn user(n: u8) -> UserId {
        UserId::from_bytes([n; 32])
    }

    #[test]
    fn an_answer_counts_only_from_whom_was_asked_and_about_whom() {
        let (asked, other) = (ServerId::from_bytes([1; 32]), ServerId::from_bytes([2; 32]));
        let mut lookups = Lookups::default();
        let (why, query) = (Why::Items(user(1)), Query::User(user(1)));
        let id = lookups.begin(NOW, asked, why, query).unwrap();
        assert!(lookups.is_about(id, &asked, &user(1)));
        assert!(!lookups.is_about(id, &asked, &user(2)));
        assert!(!lookups.is_about(id, &other, &user(1)));
        assert!(!lookups.is_about(id + 1, &asked, &user(1)));
    }

    #[test]
    fn a_request_is_answered_with_nothing_once_all_who_were_asked_know_nothing() {
        let servers = [1, 2].map(|n| ServerId::from_bytes([n; 32]));
        let mut lookups = Lookups::default();
        let ids = lookups.request(NOW, 5, &servers, &Query::User(user(1)));
        assert_eq!(lookups.answered(ids[0].1, false).request, None);
        assert_eq!(lookups.answered(ids[1].1, false).request, Some(5));
        assert_eq!(lookups.answered(ids[1].1, false).request, None);
    }

    #[test]
    fn a_request_is_answered_once_by_the_first_log_or_by_patience() {
        let servers = [1, 2].map(|n| ServerId::from_bytes([n; 32]));
        let mut lookups = Lookups::default();
        let ids = lookups.request(NOW, 5, &servers, &Query::User(user(1)));
        assert_eq!(lookups.answered(ids[0].1, true).request, Some(5));
        lookups.request(NOW, 6, &servers, &Query::User(user(1)));
        assert!(lookups.give_up_old(NOW.plus_ms(PATIENCE_MS)).is_empty());
        let late = NOW.plus_ms(PATIENCE_MS + 1);
        assert_eq!(lookups.give_up_old(late), [6]);
        assert!(lookups.give_up_old(late).is_empty());
    }
}
