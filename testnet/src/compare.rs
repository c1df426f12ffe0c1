//! What was said against what each server shows: every line once, by its author, with its text and
//! answers, in one order everywhere.
//!
//! It knows nothing of how lines were sent or fetched: [`Expected`] and [`Returned`] are plain data,
//! tied together by the id that the sender got for each line.

use std::collections::BTreeMap;
use std::fmt;

use crate::logs::Kind;
use crate::logs::script::UserKey;

/// Differences told in words; beyond, they are only counted.
pub const DIFFERENCES_MAX: usize = 20;
/// Characters of a text shown in a difference.
const SHOWN_CHARS_MAX: usize = 60;

/// A line that every server must show. Its place in the list is its number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expected<Id> {
    /// The id that its sender got, or none if it was never sent.
    pub id: Option<Id>,
    /// Who said it.
    pub user: UserKey,
    /// Message or action.
    pub kind: Kind,
    /// Its text.
    pub body: String,
    /// What it answers: places in the list of expected lines, in the order given.
    pub replies: Vec<usize>,
}

/// A line as a server shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Returned<Id> {
    /// Its id.
    pub id: Id,
    /// Who is shown as its author; none if he is no user of the log.
    pub user: Option<UserKey>,
    /// Message or action.
    pub kind: Kind,
    /// Its text.
    pub body: String,
    /// What it answers.
    pub reply_to: Vec<Id>,
}

/// The verdict. Counts are summed over the servers.
#[derive(Clone, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct Report {
    /// Lines expected.
    pub lines: u64,
    /// Lines that were sent.
    pub sent: u64,
    /// Servers compared.
    pub servers: u64,
    /// Lines that a server does not show; a line never sent is missing everywhere.
    pub missing: u64,
    /// Lines shown again: the same id, or another id with the same author and text where no line
    /// expected it.
    pub duplicate: u64,
    /// Lines shown that nobody sent.
    pub unexpected: u64,
    /// Lines with another author.
    pub wrong_author: u64,
    /// Lines with another text, or a message for an action.
    pub wrong_body: u64,
    /// Lines that answer something else.
    pub wrong_replies: u64,
    /// Whether every server shows its lines in the order expected.
    pub order_equal: bool,
    /// Whether all servers show the same ids in the same order, whatever was expected.
    pub servers_agree: bool,
    /// Whether all was sent and every server shows exactly what was expected.
    pub equal: bool,
    /// The first differences, readable.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.equal { "equal" } else { "NOT EQUAL" };
        writeln!(
            f,
            "{verdict}: {} lines, {} sent, {} servers; {} missing, {} duplicate, {} unexpected, \
             {} wrong author, {} wrong body, {} wrong replies; order {}",
            self.lines,
            self.sent,
            self.servers,
            self.missing,
            self.duplicate,
            self.unexpected,
            self.wrong_author,
            self.wrong_body,
            self.wrong_replies,
            if self.order_equal { "equal" } else { "differs" },
        )?;
        for difference in &self.differences {
            writeln!(f, "  {difference}")?;
        }
        Ok(())
    }
}

/// Compares what each server returned, by its name, with what was expected. Nothing expected, or no
/// server asked, is not equal: it proves nothing.
#[must_use]
pub fn compare<Id: Clone + Ord + fmt::Debug>(
    expected: &[Expected<Id>],
    servers: &[(String, Vec<Returned<Id>>)],
) -> Report {
    let places: BTreeMap<&Id, usize> = expected
        .iter()
        .enumerate()
        .filter_map(|(place, line)| Some((line.id.as_ref()?, place)))
        .collect();
    let mut report = Report {
        lines: expected.len() as u64,
        sent: expected.iter().filter(|line| line.id.is_some()).count() as u64,
        servers: servers.len() as u64,
        order_equal: true,
        servers_agree: true,
        ..Report::default()
    };
    if places.len() as u64 != report.sent {
        let twice = "two lines were given one id: the sender is wrong, not the servers";
        report.differences.push(twice.to_owned());
    }
    for (name, lines) in servers {
        Server {
            name,
            expected,
            places: &places,
            report: &mut report,
        }
        .compare(lines);
    }
    report.servers_agree = agree(servers, &mut report);
    report.equal = report.lines > 0
        && report.servers > 0
        && report.sent == report.lines
        && places.len() == expected.len()
        && report.order_equal
        && report.servers_agree
        && report.missing
            + report.duplicate
            + report.unexpected
            + report.wrong_author
            + report.wrong_body
            + report.wrong_replies
            == 0;
    report
}

fn agree<Id: Ord + fmt::Debug>(
    servers: &[(String, Vec<Returned<Id>>)],
    report: &mut Report,
) -> bool {
    let mut all = true;
    for pair in servers.windows(2) {
        let [(left, left_lines), (right, right_lines)] = pair else {
            continue;
        };
        let (mut a, mut b) = (left_lines.iter(), right_lines.iter());
        let mut place = 0;
        loop {
            match (a.next(), b.next()) {
                (None, None) => break,
                (Some(a), Some(b)) if a.id == b.id => place += 1,
                (a, b) => {
                    let show = |line: Option<&Returned<Id>>| {
                        line.map_or("nothing".to_owned(), |line| shown(&line.body))
                    };
                    let told = format!(
                        "{left} and {right} part at place {place}: {} / {}",
                        show(a),
                        show(b)
                    );
                    tell(report, told);
                    all = false;
                    break;
                }
            }
        }
    }
    all
}

