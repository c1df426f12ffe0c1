//! What is said during a run: a log again and again, or lines made from a seed.

use std::{collections::BTreeMap, path::Path};

use super::Random;
use crate::{
    logs::{self, Kind, Line, TimeOfDay, script::Script},
    replay::Played,
};

/// Users on each server.
const USERS_PER_SERVER: usize = 4;
/// How far back an answer goes, in lines.
const ANSWER_WITHIN: u64 = 30;
/// The part of a seed's numbers that decides what is said.
const PART: u64 = 1 << 32;

/// Lines by users of all servers: messages, actions, answers, joins, leaves and new names.
pub(crate) fn made(seed: u64, servers: usize, lines: usize) -> anyhow::Result<Script> {
    let mut random = Random::new(seed, PART);
    let users = servers * USERS_PER_SERVER;
    let mut names: Vec<String> = (0..users).map(|user| format!("user{user}")).collect();
    let mut member = vec![true; users];
    let mut spoken: Vec<u64> = Vec::new();
    let mut all = Vec::with_capacity(lines);
    for i in 0..lines as u64 {
        // Each says something at first, so that the order of users is that of their numbers.
        let first = usize::try_from(i).ok().filter(|i| *i < users);
        let user = first.unwrap_or_else(|| random.place(users));
        let (kind, body) = match random.below(100) {
            _ if first.is_some() => (Kind::Message, format!("{i}: here I am")),
            _ if !member[user] => (Kind::Join, String::new()),
            0..2 => (Kind::Part, "later".to_owned()),
            2..4 => (Kind::Nick, format!("user{user}-{i}")),
            4..10 => (Kind::Action, format!("{i}: looks at the clock")),
            _ => (Kind::Message, format!("{i}: {}", words(&mut random))),
        };
        let mut reply_to = Vec::new();
        if kind == Kind::Message && random.one_in(10) {
            let recent = spoken
                .iter()
                .rev()
                .take_while(|at| **at + ANSWER_WITHIN > i);
            let recent: Vec<u64> = recent.copied().collect();
            if !recent.is_empty() {
                reply_to.push(recent[random.place(recent.len())]);
            }
        }
        if kind.is_spoken() {
            spoken.push(i);
        }
        let line = Line {
            i,
            time: TimeOfDay::default(),
            kind,
            who: names[user].clone(),
            body,
            reply_to,
        };
        match line.kind {
            Kind::Join => member[user] = true,
            Kind::Part => member[user] = false,
            Kind::Nick => names[user].clone_from(&line.body),
            _ => {}
        }
        all.push(Ok(line));
    }
    Ok(Script::read(all)?)
}

/// A text of one to forty words, now and then of some thousand bytes.
fn words(random: &mut Random) -> String {
    const WORDS: [&str; 12] = [
        "kettle",
        "is",
        "on",
        "the",
        "train",
        "leaves",
        "at",
        "nine",
        "who",
        "has",
        "my",
        "grüße 🫖",
    ];
    let most = if random.one_in(50) { 1_000 } else { 40 };
    let count = 1 + random.below(most);
    let words: Vec<&str> = (0..count)
        .map(|_| WORDS[random.place(WORDS.len())])
        .collect();
    words.join(" ")
}

/// A log, again and again until it has so many lines.
pub(super) fn looped(file: &Path, lines: usize) -> anyhow::Result<Script> {
    let once: Vec<Line> = logs::open(file)?.collect::<Result<_, _>>()?;
    let Some(last) = once.last().map(|line| line.i) else {
        anyhow::bail!("{} has no lines", file.display());
    };
    let times = lines.div_ceil(once.len()) as u64;
    let again = |time: u64| {
        once.iter().map(move |line| {
            let later = |i: u64| i + time * (last + 1);
            Ok(Line {
                i: later(line.i),
                reply_to: line.reply_to.iter().copied().map(later).collect(),
                ..line.clone()
            })
        })
    };
    Ok(Script::read((0..times).flat_map(again))?)
}

/// What of a script was said: the lines that were sent, which alone are expected.
pub(crate) fn said(script: &Script, played: Played) -> (Script, Played) {
    let mut places = BTreeMap::new();
    let mut said = Script {
        users: script.users.clone(),
        ..Script::default()
    };
    let mut sent = Vec::new();
    for (i, step) in script.steps.iter().enumerate() {
        if played.sent[i].is_none() {
            continue;
        }
        places.insert(i, said.steps.len());
        let mut step = step.clone();
        // An answer is sent after what it answers.
        step.replies = step
            .replies
            .iter()
            .filter_map(|target| places.get(target).copied())
            .collect();
        said.steps.push(step);
        sent.push(played.sent[i]);
    }
    (said, Played { sent, ..played })
}

#[cfg(test)]
mod tests {
    use comity_sdk::EventId;

    use super::*;

    #[test]
    fn a_seed_makes_one_script_with_everything_in_it() {
        let script = made(7, 3, 2_000).unwrap();
        assert_eq!(script, made(7, 3, 2_000).unwrap());
        assert_ne!(script, made(8, 3, 2_000).unwrap());
        assert_eq!(script.users.len(), 12);
        for kind in [
            Kind::Message,
            Kind::Action,
            Kind::Join,
            Kind::Part,
            Kind::Nick,
        ] {
            assert!(script.steps.iter().any(|step| step.kind == kind));
        }
        assert!(script.steps.iter().any(|step| !step.replies.is_empty()));
        assert_eq!(script.replies_left_out, 0);
    }

    #[test]
    fn a_log_said_again_answers_its_own_lines() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/talk.jsonl");
        let once = looped(&file, 1).unwrap();
        let thrice = looped(&file, once.steps.len() * 3).unwrap();
        assert_eq!(thrice.steps.len(), once.steps.len() * 3);
        let second = &thrice.steps[once.steps.len()..];
        let answers = second.iter().flat_map(|step| &step.replies);
        assert!(answers.clone().count() > 0);
        for answer in answers {
            assert!(*answer >= once.steps.len());
        }
    }

    #[test]
    fn only_what_was_sent_is_expected_and_answers_keep_their_targets() {
        let script = made(1, 2, 200).unwrap();
        let mut sent = vec![None; script.steps.len()];
        let answer = (0..script.steps.len())
            .find(|i| !script.steps[*i].replies.is_empty())
            .unwrap();
        let target = script.steps[answer].replies[0];
        let place = comity_sdk::Place {
            hlc: Default::default(),
            commit: comity_protocol::ids::CommitId::from_bytes([0; 32]),
            index: 0,
        };
        for at in [target, answer] {
            sent[at] = Some((EventId::from_bytes([1; 32]), place));
        }
        let played = Played {
            sent,
            ..Played::default()
        };
        let (said, played) = said(&script, played);
        assert_eq!((said.steps.len(), played.sent.len()), (2, 2));
        assert_eq!(said.steps[1].replies, [0]);
        assert_eq!(said.steps[1].i, script.steps[answer].i);
    }
}
