//! Identity logs on the way: learning, looking up, and what waits for them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use comity_protocol::{
    identity::IdentityLog,
    ids::{ConversationId, ServerId, UserId},
    link::{Offer, Query},
};
use tokio::sync::oneshot;

/// A lookup without answer for this long has none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lookups under way.
const UNDER_WAY_MAX: usize = 4_096;

/// Why a lookup was made.
pub(super) enum Why {
    /// Items wait for the log of this user.
    Items(UserId),
    /// A conversation was offered.
    Offer(ConversationId, Offer),
    /// A request, perhaps asked of several servers.
    Request(u64),
}

struct Request {
    reply: oneshot::Sender<Option<Arc<IdentityLog>>>,
    /// Servers that have not answered.
    open: usize,
}

struct UnderWay {
    server: ServerId,
    why: Why,
    query: Query,
    since: Instant,
}

#[derive(Default)]
pub(super) struct Lookups {
    next: u64,
    under_way: BTreeMap<u64, UnderWay>,
    requests: BTreeMap<u64, Request>,
}

impl Lookups {
    /// Notes a lookup at a server and gives its id; `None` if there is one, or no room.
    pub(super) fn begin(&mut self, server: ServerId, why: Why, query: Query) -> Option<u64> {
        let same = |other: &UnderWay| match (&other.why, &why) {
            (Why::Items(a), Why::Items(b)) => other.server == server && a == b,
            (Why::Offer(a, _), Why::Offer(b, _)) => other.server == server && a == b,
            _ => false,
        };
        if self.under_way.len() >= UNDER_WAY_MAX || self.under_way.values().any(same) {
            return None;
        }
        self.next += 1;
        let since = Instant::now();
        self.under_way.insert(
            self.next,
            UnderWay {
                server,
                why,
                query,
                since,
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
            };
            fits && asked.server == *server
        })
    }

    /// A request that several servers are asked about.
    pub(super) fn request(
        &mut self,
        servers: &[ServerId],
        query: &Query,
        reply: oneshot::Sender<Option<Arc<IdentityLog>>>,
    ) -> Vec<(ServerId, u64)> {
        self.next += 1;
        let request = self.next;
        let asked: Vec<_> = servers
            .iter()
            .filter_map(|server| {
                let id = self.begin(*server, Why::Request(request), query.clone())?;
                Some((*server, id))
            })
            .collect();
        if asked.is_empty() {
            let _ = reply.send(None);
        } else {
            self.requests.insert(
                request,
                Request {
                    reply,
                    open: asked.len(),
                },
            );
        }
        asked
    }

    /// An answer came, perhaps an empty one.
    pub(super) fn answered(&mut self, id: u64, log: Option<&Arc<IdentityLog>>) -> Option<Why> {
        let UnderWay { why, .. } = self.under_way.remove(&id)?;
        if let Why::Request(request) = why {
            self.settle(request, log);
            return None;
        }
        Some(why)
    }

    fn settle(&mut self, id: u64, log: Option<&Arc<IdentityLog>>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.open -= 1;
        if (log.is_some() || request.open == 0)
            && let Some(request) = self.requests.remove(&id)
        {
            let _ = request.reply.send(log.cloned());
        }
    }

    /// Gives up what nobody answered.
    pub(super) fn tick(&mut self) {
        let old: Vec<u64> = self
            .under_way
            .iter()
            .filter(|(_, asked)| asked.since.elapsed() > PATIENCE)
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            self.answered(id, None);
        }
    }
}

/// The users whose identity logs an offer needs before it can be taken.
pub(super) fn users_of(offer: &Offer, owner: Option<UserId>) -> Vec<UserId> {
    match offer {
        Offer::Group(_) => owner.into_iter().collect(),
        Offer::Direct(a, b) => vec![*a, *b],
    }
}

pub(super) const fn query(user: UserId) -> Query {
    Query::User(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u8) -> UserId {
        UserId::from_bytes([n; 32])
    }

    #[test]
    fn an_answer_counts_only_from_whom_was_asked_and_about_whom() {
        let (asked, other) = (ServerId::from_bytes([1; 32]), ServerId::from_bytes([2; 32]));
        let mut lookups = Lookups::default();
        let why = Why::Items(user(1));
        let id = lookups.begin(asked, why, query(user(1))).unwrap();
        assert!(lookups.is_about(id, &asked, &user(1)));
        assert!(!lookups.is_about(id, &asked, &user(2)));
        assert!(!lookups.is_about(id, &other, &user(1)));
        assert!(!lookups.is_about(id + 1, &asked, &user(1)));
    }

    #[test]
    fn a_request_is_answered_with_nothing_once_all_who_were_asked_know_nothing() {
        let servers = [1, 2].map(|n| ServerId::from_bytes([n; 32]));
        let (reply, mut answer) = oneshot::channel();
        let mut lookups = Lookups::default();
        let ids = lookups.request(&servers, &query(user(1)), reply);
        lookups.answered(ids[0].1, None);
        assert!(answer.try_recv().is_err());
        lookups.answered(ids[1].1, None);
        assert!(answer.try_recv().unwrap().is_none());
        lookups.answered(ids[1].1, None);
    }
}
