//! A log as a script for actors: who of the users did what, in order.
//!
//! Names are not users. A user who changes his name goes on under the new one; a name that was
//! given up may be taken by somebody else; after a part or quit the same name is the same user.

use std::collections::BTreeMap;

use super::{Error, Kind, Line, TimeOfDay};

/// Users of one log.
pub const USERS_MAX: usize = 10_000;
/// Lines of one script, which is held in memory whole.
pub const STEPS_MAX: usize = 1_000_000;

/// A user of a log: his place in the order of first appearance, from 0. The same log gives the
/// same keys in every run.
#[derive(
    Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize,
)]
#[serde(transparent)]
pub struct UserKey(pub u32);

impl std::fmt::Display for UserKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "u{:04}", self.0)
    }
}

/// One user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// His key, equal to his place in [`Script::users`].
    pub key: UserKey,
    /// The name he first appears under.
    pub first_name: String,
    /// Whether he is a member before the log begins: his first line is no `join`.
    pub from_start: bool,
}

/// One line, by a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Number of the line in the log.
    pub i: u64,
    /// Time of day.
    pub time: TimeOfDay,
    /// What happened.
    pub kind: Kind,
    /// Who did it.
    pub user: UserKey,
    /// Whether he was a member before this step. A `join` of a member and a message of somebody
    /// who had left both occur: logs are not complete.
    pub was_member: bool,
    /// Text, new name or reason, as in [`Line::body`].
    pub body: String,
    /// What it answers: places in [`Script::steps`], all before this step and all spoken.
    pub replies: Vec<usize>,
}

/// A whole log, with users for names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Script {
    /// Users in the order of their first appearance.
    pub users: Vec<User>,
    /// Lines in the order of the log.
    pub steps: Vec<Step>,
    /// Answers left out because the log lacks the line answered, or nobody spoke in it.
    pub replies_left_out: u64,
}

impl Script {
    /// Reads all of `lines`.
    ///
    /// # Errors
    ///
    /// The first error of `lines`, [`Error::TooManyUsers`] or [`Error::TooManyLines`].
    pub fn read(lines: impl IntoIterator<Item = Result<Line, Error>>) -> Result<Self, Error> {
        let mut script = Self::default();
        let mut cast = Cast::default();
        let mut spoken: BTreeMap<u64, usize> = BTreeMap::new();
        for line in lines {
            let line = line?;
            if script.steps.len() >= STEPS_MAX {
                return Err(Error::TooManyLines { line: line.i });
            }
            let (user, was_member) = cast.act(&line)?;
            let replies: Vec<usize> = line
                .reply_to
                .iter()
                .filter_map(|answered| spoken.get(answered).copied())
                .collect();
            script.replies_left_out += (line.reply_to.len() - replies.len()) as u64;
            if line.kind.is_spoken() {
                spoken.insert(line.i, script.steps.len());
            }
            script.steps.push(Step {
                i: line.i,
                time: line.time,
                kind: line.kind,
                user,
                was_member,
                body: line.body,
                replies,
            });
        }
        script.users = cast.users;
        Ok(script)
    }

    /// Places of the steps that are part of the history: messages and actions.
    pub fn spoken(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.steps.len()).filter(|place| self.steps[*place].kind.is_spoken())
    }
}

#[derive(Default)]
struct Cast {
    users: Vec<User>,
    member: Vec<bool>,
    /// Who answers to a name now, or did when he last left.
    names: BTreeMap<String, UserKey>,
}

impl Cast {
    /// Who does `line`, and whether he was a member before it.
    fn act(&mut self, line: &Line) -> Result<(UserKey, bool), Error> {
        let user = match self.names.get(&line.who) {
            Some(user) => *user,
            None => self.appear(line)?,
        };
        let member = &mut self.member[user.0 as usize];
        let was_member = *member;
        match line.kind {
            Kind::Join | Kind::Message | Kind::Action => *member = true,
            Kind::Part | Kind::Quit => *member = false,
            Kind::Nick => {
                self.names.remove(&line.who);
                // Whoever held the new name is gone: the channel never has two of one name.
                if let Some(gone) = self.names.insert(line.body.clone(), user)
                    && gone != user
                {
                    self.member[gone.0 as usize] = false;
                }
            }
        }
        Ok((user, was_member))
    }

