//! Two devices of one user.

use comity_protocol::{
    event::{Act, Content, Event as Signed, SealedContent, SignedEvent},
    ids::{ConversationId, Nonce, Salt},
    preference::{Folder, FolderId, Mute, Setting, Value},
    role::Role,
    root::direct_conversation,
    session::{Accepted, ContentState, Reply, Request, StateField, Summary},
    time::Timestamp,
};

use crate::{Draft, ErrorKind, events::Event, testing::*};

fn own(person: &Person) -> ConversationId {
    direct_conversation(&person.user(), &person.user())
}

fn summary(person: &Person) -> Summary {
    Summary {
        conversation: own(person),
        direct: true,
        title: None,
        topic: None,
        role: Role::Member,
        members: 1,
        servers: vec![SERVER],
        newest: None,
        changed_at: Timestamp(1),
        names_stewards: false,
    }
}

/// A setting as this device signs it.
fn sets(
    person: &Person,
    number: u64,
    setting: Setting,
    value: Option<&Value>,
) -> (SignedEvent, Option<SealedContent>) {
    let sealed = value.map(|value| {
        let content = value.to_content(Salt::from_bytes([1; 16])).unwrap();
        SealedContent::seal(&content).unwrap()
    });
    let event = Signed {
        conversation: own(person),
        author: person.user(),
        device: person.key.public(),
        nonce: Nonce::from_bytes([u8::try_from(number).unwrap(); 16]),
        claims: Role::Member,
        act: Act::State {
            field: setting.field(),
            content: sealed.as_ref().map(SealedContent::reference),
        },
        sent_at: Timestamp(number),
    };
    (event.sign(&person.key), sealed)
}

const ONE: ConversationId = ConversationId::from_bytes([1; 32]);

#[tokio::test(start_paused = true)]
async fn a_setting_of_another_device_is_told_once_and_replaced_ones_are_not() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let laptop = Person::new(1).with_another_device();
    let (mute, draft) = (Setting::Mute(ONE), Setting::Draft(ONE));
    let forever = Value::Mute(Mute::Forever);
    let text = Value::Draft(Content::text(Salt::from_bytes([1; 16]), "begun elsewhere"));
    let (muted, sealed) = sets(&laptop, 1, mute, Some(&forever));
    let muted = item(1, &muted, sealed.as_ref());
    let (old, sealed) = sets(&laptop, 2, draft, Some(&text));
    let mut old = item(2, &old, sealed.as_ref());
    // What was replaced meanwhile.
    old.content = ContentState::Gone;
    let (new, sealed) = sets(&laptop, 3, draft, Some(&text));
    let new = item(3, &new, sealed.as_ref());
    let (cleared, _) = sets(&laptop, 4, mute, None);
    let cleared = item(4, &cleared, None);
    let all = [&muted, &old, &new, &muted, &cleared];
    let changes = all.map(|item| appeared_in(own(&laptop), item)).to_vec();
    session.update(1, changes).await;
    session.identify(&laptop).await;
    let mut told = vec![];
    for _ in 0..3 {
        match next(&mut events).await {
            Event::Preference { setting, value } => told.push((setting, value)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        told,
        [(mute, Some(forever)), (draft, Some(text)), (mute, None)]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_set_is_read_page_by_page_and_what_is_no_setting_is_left_out() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let phone = Person::new(1);
    let laptop = Person::new(1).with_another_device();
    let folder = Folder {
        name: "work".into(),
        conversations: vec![ONE],
    };
    let id = FolderId([7; 16]);
    let field = |number, setting: Setting, value: &Value| {
        let (event, sealed) = sets(&laptop, number, setting, Some(value));
        StateField {
            field: setting.field(),
            item: item(number, &event, sealed.as_ref()),
        }
    };
    let fields = [
        field(1, Setting::Folder(id), &Value::Folder(folder.clone())),
        field(
            2,
            Setting::Mute(ONE),
            &Value::Mute(Mute::Until(Timestamp(5))),
        ),
    ];
    let title = {
        let sealed = sealed("my notes");
        let act = Act::State {
            field: "title".into(),
            content: Some(sealed.reference()),
        };
        let mut event = laptop.sign(9, act).event().clone();
        event.conversation = own(&laptop);
        StateField {
            field: "title".into(),
            item: item(9, &event.sign(&laptop.key), Some(&sealed)),
        }
    };
    let asking = client.clone();
    let reading = tokio::spawn(async move { asking.preferences().await });
    let (request, asked) = session.request().await;
    assert!(matches!(asked, Request::OpenDirect { user } if user == phone.user()));
    let opened = Reply::Conversation(Box::new(summary(&phone)));
    session.reply(request, opened).await;
    let [first, second] = fields;
    let (request, asked) = session.request().await;
    assert!(
        matches!(asked, Request::State { after: None, .. }),
        "{asked:?}"
    );
    let after_first = first.field.clone();
    let reply = Reply::State {
        fields: vec![first],
        complete: false,
    };
    session.reply(request, reply).await;
    session.identify(&laptop).await;
    let (request, asked) = session.request().await;
    assert!(
        matches!(asked, Request::State { after: Some(ref after), .. } if *after == after_first),
        "{asked:?}"
    );
    let reply = Reply::State {
        fields: vec![second, title],
        complete: true,
    };
    session.reply(request, reply).await;
    let read = reading.await.unwrap().unwrap();
    assert_eq!(read.folders[&id], folder);
    assert_eq!(read.mutes[&ONE], Mute::Until(Timestamp(5)));
    assert!(read.drafts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn setting_and_clearing_send_state_events_to_oneself() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let phone = Person::new(1);
    let asking = client.clone();
    let set = tokio::spawn(async move {
        let draft = Draft::text("to be continued");
        asking.set_draft(ONE, Some(draft)).await
    });
    let (request, _) = session.request().await;
    let opened = Reply::Conversation(Box::new(summary(&phone)));
    session.reply(request, opened).await;
    let sent = set.await.unwrap().unwrap();
    let cleared = client.set_draft(ONE, None).await.unwrap();
    for (outgoing, text) in [(sent, Some("to be continued")), (cleared, None)] {
        let (request, asked) = session.request().await;
        let Request::Send { event, content } = asked else {
            panic!("{asked:?}");
        };
        let event = SignedEvent::verify(event).unwrap();
        assert_eq!(event.event().conversation, own(&phone));
        let Act::State { field, .. } = &event.event().act else {
            panic!("a state event");
        };
        assert_eq!(Setting::of(field), Ok(Some(Setting::Draft(ONE))));
        let content = content.map(|bytes| SealedContent::open(bytes.0).unwrap());
        assert_eq!(content.as_ref().map(|c| c.content().text.as_str()), text);
        let accepted = Accepted {
            event: event.id(),
            place: place(1),
        };
        session.reply(request, Reply::Accepted(accepted)).await;
        outgoing.accepted().await.unwrap();
    }
    let nameless = Folder {
        name: String::new(),
        conversations: vec![],
    };
    let id = client.new_folder_id().unwrap();
    let refused = client.set_folder(id, Some(nameless)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}
