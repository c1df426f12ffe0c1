//! What is listed is checked, and what is confirmed is said once.

use comity_protocol::{
    event::{Act, Field, Grant, Target},
    ids::{EventId, UserId},
    role::Role,
    session::{Code, ContentState, Grantee, Reply, Request, VoidItem, WireError},
};

use super::Voided;
use crate::{Body, Confirmed, Conversation, ErrorKind, Event, testing::*};

fn removal() -> EventId {
    EventId::from_bytes([9; 32])
}

fn user(n: u8) -> UserId {
    UserId::from_bytes([n; 32])
}

fn void(
    number: u64,
    signed: &comity_protocol::event::SignedEvent,
    content: ContentState,
) -> VoidItem {
    VoidItem {
        place: place(number),
        event: signed.to_raw(),
        content,
        reason: "removed".to_owned(),
        by: removal(),
    }
}

fn grant(to: u8, role: Role) -> Act {
    Act::Grant(Grant {
        target: Target::User {
            user: user(to),
            home: SERVER,
        },
        role,
        cut: vec![],
        ban: false,
        lifts: vec![],
    })
}

/// The list, when bob did these and lost his role.
async fn listed(
    room: &Conversation,
    session: &mut Session,
    bob: &Person,
    acts: &[Act],
) -> Vec<Voided> {
    let items = (1..).zip(acts).map(|(n, act)| {
        let content = match act.content() {
            Some(_) => ContentState::Held(comity_protocol::ids::Blob(sealed("Ours").into_bytes())),
            None => ContentState::None,
        };
        void(n, &bob.sign(n, act.clone()), content)
    });
    let items = items.collect();
    let (list, ()) = tokio::join!(room.voided(), async {
        let (id, _) = session.request().await;
        session.reply(id, Reply::Voided { items, next: None }).await;
        session.identify(bob).await;
    });
    list.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_list_is_read_to_its_end_and_what_nobody_signed_is_not_on_it() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let (bob, room) = (Person::new(2), client.conversation(ROOM));
    let first = void(1, &bob.sign(1, grant(7, Role::Member)), ContentState::None);
    let mut forged = void(2, &bob.sign(2, grant(8, Role::Admin)), ContentState::None);
    forged.event.signature = first.event.signature;
    let last = void(3, &bob.sign(3, grant(9, Role::Member)), ContentState::None);
    let (list, ()) = tokio::join!(room.voided(), async {
        let (id, request) = session.request().await;
        assert!(matches!(request, Request::Voided { after: None, .. }));
        let reply = Reply::Voided {
            items: vec![first, forged],
            next: Some(place(2)),
        };
        session.reply(id, reply).await;
        session.identify(&bob).await;
        let (id, request) = session.request().await;
        assert!(matches!(request, Request::Voided { after: Some(after), .. } if after == place(2)));
        let reply = Reply::Voided {
            items: vec![last],
            next: None,
        };
        session.reply(id, reply).await;
    });
    let places: Vec<_> = list.unwrap().iter().map(Voided::place).collect();
    assert_eq!(places, [place(1), place(3)]);
    assert!(matches!(next(&mut events).await, Event::Warning(_)));
    let (stuck, ()) = tokio::join!(room.voided(), async {
        for _ in 0..2 {
            let (id, _) = session.request().await;
            let reply = Reply::Voided {
                items: vec![],
                next: Some(place(2)),
            };
            session.reply(id, reply).await;
        }
    });
    assert_eq!(stuck.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn each_act_has_a_verdict_and_of_several_about_one_the_last_is_said() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let (bob, room) = (Person::new(2), client.conversation(ROOM));
    let text = sealed("Ours").reference();
    let title = |content| Act::State {
        field: "title".to_owned(),
        content,
    };
    let acts = [
        title(None),
        Act::Message { content: text },
        title(Some(text)),
        Act::Policy {
            field: Field::Rate,
            value: 9,
        },
        // Somebody brought him in meanwhile, higher than bob did.
        grant(7, Role::Member),
        grant(8, Role::Member),
    ];
    let list = listed(&room, &mut session, &bob, &acts).await;
    assert!(matches!(list[2].body(), Body::Held(content) if content.text == "Ours"));
    assert!(!list[1].can_be_confirmed());
    let (outcomes, said) = tokio::join!(room.confirm(&list), async {
        let mut said = vec![];
        while said.len() < 3 {
            match session.request().await {
                (id, Request::Grantee { user: about, .. }) => {
                    let reply = Grantee {
                        role: if about == Some(user(7)) {
                            Role::Moderator
                        } else {
                            Role::None
                        },
                        own_role: Role::Owner,
                        home: Some(SERVER),
                        ..Grantee::default()
                    };
                    session.reply(id, Reply::Grantee(reply)).await;
                }
                (id, Request::Send { event, .. }) => {
                    let signed = comity_protocol::event::SignedEvent::verify(event).unwrap();
                    let event = signed.event().clone();
                    if matches!(event.act, Act::Policy { .. }) {
                        let error = WireError::new(Code::NotMember, "no more");
                        session.refuse(id, error).await;
                    } else {
                        session.accepted(id, signed.id(), 9).await;
                    }
                    said.push(event);
                }
                (_, other) => panic!("{other:?}"),
            }
        }
        said
    });
    assert!(
        matches!(
            &outcomes[..],
            [
                Confirmed::Overtaken,
                Confirmed::NotForOthers,
                Confirmed::Accepted(_),
                Confirmed::Refused(refused),
                Confirmed::Already,
                Confirmed::Accepted(_),
            ] if refused.kind() == ErrorKind::Forbidden
        ),
        "{outcomes:?}"
    );
    assert!(said.iter().all(|event| event.author == home.alice.user()));
    let Act::Grant(again) = &said[2].act else {
        panic!("{:?}", said[2]);
    };
    assert_eq!(
        (again.role, said[2].claims),
        (Role::Member, Role::Moderator)
    );
}

#[tokio::test(start_paused = true)]
async fn confirming_twice_names_one_nonce_so_that_the_server_takes_one() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let (bob, room) = (Person::new(2), client.conversation(ROOM));
    let pin = Act::Pin {
        target: EventId::from_bytes([1; 32]),
        on: true,
    };
    let list = listed(&room, &mut session, &bob, &[pin]).await;
    let (first, nonce) = tokio::join!(room.confirm(&list), async {
        let (id, signed, _) = session.sent().await;
        session.accepted(id, signed.id(), 2).await;
        signed.event().nonce
    });
    assert!(matches!(first[..], [Confirmed::Accepted(_)]));
    let (second, again) = tokio::join!(room.confirm(&list), async {
        let (id, signed, _) = session.sent().await;
        let error = WireError::new(Code::Conflict, "this nonce was used");
        session.refuse(id, error).await;
        signed.event().nonce
    });
    assert!(matches!(second[..], [Confirmed::Already]));
    assert_eq!(nonce, again);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_raised_against_a_ban_or_lowered_by_what_only_meant_to_bring_in() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let (bob, room) = (Person::new(2), client.conversation(ROOM));
    for (role, bans, claimed, expected) in [
        (Role::None, vec![removal()], Role::Moderator, "refused"),
        (Role::Admin, vec![], Role::Moderator, "already"),
        (Role::Moderator, vec![], Role::Admin, "said"),
        (Role::None, vec![], Role::Admin, "already"),
    ] {
        let mut event = bob.sign(1, grant(7, Role::Member)).event().clone();
        event.claims = claimed;
        let item = void(1, &event.sign(&bob.key), ContentState::None);
        let (list, ()) = tokio::join!(room.voided(), async {
            let (id, _) = session.request().await;
            let items = vec![item];
            session.reply(id, Reply::Voided { items, next: None }).await;
            if expected == "refused" {
                session.identify(&bob).await;
            }
        });
        let list = list.unwrap();
        let (outcome, ()) = tokio::join!(room.confirm(&list), async {
            let (id, _) = session.request().await;
            let about = Grantee {
                role,
                own_role: Role::Owner,
                home: Some(SERVER),
                cut: vec![],
                bans,
            };
            session.reply(id, Reply::Grantee(about)).await;
            if expected == "said" {
                let (id, signed, _) = session.sent().await;
                assert_eq!(signed.event().claims, Role::Owner);
                session.accepted(id, signed.id(), 2).await;
            }
        });
        let is = match &outcome[0] {
            Confirmed::Refused(_) => "refused",
            Confirmed::Already => "already",
            Confirmed::Accepted(_) => "said",
            other => panic!("{other:?}"),
        };
        assert_eq!(is, expected, "{role} {claimed}");
    }
}
