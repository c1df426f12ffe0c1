//! A server that is configured as a peer and does not keep the rules.

use bytes::Bytes;
use comity_links::{Channel, Config, Events, LinkEvent, Links, PeerKey, Reach, StaticPeer};
use comity_protocol::{
    commit::{AuthorityChange, Commit, SignedCommit},
    encoding,
    event::{Act, Event, SealedContent, SignedEvent},
    identity::{Genesis as Account, IdentityLog, Op, Signer},
    ids::{Blob, ConversationId, Nonce, ServerId, UserId},
    limits::AHEAD_HOLD_MS,
    link::{
        Answer, Bundle, ContentSlot, Frame, Identity, Offer, Query, VERSION, Verdict, decode_frame,
        encode_frame,
    },
    role::Role,
    root::{Genesis, Root},
    session::{Code, Request},
    signing::SecretKey,
    time::{Hlc, Timestamp},
};

use super::{
    client::{content, nonce},
    net::{Net, PATIENCE, now},
};

/// Speaks for server `b` frame by frame, with its key.
pub(super) struct Peer {
    links: Links,
    events: Events,
    pub(super) id: ServerId,
    pub(super) key: SecretKey,
    at: PeerKey,
    link: u64,
    /// Its only user.
    pub(super) user: UserId,
    pub(super) device: SecretKey,
    pub(super) log: Identity,
    next_push: u64,
    tip: Option<SignedCommit>,
}

/// The key by which the peer speaks for its user.
pub(super) fn home_key() -> SecretKey {
    SecretKey::from_seed([41; 32])
}

fn account(home: ServerId) -> (UserId, SecretKey, Identity) {
    let (home_key, device) = (home_key(), SecretKey::from_seed([42; 32]));
    let genesis = Account {
        handle: "mallory".parse().unwrap(),
        home,
        home_key: home_key.public(),
        recovery: None,
        nonce: nonce(),
    };
    let mut log = IdentityLog::genesis(genesis, now(), &home_key);
    let add = Op::AddDevice {
        device: device.public(),
        name: "x".into(),
    };
    let entry = log.next(add, now(), Signer::Home, &home_key).unwrap();
    log.extend(&entry).unwrap();
    let blobs = log.entries().map(|e| Blob(encoding::encode(e))).collect();
    (log.user(), device, blobs)
}

impl Peer {
    async fn link(net: &Net) -> Self {
        let (node, other) = (&net.nodes[1], &net.nodes[0]);
        let key = node.keys.operational.clone();
        let at = PeerKey(*other.keys.operational.public().as_bytes());
        let addresses = other.as_peer().addresses;
        let port = node.config.listen.links.port();
        let config = Config {
            seed: key.to_seed(),
            listen: vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1")],
            peers: vec![StaticPeer {
                key: at,
                addresses,
                reach: Reach::anywhere(),
            }],
        };
        let (links, events) = Links::start(config).await.unwrap();
        let (user, device, log) = account(node.id);
        let mut peer = Self {
            links,
            events,
            id: node.id,
            key,
            at,
            link: 0,
            user,
            device,
            log,
            next_push: 0,
            tip: None,
        };
        peer.greet().await;
        peer
    }

