//! The event's form on the wire: one flat map whose `act` holds exactly the fields of its kind.
//! Source: `spec/02-events-and-commits.md`, section 2.

use serde::{Deserialize, Serialize};

use super::{Act, ContentRef, Event, Field, Grant, Target, Tip};
use crate::{
    encoding::{DecodeError, strictly_increasing},
    ids::{ConversationId, DeviceKey, EventId, Nonce, ServerId, UserId},
    limits::{CONTENT_BYTES_MAX, CUT_TIPS_MAX, EMOJI_BYTES_MAX, LIFTS_MAX, STATE_FIELD_BYTES_MAX},
    role::Role,
    time::Timestamp,
};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireEvent {
    v: u64,
    conversation: ConversationId,
    author: UserId,
    device: DeviceKey,
    nonce: Nonce,
    kind: String,
    #[serde(rename = "as")]
    claims: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    act: Option<Fields>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<ContentRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<EventId>,
    sent_at: Timestamp,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    ban: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Vec<Tip>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    emoji: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<ServerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifts: Option<Vec<EventId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<EventId>,
}

impl From<&Event> for WireEvent {
    fn from(event: &Event) -> Self {
        let fields = match &event.act {
            Act::Message { .. } | Act::Edit { .. } | Act::Delete { .. } => None,
            Act::React {
                emoji, on, version, ..
            } => Some(Fields {
                emoji: Some(emoji.clone()),
                on: Some(*on),
                version: *version,
                ..Fields::default()
            }),
            Act::Pin { on, .. } => Some(Fields {
                on: Some(*on),
                ..Fields::default()
            }),
            Act::State { field, .. } => Some(Fields {
                field: Some(field.clone()),
                ..Fields::default()
            }),
            Act::Grant(grant) => Some(grant_fields(grant)),
            Act::Join { role, home } => Some(Fields {
                role: Some(*role),
                home: Some(*home),
                ..Fields::default()
            }),
            Act::Leave { cut } => Some(Fields {
                cut: Some(cut.clone()),
                ..Fields::default()
            }),
            Act::Move { home, n, cut } => Some(Fields {
                home: Some(*home),
                n: Some(*n),
                cut: Some(cut.clone()),
                ..Fields::default()
            }),
            Act::Policy { field, value } => Some(Fields {
                field: Some(policy_name(*field).to_owned()),
                value: Some(*value),
                ..Fields::default()
            }),
        };
        Self {
            v: 1,
            conversation: event.conversation,
            author: event.author,
            device: event.device,
            nonce: event.nonce,
            kind: event.act.kind().to_owned(),
            claims: event.claims,
            act: fields,
            content: event.act.content(),
            target: event.act.target(),
            sent_at: event.sent_at,
        }
    }
}

fn grant_fields(grant: &Grant) -> Fields {
    let (user, home) = match grant.target {
        Target::User { user, home } => (Some(user), Some(home)),
        Target::Anyone => (None, None),
    };
    Fields {
        user,
        home,
        role: Some(grant.role),
        cut: (!grant.cut.is_empty()).then(|| grant.cut.clone()),
        ban: grant.ban.then_some(true),
        lifts: (!grant.lifts.is_empty()).then(|| grant.lifts.clone()),
        ..Fields::default()
    }
}

const fn policy_name(field: Field) -> &'static str {
    match field {
        Field::Posting => "posting",
        Field::History => "history",
        Field::KeepDays => "keep_days",
        Field::Rate => "rate",
    }
}

fn policy_field(name: &str) -> Option<Field> {
    [Field::Posting, Field::History, Field::KeepDays, Field::Rate]
        .into_iter()
        .find(|field| policy_name(*field) == name)
}

impl TryFrom<WireEvent> for Event {
    type Error = DecodeError;

    fn try_from(mut wire: WireEvent) -> Result<Self, DecodeError> {
        if wire.v != 1 {
            return Err(DecodeError::UnknownVersion(wire.v));
        }
        let act = act(&mut wire)?;
        let event = Self {
            conversation: wire.conversation,
            author: wire.author,
            device: wire.device,
            nonce: wire.nonce,
            claims: wire.claims,
            act,
            sent_at: wire.sent_at,
        };
        // What a kind does not take was left in `wire`: any of it shows as a difference in form.
        let taken = wire.act.as_ref().is_none_or(Fields::is_empty);
        if !taken || wire.content.is_some() || wire.target.is_some() {
            return Err(DecodeError::Invalid(
                "a field that this kind of event does not have",
            ));
        }
        Ok(event)
    }
}

impl Fields {
    fn is_empty(&self) -> bool {
        self.ban.is_none()
            && self.cut.is_none()
            && self.emoji.is_none()
            && self.field.is_none()
            && self.home.is_none()
            && self.lifts.is_none()
            && self.n.is_none()
            && self.on.is_none()
            && self.role.is_none()
            && self.user.is_none()
            && self.value.is_none()
            && self.version.is_none()
    }
}

fn need<T>(field: &mut Option<T>, name: &'static str) -> Result<T, DecodeError> {
    field.take().ok_or(DecodeError::Invalid(name))
}

