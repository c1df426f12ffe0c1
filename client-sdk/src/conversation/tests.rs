//! What the acts about roles claim and name, as the server sees them.

use comity_protocol::{
    event::{Act, Content, Field, Grant, SealedContent, Target, Tip},
    ids::{Blob, CommitId, EventId, Salt, UserId},
    role::Role,
    session::{Change, ContentState, Grantee, LookedUp, Member, Reply, Request},
};

use crate::{Conversation, ErrorKind, Outgoing, Result, testing::*};

fn bob() -> UserId {
    UserId::from_bytes([0xb0; 32])
}

fn tip(n: u8) -> Tip {
    Tip {
        home: SERVER,
        epoch: 1,
        seq: n.into(),
        id: CommitId::from_bytes([n; 32]),
    }
}

fn grantee(role: Role, own_role: Role) -> Grantee {
    Grantee {
        role,
        own_role,
        home: Some(SERVER),
        cut: vec![tip(2), tip(1)],
        bans: vec![],
    }
}

/// Runs `act` with this answer about the user, and gives what was sent.
async fn sent(
    grantee: Grantee,
    act: impl AsyncFnOnce(Conversation) -> Result<Outgoing>,
) -> (Role, Act) {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let (outcome, (role, done)) = tokio::join!(act(room), async {
        let (id, request) = session.request().await;
        assert!(matches!(
            request,
            Request::Grantee {
                conversation: ROOM,
                ..
            }
        ));
        session.reply(id, Reply::Grantee(grantee)).await;
        let (_, signed, _) = session.sent().await;
        (signed.event().claims, signed.event().act.clone())
    });
    let _ = outcome.unwrap();
    (role, done)
}

async fn refused(
    grantee: Grantee,
    act: impl AsyncFnOnce(Conversation) -> Result<Outgoing>,
) -> ErrorKind {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let (outcome, ()) = tokio::join!(act(room), async {
        let (id, _) = session.request().await;
        session.reply(id, Reply::Grantee(grantee)).await;
    });
    outcome.unwrap_err().kind()
}

