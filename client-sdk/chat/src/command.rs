//! What a typed line means.

use comity_sdk::Role;

/// Shown by `/help`.
pub(crate) const HELP: &str = "\
Type a line to send it to the open conversation. Begin it with // to send a line that begins with /.
  /list                      your conversations, numbered
  /open N                    open one by its number, title, id, or a user's address
  /create TITLE [USER...]    make a group; words with @ at the end are members
  /direct USER               open the direct conversation with alice@eu.example
  /join ID                   join an open conversation
  /history [N]               the newest N lines (20)
  /members                   who is in it, and with which role
  /invite USER [ROLE]        ROLE: guest, member (as is), moderator, admin
  /role USER ROLE            promote or demote
  /remove USER               remove; may come back
  /ban USER    /unban USER   keep out, or allow again
  /door open|close           let everybody in who knows the id
  /voided                    what your removals took away from others
  /confirm                   say all of that again under your name
  /owner USER                make a member the owner; you become an admin
  /stewards                  name the usual servers that witness who owns it
  /title TEXT  /topic TEXT   name it
  /name TEXT                 how you are called in it
  /leave                     leave it
  /reply N TEXT              answer line N
  /edit N TEXT               replace the text of your own line N
  /delete N                  delete line N
  /react N EMOJI             put an emoji on line N; /unreact takes it off
  /me TEXT                   something you do
  /who                       who you are, and the connection
  /quit                      send what waits, and end
Marks: … waiting in the outbox   ✓ durable at your home server   ✓✓ on every server taking part.
Times are UTC.";

/// A typed line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Command {
    Nothing,
    Say(String),
    Me(String),
    Help,
    List,
    Open(String),
    Create { title: String, members: Vec<String> },
    Direct(String),
    Join(String),
    History(u32),
    Members,
    Invite(String, Role),
    SetRole(String, Role),
    Remove(String),
    Ban(String),
    Unban(String),
    Door(bool),
    Voided,
    Confirm,
    Owner(String),
    Stewards,
    Title(String),
    Topic(String),
    Name(String),
    Leave,
    Reply(u64, String),
    Edit(u64, String),
    Delete(u64),
    React(u64, String, bool),
    Who,
    Quit,
}

/// Reads a line.
///
/// # Errors
///
/// What to type instead.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() {
        return Ok(Command::Nothing);
    }
    let Some(rest) = line.strip_prefix('/') else {
        return Ok(Command::Say(line.to_owned()));
    };
    if rest.starts_with('/') {
        return Ok(Command::Say(rest.to_owned()));
    }
    let (word, rest) = split(rest);
    let need = |what: &str| -> Result<String, String> {
        let text = rest.trim();
        if text.is_empty() {
            return Err(format!("/{word} needs {what}"));
        }
        Ok(text.to_owned())
    };
    let number = |what: &str| -> Result<(u64, String), String> {
        let (first, text) = split(rest.trim_start());
        let number = first.trim_start_matches('#').parse();
        let number = number.map_err(|_| format!("/{word} needs the number of a line{what}"))?;
        Ok((number, text.trim().to_owned()))
    };
    let with_text = |what: &str| -> Result<(u64, String), String> {
        let (line, text) = number(what)?;
        if text.is_empty() {
            return Err(format!("/{word} needs the number of a line{what}"));
        }
        Ok((line, text))
    };
    Ok(match word {
        "help" | "?" => Command::Help,
        "list" | "ls" => Command::List,
        "open" | "o" => Command::Open(need("a number of /list, a title, an id or an address")?),
        "create" => create(&need("a title")?),
        "direct" | "dm" => Command::Direct(need("an address like alice@eu.example")?),
        "join" => Command::Join(need("a conversation's id")?),
        "history" | "h" => match rest.trim() {
            "" => Command::History(20),
            text => Command::History(
                text.parse()
                    .map_err(|_| "/history needs a number of lines".to_owned())?,
            ),
        },
        "members" => Command::Members,
        "invite" => {
            let (user, role) = user_and_role(&need("an address")?)?;
            Command::Invite(user, role.unwrap_or(Role::Member))
        }
        "role" => match user_and_role(&need("an address and a role")?)? {
            (user, Some(role)) => Command::SetRole(user, role),
            (_, None) => return Err("/role needs an address and a role".to_owned()),
        },
        "remove" | "kick" => Command::Remove(need("an address")?),
        "ban" => Command::Ban(need("an address")?),
        "unban" => Command::Unban(need("an address")?),
        "door" => match rest.trim() {
            "open" => Command::Door(true),
            "close" => Command::Door(false),
            _ => return Err("/door open, or /door close".to_owned()),
        },
        "voided" => Command::Voided,
        "confirm" => Command::Confirm,
        "owner" => Command::Owner(need("an address")?),
        "stewards" => Command::Stewards,
        "title" => Command::Title(need("a text")?),
        "topic" => Command::Topic(need("a text")?),
        "name" => Command::Name(need("a text")?),
        "leave" | "part" => Command::Leave,
        "reply" | "r" => with_text(" and a text").map(|(line, text)| Command::Reply(line, text))?,
        "edit" => with_text(" and a text").map(|(line, text)| Command::Edit(line, text))?,
        "delete" => number("").map(|(line, _)| Command::Delete(line))?,
        "react" => {
            with_text(" and an emoji").map(|(line, emoji)| Command::React(line, emoji, true))?
        }
        "unreact" => {
            with_text(" and an emoji").map(|(line, emoji)| Command::React(line, emoji, false))?
        }
        "me" => Command::Me(need("a text")?),
        "who" | "whoami" => Command::Who,
        "quit" | "exit" | "q" => Command::Quit,
        _ => return Err(format!("no command /{word}; /help lists them")),
    })
}

