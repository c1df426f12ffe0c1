//! Opening a conversation: its machine, from the records that hold its commits.

use comity_protocol::{
    commit::UnverifiedCommit,
    conversation::Conversation,
    event::SignedEvent,
    ids::{ConversationId, ServerId},
    link::Offer,
    root::Genesis,
};
use comity_storage::ReadError;

use crate::{
    records::{self, CommitRecord},
    rows::Rows,
};

/// Makes the machine of an offer that was checked when it was stored.
pub(super) fn machine(offer: &Offer, me: ServerId, epoch: u64) -> Option<Conversation> {
    Some(match offer {
        Offer::Group(raw) => Conversation::group(&Genesis::verify(raw.clone()).ok()?, me, epoch),
        Offer::Direct(a, b) => Conversation::direct(*a, *b, me, epoch),
    })
}

/// Reads a conversation back; `None` if it is not known.
pub(super) fn conversation(
    rows: &Rows,
    id: &ConversationId,
    me: ServerId,
    epoch: u64,
) -> Result<Option<Conversation>, ReadError> {
    let Some(row) = rows.conversation(id)? else {
        return Ok(None);
    };
    let Some(mut conversation) = machine(&row.offer, me, epoch) else {
        return Ok(None);
    };
    for number in rows.commit_records(id)? {
        if let Err(why) = restore(rows, number, &mut conversation) {
            // The commit is missing in memory then, so it is asked of peers like any other gap.
            tracing::error!(%id, number, %why, "a stored commit could not be taken back in");
        }
    }
    Ok(Some(conversation))
}

fn restore(rows: &Rows, number: u64, conversation: &mut Conversation) -> Result<(), String> {
    let stored = rows.0.record(number).map_err(|error| error.to_string())?;
    let stored = stored.ok_or("the record is gone")?;
    let record: CommitRecord =
        records::read(number, &stored.body).map_err(|error| error.to_string())?;
    let commit = UnverifiedCommit::decode(record.commit).map_err(|error| error.to_string())?;
    let events: Result<Vec<_>, _> = record
        .events
        .into_iter()
        .map(|entry| SignedEvent::from_trusted(entry.raw))
        .collect();
    conversation.restore(
        &commit.trusted(),
        &events.map_err(|error| error.to_string())?,
    )
}
