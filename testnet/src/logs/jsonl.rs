//! One JSON object a line.

use super::{Kind, Line, TimeOfDay};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    i: u64,
    time: String,
    kind: Kind,
    who: String,
    body: Option<String>,
    #[serde(default)]
    reply_to: Vec<u64>,
}

pub(super) fn parse(text: &str) -> Result<Line, String> {
    let record: Record = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let time = TimeOfDay::parse(&record.time)
        .ok_or_else(|| format!("time {:?} is not hh:mm", record.time))?;
    if record.body.is_none() && (record.kind.is_spoken() || record.kind == Kind::Nick) {
        return Err("a message, an action and a nick need a body".to_owned());
    }
    Ok(Line {
        i: record.i,
        time,
        kind: record.kind,
        who: record.who,
        body: record.body.unwrap_or_default(),
        reply_to: record.reply_to,
    })
}
