//! Meeting servers by name. Source: `spec/08-identity.md`, section 7.
//!
//! Whoever answers over HTTPS at a name says whose the name is. Each side asks so itself: the one
//! that wants to talk asks at the other's name, and makes itself known by its own name, at which
//! the other asks in turn. Neither believes a name that somebody merely claims.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use comity_protocol::{
    card::{CARD_TEXT_BYTES_MAX, CardChain},
    ids::ServerId,
    name::ServerName,
    session::{Code, WireError},
};
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::HomeServer;
use crate::{
    gateway::home::{Introduced, Introduction},
    outbound::{Web, WebError},
    replication::Event,
    servers::Named,
};

/// Bytes of an answer: cards in text, and what is around them.
const ANSWER_BYTES_MAX: usize = CARD_TEXT_BYTES_MAX.div_ceil(3) * 4 + 4 * 1024;
/// Names asked at once.
const ASKED_AT_ONCE: usize = 16;
/// A name is not asked again within this time: whoever names others cannot make this server a
/// nuisance to them.
const PAUSE: Duration = Duration::from_secs(10);
/// Names asked within that time on one account: by users here, or for introductions.
const ASKED_IN_PAUSE: usize = 64;

/// Asking at names, bounded.
#[derive(Debug)]
pub(crate) struct Meeting {
    web: Web,
    asking: Semaphore,
    /// When each name was asked last, by whom: this server's own users, or somebody's introduction.
    asked: Mutex<BTreeMap<(ServerName, Why), Instant>>,
}

/// On whose account a name is asked.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Why {
    /// A user of this server looks somebody up there.
    Own,
    /// A server introduced itself by this name.
    Introduced,
}

/// What `/.well-known/comity` says, as far as it is used here.
#[derive(Debug, Deserialize)]
struct WellKnown {
    server: ServerId,
    card: String,
}

impl Meeting {
    pub(crate) fn new(web: Web) -> Self {
        Self {
            web,
            asking: Semaphore::new(ASKED_AT_ONCE),
            asked: Mutex::default(),
        }
    }

    /// Notes that a name is asked now, unless it just was.
    fn may_ask(&self, name: &ServerName, why: Why) -> Result<(), WireError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        asked.retain(|_, at| now.duration_since(*at) < PAUSE);
        let key = (name.clone(), why);
        let since = asked.get(&key).map(|at| now.duration_since(*at));
        if let Some(since) = since {
            let text = format!("{name} was asked a moment ago");
            let mut error = WireError::new(Code::RateLimited, text);
            let wait = PAUSE.checked_sub(since).unwrap_or_default();
            error.retry_after_ms = u64::try_from(wait.as_millis()).ok();
            return Err(error);
        }
        let of_account = asked.keys().filter(|(_, of)| *of == why);
        if of_account.count() >= ASKED_IN_PAUSE {
            return Err(WireError::new(Code::Busy, "too many servers are being met"));
        }
        asked.insert(key, now);
        Ok(())
    }

    /// The cards of the server that answers at a name, if they say that name.
    async fn cards_at(&self, name: &ServerName, why: Why) -> Result<CardChain, WireError> {
        self.may_ask(name, why)?;
        let busy = |_| WireError::new(Code::Busy, "too many servers are being met");
        let _asking = self.asking.try_acquire().map_err(busy)?;
        let found: WellKnown = self
            .web
            .get(url(name, "/.well-known/comity")?, ANSWER_BYTES_MAX)
            .await
            .map_err(|error| unreachable(name, &error))?;
        let cards = CardChain::from_text(&found.card)
            .map_err(|error| refused(name, &format!("its cards do not hold: {error}")))?;
        if cards.server() != found.server {
            return Err(refused(name, "it says one server id and shows another"));
        }
        let card = cards.current();
        if card.name != *name {
            let text = format!("its card says {}", card.name);
            return Err(refused(name, &text));
        }
        Ok(cards)
    }
}

fn url(name: &ServerName, path: &str) -> Result<Url, WireError> {
    let text = format!("https://{name}{path}");
    Url::parse(&text).map_err(|_| WireError::new(Code::InvalidName, format!("{name}: no address")))
}

fn unreachable(name: &ServerName, error: &WebError) -> WireError {
    WireError::new(Code::Unreachable, format!("{name} {error}"))
}

fn refused(name: &ServerName, why: &str) -> WireError {
    WireError::new(Code::NotAllowed, format!("{name} is not believed: {why}"))
}

