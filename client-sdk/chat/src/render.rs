//! Lines as they are printed, and their numbers.

use std::collections::{BTreeMap, HashMap};

use comity_sdk::{
    Act, Body, Confirmed, Conversation, ConversationId, EventId, Field, Member, Message, Role,
    Target, Timestamp, UserId, Voided,
};

use crate::text::{safe, safe_lines};

/// Lines that can be named by number; older ones are forgotten.
const NUMBERED_MAX: usize = 10_000;

/// Names remembered.
const NAMES_MAX: usize = 50_000;

/// A printed line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Numbered {
    pub(crate) conversation: ConversationId,
    pub(crate) event: EventId,
    pub(crate) own: bool,
}

/// Numbers of printed lines, from 1.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    by_number: BTreeMap<u64, Numbered>,
    by_event: HashMap<EventId, u64>,
    last: u64,
}

impl Numbers {
    /// The number of an event, a new one if it has none.
    pub(crate) fn of(&mut self, line: Numbered) -> u64 {
        if let Some(number) = self.by_event.get(&line.event) {
            return *number;
        }
        self.last += 1;
        self.by_number.insert(self.last, line);
        self.by_event.insert(line.event, self.last);
        if self.by_number.len() > NUMBERED_MAX
            && let Some((_, old)) = self.by_number.pop_first()
        {
            self.by_event.remove(&old.event);
        }
        self.last
    }

    pub(crate) fn find(&self, number: u64) -> Option<Numbered> {
        self.by_number.get(&number).copied()
    }

    pub(crate) fn known(&self, event: &EventId) -> Option<u64> {
        self.by_event.get(event).copied()
    }
}

/// Names of members, as the conversations' lists of members say.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<(ConversationId, UserId), String>);

impl Names {
    pub(crate) fn learn(&mut self, conversation: ConversationId, members: &[Member]) {
        // A cache: what is forgotten is asked for again.
        if self.0.len() + members.len() > NAMES_MAX {
            self.0.clear();
        }
        for member in members.iter().take(NAMES_MAX) {
            self.0
                .insert((conversation, member.user), member_name(member));
        }
    }

    pub(crate) fn knows(&self, conversation: ConversationId, user: UserId) -> bool {
        self.0.contains_key(&(conversation, user))
    }

    pub(crate) fn forget(&mut self, conversation: ConversationId, user: UserId) {
        self.0.remove(&(conversation, user));
    }

    /// The other one of a direct conversation.
    pub(crate) fn partner(&self, conversation: ConversationId, own: UserId) -> Option<&str> {
        let from = (conversation, UserId::from_bytes([0; 32]));
        let here = self
            .0
            .range(from..)
            .take_while(|((c, _), _)| *c == conversation);
        let mut others = here.filter(|((_, user), _)| *user != own);
        others.next().map(|(_, name)| name.as_str())
    }

    /// Shows a user by id from now on.
    pub(crate) fn stranger(&mut self, conversation: ConversationId, user: UserId) {
        self.0
            .insert((conversation, user), short(&user.to_string()));
    }

    pub(crate) fn of(&self, conversation: ConversationId, user: UserId) -> String {
        let name = self.0.get(&(conversation, user)).cloned();
        name.unwrap_or_else(|| short(&user.to_string()))
    }
}

/// Everybody chooses the own name; the handle beside it cannot be chosen twice on one server.
fn member_name(member: &Member) -> String {
    match (&member.name, &member.handle) {
        (Some(name), Some(handle)) => format!("{} ({})", safe(name), safe(handle)),
        (None, Some(handle)) => safe(handle),
        (Some(name), None) => format!("{} ({})", safe(name), short(&member.user.to_string())),
        (None, None) => short(&member.user.to_string()),
    }
}

/// The first characters of an id.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

