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

#[derive(Default)]
pub(super) struct Lookups {
    next: u64,
    under_way: BTreeMap<u64, (ServerId, Why, Instant)>,
    requests: BTreeMap<u64, Request>,
}

impl Lookups {
    /// Notes a lookup at a server and gives its id; `None` if there is one, or no room.
    pub(super) fn begin(&mut self, server: ServerId, why: Why) -> Option<u64> {
        let same = |other: &(ServerId, Why, Instant)| match (&other.1, &why) {
            (Why::Items(a), Why::Items(b)) => other.0 == server && a == b,
            (Why::Offer(a, _), Why::Offer(b, _)) => other.0 == server && a == b,
            _ => false,
        };
        if self.under_way.len() >= UNDER_WAY_MAX || self.under_way.values().any(same) {
            return None;
        }
        self.next += 1;
        self.under_way
            .insert(self.next, (server, why, Instant::now()));
        Some(self.next)
    }

    /// A request that several servers are asked about.
    pub(super) fn request(
        &mut self,
        servers: &[ServerId],
        reply: oneshot::Sender<Option<Arc<IdentityLog>>>,
    ) -> Vec<(ServerId, u64)> {
        self.next += 1;
        let request = self.next;
        let asked: Vec<_> = servers
            .iter()
            .filter_map(|server| Some((*server, self.begin(*server, Why::Request(request))?)))
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
        let (_, why, _) = self.under_way.remove(&id)?;
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
            .filter(|(_, (_, _, since))| since.elapsed() > PATIENCE)
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