impl HomeServer {
    /// The server that has this name, a peer from now on. Asks at the name, unless the server is
    /// known by it.
    ///
    /// # Errors
    ///
    /// `unreachable`, `not_allowed` for one that does not prove its name or that may be no peer,
    /// `rate_limited`, `busy`; nothing was changed.
    pub(super) async fn meet(&self, name: &ServerName) -> Result<ServerId, WireError> {
        let shared = &self.0.engine.shared;
        if let Some(server) = shared.servers.named(name) {
            shared.replication.tell(Event::Meet(server));
            return Ok(server);
        }
        if shared.servers.is_closed() {
            let text = format!("{name} is not configured here, and the network is closed");
            return Err(WireError::new(Code::NotAllowed, text));
        }
        let cards = self.0.meeting.cards_at(name, Why::Own).await?;
        let https = cards.current().https.clone();
        // Before it is dialled: it takes no link from somebody it does not know.
        let me = Introduction {
            name: self.0.info.name.clone(),
        };
        let at = url(https.as_ref().unwrap_or(name), "/v1/servers")?;
        let met: Introduced = self
            .0
            .meeting
            .web
            .post(at, &me, ANSWER_BYTES_MAX)
            .await
            .map_err(|error| unreachable(name, &error))?;
        if met.server != shared.me {
            return Err(refused(name, "it takes this server for another"));
        }
        self.remember(name, &cards)
    }

    /// A server introduces itself.
    ///
    /// # Errors
    ///
    /// As [`Self::meet`].
    pub(super) async fn introduced(&self, by: Introduction) -> Result<Introduced, WireError> {
        let invalid = |error| WireError::new(Code::InvalidName, format!("{}: {error}", by.name));
        let name: ServerName = by.name.parse().map_err(invalid)?;
        let shared = &self.0.engine.shared;
        if shared.servers.is_closed() {
            let text = format!("{} links with configured servers only", self.0.info.name);
            return Err(WireError::new(Code::NotAllowed, text));
        }
        if name.to_string() == self.0.info.name {
            return Err(refused(&name, "it is this server's own name"));
        }
        let cards = self.0.meeting.cards_at(&name, Why::Introduced).await?;
        let server = self.remember(&name, &cards)?;
        Ok(Introduced { server })
    }

    /// Keeps who has a name, and makes him a peer.
    fn remember(&self, name: &ServerName, cards: &CardChain) -> Result<ServerId, WireError> {
        let (shared, server) = (&self.0.engine.shared, cards.server());
        match shared.servers.keep_named(cards) {
            Named::Kept(record) => {
                shared.storage.submit(vec![record], Box::new(|_| {}));
            }
            Named::Known => {}
            Named::Other(pinned) => {
                tracing::error!(
                    %name, %pinned, found = %server,
                    "another server answers at a name that is known: it is refused"
                );
                let text = format!("it is known as server {pinned}, and {server} answers there");
                return Err(refused(name, &text));
            }
            Named::Unsound(why) => return Err(refused(name, &why)),
            Named::Full => {
                return Err(WireError::new(Code::Busy, "no room for one more server"));
            }
        }
        shared.replication.tell(Event::Meet(server));
        Ok(server)
    }
}

#[cfg(test)]
mod tests {
    use comity_links::Reach;

    use super::*;

    #[test]
    fn a_name_is_asked_once_in_a_while_and_few_on_one_account() {
        let meeting = Meeting::new(Web::new(Reach::default(), None).unwrap());
        let name = |n: usize| -> ServerName { format!("s{n}.example").parse().unwrap() };
        assert!(meeting.may_ask(&name(0), Why::Introduced).is_ok());
        let again = meeting.may_ask(&name(0), Why::Introduced).unwrap_err();
        assert_eq!(again.code, Code::RateLimited);
        assert!(again.retry_after_ms.is_some_and(|ms| ms <= 10_000));
        for n in 1..ASKED_IN_PAUSE {
            assert!(meeting.may_ask(&name(n), Why::Introduced).is_ok());
        }
        let beyond = meeting.may_ask(&name(999), Why::Introduced).unwrap_err();
        assert_eq!(beyond.code, Code::Busy);
        // Whoever introduces himself without pause keeps no user here from meeting anybody.
        assert!(meeting.may_ask(&name(0), Why::Own).is_ok());
    }
}
