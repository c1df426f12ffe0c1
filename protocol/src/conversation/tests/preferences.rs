//! A user's conversation with himself: what his devices agree on.

use super::world::*;
use crate::{
    conversation::{Conversation, Refusal, Taken},
    document::SPLIT_ABOVE,
    event::{Act, Content, SealedContent},
    ids::{ConversationId, EventId, Salt},
    preference::{Folder, FolderId, Mute, Setting, Value},
    root::direct_conversation,
    session::Code,
    time::Timestamp,
};

/// The owner's conversation with himself at home 0.
fn alone() -> World {
    let mut world = World::group();
    let owner = world.users[OWNER].id;
    world.conversation = direct_conversation(&owner, &owner);
    let machine = Conversation::direct(owner, owner, server(0), 1);
    world.homes = vec![Home::new(0, machine)];
    world
}

impl World {
    fn set(&mut self, setting: Setting, value: Option<&Value>) -> Result<EventId, Refusal> {
        let salt = Salt::from_bytes(*self.nonce().as_bytes());
        let sealed = value.map(|value| SealedContent::seal(&value.to_content(salt).unwrap()));
        self.put(&setting.field(), sealed.map(Result::unwrap))
    }

    fn put(&mut self, field: &str, value: Option<SealedContent>) -> Result<EventId, Refusal> {
        let act = Act::State {
            field: field.to_owned(),
            content: value.as_ref().map(SealedContent::reference),
        };
        let claims = self.claims(OWNER, &act);
        let event = self.sign(OWNER, claims, act);
        let now = self.time();
        self.homes[0].submit(now, (event, value))
    }
}

fn talk(n: u8) -> ConversationId {
    ConversationId::from_bytes([n; 32])
}

fn draft(text: &str) -> Value {
    Value::Draft(Content::text(Salt::from_bytes([0; 16]), text))
}

#[test]
fn the_last_value_of_a_setting_counts_and_what_it_replaced_is_erased() {
    let mut world = alone();
    let (one, two) = (Setting::Draft(talk(1)), Setting::Draft(talk(2)));
    let first = world.set(one, Some(&draft("hel"))).unwrap();
    let other = world.set(two, Some(&draft("other"))).unwrap();
    world.commit(0);
    assert!(world.homes[0].erased.is_empty());
    let second = world.set(one, Some(&draft("hello"))).unwrap();
    world.commit(0);
    let home = &world.homes[0];
    assert_eq!(home.fields[&one.field()], second);
    assert_eq!(home.fields[&two.field()], other);
    assert!(home.erased.contains(&first) && home.erased.len() == 1);
    // Sent: the draft is cleared, and its text with it.
    world.set(one, None).unwrap();
    world.commit(0);
    let home = &world.homes[0];
    assert!(!home.fields.contains_key(&one.field()));
    assert!(home.erased.contains(&second) && !home.erased.contains(&other));
}

#[test]
fn values_in_one_commit_replace_each_other_in_its_order() {
    let mut world = alone();
    let mute = Setting::Mute(talk(1));
    let until = |n| Value::Mute(Mute::Until(Timestamp(n)));
    let events: Vec<_> = (0..3)
        .map(|n| world.set(mute, Some(&until(n))).unwrap())
        .collect();
    world.commit(0).unwrap();
    let home = &world.homes[0];
    assert_eq!(home.fields[&mute.field()], events[2]);
    assert!(home.erased.contains(&events[0]) && home.erased.contains(&events[1]));
    assert_eq!(home.erased.len(), 2);
}

#[test]
fn what_cannot_be_a_setting_is_refused_before_it_is_committed() {
    let mut world = alone();
    let text = world.content("not for ever");
    let mute = Setting::Mute(talk(1)).field();
    let refused = world.put(&mute, Some(text.clone())).unwrap_err();
    assert_eq!(refused.code(), Code::Malformed);
    let refused = world.put("draft_1", None).unwrap_err();
    assert_eq!(refused.code(), Code::Malformed);
    assert!(world.put("title", Some(text.clone())).is_ok());
    let folder = Value::Folder(Folder {
        name: "work".into(),
        conversations: vec![talk(1)],
    });
    let setting = Setting::Folder(FolderId([1; 16]));
    assert!(world.set(setting, Some(&folder)).is_ok());
    // Among others the same names are fields like any.
    let mut group = World::group();
    let act = Act::State {
        field: mute,
        content: Some(text.reference()),
    };
    let claims = group.claims(OWNER, &act);
    let event = group.sign(OWNER, claims, act);
    let now = group.time();
    assert!(group.homes[0].submit(now, (event, Some(text))).is_ok());
}

#[test]
fn more_drafts_than_a_document_holds_changes_are_one_draft() {
    let mut world = alone();
    let setting = Setting::Draft(talk(1));
    let mut last = None;
    // Many more than a document of one part takes; its limit is 32 times that.
    for n in 0..2 * SPLIT_ABOVE {
        last = Some(world.set(setting, Some(&draft(&format!("{n}")))).unwrap());
        if n % 200 == 0 {
            world.commit(0);
        }
    }
    while world.commit(0).is_some() {}
    let home = &world.homes[0];
    assert_eq!(Some(home.fields[&setting.field()]), last);
    assert_eq!(home.erased.len(), 2 * SPLIT_ABOVE - 1);
    assert!(home.machine.document_bytes() < 64 * 1024, "one change");
    // Read back it says the same, with as little.
    let owner = world.users[OWNER].id;
    let mut back = Conversation::direct(owner, owner, server(0), 1);
    for (commit, events) in &world.homes[0].records {
        back.restore(commit, events).unwrap();
    }
    world.homes[0].machine = back;
    let other = world
        .set(Setting::Mute(talk(2)), Some(&Value::Mute(Mute::Forever)))
        .unwrap();
    let taken: Taken = world.commit(0).unwrap();
    let held: Vec<_> = taken
        .changes
        .state
        .iter()
        .filter_map(|(_, event)| *event)
        .collect();
    assert!(held.contains(&other));
    assert!(taken.changes.erase.is_empty(), "erased before");
    assert!(world.homes[0].machine.document_bytes() < 64 * 1024);
}