    /// Waits for a link and exchanges hellos.
    async fn greet(&mut self) {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            if let Some(LinkEvent::Up { link, .. }) = event.unwrap() {
                self.link = link;
                break;
            }
        }
        self.send(&Frame::Hello {
            version: VERSION,
            server: self.id,
            nonce: Nonce::from_bytes([5; 16]),
        });
        self.frame(|frame| matches!(frame, Frame::Hello { .. }).then_some(()))
            .await;
    }

    pub(super) fn send(&self, frame: &Frame) {
        self.send_raw(Bytes::from(encode_frame(frame)));
    }

    fn send_raw(&self, bytes: Bytes) {
        self.links
            .try_send(self.at, self.link, Channel::Live, bytes)
            .unwrap();
    }

    /// Reads frames until one is what is looked for; answers no other.
    async fn frame<T>(&mut self, mut wanted: impl FnMut(&Frame) -> Option<T>) -> T {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            match event.expect("a frame comes").unwrap() {
                LinkEvent::Frame { bytes, .. } => {
                    if let Some(found) = wanted(&decode_frame(&bytes).unwrap()) {
                        return found;
                    }
                }
                LinkEvent::Down { reason, .. } => panic!("cut off: {reason}"),
                _ => {}
            }
        }
    }

    async fn down(&mut self) {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            if let Some(LinkEvent::Down { .. }) = event.unwrap() {
                return;
            }
        }
    }

    pub(super) async fn verdict(&mut self, of: u64) -> Verdict {
        self.frame(|frame| match frame {
            Frame::Verdicts { verdicts } => {
                let found = verdicts.iter().find(|(n, _)| *n == of)?;
                Some(found.1)
            }
            _ => None,
        })
        .await
    }

    fn message(&self, conversation: ConversationId, text: &str) -> (SignedEvent, SealedContent) {
        let sealed = content(text);
        let event = Event {
            conversation,
            author: self.user,
            device: self.device.public(),
            nonce: nonce(),
            claims: Role::Member,
            act: Act::Message {
                content: sealed.reference(),
            },
            sent_at: now(),
        };
        (event.sign(&self.device), sealed)
    }

    /// A commit on the own chain with this clock; the chain goes on from it.
    fn commit(
        &mut self,
        conversation: ConversationId,
        at: Timestamp,
        change: Option<AuthorityChange>,
        text: &str,
    ) -> Bundle {
        let (event, sealed) = self.message(conversation, text);
        let commit = Commit {
            v: 1,
            conversation,
            origin: self.id,
            epoch: 1,
            seq: self.tip.as_ref().map_or(0, |t| t.commit().seq + 1),
            prev: self.tip.as_ref().map(SignedCommit::id),
            hlc: Hlc::new(at, 0),
            parents: vec![],
            authority: change,
            events: vec![event.id()],
        };
        let commit = commit.sign(&self.key);
        let bundle = Bundle {
            commit: commit.to_raw(),
            events: vec![event.to_raw()],
            contents: vec![ContentSlot::Held(Blob(sealed.bytes().to_vec()))],
        };
        self.tip = Some(commit);
        bundle
    }

    pub(super) fn push(&mut self, bundle: Bundle) -> u64 {
        let n = self.next_push;
        self.next_push += 1;
        self.send(&Frame::Push { n, bundle });
        n
    }

    /// A round trip: whatever was sent before was taken in.
    async fn settle(&mut self) -> usize {
        let id = 9_000 + self.next_push;
        self.next_push += 1;
        let query = Query::Handle("nobody".into());
        self.send(&Frame::Lookup { id, query });
        let mut asked = 0;
        self.frame(|frame| match frame {
            Frame::Lookup { .. } => {
                asked += 1;
                None
            }
            Frame::Found { id: of, .. } if *of == id => Some(()),
            _ => None,
        })
        .await;
        asked
    }
}