fn split(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

fn create(text: &str) -> Command {
    let words: Vec<&str> = text.split_whitespace().collect();
    let members = words
        .iter()
        .rev()
        .take_while(|word| word.contains('@'))
        .count();
    let (title, members) = words.split_at(words.len() - members);
    Command::Create {
        title: title.join(" "),
        members: members.iter().map(|word| (*word).to_owned()).collect(),
    }
}

fn user_and_role(text: &str) -> Result<(String, Option<Role>), String> {
    let (user, role) = split(text);
    let role = match role.trim() {
        "" => None,
        "guest" => Some(Role::Guest),
        "member" => Some(Role::Member),
        "moderator" => Some(Role::Moderator),
        "admin" => Some(Role::Admin),
        other => {
            return Err(format!(
                "no role {other:?}: guest, member, moderator, admin"
            ));
        }
    };
    Ok((user.to_owned(), role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_command_is_said_and_slashes_can_be_said_too() {
        assert_eq!(parse("hello /quit"), Ok(Command::Say("hello /quit".into())));
        assert_eq!(parse("//quit"), Ok(Command::Say("/quit".into())));
        assert_eq!(parse("  \n"), Ok(Command::Nothing));
        assert_eq!(parse("  indented\n"), Ok(Command::Say("  indented".into())));
    }

    #[test]
    fn commands_read_their_arguments() {
        assert_eq!(
            parse("/reply #12 yes, do"),
            Ok(Command::Reply(12, "yes, do".into()))
        );
        assert_eq!(parse("/r 12 yes"), Ok(Command::Reply(12, "yes".into())));
        assert_eq!(
            parse("/react 3 👍"),
            Ok(Command::React(3, "👍".into(), true))
        );
        assert_eq!(parse("/history"), Ok(Command::History(20)));
        assert_eq!(
            parse("/invite bob@us.example moderator"),
            Ok(Command::Invite("bob@us.example".into(), Role::Moderator))
        );
        assert_eq!(
            parse("/create Lunch at noon bob@us.example carol@eu.example"),
            Ok(Command::Create {
                title: "Lunch at noon".into(),
                members: vec!["bob@us.example".into(), "carol@eu.example".into()],
            })
        );
    }

    #[test]
    fn a_wrong_command_says_what_to_type() {
        for (line, hint) in [
            ("/frobnicate", "/help"),
            ("/reply 12", "number of a line and a text"),
            ("/reply x y", "number of a line"),
            ("/open", "number of /list"),
            ("/role bob@us.example", "role"),
            ("/role bob@us.example king", "moderator"),
            ("/door", "open"),
            ("/owner", "address"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(hint), "{line}: {error}");
        }
    }

    #[test]
    fn every_command_is_in_the_help() {
        let words = [
            "list", "open", "create", "direct", "invite", "leave", "members", "reply", "edit",
            "delete", "react", "history", "who", "quit", "join", "role", "remove", "ban", "unban",
            "door", "title", "topic", "name", "me", "owner", "stewards", "voided", "confirm",
        ];
        for word in words {
            assert!(HELP.contains(&format!("/{word}")), "{word}");
        }
    }
}
