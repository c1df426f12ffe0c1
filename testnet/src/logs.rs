//! Chat logs as input: JSON lines or plain IRC text, read line by line in bounded memory.
//!
//! A log is the outside truth that `replay` measures the network against, so nothing in it is
//! guessed at: a line that is no line of the format ends the reading with its number.
//! [`script`] turns names into users, since one user has several names and one name several users.

mod irc;
mod jsonl;
pub mod script;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes of one line of a log: a message of the largest size with every byte escaped.
pub const LINE_BYTES_MAX: usize = 512 * 1024;
/// Bytes of a name.
pub const NAME_BYTES_MAX: usize = 256;
/// Lines that one line may answer, as in an event's content.
pub const REPLY_TO_MAX: usize = comity_protocol::limits::REPLY_TO_MAX;

/// What happened in a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Somebody said something.
    Message,
    /// Somebody says what he does (`/me`).
    Action,
    /// Somebody came into the channel.
    Join,
    /// Somebody left the channel.
    Part,
    /// Somebody left the network.
    Quit,
    /// Somebody changed his name; the body is the new one.
    Nick,
}

impl Kind {
    /// Whether the line is part of the history that members read.
    #[must_use]
    pub const fn is_spoken(self) -> bool {
        matches!(self, Self::Message | Self::Action)
    }
}

/// Time of day of a line, as the log gives it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct TimeOfDay {
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
}

impl TimeOfDay {
    fn parse(text: &str) -> Option<Self> {
        let (hour, minute) = text.split_once(':')?;
        let digits = |part: &str| match part.as_bytes() {
            [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some((a - b'0') * 10 + (b - b'0')),
            _ => None,
        };
        let (hour, minute) = (digits(hour)?, digits(minute)?);
        (hour < 24 && minute < 60).then_some(Self { hour, minute })
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

/// One line of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// Number that replies use; rises along the log, with gaps where a log was thinned out.
    pub i: u64,
    /// Time of day.
    pub time: TimeOfDay,
    /// What happened.
    pub kind: Kind,
    /// Name of who did it, at that moment.
    pub who: String,
    /// Text of a message or action, new name of a `nick`, reason of a `part` or `quit`, or empty.
    pub body: String,
    /// Earlier lines that this one answers, by their `i`; they may be missing from a thinned log.
    pub reply_to: Vec<u64>,
}

/// Why a log cannot be read further. Lines count from 1; those before it were good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened.
    #[error("cannot open the log {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Reading failed.
    #[error("line {line}: cannot be read")]
    Read {
        /// Number of the line.
        line: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The line is over [`LINE_BYTES_MAX`].
    #[error("line {line}: longer than {LINE_BYTES_MAX} bytes")]
    TooLong {
        /// Number of the line.
        line: u64,
    },
    /// The line is no UTF-8.
    #[error("line {line}: not UTF-8")]
    NotUtf8 {
        /// Number of the line.
        line: u64,
    },
    /// The line does not follow the format.
    #[error("line {line}: {what}")]
    Malformed {
        /// Number of the line.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// More users than [`script::USERS_MAX`].
    #[error("line {line}: more than {} users", script::USERS_MAX)]
    TooManyUsers {
        /// Number of the line.
        line: u64,
    },
    /// More lines than [`script::STEPS_MAX`].
    #[error("line {line}: more than {} lines", script::STEPS_MAX)]
    TooManyLines {
        /// Number of the line.
        line: u64,
    },
}

/// How a log is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object a line: `{"i", "time", "kind", "who", "body"?, "reply_to"?}`.
    JsonLines,
    /// `[hh:mm] <nick> text`, `[hh:mm] * nick action`, `=== nick [host] has joined #channel`.
    Irc,
}

impl Format {
    /// The format that a file's name tells: `.jsonl` and `.json` are JSON lines, the rest is IRC.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "json") => Self::JsonLines,
            _ => Self::Irc,
        }
    }
}

/// Opens a log in the format of its name.
///
/// # Errors
///
/// [`Error::Open`].
pub fn open(path: &Path) -> Result<Reader<BufReader<File>>, Error> {
    let file = File::open(path).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok(Reader::new(BufReader::new(file), Format::of(path)))
}

/// The lines of a log, one at a time. Ends after the first error.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    format: Format,
    /// Lines read so far.
    line: u64,
    /// The `i` of the last line given.
    last: Option<u64>,
    /// IRC gives server lines no time: theirs is that of the line before.
    time: TimeOfDay,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads `input` in `format`.
    pub const fn new(input: R, format: Format) -> Self {
        Self {
            input,
            format,
            line: 0,
            last: None,
            time: TimeOfDay { hour: 0, minute: 0 },
            ended: false,
        }
    }

    /// Number of the line last read, from 1.
    #[must_use]
    pub const fn line_number(&self) -> u64 {
        self.line
    }

    fn read(&mut self) -> Result<Option<Line>, Error> {
        loop {
            let Some(text) = self.read_text()? else {
                return Ok(None);
            };
            if text.trim().is_empty() {
                continue;
            }
            let parsed = match self.format {
                Format::JsonLines => jsonl::parse(&text).map(Some),
                Format::Irc => irc::parse(&text, self.line - 1, self.time),
            };
            let malformed = |what| Error::Malformed {
                line: self.line,
                what,
            };
            let Some(line) = parsed.map_err(malformed)? else {
                continue;
            };
            check(&line, self.last).map_err(malformed)?;
            self.last = Some(line.i);
            self.time = line.time;
            return Ok(Some(line));
        }
    }

    fn read_text(&mut self) -> Result<Option<String>, Error> {
        self.line += 1;
        let line = self.line;
        let mut bytes = Vec::new();
        let limit = LINE_BYTES_MAX as u64 + 2;
        self.input
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut bytes)
            .map_err(|source| Error::Read { line, source })?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if bytes.len() > LINE_BYTES_MAX {
            return Err(Error::TooLong { line });
        }
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Error::NotUtf8 { line })
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Line, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// What both formats must keep.
fn check(line: &Line, last: Option<u64>) -> Result<(), String> {
    if last.is_some_and(|last| line.i <= last) {
        return Err(format!("number {} does not rise", line.i));
    }
    let name = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    if !name(&line.who) {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if line.kind == Kind::Nick && !name(&line.body) {
        return Err(format!("a new name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if line.reply_to.len() > REPLY_TO_MAX {
        return Err(format!("answers more than {REPLY_TO_MAX} lines"));
    }
    if let Some(late) = line.reply_to.iter().find(|answered| **answered >= line.i) {
        return Err(format!("answers line {late}, which is not before it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
