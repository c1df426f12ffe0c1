//! Events as a program reads them, and the stream they come in.

mod hub;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use comity_protocol::{
    authority::Cause,
    ids::{ConversationId, EventId, UserId},
    preference::{Setting, Value},
    session::Summary,
};
use futures::Stream;

pub(crate) use hub::{Hub, Mark};

use crate::{
    client::Client,
    conversation::Conversation,
    error::Error,
    message::{Line, Message},
};

/// What happened, in the order in which the home server took it in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message, the first time it is seen with its text. Own ones come too, once accepted; see
    /// [`Message::is_own`].
    Message(Message),
    /// A line that is no message: somebody joined or left, a role or the title changed, a pin.
    Activity(Message),
    /// A message has another text now.
    Edited(Message),
    /// An own edit lost: it was made without having seen another one that won everywhere. The message
    /// has the text that is shown now, and [`Message::edited`] names the edit that gave it. Told
    /// once for each lost edit, after [`Event::Edited`]; again after a restart if the message changes
    /// once more.
    EditLost {
        /// The message as it reads now.
        message: Message,
        /// The edit that lost.
        edit: EventId,
    },
    /// One of the user's own settings changed, on this device or another one; without a value it was
    /// cleared. See [`Client::preferences`].
    Preference {
        /// What was set.
        setting: Setting,
        /// To what.
        value: Option<Value>,
    },
    /// A message was deleted: its text is gone.
    Deleted(Message),
    /// The reactions on a message changed.
    Reacted(Message),
    /// Something else about a line changed: its text came late, or expired.
    Changed(Message),
    /// An event is void: an act that overruled it was learned of. It stands in nobody's history.
    /// Told of lines, and of edits, deletions and reactions too; and of what was void when it came,
    /// if an act of this user took it away: see [`Conversation::voided`].
    Vanished {
        /// Where.
        conversation: ConversationId,
        /// The event that counted.
        event: EventId,
        /// Why, as a code of the protocol.
        reason: String,
        /// The act that took it away and who signed it, where there is one.
        by: Option<Cause>,
    },
    /// An edit, deletion or reaction that was void counts again. A line comes again as itself.
    Stands {
        /// Where.
        conversation: ConversationId,
        /// The event.
        event: EventId,
    },
    /// A conversation is new, or its title, topic, members or own role changed.
    ConversationUpdated(Conversation),
    /// This user is no longer a member.
    Left {
        /// Where.
        conversation: ConversationId,
        /// The act that ended it and who signed it, where there is one that is known.
        by: Option<Cause>,
    },
    /// The connection changed. Nothing is lost while it is down.
    Connection(ConnectionState),
    /// Lines or changes of this conversation may not have come as events: read its history again.
    Gap {
        /// Where.
        conversation: ConversationId,
    },
    /// This stream was read too slowly: so many events of it are lost. What they told is in the
    /// conversations' histories.
    Lagged(u64),
    /// The server could not resume where this client stopped. New lines follow as usual; changes
    /// of older lines and late lines are not told: a program that shows a history reads it again.
    Reset,
    /// An own event is on more servers.
    Delivery {
        /// Where.
        conversation: ConversationId,
        /// The event.
        event: EventId,
        /// Servers that stored it, the home server not counted.
        replicated: u32,
        /// Servers that have to.
        of: u32,
    },
    /// An own event was refused for good and dropped from the outbox.
    Rejected {
        /// Where.
        conversation: ConversationId,
        /// The event.
        event: EventId,
        /// Why.
        error: Error,
    },
    /// Something that the server sent was not shown, because it could not be verified.
    Warning(Warning),
}

/// Something that was not shown.
#[derive(Clone, Debug)]
pub struct Warning {
    /// Where.
    pub conversation: ConversationId,
    /// The author that was claimed, if one could be read.
    pub author: Option<UserId>,
    /// What was wrong.
    pub reason: String,
}