/// `14:02`, or with the date when it is not today's.
pub(crate) fn clock(at: Timestamp, now: Timestamp) -> String {
    let minutes = at.0 / 60_000;
    let time = format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
    let (day, today) = (at.0 / 86_400_000, now.0 / 86_400_000);
    if day == today {
        return time;
    }
    let (year, month, day) = date(day);
    format!("{year}-{month:02}-{day:02} {time}")
}

/// The civil date of a day since 1970 (Howard Hinnant's `civil_from_days`).
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + carry, month, date)
}

/// A conversation in one line.
pub(crate) fn conversation(conversation: &Conversation, partner: Option<&str>) -> String {
    let id = short(&conversation.id().to_string());
    let Some(summary) = conversation.summary() else {
        return id;
    };
    let title = match (&summary.title, summary.direct) {
        (Some(title), _) => safe(title),
        (None, true) if summary.members == 1 => "notes to yourself".to_owned(),
        (None, true) => partner.map_or("direct conversation".to_owned(), |p| format!("with {p}")),
        (None, false) => "untitled".to_owned(),
    };
    format!(
        "{title} [{id}], {} members, you are {}",
        summary.members, summary.role
    )
}

/// A line of a conversation, ready to print.
pub(crate) fn line(
    message: &Message,
    numbers: &mut Numbers,
    names: &Names,
    now: Timestamp,
) -> String {
    let name = |user| names.of(message.conversation_id(), user);
    let author = name(message.author());
    let number = numbers.of(Numbered {
        conversation: message.conversation_id(),
        event: message.id(),
        own: message.is_own(),
    });
    let head = format!("#{number} {}", clock(message.time(), now));
    if !message.is_message() {
        return format!(
            "{head} -- {author} {}",
            act(message.act(), message.text(), &name, numbers)
        );
    }
    let mut marks = String::new();
    for answered in message.reply_to() {
        let number = numbers.known(answered);
        let shown = number.map_or_else(|| "an earlier line".to_owned(), |n| format!("#{n}"));
        marks += &format!("[to {shown}] ");
    }
    if message.edited().is_some() && message.deleted().is_none() {
        marks += "(edited) ";
    }
    if message.is_folded() {
        marks += "(one of many) ";
    }
    let text = match message.body() {
        _ if message.deleted().is_some() => "(deleted)".to_owned(),
        Body::Held(content) => safe_lines(&content.text).join("\n      | "),
        Body::Gone => "(erased)".to_owned(),
        Body::Expired => "(expired)".to_owned(),
        _ => "(the text is not here yet)".to_owned(),
    };
    let files: String = message
        .attachments()
        .iter()
        .map(|file| format!(" [file {}, {} bytes]", safe(&file.name), file.len))
        .collect();
    let reactions: String = message
        .reactions()
        .iter()
        .map(|r| format!(" {}{}", safe(&r.emoji), r.count))
        .collect();
    if message.is_action() {
        format!("{head} * {author} {marks}{text}{files}{reactions}")
    } else {
        format!("{head} {author}: {marks}{text}{files}{reactions}")
    }
}

/// What somebody did that is void now.
pub(crate) fn voided(
    conversation: ConversationId,
    voided: &Voided,
    names: &Names,
    numbers: &Numbers,
) -> String {
    let name = |user| names.of(conversation, user);
    let text = match voided.body() {
        Body::Held(content) => content.text.as_str(),
        _ => "",
    };
    let did = match voided.act() {
        Act::Message { .. } => "wrote something".to_owned(),
        act_done => act(act_done, text, &name, numbers),
    };
    format!(
        "{} {did} ({})",
        name(voided.author()),
        safe(voided.reason())
    )
}

/// What became of it.
pub(crate) fn confirmed(outcome: &Confirmed) -> String {
    match outcome {
        Confirmed::Accepted(_) => "said again".to_owned(),
        Confirmed::Already => "is so already".to_owned(),
        Confirmed::Overtaken => "a later one says otherwise".to_owned(),
        Confirmed::NotForOthers => "nobody else can say it".to_owned(),
        Confirmed::Refused(error) => safe(&error.chain()),
        _ => "?".to_owned(),
    }
}