    fn appear(&mut self, line: &Line) -> Result<UserKey, Error> {
        let too_many = || Error::TooManyUsers { line: line.i };
        if self.users.len() >= USERS_MAX {
            return Err(too_many());
        }
        let key = UserKey(u32::try_from(self.users.len()).map_err(|_| too_many())?);
        let from_start = line.kind != Kind::Join;
        self.users.push(User {
            key,
            first_name: line.who.clone(),
            from_start,
        });
        self.member.push(from_start);
        self.names.insert(line.who.clone(), key);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(i: u64, kind: Kind, who: &str, body: &str, reply_to: &[u64]) -> Result<Line, Error> {
        Ok(Line {
            i,
            time: TimeOfDay::default(),
            kind,
            who: who.to_owned(),
            body: body.to_owned(),
            reply_to: reply_to.to_vec(),
        })
    }

    fn users(script: &Script) -> Vec<u32> {
        script.steps.iter().map(|step| step.user.0).collect()
    }

    #[test]
    fn who_speaks_before_he_joins_is_a_member_from_the_start() {
        let script = Script::read([
            line(0, Kind::Message, "ann", "hi", &[]),
            line(1, Kind::Join, "bob", "", &[]),
            line(2, Kind::Message, "bob", "hi", &[]),
            line(3, Kind::Join, "ann", "", &[]),
        ])
        .unwrap();
        let from_start: Vec<bool> = script.users.iter().map(|user| user.from_start).collect();
        assert_eq!(from_start, [true, false]);
        let was: Vec<bool> = script.steps.iter().map(|step| step.was_member).collect();
        assert_eq!(was, [true, false, true, true]);
    }

    #[test]
    fn a_renamed_user_stays_the_same_user_and_his_old_name_is_free() {
        let script = Script::read([
            line(0, Kind::Message, "ann", "hi", &[]),
            line(1, Kind::Nick, "ann", "ann_away", &[]),
            line(2, Kind::Message, "ann_away", "bye", &[]),
            line(3, Kind::Message, "ann", "I am another one", &[]),
            line(4, Kind::Nick, "ann_away", "ann_away", &[]),
            line(5, Kind::Message, "ann_away", "still me", &[]),
        ])
        .unwrap();
        assert_eq!(users(&script), [0, 0, 0, 1, 0, 0]);
        assert_eq!(script.users[1].first_name, "ann");
    }

    #[test]
    fn a_name_taken_over_belongs_to_the_one_who_took_it() {
        let script = Script::read([
            line(0, Kind::Message, "ann", "hi", &[]),
            line(1, Kind::Message, "ann_", "my line dropped", &[]),
            line(2, Kind::Nick, "ann_", "ann", &[]),
            line(3, Kind::Message, "ann", "back", &[]),
        ])
        .unwrap();
        assert_eq!(users(&script), [0, 1, 1, 1]);
    }

    #[test]
    fn who_left_and_comes_back_is_the_same_user() {
        let script = Script::read([
            line(0, Kind::Join, "ann", "", &[]),
            line(1, Kind::Quit, "ann", "", &[]),
            line(2, Kind::Message, "ann", "the log missed my join", &[]),
        ])
        .unwrap();
        assert_eq!(users(&script), [0, 0, 0]);
        assert!(!script.steps[2].was_member);
    }

    #[test]
    fn answers_to_lines_that_are_missing_or_not_spoken_are_left_out_and_counted() {
        let script = Script::read([
            line(3, Kind::Message, "ann", "question", &[]),
            line(4, Kind::Join, "bob", "", &[]),
            line(7, Kind::Message, "bob", "answer", &[2, 3, 4]),
        ])
        .unwrap();
        assert_eq!(script.steps[2].replies, [0]);
        assert_eq!(script.replies_left_out, 2);
        assert_eq!(script.spoken().collect::<Vec<_>>(), [0, 2]);
    }
}