/// How the sessions are carried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Via {
    /// QUIC.
    Quic,
    /// WebSocket.
    WebSocket,
    /// Given by a test.
    Memory,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::WebSocket => "WebSocket",
            Self::Memory => "memory",
        })
    }
}

/// State of the connection. Its `Display` is fit for a status line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectionState {
    /// A try is under way.
    Connecting,
    /// A session is open.
    Online {
        /// How.
        via: Via,
    },
    /// No session. The client tries again by itself.
    Offline {
        /// When the session or the first try failed.
        since: SystemTime,
        /// Wait before the next try, from the time of this state.
        retry_in: Duration,
        /// Why, with the causes as sources.
        cause: Error,
    },
    /// The home server does not know the device any more, or does not speak this version. The
    /// client stops trying; the outbox is kept.
    LoggedOut {
        /// The server's answer.
        cause: Error,
    },
    /// The program closed the client.
    Closed,
}

impl ConnectionState {
    /// Whether a session is open.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        matches!(self, Self::Online { .. })
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::Online { via } => write!(f, "online over {via}"),
            Self::Offline {
                retry_in, cause, ..
            } => write!(
                f,
                "offline: {}; next try in {:.1} s",
                cause.chain(),
                retry_in.as_secs_f64()
            ),
            Self::LoggedOut { cause } => write!(f, "logged out: {cause} ({})", cause.code()),
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// An event as it is buffered: without a handle on the client, which holds the buffer.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    Line(LineEvent, Arc<Line>),
    EditLost(EventId, Arc<Line>),
    Conversation(Arc<Summary>),
    Other(Box<Event>),
}

/// Which event a line makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LineEvent {
    Message,
    Activity,
    Edited,
    Deleted,
    Reacted,
    Changed,
}

impl Notice {
    /// Bytes that it holds, roughly.
    fn weight(&self) -> usize {
        match self {
            Self::Line(_, line) | Self::EditLost(_, line) => line.weight(),
            _ => 256,
        }
    }

    fn for_program(self, client: &Client) -> Event {
        match self {
            Self::Line(kind, line) => {
                let message = Message::new(client.clone(), line);
                match kind {
                    LineEvent::Message => Event::Message(message),
                    LineEvent::Activity => Event::Activity(message),
                    LineEvent::Edited => Event::Edited(message),
                    LineEvent::Deleted => Event::Deleted(message),
                    LineEvent::Reacted => Event::Reacted(message),
                    LineEvent::Changed => Event::Changed(message),
                }
            }
            Self::EditLost(edit, line) => Event::EditLost {
                message: Message::new(client.clone(), line),
                edit,
            },
            Self::Conversation(summary) => {
                Event::ConversationUpdated(client.conversation(summary.conversation))
            }
            Self::Other(event) => *event,
        }
    }
}

impl From<Event> for Notice {
    fn from(event: Event) -> Self {
        Self::Other(Box::new(event))
    }
}

/// The events of one client. Ends only when the client is closed.
///
/// An event counts as handled when the next one is asked for; the place from which a stored client
/// resumes moves only over handled events. So after a crash the event that was being handled comes
/// again, and no other. With several streams the slowest decides.
///
/// The stream that is made first also has what came before it was made. When the last stream is
/// dropped, the next one goes on where that one stopped.
pub struct Events {
    client: Client,
    subscriber: u64,
}

impl Events {
    pub(crate) fn new(client: Client) -> Self {
        let subscriber = client.shared().hub.subscribe();
        Self { client, subscriber }
    }

    /// The next event; `None` once the client is closed.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let shared = self.client.shared();
        let (next, progress) = shared.hub.poll(self.subscriber, cx);
        if let Some(progress) = progress {
            shared.notebook().progress(progress);
        }
        next.map(|notice| notice.map(|notice| notice.for_program(&self.client)))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let shared = self.client.shared();
        if let Some(progress) = shared.hub.unsubscribe(self.subscriber) {
            shared.notebook().progress(progress);
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
