//! Plain IRC text, as loggers write it.

use super::{Kind, Line, TimeOfDay};

/// Reads one line whose number is `i`; `None` for a server line that is about no user's presence
/// (topic, modes). `time` is that of the line before.
pub(super) fn parse(text: &str, i: u64, time: TimeOfDay) -> Result<Option<Line>, String> {
    let (time, rest) = match stamp(text) {
        Some((time, rest)) => (time, rest),
        None if text.starts_with("===") => (time, text),
        None => return Err("neither [hh:mm] nor === at the start".to_owned()),
    };
    let line = |kind, who: &str, body: &str| {
        Some(Line {
            i,
            time,
            kind,
            who: who.to_owned(),
            body: body.to_owned(),
            reply_to: Vec::new(),
        })
    };
    if let Some(event) = rest.strip_prefix("=== ") {
        return Ok(server(event).and_then(|(kind, who, body)| line(kind, who, body)));
    }
    if let Some(said) = rest.strip_prefix('<') {
        let (who, body) = said.split_once('>').ok_or("a name without its >")?;
        // Clients mark operators and voices in front of the name.
        let who = who.trim_start_matches(['@', '+', ' ']);
        return Ok(line(
            Kind::Message,
            who,
            body.strip_prefix(' ').unwrap_or(body),
        ));
    }
    if let Some(done) = rest.strip_prefix("* ") {
        let done = done.trim_start();
        let (who, body) = done.split_once(' ').unwrap_or((done, ""));
        return Ok(line(Kind::Action, who, body));
    }
    Err("neither <name>, * name nor === after the time".to_owned())
}

/// Takes `[hh:mm] ` or `[hh:mm:ss] ` off the start.
fn stamp(text: &str) -> Option<(TimeOfDay, &str)> {
    let (stamp, rest) = text.strip_prefix('[')?.split_once(']')?;
    let minutes = match stamp.len() {
        5 => stamp,
        8 if stamp.as_bytes()[5] == b':' => stamp.get(..5)?,
        _ => return None,
    };
    Some((
        TimeOfDay::parse(minutes)?,
        rest.strip_prefix(' ').unwrap_or(rest),
    ))
}

/// `NAME [HOST]? has joined CHANNEL`, `... has left CHANNEL ...`, `... has quit ...`,
/// `NAME is now known as NAME`.
fn server(event: &str) -> Option<(Kind, &str, &str)> {
    let (who, rest) = event.split_once(' ')?;
    if let Some(name) = rest.strip_prefix("is now known as ") {
        return Some((Kind::Nick, who, name.trim_end()));
    }
    let rest = match rest.strip_prefix('[') {
        Some(host) => host.split_once("] ")?.1,
        None => rest,
    };
    let verb = rest.strip_prefix("has ")?;
    let (verb, rest) = verb.split_once(' ').unwrap_or((verb, ""));
    match verb {
        "joined" => Some((Kind::Join, who, "")),
        "left" => Some((Kind::Part, who, bracketed(rest))),
        "quit" => Some((Kind::Quit, who, bracketed(rest))),
        _ => None,
    }
}

/// The text in the first pair of brackets, or nothing.
fn bracketed(text: &str) -> &str {
    text.split_once('[')
        .map_or("", |(_, rest)| rest.trim_end().trim_end_matches(']'))
}
