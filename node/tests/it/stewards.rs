//! Three servers are stewards of one group: who owns it is handed over while a majority of them runs.

use comity_protocol::{
    ids::{ConversationId, UserId},
    role::Role,
    root::{RawRoot, Root, RootSigner, SignedRoot},
    session::{Code, NextRoot, Reply, Request, WireError},
};

use super::{
    client::Client,
    net::{Net, Person, until},
};

/// What the owner's device is to sign.
async fn next_root(
    client: &mut Client,
    conversation: ConversationId,
    owner: Option<UserId>,
) -> Result<NextRoot, WireError> {
    let stewards = None;
    let request = Request::NextRoot {
        conversation,
        owner,
        stewards,
    };
    match client.ask(request).await? {
        Reply::NextRoot(next) => Ok(next),
        other => panic!("{other:?}"),
    }
}

fn signed(person: &Person, next: NextRoot) -> (Root, RawRoot) {
    let NextRoot::Sign(root) = next else {
        panic!("{next:?}");
    };
    let raw = RawRoot::by_device(root, &person.device);
    (SignedRoot::decode(&raw).unwrap(), raw)
}

async fn sign_root(
    client: &mut Client,
    conversation: ConversationId,
    root: RawRoot,
) -> Result<NextRoot, WireError> {
    match client.ask(Request::SignRoot { conversation, root }).await? {
        Reply::NextRoot(next) => Ok(next),
        other => panic!("{other:?}"),
    }
}

async fn names_stewards(client: &mut Client, conversation: ConversationId) -> bool {
    let all = client.conversations().await;
    let of = all.iter().find(|of| of.conversation == conversation);
    of.unwrap().names_stewards
}

async fn owner(client: &mut Client, conversation: ConversationId) -> Option<UserId> {
    let request = Request::Members {
        conversation,
        after: None,
        limit: 10,
    };
    let Ok(Reply::Members { members, .. }) = client.ask(request).await else {
        return None;
    };
    let owner = members.iter().find(|member| member.role == Role::Owner);
    owner.map(|member| member.user)
}

async fn owner_is(net: &Net, people: &[&Person], conversation: ConversationId, user: UserId) {
    for person in people {
        until("the owner is the same everywhere", || async {
            let mut client = net.connect(person).await;
            owner(&mut client, conversation).await == Some(user)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ownership_is_handed_over_while_two_of_three_stewards_run_and_once_they_run_again() {
    let mut net = Net::start(3).await;
    let alice = net.person(0, "alice").await;
    let (bob, carol) = (net.person(1, "bob").await, net.person(2, "carol").await);
    net.linked().await;
    let mut a = net.connect(&alice).await;
    let room = a.create().await;
    for (person, letter) in [(&bob, "b"), (&carol, "c")] {
        let address = format!("{}@{letter}.localhost", person.handle);
        a.ask(Request::Lookup { address }).await.unwrap();
        a.grant(room, person.user, Role::Member).await.unwrap();
        net.connect(person).await;
    }
    owner_is(&net, &[&alice, &bob, &carol], room, alice.user).await;

    // Her device is to have the three named: her home says so, to her alone, and to who comes back.
    assert!(names_stewards(&mut a, room).await);
    let mut back = net.connect(&alice).await;
    assert!(back.announced(room).await.names_stewards);
    let mut others = net.connect(&bob).await;
    assert!(!names_stewards(&mut others, room).await);

    // The three are stewards from record 1 on, which the first signs alone.
    let next = next_root(&mut a, room, None).await.unwrap();
    let (root, raw) = signed(&alice, next);
    let mut all: Vec<_> = net.nodes.iter().map(|node| node.id).collect();
    all.sort_unstable();
    assert_eq!((root.n, root.owner, root.stewards), (1, alice.user, all));
    let mut other = raw.clone();
    other.signatures[0].by = RootSigner::Device(bob.device.public());
    let refused = sign_root(&mut a, room, other).await.unwrap_err();
    assert_eq!(refused.code, Code::UnknownDevice);
    let stands = sign_root(&mut a, room, raw.clone()).await.unwrap();
    assert!(matches!(stands, NextRoot::Stands(record) if record.n == 1));
    assert_eq!(
        sign_root(&mut a, room, raw).await.unwrap(),
        stands,
        "a retry"
    );
    assert!(!names_stewards(&mut a, room).await);

    // With all three.
    let mut b = net.connect(&bob).await;
    let refused = next_root(&mut b, room, Some(bob.user)).await.unwrap_err();
    assert_eq!(refused.code, Code::NotOwner);
    let next = next_root(&mut a, room, Some(bob.user)).await.unwrap();
    let (root, raw) = signed(&alice, next);
    assert_eq!((root.owner, root.home), (bob.user, net.nodes[1].id));
    sign_root(&mut a, room, raw).await.unwrap();
    owner_is(&net, &[&alice, &bob, &carol], room, bob.user).await;

    // With one of three stopped.
    net.down(2).await;
    let next = next_root(&mut b, room, Some(alice.user)).await.unwrap();
    let (_, raw) = signed(&bob, next);
    sign_root(&mut b, room, raw).await.unwrap();
    owner_is(&net, &[&alice, &bob], room, alice.user).await;

    // With two stopped it is not made, and then it is, with what was signed.
    let next = next_root(&mut a, room, Some(bob.user)).await.unwrap();
    let (_, raw) = signed(&alice, next);
    net.down(1).await;
    let refused = sign_root(&mut a, room, raw).await.unwrap_err();
    assert_eq!(refused.code, Code::Unreachable);
    assert!(refused.code.is_retryable());
    assert_eq!(owner(&mut a, room).await, Some(alice.user));
    net.up(1).await;
    owner_is(&net, &[&alice, &bob], room, bob.user).await;
    let again = next_root(&mut a, room, Some(bob.user)).await.unwrap();
    assert!(matches!(again, NextRoot::Stands(record) if record.n == 4));
    net.up(2).await;
    owner_is(&net, &[&carol], room, bob.user).await;
    for node in &net.nodes {
        assert!(node.status().twins.is_empty());
    }
}