fn act(did: &Act, text: &str, name: &impl Fn(UserId) -> String, numbers: &Numbers) -> String {
    let target = |event: &EventId| {
        let number = numbers.known(event);
        number.map_or_else(|| "an earlier line".to_owned(), |n| format!("#{n}"))
    };
    match did {
        Act::Grant(grant) => match (&grant.target, grant.role, grant.ban) {
            (Target::Anyone, Role::None, _) => "closed the door".to_owned(),
            (Target::Anyone, role, _) => format!("lets everybody in as {role}"),
            (Target::User { user, .. }, _, true) => format!("banned {}", name(*user)),
            (Target::User { user, .. }, Role::None, _) if grant.lifts.is_empty() => {
                format!("removed {}", name(*user))
            }
            (Target::User { user, .. }, Role::None, _) => format!("lifted bans on {}", name(*user)),
            (Target::User { user, .. }, role, _) => format!("made {} {role}", name(*user)),
        },
        Act::Join { role, .. } => format!("joined as {role}"),
        Act::Leave { .. } => "left".to_owned(),
        Act::Move { .. } => "moved to another server".to_owned(),
        Act::Pin { target: event, on } => {
            format!(
                "{} {}",
                if *on { "pinned" } else { "unpinned" },
                target(event)
            )
        }
        Act::State { field, .. } => match text {
            "" => format!("cleared the {}", safe(field)),
            text => format!("set the {} to {}", safe(field), safe(text)),
        },
        Act::Policy { field, value } => {
            let field = match field {
                Field::Posting => "posting",
                Field::History => "history",
                Field::KeepDays => "keep_days",
                Field::Rate => "rate",
                _ => "another",
            };
            format!("set the policy {field} to {value}")
        }
        Act::Edit { target: event, .. } => format!("edited {}", target(event)),
        Act::Delete { target: event } => format!("deleted {}", target(event)),
        Act::React {
            target: event,
            emoji,
            ..
        } => format!("{} on {}", safe(emoji), target(event)),
        _ => "did something that this version does not know".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use comity_sdk::ServerId;

    #[test]
    fn times_show_the_date_only_when_it_is_not_today() {
        let at = Timestamp(1_709_209_320_000);
        assert_eq!(clock(at, at), "12:22");
        assert_eq!(clock(at, Timestamp(at.0 + 86_400_000)), "2024-02-29 12:22");
        assert_eq!(clock(Timestamp(0), at), "1970-01-01 00:00");
        assert_eq!(date(20_513), (2026, 3, 1));
    }

    #[test]
    fn a_number_stays_with_its_line_and_old_ones_are_forgotten() {
        let mut numbers = Numbers::default();
        let line = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            Numbered {
                conversation: ConversationId::from_bytes([0; 32]),
                event: EventId::from_bytes(id),
                own: false,
            }
        };
        for n in 0..=NUMBERED_MAX {
            assert_eq!(numbers.of(line(n)), n as u64 + 1);
        }
        assert_eq!(numbers.of(line(5)), 6);
        assert_eq!(numbers.find(1), None);
        assert_eq!(numbers.find(2), Some(line(1)));
        assert_eq!(numbers.by_event.len(), NUMBERED_MAX);
    }

    #[test]
    fn a_chosen_name_never_stands_without_the_handle() {
        let member = |name: Option<&str>, handle: Option<&str>| {
            member_name(&Member {
                user: UserId::from_bytes([0xab; 32]),
                role: Role::Member,
                home: ServerId::from_bytes([0; 32]),
                handle: handle.map(str::to_owned),
                name: name.map(str::to_owned),
            })
        };
        assert_eq!(member(Some("Ada\x1b[1m"), Some("ada")), "Ada[1m (ada)");
        assert_eq!(member(Some("Ada"), None), "Ada (abababab)");
        assert_eq!(member(None, None), "abababab");
    }
}