fn act(wire: &mut WireEvent) -> Result<Act, DecodeError> {
    let has_fields = wire.act.is_some();
    let mut none = Fields::default();
    let WireEvent {
        kind,
        content,
        target,
        act,
        ..
    } = wire;
    let fields = act.as_mut().unwrap_or(&mut none);
    let decoded = match kind.as_str() {
        "message" => Act::Message {
            content: content_ref(content)?,
        },
        "edit" => Act::Edit {
            target: need(target, "edit without target")?,
            content: content_ref(content)?,
        },
        "delete" => Act::Delete {
            target: need(target, "delete without target")?,
        },
        "react" => react(need(target, "react without target")?, fields)?,
        "pin" => Act::Pin {
            target: need(target, "pin without target")?,
            on: need(&mut fields.on, "pin without on")?,
        },
        "state" => Act::State {
            field: state_field(need(&mut fields.field, "state without field")?)?,
            content: content
                .is_some()
                .then(|| content_ref(content))
                .transpose()?,
        },
        "grant" => Act::Grant(grant(fields)?),
        "join" => Act::Join {
            role: need(&mut fields.role, "join without role")?,
            home: need(&mut fields.home, "join without home")?,
        },
        "leave" => Act::Leave {
            cut: cut(need(&mut fields.cut, "leave without cut")?)?,
        },
        "move" => Act::Move {
            home: need(&mut fields.home, "move without home")?,
            n: need(&mut fields.n, "move without n")?,
            cut: cut(need(&mut fields.cut, "move without cut")?)?,
        },
        "policy" => Act::Policy {
            field: fields
                .field
                .take()
                .and_then(|name| policy_field(&name))
                .ok_or(DecodeError::Invalid("unknown policy field"))?,
            value: need(&mut fields.value, "policy without value")?,
        },
        _ => return Err(DecodeError::Invalid("unknown kind of event")),
    };
    let wants_fields = !matches!(
        decoded,
        Act::Message { .. } | Act::Edit { .. } | Act::Delete { .. }
    );
    if has_fields != wants_fields {
        return Err(DecodeError::Invalid("act fields do not fit the kind"));
    }
    Ok(decoded)
}

fn content_ref(content: &mut Option<ContentRef>) -> Result<ContentRef, DecodeError> {
    let content = need(content, "event without content")?;
    if content.len as usize > CONTENT_BYTES_MAX {
        let len = content.len as usize;
        return Err(DecodeError::TooLarge {
            len,
            max: CONTENT_BYTES_MAX,
        });
    }
    Ok(content)
}

fn react(target: EventId, fields: &mut Fields) -> Result<Act, DecodeError> {
    let on = need(&mut fields.on, "react without on")?;
    let version = fields.version.take();
    if version.is_some() && !on {
        return Err(DecodeError::Invalid(
            "a reaction taken off names no version",
        ));
    }
    Ok(Act::React {
        target,
        emoji: emoji(need(&mut fields.emoji, "react without emoji")?)?,
        on,
        version,
    })
}

fn emoji(text: String) -> Result<String, DecodeError> {
    let fits = (1..=EMOJI_BYTES_MAX).contains(&text.len());
    // The separator of the document's keys and control characters never enter a key.
    if !fits || text.chars().any(|c| c.is_control() || c == '|') {
        return Err(DecodeError::Invalid("emoji"));
    }
    Ok(text)
}

fn state_field(name: String) -> Result<String, DecodeError> {
    let fits = (1..=STATE_FIELD_BYTES_MAX).contains(&name.len());
    if !fits
        || !name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    {
        return Err(DecodeError::Invalid("state field name"));
    }
    Ok(name)
}

fn cut(tips: Vec<Tip>) -> Result<Vec<Tip>, DecodeError> {
    if tips.len() > CUT_TIPS_MAX || !strictly_increasing(&tips) {
        return Err(DecodeError::Invalid("cut"));
    }
    Ok(tips)
}

fn grant(fields: &mut Fields) -> Result<Grant, DecodeError> {
    let role = need(&mut fields.role, "grant without role")?;
    // One meaning has one form: what says nothing is left out.
    let empty = fields.cut.as_ref().is_some_and(Vec::is_empty)
        || fields.lifts.as_ref().is_some_and(Vec::is_empty)
        || fields.ban == Some(false);
    if empty {
        return Err(DecodeError::Invalid("a field of a grant that says nothing"));
    }
    let target = match (fields.user.take(), fields.home.take()) {
        (Some(user), Some(home)) => Target::User { user, home },
        (None, None) => Target::Anyone,
        _ => {
            return Err(DecodeError::Invalid(
                "a grant names user and home, or neither",
            ));
        }
    };
    let lifts = fields.lifts.take().unwrap_or_default();
    if lifts.len() > LIFTS_MAX || !strictly_increasing(&lifts) {
        return Err(DecodeError::Invalid("lifts"));
    }
    let ban = fields.ban.take().unwrap_or(false);
    if target == Target::Anyone && (ban || role > Role::Member || !lifts.is_empty()) {
        return Err(DecodeError::Invalid(
            "a door neither bans nor lifts nor gives more than member",
        ));
    }
    if role == Role::Owner {
        return Err(DecodeError::Invalid("ownership is given by the root chain"));
    }
    if ban && role != Role::None {
        return Err(DecodeError::Invalid("a ban gives no role"));
    }
    Ok(Grant {
        target,
        role,
        cut: cut(fields.cut.take().unwrap_or_default())?,
        ban,
        lifts,
    })
}