pub(super) async fn pair() -> (Net, Peer) {
    let mut net = Net::prepare(2);
    net.up(0).await;
    let peer = Peer::link(&net).await;
    (net, peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_cannot_be_taken_have_a_verdict_each_and_harm_nobody() {
    let (net, mut peer) = pair().await;
    let alice = net.person(0, "alice").await;
    let mut client = net.connect(&alice).await;
    let room = client.create().await;
    peer.send(&Frame::Identities {
        logs: vec![peer.log.clone()],
    });
    client.grantee(room, alice.user).await.unwrap();
    let grant = comity_protocol::event::Grant {
        target: comity_protocol::event::Target::User {
            user: peer.user,
            home: peer.id,
        },
        role: Role::Member,
        cut: vec![],
        ban: false,
        lifts: vec![],
    };
    client
        .act(room, Role::Moderator, Act::Grant(grant))
        .await
        .unwrap();
    // The offer says where the conversation stands.
    let (tips, root) = peer
        .frame(|frame| match frame {
            Frame::Frontier {
                tips,
                offer: Offer::Group(raw),
                ..
            } if !tips.is_empty() => Some((tips.clone(), Genesis::verify(raw.clone()).unwrap())),
            _ => None,
        })
        .await;
    let nowhere = peer.commit(
        ConversationId::from_bytes([9; 32]),
        now(),
        Some(AuthorityChange::default()),
        "nowhere",
    );
    peer.tip = None;
    let n = peer.push(nowhere);
    assert_eq!(peer.verdict(n).await, Verdict::Refused(Code::NotFound));
    let change = AuthorityChange {
        tips,
        root: Some(comity_protocol::commit::RootRef {
            n: 0,
            id: root.id(),
        }),
    };
    let good = peer.commit(room, now(), Some(change), "hello");
    let mut bad = good.clone();
    bad.events[0].signature = comity_protocol::ids::Signature::from_bytes([1; 64]);
    let n = peer.push(bad);
    assert_eq!(
        peer.verdict(n).await,
        Verdict::Refused(Code::WrongSignature)
    );
    let mut bad = good.clone();
    bad.contents = vec![ContentSlot::Held(Blob(content("other").bytes().to_vec()))];
    let n = peer.push(bad);
    assert_eq!(
        peer.verdict(n).await,
        Verdict::Refused(Code::ContentMismatch)
    );
    let n = peer.push(good.clone());
    assert_eq!(peer.verdict(n).await, Verdict::Stored);
    assert_eq!(client.line(room).await.1, "hello");
    let n = peer.push(good);
    assert_eq!(peer.verdict(n).await, Verdict::Stored, "known is stored");
    // Far ahead of its time: held, and shown to nobody.
    let ahead = Timestamp(now().0 + AHEAD_HOLD_MS + 60_000);
    let bundle = peer.commit(room, ahead, None, "from tomorrow");
    let n = peer.push(bundle);
    assert_eq!(peer.verdict(n).await, Verdict::Waiting);
    client.say(room, "today").await;
    assert_eq!(client.texts(room).await, ["hello", "today"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_somebody_else_is_no_answer() {
    let (net, mut peer) = pair().await;
    let alice = net.person(0, "alice").await;
    let mut client = net.connect(&alice).await;
    let wanted = UserId::from_bytes([77; 32]);
    let request = client.start(Request::OpenDirect { user: wanted }).await;
    let id = peer
        .frame(|frame| match frame {
            Frame::Lookup {
                id,
                query: Query::User(user),
            } if *user == wanted => Some(*id),
            _ => None,
        })
        .await;
    peer.send(&Frame::Found {
        id,
        answer: Some(Answer::Identity(peer.log.clone())),
    });
    assert_eq!(
        client.answer(request).await.unwrap_err().code,
        Code::NotFound
    );
    assert!(client.conversations().await.is_empty());
    assert_eq!(net.nodes[0].status().conversations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_whose_owner_nobody_knows_is_asked_about_once() {
    let (net, mut peer) = pair().await;
    let owner = SecretKey::from_seed([50; 32]);
    let root = Root {
        v: 1,
        n: 0,
        prev: None,
        owner: UserId::from_bytes([51; 32]),
        home: peer.id,
        stewards: vec![peer.id],
        frontier: vec![],
        digest: None,
        nonce: nonce(),
        created_at: Timestamp(1),
    };
    let genesis = Genesis::sign(root, &owner);
    peer.send(&Frame::Frontier {
        root: None,
        conversation: genesis.conversation(),
        tips: vec![],
        offer: Offer::Group(genesis.raw().clone()),
        reply: true,
    });
    let id = peer
        .frame(|frame| match frame {
            Frame::Lookup { id, .. } => Some(*id),
            _ => None,
        })
        .await;
    let identity = None;
    let answer = identity.map(Answer::Identity);
    peer.send(&Frame::Found { id, answer });
    assert_eq!(peer.settle().await, 0, "not again at once");
    // Nor with somebody else's log.
    assert_eq!(peer.settle().await, 0);
    assert_eq!(net.nodes[0].status().conversations, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_none_costs_the_peer_its_link_and_it_can_come_back() {
    let (net, mut peer) = pair().await;
    let alice = net.person(0, "alice").await;
    let mut client = net.connect(&alice).await;
    let room = client.create().await;
    peer.send_raw(Bytes::from_static(&[0xff; 100]));
    peer.down().await;
    client.say(room, "one").await;
    peer.greet().await;
    peer.settle().await;
    client.say(room, "two").await;
    assert_eq!(client.texts(room).await, ["one", "two"]);
}
