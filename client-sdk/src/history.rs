//! Reading a conversation in pages or as a stream.

use std::collections::VecDeque;

use comity_protocol::{
    limits::PAGE_ITEMS_MAX,
    session::{Anchor, Place, Reply, Request},
};
use futures::Stream;

use crate::{
    conversation::Conversation,
    error::{Error, Result},
    message::Message,
    verify::{self, Failure},
};

/// Lines in a page unless asked otherwise.
const PAGE_DEFAULT: u32 = 50;

/// A page, oldest line first. Pages are bounded by places, not by counts: lines that come
/// meanwhile never shift them.
#[derive(Clone, Debug)]
pub struct Page {
    /// The lines that could be verified.
    pub messages: Vec<Message>,
    /// Where the next page in the same direction begins.
    pub next: Option<Place>,
    /// Nothing follows in this direction for now.
    pub complete: bool,
}

/// What to read. Without a starting point: the newest lines.
#[derive(Clone, Debug)]
#[must_use = "ends with `.page()` or `.stream()`"]
pub struct History {
    conversation: Conversation,
    anchor: Anchor,
    limit: u32,
}

impl History {
    pub(crate) const fn new(conversation: Conversation) -> Self {
        Self {
            conversation,
            anchor: Anchor::Newest,
            limit: PAGE_DEFAULT,
        }
    }

    /// The newest lines; a stream goes on to older ones.
    pub const fn newest(mut self) -> Self {
        self.anchor = Anchor::Newest;
        self
    }

    /// The oldest lines; a stream goes on to newer ones.
    pub const fn oldest(mut self) -> Self {
        self.anchor = Anchor::Oldest;
        self
    }

    /// The lines just before a place; a stream goes on to older ones.
    pub const fn before(mut self, place: Place) -> Self {
        self.anchor = Anchor::Before(place);
        self
    }

    /// The lines just after a place; a stream goes on to newer ones.
    pub const fn after(mut self, place: Place) -> Self {
        self.anchor = Anchor::After(place);
        self
    }

    /// Lines in a page, 1 to 500.
    pub fn limit(mut self, lines: u32) -> Self {
        self.limit = lines.clamp(1, PAGE_ITEMS_MAX);
        self
    }

    const fn backwards(&self) -> bool {
        matches!(self.anchor, Anchor::Newest | Anchor::Before(_))
    }

    /// Reads one page. A line that cannot be verified is left out and counted in
    /// [`Client::stats`](crate::Client::stats).
    ///
    /// # Errors
    ///
    /// The server's refusal, [`ErrorKind::Offline`](crate::ErrorKind::Offline) or
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout).
    pub async fn page(&self) -> Result<Page> {
        let client = self.conversation.client();
        let shared = client.shared();
        let conversation = self.conversation.id();
        let request = Request::History {
            conversation,
            anchor: self.anchor,
            limit: self.limit,
        };
        let Reply::Page(page) = shared.call(request).await? else {
            return Err(Error::unexpected_reply());
        };
        let mut messages = Vec::with_capacity(page.items.len());
        for item in page.items {
            match verify::line(shared, conversation, &item, verify::version(&item)).await {
                Ok(line) => messages.push(Message::new(client.clone(), line)),
                Err(Failure::Unverified) => {}
                Err(Failure::Later(error)) => return Err(error),
            }
        }
        Ok(Page {
            messages,
            next: page.next,
            complete: page.complete,
        })
    }

    /// Reads on and on from the starting point to that end of the conversation, page by page as
    /// the stream is read. Backwards each line is older than the one before. After an error the
    /// stream ends.
    pub fn stream(self) -> impl Stream<Item = Result<Message>> + Send + Unpin {
        let state = State {
            request: Some(self),
            ready: VecDeque::new(),
        };
        Box::pin(futures::stream::unfold(state, State::next))
    }
}

struct State {
    request: Option<History>,
    ready: VecDeque<Message>,
}

impl State {
    async fn next(mut self) -> Option<(Result<Message>, Self)> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some((Ok(message), self));
            }
            let mut request = self.request.take()?;
            let page = match request.page().await {
                Ok(page) => page,
                Err(error) => return Some((Err(error), self)),
            };
            let backwards = request.backwards();
            self.ready = page.messages.into();
            if backwards {
                self.ready.make_contiguous().reverse();
            }
            let Some(next) = page.next.filter(|_| !page.complete) else {
                continue;
            };
            // A server whose pages do not move on would keep this stream going for ever.
            let moved = match request.anchor {
                Anchor::Before(place) => next < place,
                Anchor::After(place) => next > place,
                Anchor::Newest | Anchor::Oldest => true,
            };
            if !moved {
                return Some((Err(Error::unexpected_reply()), self));
            }
            request.anchor = if backwards {
                Anchor::Before(next)
            } else {
                Anchor::After(next)
            };
            self.request = Some(request);
        }
    }
}
