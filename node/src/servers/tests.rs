//! What is known of servers, from the configuration, from the log and from peers.

use comity_protocol::{card::CardFields, identity::Signer, signing::SecretKey, time::Timestamp};

use super::*;

fn fields(name: &str, address: &str) -> CardFields {
    CardFields {
        name: name.parse().unwrap(),
        addresses: vec![address.to_owned()],
        https: None,
        region: None,
    }
}

fn chain(seed: u8, name: &str, address: &str) -> CardChain {
    let key = SecretKey::from_seed([seed; 32]);
    let recovery = SecretKey::from_seed([seed ^ 0x80; 32]).public();
    CardChain::genesis(fields(name, address), &key, recovery, 1, Timestamp(1)).unwrap()
}

fn moved(chain: &CardChain, seed: u8, address: &str) -> CardChain {
    let key = SecretKey::from_seed([seed; 32]);
    let name = chain.current().name.to_string();
    let card = fields(&name, address).into();
    let raw = chain.next(card, Signer::Home, &key, Timestamp(2)).unwrap();
    let mut moved = chain.clone();
    moved.extend(&raw).unwrap();
    moved
}

const HERE: &str = "/ip4/127.0.0.1/udp/1/quic-v1";
const THERE: &str = "/ip4/10.0.0.1/udp/2/quic-v1";

#[test]
fn where_the_operator_says_is_dialled_anywhere_and_what_a_card_says_is_not() {
    let (own, other, learnt) = (
        chain(1, "a.example", HERE),
        chain(2, "b.example", HERE),
        chain(3, "c.example", HERE),
    );
    let configured = Configured {
        cards: other.clone(),
        addresses: vec![THERE.to_owned()],
    };
    let servers = Servers::new(own.clone(), vec![configured], vec![], (false, vec![]));
    assert!(servers.keep(Arc::new(learnt.clone())));
    let at = servers.reached(&other.server()).unwrap();
    assert_eq!(at.addresses, [THERE]);
    assert!(at.reach.permits([10, 0, 0, 1].into()));
    let at = servers.reached(&learnt.server()).unwrap();
    assert_eq!(at.addresses, [HERE]);
    assert!(!at.reach.permits([127, 0, 0, 1].into()));
    assert!(servers.reached(&own.server()).is_none());
    assert!(servers.may_be_peer(&learnt.server()) && !servers.may_be_peer(&own.server()));
}

#[test]
fn in_a_closed_network_only_the_configuration_makes_peers() {
    let (own, other, learnt) = (
        chain(1, "a.example", HERE),
        chain(2, "b.example", HERE),
        chain(3, "c.example", HERE),
    );
    let configured = Configured {
        cards: other.clone(),
        addresses: vec![],
    };
    let servers = Servers::new(own, vec![configured], vec![], (true, vec![]));
    servers.keep(Arc::new(learnt.clone()));
    assert!(servers.may_be_peer(&other.server()));
    assert!(!servers.may_be_peer(&learnt.server()));
    // Its commits are verified all the same.
    assert!(servers.key_of(&learnt.server(), 1).is_some());
}

#[test]
fn what_was_learnt_is_read_back_and_goes_with_what_is_configured() {
    let (own, other) = (chain(1, "a.example", HERE), chain(2, "b.example", HERE));
    let newer = moved(&other, 2, THERE);
    let stored = || ServerRecord {
        server: other.server(),
        cards: newer.to_travel(),
        named: false,
    };
    let configured = Configured {
        cards: other.clone(),
        addresses: vec![],
    };
    let servers = Servers::new(
        own.clone(),
        vec![configured],
        vec![stored()],
        (true, vec![]),
    );
    let at = servers.reached(&other.server()).unwrap();
    assert_eq!(at.addresses, [THERE], "the newer card counts");
    assert!(servers.may_be_peer(&other.server()));
    let servers = Servers::new(own, vec![], vec![stored()], (false, vec![]));
    assert_eq!(*servers.cards(&other.server()).unwrap(), newer);
    assert!(
        !servers
            .reached(&other.server())
            .unwrap()
            .reach
            .permits([10, 0, 0, 1].into())
    );
}

#[test]
fn a_name_is_whose_who_answered_there_first_and_another_is_refused() {
    let own = chain(1, "a.example", HERE);
    let (right, wrong) = (chain(2, "b.example", HERE), chain(3, "b.example", HERE));
    let name = "b.example".parse().unwrap();
    let servers = Servers::new(own.clone(), vec![], vec![], (false, vec![]));
    // What a card says makes no name.
    servers.keep(Arc::new(wrong.clone()));
    assert_eq!(servers.named(&name), None);
    assert!(matches!(servers.keep_named(&right), Named::Kept(_)));
    assert_eq!(servers.named(&name), Some(right.server()));
    assert!(matches!(servers.keep_named(&wrong), Named::Other(pinned) if pinned == right.server()));
    assert_eq!(servers.named(&name), Some(right.server()));
    assert!(matches!(servers.keep_named(&right), Named::Known));
    // Its newer card at the same name is its own.
    let moved = moved(&right, 2, THERE);
    assert!(matches!(servers.keep_named(&moved), Named::Kept(_)));
    assert_eq!(servers.reached(&right.server()).unwrap().addresses, [THERE]);
    // The same from the log, after a restart.
    let stored = ServerRecord {
        server: right.server(),
        cards: moved.to_travel(),
        named: true,
    };
    let servers = Servers::new(own.clone(), vec![], vec![stored], (false, vec![]));
    assert!(matches!(servers.keep_named(&wrong), Named::Other(_)));
    // Nobody takes this server's own name, nor a configured one.
    let twin = chain(9, "a.example", HERE);
    assert!(matches!(servers.keep_named(&twin), Named::Other(pinned) if pinned == own.server()));
}