fn grant(act: Act) -> Grant {
    match act {
        Act::Grant(grant) => grant,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_invitation_claims_the_least_role_that_suffices() {
    let about = grantee(Role::None, Role::Owner);
    let (claims, act) = sent(about, async |r| r.invite(bob(), Role::Member).await).await;
    let grant = grant(act);
    assert_eq!(
        (claims, grant.role, grant.ban),
        (Role::Moderator, Role::Member, false)
    );
    assert_eq!(
        grant.target,
        Target::User {
            user: bob(),
            home: SERVER
        }
    );
    assert_eq!(grant.cut, [tip(1), tip(2)]);
}

#[tokio::test(start_paused = true)]
async fn an_invitation_of_a_banned_user_lifts_the_bans_with_the_own_role() {
    let ban = EventId::from_bytes([3; 32]);
    let about = Grantee {
        bans: vec![ban, ban],
        ..grantee(Role::None, Role::Admin)
    };
    let (claims, act) = sent(about.clone(), async |r| r.invite(bob(), Role::Member).await).await;
    assert_eq!((claims, grant(act).lifts), (Role::Admin, vec![ban]));
    let (claims, act) = sent(about, async |r| r.unban(bob()).await).await;
    let lift = grant(act);
    assert_eq!(
        (claims, lift.role, lift.ban),
        (Role::Admin, Role::None, false)
    );
    assert_eq!(lift.lifts, [ban]);
}

#[tokio::test(start_paused = true)]
async fn a_removal_a_ban_and_a_demotion_claim_the_own_role() {
    let about = || grantee(Role::Moderator, Role::Owner);
    let (claims, act) = sent(about(), async |r| r.remove(bob()).await).await;
    let removal = grant(act);
    assert_eq!(
        (claims, removal.role, removal.ban),
        (Role::Owner, Role::None, false)
    );
    assert!(removal.lifts.is_empty());
    let (claims, act) = sent(about(), async |r| r.ban(bob()).await).await;
    let ban = grant(act);
    assert_eq!((claims, ban.role, ban.ban), (Role::Owner, Role::None, true));
    let (claims, act) = sent(about(), async |r| r.set_role(bob(), Role::Guest).await).await;
    assert_eq!((claims, grant(act).role), (Role::Owner, Role::Guest));
}

#[tokio::test(start_paused = true)]
async fn a_promotion_claims_one_above_the_role_given() {
    let about = grantee(Role::Guest, Role::Owner);
    let (claims, act) = sent(about, async |r| r.set_role(bob(), Role::Moderator).await).await;
    assert_eq!((claims, grant(act).role), (Role::Admin, Role::Moderator));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_stand_is_refused_before_it_is_sent() {
    let equal = grantee(Role::Admin, Role::Admin);
    let kind = refused(equal, async |r| r.remove(bob()).await).await;
    assert_eq!(kind, ErrorKind::Forbidden);
    let same = grantee(Role::Member, Role::Owner);
    let kind = refused(same.clone(), async |r| r.invite(bob(), Role::Member).await).await;
    assert_eq!(kind, ErrorKind::Conflict);
    let kind = refused(same.clone(), async |r| r.unban(bob()).await).await;
    assert_eq!(kind, ErrorKind::Conflict);
    let kind = refused(same, async |r| r.invite(bob(), Role::Owner).await).await;
    assert_eq!(kind, ErrorKind::Invalid);
    let homeless = Grantee {
        home: None,
        ..grantee(Role::None, Role::Owner)
    };
    let kind = refused(homeless, async |r| r.invite(bob(), Role::Member).await).await;
    assert_eq!(kind, ErrorKind::NotFound);
    let shut = grantee(Role::None, Role::None);
    let kind = refused(shut, async |r| r.join().await).await;
    assert_eq!(kind, ErrorKind::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn doors_open_close_and_are_walked_through() {
    let own = |role| grantee(Role::None, role);
    let (claims, act) = sent(own(Role::Owner), async |r| r.open_door(Role::Member).await).await;
    assert_eq!((claims, grant(act).target), (Role::Admin, Target::Anyone));
    let (claims, act) = sent(own(Role::Owner), async |r| r.close_door().await).await;
    let close = grant(act);
    assert_eq!(
        (claims, close.role, close.cut.len()),
        (Role::Owner, Role::None, 0)
    );
    let door = grantee(Role::Guest, Role::None);
    let (claims, act) = sent(door, async |r| r.join().await).await;
    let join = Act::Join {
        role: Role::Guest,
        home: SERVER,
    };
    assert_eq!((claims, act), (Role::Guest, join));
}

#[tokio::test(start_paused = true)]
async fn leaving_names_what_stands_of_the_own_messages() {
    let own = grantee(Role::Member, Role::Member);
    let (claims, act) = sent(own, async |r| r.leave().await).await;
    let leave = Act::Leave {
        cut: vec![tip(1), tip(2)],
    };
    assert_eq!((claims, act), (Role::None, leave));
}

#[tokio::test(start_paused = true)]
async fn a_group_is_made_titled_and_filled_and_a_typing_error_makes_none() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let make = client.create_group("Lunch", ["bob@us.example"]);
    let (made, ()) = tokio::join!(make, async {
        let (id, Request::Lookup { address }) = session.request().await else {
            panic!("the member is looked up first");
        };
        assert_eq!(address, "bob@us.example");
        let found = LookedUp {
            user: bob(),
            home: SERVER,
            handle: "bob".to_owned(),
        };
        session.reply(id, Reply::LookedUp(found.clone())).await;
        let (id, Request::Create { root }) = session.request().await else {
            panic!("then the group is made");
        };
        let genesis = comity_protocol::root::Genesis::verify(root).unwrap();
        let mut summary = summary(None);
        summary.conversation = genesis.conversation();
        session
            .reply(id, Reply::Conversation(Box::new(summary)))
            .await;
        // The title and what the invitation asks for may come in either order.
        let mut sent = vec![];
        while sent.len() < 2 {
            match session.request().await {
                (id, Request::Grantee { .. }) => {
                    let about = grantee(Role::None, Role::Owner);
                    session.reply(id, Reply::Grantee(about)).await;
                }
                (_, Request::Send { event, .. }) => {
                    let signed = comity_protocol::event::SignedEvent::verify(event).unwrap();
                    sent.push(signed.event().act.clone());
                }
                (_, other) => panic!("{other:?}"),
            }
        }
        assert!(matches!(&sent[0], Act::State { field, .. } if field == "title"));
        let invitation = grant(sent[1].clone());
        assert_eq!(invitation.role, Role::Member);
    });
    assert_eq!(made.unwrap().role(), Role::Owner);
    let make = client.create_group("Lunch", ["bbo@us.example"]);
    let (made, ()) = tokio::join!(make, async {
        let (id, _) = session.request().await;
        let gone = comity_protocol::session::WireError::new(
            comity_protocol::session::Code::NotFound,
            "no such user",
        );
        session.refuse(id, gone).await;
    });
    assert_eq!(made.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn messages_claim_the_posting_role_as_far_as_it_is_known() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let room = client.conversation(ROOM);
    let _ = room.send("a").await.unwrap();
    assert_eq!(session.accept(1).await.0.event().claims, Role::Member);
    let policy = Act::Policy {
        field: Field::Posting,
        value: 3,
    };
    let line = item(2, &home.alice.sign(2, policy), None);
    session.update(1, vec![appeared(&line)]).await;
    assert!(matches!(next(&mut events).await, crate::Event::Activity(_)));
    let _ = room.send("b").await.unwrap();
    assert_eq!(session.accept(3).await.0.event().claims, Role::Moderator);
    let guest = comity_protocol::session::Summary {
        role: Role::Guest,
        ..summary(None)
    };
    session
        .update(2, vec![Change::Conversation(Box::new(guest))])
        .await;
    settle().await;
    let _ = room.send("c").await.unwrap();
    assert_eq!(session.accept(4).await.0.event().claims, Role::Guest);
    let own = room.delete(EventId::from_bytes([1; 32])).await.unwrap();
    let (id, signed, _) = session.sent().await;
    assert_eq!(
        (signed.event().claims, signed.id()),
        (Role::None, own.event_id())
    );
    session.accepted(id, signed.id(), 5).await;
}

#[tokio::test(start_paused = true)]
async fn what_no_server_would_take_is_refused_here() {
    let mut home = Home::new();
    let (client, _session) = home.connect().await;
    let room = client.conversation(ROOM);
    let target = EventId::from_bytes([1; 32]);
    for emoji in ["", "a|b", "\u{7}", &"x".repeat(65)] {
        let error = room.react(target, emoji).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{emoji:?}");
    }
    let error = room.send("x".repeat(70_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(client.stats().outbox, 0);
}

#[tokio::test(start_paused = true)]
async fn members_are_read_to_the_end_and_a_stuck_server_is_an_error() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let member = |n: u8| Member {
        user: UserId::from_bytes([n; 32]),
        role: Role::Member,
        home: SERVER,
        handle: None,
        name: None,
    };
    let (members, ()) = tokio::join!(room.members(), async {
        for (n, complete) in [(1, false), (2, true)] {
            let (id, _) = session.request().await;
            session
                .reply(
                    id,
                    Reply::Members {
                        members: vec![member(n)],
                        complete,
                    },
                )
                .await;
        }
    });
    assert_eq!(members.unwrap(), [member(1), member(2)]);
    let (stuck, ()) = tokio::join!(room.members(), async {
        for _ in 0..2 {
            let (id, _) = session.request().await;
            session
                .reply(
                    id,
                    Reply::Members {
                        members: vec![member(1)],
                        complete: false,
                    },
                )
                .await;
        }
    });
    assert_eq!(stuck.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn an_own_event_is_read_back_and_is_what_this_user_signed() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let content = Content::text(Salt::from_bytes([3; 16]), "what was lost");
    let sealed = SealedContent::seal(&content).unwrap();
    let act = || Act::Message {
        content: sealed.reference(),
    };
    let (mine, other) = (home.alice.sign(1, act()), home.alice.sign(2, act()));
    let wanted = mine.id();
    let answers = [
        (mine.to_raw(), sealed.bytes().to_vec(), None),
        // Another one of hers, and a text that she did not sign.
        (
            other.to_raw(),
            sealed.bytes().to_vec(),
            Some(ErrorKind::Protocol),
        ),
        (
            mine.to_raw(),
            b"nonsense".to_vec(),
            Some(ErrorKind::Protocol),
        ),
    ];
    for (event, content, refused) in answers {
        let (own, ()) = tokio::join!(room.own_event(wanted), async {
            let (id, Request::Own { event: asked, .. }) = session.request().await else {
                panic!("it is asked for");
            };
            assert_eq!(asked, wanted);
            let own = comity_protocol::session::OwnEvent {
                event,
                content: ContentState::Held(Blob(content)),
                void: Some("removed".to_owned()),
            };
            session.reply(id, Reply::Own(own)).await;
        });
        match refused {
            Some(kind) => assert_eq!(own.unwrap_err().kind(), kind),
            None => {
                let own = own.unwrap();
                assert!(
                    matches!(own.body, crate::Body::Held(held) if held.text == "what was lost")
                );
                assert_eq!(own.void.as_deref(), Some("removed"));
            }
        }
    }
}