struct Server<'a, Id> {
    name: &'a str,
    expected: &'a [Expected<Id>],
    places: &'a BTreeMap<&'a Id, usize>,
    report: &'a mut Report,
}

impl<Id: Ord + fmt::Debug> Server<'_, Id> {
    fn compare(&mut self, lines: &[Returned<Id>]) {
        let mut shown_already = vec![false; self.expected.len()];
        let mut last = None;
        for line in lines {
            let Some(&place) = self.places.get(&line.id) else {
                self.stranger(line);
                continue;
            };
            if std::mem::replace(&mut shown_already[place], true) {
                self.report.duplicate += 1;
                self.tell(place, "shown again");
                continue;
            }
            if let Some(last) = last.filter(|last| *last > place) {
                if self.report.order_equal {
                    self.tell(place, &format!("shown after line {last}"));
                }
                self.report.order_equal = false;
            }
            last = Some(place);
            self.line(place, line);
        }
        for (place, shown) in shown_already.into_iter().enumerate() {
            if !shown {
                self.report.missing += 1;
                let sent = self.expected[place].id.is_some();
                self.tell(place, if sent { "missing" } else { "never sent" });
            }
        }
    }

    fn line(&mut self, place: usize, line: &Returned<Id>) {
        let expected = &self.expected[place];
        if line.user != Some(expected.user) {
            self.report.wrong_author += 1;
            let author = line
                .user
                .map_or("a stranger".to_owned(), |user| user.to_string());
            self.tell(place, &format!("shown as said by {author}"));
        }
        if line.kind != expected.kind {
            self.report.wrong_body += 1;
            self.tell(place, &format!("shown as {:?}", line.kind));
        } else if line.body != expected.body {
            self.report.wrong_body += 1;
            self.tell(place, &format!("shown as {}", shown(&line.body)));
        }
        let replies: Vec<Option<usize>> = line
            .reply_to
            .iter()
            .map(|id| self.places.get(id).copied())
            .collect();
        let same = replies.len() == expected.replies.len()
            && replies
                .iter()
                .zip(&expected.replies)
                .all(|(shown, expected)| *shown == Some(*expected));
        if !same {
            self.report.wrong_replies += 1;
            let told = format!("answers {replies:?} instead of {:?}", expected.replies);
            self.tell(place, &told);
        }
    }

    /// A line under an id that no sender was given: a second event made of one line, or words
    /// that nobody said.
    fn stranger(&mut self, line: &Returned<Id>) {
        let copied = self
            .expected
            .iter()
            .position(|expected| line.user == Some(expected.user) && line.body == expected.body);
        match copied {
            Some(place) => {
                self.report.duplicate += 1;
                self.tell(
                    place,
                    &format!("shown again under another id, {:?}", line.id),
                );
            }
            None => {
                self.report.unexpected += 1;
                let told = format!(
                    "{}: nobody sent {:?} {}",
                    self.name,
                    line.id,
                    shown(&line.body)
                );
                tell(self.report, told);
            }
        }
    }

    fn tell(&mut self, place: usize, what: &str) {
        let line = &self.expected[place];
        let told = format!(
            "{}, line {place}, {} {}: {what}",
            self.name,
            line.user,
            shown(&line.body)
        );
        tell(self.report, told);
    }
}

fn tell(report: &mut Report, told: String) {
    if report.differences.len() < DIFFERENCES_MAX {
        report.differences.push(told);
    }
}

fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Vec<Expected<u64>> {
        let line = |id: u64, user, kind, body: &str, replies: &[usize]| Expected {
            id: Some(id),
            user: UserKey(user),
            kind,
            body: body.to_owned(),
            replies: replies.to_vec(),
        };
        vec![
            line(10, 0, Kind::Message, "who is there?", &[]),
            line(11, 1, Kind::Message, "me", &[0]),
            line(12, 0, Kind::Action, "waves", &[]),
            line(13, 1, Kind::Message, "me", &[0, 2]),
        ]
    }

    fn returned() -> Vec<Returned<u64>> {
        let expected = expected();
        expected
            .iter()
            .map(|line| Returned {
                id: line.id.unwrap(),
                user: Some(line.user),
                kind: line.kind,
                body: line.body.clone(),
                reply_to: line
                    .replies
                    .iter()
                    .map(|place| expected[*place].id.unwrap())
                    .collect(),
            })
            .collect()
    }

    /// Compares a good server with one that `spoil` changed.
    fn report(spoil: impl FnOnce(&mut Vec<Returned<u64>>)) -> Report {
        let mut spoiled = returned();
        spoil(&mut spoiled);
        let servers = [
            ("acme".to_owned(), returned()),
            ("globex".to_owned(), spoiled),
        ];
        compare(&expected(), &servers)
    }

    fn told(report: &Report, words: &str) -> bool {
        !report.equal && report.differences.iter().any(|told| told.contains(words))
    }

    #[test]
    fn equal_histories_are_equal() {
        let report = report(|_| ());
        assert!(report.equal && report.order_equal && report.servers_agree);
        assert_eq!((report.lines, report.sent, report.servers), (4, 4, 2));
        assert_eq!(report.differences, Vec::<String>::new());
    }

    #[test]
    fn a_missing_line_is_caught() {
        let report = report(|lines| drop(lines.remove(1)));
        assert_eq!(report.missing, 1);
        assert!(told(&report, "globex, line 1, u0001 \"me\": missing"));
        assert!(report.order_equal && !report.servers_agree);
    }

    #[test]
    fn a_line_shown_twice_is_caught() {
        let report = report(|lines| lines.push(lines[0].clone()));
        assert_eq!((report.duplicate, report.missing), (1, 0));
        assert!(told(&report, "shown again"));
    }

    #[test]
    fn a_retry_that_became_a_second_event_is_caught() {
        let report = report(|lines| {
            let copy = Returned {
                id: 99,
                ..lines[2].clone()
            };
            lines.push(copy);
        });
        assert_eq!((report.duplicate, report.unexpected), (1, 0));
        assert!(told(
            &report,
            "line 2, u0000 \"waves\": shown again under another id, 99"
        ));
    }

    #[test]
    fn words_that_nobody_sent_are_caught() {
        let report = report(|lines| {
            lines.push(Returned {
                id: 99,
                user: Some(UserKey(1)),
                kind: Kind::Message,
                body: "buy now".to_owned(),
                reply_to: vec![],
            });
        });
        assert_eq!((report.duplicate, report.unexpected), (0, 1));
        assert!(told(&report, "globex: nobody sent 99 \"buy now\""));
    }

    #[test]
    fn a_changed_text_and_a_changed_kind_are_caught() {
        let report_body = report(|lines| lines[0].body.push(' '));
        assert_eq!(report_body.wrong_body, 1);
        assert!(told(&report_body, "shown as \"who is there? \""));
        let report_kind = report(|lines| lines[2].kind = Kind::Message);
        assert_eq!(report_kind.wrong_body, 1);
        assert!(told(&report_kind, "shown as Message"));
    }

    #[test]
    fn a_wrong_author_is_caught() {
        let report_other = report(|lines| lines[0].user = Some(UserKey(1)));
        assert_eq!(report_other.wrong_author, 1);
        assert!(told(&report_other, "shown as said by u0001"));
        let report_stranger = report(|lines| lines[0].user = None);
        assert!(told(&report_stranger, "a stranger"));
    }

    #[test]
    fn wrong_answers_are_caught() {
        for spoil in [
            vec![],
            vec![10],
            vec![12, 10],
            vec![10, 12, 12],
            vec![10, 77],
        ] {
            let report = report(|lines| lines[3].reply_to = spoil);
            assert_eq!(report.wrong_replies, 1);
            assert!(told(&report, "instead of [0, 2]"));
        }
    }

    #[test]
    fn another_order_is_caught() {
        let report = report(|lines| lines.swap(0, 2));
        assert!(!report.order_equal && !report.servers_agree && !report.equal);
        assert!(told(&report, "shown after line"));
        assert!(told(&report, "acme and globex part at place 0"));
    }

    #[test]
    fn the_same_wrong_order_on_all_servers_is_agreed_but_not_equal() {
        let mut lines = returned();
        lines.swap(1, 2);
        let servers = [
            ("acme".to_owned(), lines.clone()),
            ("globex".to_owned(), lines),
        ];
        let report = compare(&expected(), &servers);
        assert!(report.servers_agree && !report.order_equal && !report.equal);
    }

    #[test]
    fn a_line_never_sent_is_missing_and_not_equal() {
        let mut unsent = expected();
        unsent[3].id = None;
        let mut lines = returned();
        lines.pop();
        let report = compare(&unsent, &[("acme".to_owned(), lines)]);
        assert_eq!((report.sent, report.missing), (3, 1));
        assert!(told(&report, "never sent"));
    }

    #[test]
    fn nothing_compared_is_not_equal() {
        assert!(!compare::<u64>(&expected(), &[]).equal);
        assert!(!compare::<u64>(&[], &[("acme".to_owned(), vec![])]).equal);
    }

    #[test]
    fn one_id_for_two_lines_is_not_equal() {
        let mut twice = expected();
        twice[1].id = Some(10);
        assert!(told(
            &compare(&twice, &[("acme".to_owned(), returned())]),
            "one id"
        ));
    }

    #[test]
    fn differences_are_told_up_to_a_limit_and_counted_beyond() {
        let many: Vec<_> = (0..100).flat_map(|_| expected()).collect();
        let many: Vec<_> = many
            .into_iter()
            .enumerate()
            .map(|(place, line)| Expected {
                id: Some(place as u64),
                ..line
            })
            .collect();
        let report = compare(&many, &[("acme".to_owned(), vec![])]);
        assert_eq!(report.missing, 400);
        assert_eq!(report.differences.len(), DIFFERENCES_MAX);
    }
}
