//! The one error of this crate.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use comity_protocol::session::{Code, WireError};

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Sign in again: no credentials, wrong ones, or a device that was revoked.
    Auth,
    /// The user's role does not allow it.
    Forbidden,
    /// No such user, conversation or message, or not for this user to know of.
    NotFound,
    /// A name is taken, or things are already as asked for.
    Conflict,
    /// Too often or too much at once; see [`Error::retry_after`].
    RateLimited,
    /// Larger than a limit that the message names.
    TooLarge,
    /// No connection to the home server; the cause is in the source.
    Offline,
    /// The server answers, but cannot do it now.
    Unavailable,
    /// The server did not answer in time.
    Timeout,
    /// The server's certificate, name or id is not the one expected.
    Untrusted,
    /// The server broke the protocol.
    Protocol,
    /// The store on this machine.
    Storage,
    /// Too much waits to be sent already; nothing was taken.
    OutboxFull,
    /// An argument that can never work.
    Invalid,
    /// The send was cancelled by this program.
    Cancelled,
    /// The client was closed.
    Closed,
}

impl ErrorKind {
    const fn code(self) -> &'static str {
        match self {
            Self::Auth => "unauthenticated",
            Self::Forbidden => "not_allowed",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::TooLarge => "too_large",
            Self::Offline => "offline",
            Self::Unavailable => "busy",
            Self::Timeout => "timeout",
            Self::Untrusted => "untrusted_server",
            Self::Protocol => "malformed",
            Self::Storage => "store_failed",
            Self::OutboxFull => "outbox_full",
            Self::Invalid => "invalid",
            Self::Cancelled => "cancelled",
            Self::Closed => "closed",
        }
    }

    const fn of(code: Code) -> Self {
        match code {
            Code::Unauthenticated | Code::UnknownDevice | Code::InvalidToken => Self::Auth,
            Code::NotMember | Code::NotAllowed | Code::NotOwner | Code::ForeignAuthor => {
                Self::Forbidden
            }
            Code::NotFound => Self::NotFound,
            Code::Conflict | Code::HandleConfusable => Self::Conflict,
            Code::RateLimited => Self::RateLimited,
            Code::TooLarge => Self::TooLarge,
            Code::InvalidName => Self::Invalid,
            _ if code.is_retryable() => Self::Unavailable,
            _ => Self::Protocol,
        }
    }
}

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    code: Option<Code>,
    message: String,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// An error: what kind, a stable code, a text for people, and the cause as source.
#[derive(Clone)]
pub struct Error(Box<Inner>);

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            code: None,
            message: message.into(),
            retry_after: None,
            source: None,
        }))
    }

    pub(crate) fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    pub(crate) fn storage(doing: &str, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Storage, format!("{doing} failed")).because(source)
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the client was closed")
    }

    pub(crate) fn unexpected_reply() -> Self {
        Self::new(
            ErrorKind::Protocol,
            "the server answered with another kind of reply",
        )
    }

    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Stable text for programs: the server's code where a server refused, else the kind's.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.0.code {
            Some(code) => code.as_str(),
            None => self.0.kind.code(),
        }
    }

    /// The server's code, where a server refused.
    #[must_use]
    pub const fn wire_code(&self) -> Option<Code> {
        self.0.code
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self.0.code {
            Some(code) => code.is_retryable(),
            None => matches!(
                self.0.kind,
                ErrorKind::Offline
                    | ErrorKind::Timeout
                    | ErrorKind::OutboxFull
                    | ErrorKind::Unavailable
            ),
        }
    }

    /// The earliest time for another try, from when the server said so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// This error and its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            // Some libraries repeat the cause in their own text.
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `main` that returns an error prints this form: it reads like a sentence.
        write!(f, "{} ({})", self.chain(), self.code())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

impl From<WireError> for Error {
    fn from(wire: WireError) -> Self {
        Self(Box::new(Inner {
            kind: ErrorKind::of(wire.code),
            code: Some(wire.code),
            message: wire.message,
            retry_after: wire.retry_after_ms.map(Duration::from_millis),
            source: None,
        }))
    }
}

impl From<std::env::VarError> for Error {
    fn from(error: std::env::VarError) -> Self {
        Self::new(ErrorKind::Invalid, "an environment variable is missing").because(error)
    }
}

impl From<comity_protocol::encoding::DecodeError> for Error {
    fn from(error: comity_protocol::encoding::DecodeError) -> Self {
        use comity_protocol::encoding::DecodeError;
        let kind = match error {
            DecodeError::TooLarge { .. } => ErrorKind::TooLarge,
            _ => ErrorKind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_refusal_keeps_its_code_and_its_wait() {
        let error = Error::from(WireError {
            retry_after_ms: Some(1_500),
            ..WireError::new(Code::RateLimited, "slow down")
        });
        assert_eq!(error.kind(), ErrorKind::RateLimited);
        assert_eq!(error.code(), "rate_limited");
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1_500)));
        assert!(error.is_retryable());
        assert!(!Error::from(WireError::new(Code::NotMember, "")).is_retryable());
    }

    #[test]
    fn every_retryable_code_is_retryable_as_an_error() {
        for code in Code::ALL {
            let error = Error::from(WireError::new(*code, ""));
            assert_eq!(error.is_retryable(), code.is_retryable(), "{code}");
            assert_eq!(error.code(), code.as_str());
        }
    }

    #[test]
    fn the_chain_tells_every_cause_once() {
        let error = Error::storage("writing the outbox", std::io::Error::other("no space"));
        assert_eq!(error.chain(), "writing the outbox failed: no space");
    }
}
