//! Reads the whole history back on every server, through the SDK.

use std::collections::BTreeMap;

use comity_sdk::{Client, EventId, Place, UserId};
use futures::StreamExt as _;

use super::{Played, Stage};
use crate::{
    compare::{self, Expected, Report, Returned},
    logs::{
        Kind,
        script::{Script, UserKey},
    },
    network::Network,
};

/// Compares, and counts lines of one user that stand in another order than he spoke them.
pub(crate) async fn compare(
    network: &Network,
    stage: &Stage,
    script: &Script,
    clients: &[Client],
    played: &Played,
) -> anyhow::Result<(Report, u64)> {
    let keys: BTreeMap<UserId, UserKey> = clients
        .iter()
        .zip(&script.users)
        .map(|(client, user)| (client.user(), user.key))
        .collect();
    let expected = expected(script, played);
    let mut servers = Vec::new();
    for reader in &stage.readers {
        let lines = history(&reader.client, stage, &keys).await?;
        servers.push((network.nodes[reader.node].name.clone(), lines));
    }
    Ok((
        compare::compare(&expected, &servers),
        out_of_order(script, played),
    ))
}

/// The lines in the order of the places that their homes acknowledged: the one order that every
/// server has to show.
fn expected(script: &Script, played: &Played) -> Vec<Expected<EventId>> {
    let mut order: Vec<(Option<Place>, usize)> = script
        .spoken()
        .map(|step| (played.sent[step].map(|(_, place)| place), step))
        .collect();
    order.sort_by_key(|(place, step)| (place.is_none(), *place, *step));
    let number: BTreeMap<usize, usize> = order
        .iter()
        .enumerate()
        .map(|(n, (_, step))| (*step, n))
        .collect();
    let line = |(_, step): &(Option<Place>, usize)| {
        let it = &script.steps[*step];
        Expected {
            id: played.sent[*step].map(|(event, _)| event),
            user: it.user,
            kind: it.kind,
            body: it.body.clone(),
            replies: it
                .replies
                .iter()
                .filter_map(|target| number.get(target).copied())
                .collect(),
        }
    };
    order.iter().map(line).collect()
}

fn out_of_order(script: &Script, played: &Played) -> u64 {
    let mut last: BTreeMap<UserKey, Place> = BTreeMap::new();
    let mut wrong = 0;
    for step in script.spoken() {
        let Some((_, place)) = played.sent[step] else {
            continue;
        };
        let before = last.insert(script.steps[step].user, place);
        wrong += u64::from(before.is_some_and(|before| before > place));
    }
    wrong
}

async fn history(
    client: &Client,
    stage: &Stage,
    keys: &BTreeMap<UserId, UserKey>,
) -> anyhow::Result<Vec<Returned<EventId>>> {
    let history = client
        .conversation(stage.conversation)
        .history()
        .oldest()
        .limit(200);
    let mut lines = history.stream();
    let mut returned = Vec::new();
    while let Some(line) = lines.next().await {
        let line = line?;
        if !line.is_message() {
            continue;
        }
        returned.push(Returned {
            id: line.id(),
            user: keys.get(&line.author()).copied(),
            kind: if line.is_action() {
                Kind::Action
            } else {
                Kind::Message
            },
            body: line.text().to_owned(),
            reply_to: line.reply_to().to_vec(),
        });
    }
    Ok(returned)
}
