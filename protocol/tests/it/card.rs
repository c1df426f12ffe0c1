//! `card.json`: chains of server cards with what they say, and cards that are refused.

use comity_protocol::{
    card::{CardChain, CardChange, CardError, CardFields, RawCard},
    identity::Signer,
    ids::{Blob, EntryId, PublicKey, ServerId},
    name::ServerName,
    signing::SecretKey,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::vectors::{self, hex, unhex};

const FILE: &str = "card.json";
const OPERATIONAL: u8 = 1;
const RECOVERY: u8 = 2;
const AT: Timestamp = Timestamp(1_700_000_000_000);

#[derive(Deserialize, Serialize)]
struct File {
    chains: Vec<Chain>,
    refused: Vec<Refused>,
}

#[derive(Deserialize, Serialize)]
struct Item {
    id: EntryId,
    bytes: String,
    signature: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new_key_signature: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Chain {
    about: String,
    cards: Vec<Item>,
    says: Says,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Says {
    server: ServerId,
    tip: EntryId,
    contested: bool,
    name: ServerName,
    addresses: Vec<String>,
    /// The key of each epoch from 0 on; none before the first.
    key_for_epoch: Vec<Option<PublicKey>>,
    text: String,
}

#[derive(Deserialize, Serialize)]
struct Refused {
    about: String,
    after: Vec<Item>,
    card: Item,
    why: String,
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn item(raw: &RawCard) -> Item {
    Item {
        id: raw.id(),
        bytes: hex(&raw.card),
        signature: raw.signature.to_string(),
        new_key_signature: raw.new_key_signature.map(|s| s.to_string()),
    }
}

fn raw(item: &Item) -> RawCard {
    let raw = RawCard {
        card: Blob(unhex(&item.bytes)),
        signature: item.signature.parse().unwrap(),
        new_key_signature: item.new_key_signature.as_ref().map(|s| s.parse().unwrap()),
    };
    assert_eq!(raw.id(), item.id);
    raw
}

fn says(chain: &CardChain) -> Says {
    Says {
        server: chain.server(),
        tip: chain.tip(),
        contested: chain.is_contested(),
        name: chain.current().name.clone(),
        addresses: chain.current().addresses.clone(),
        key_for_epoch: (0..8).map(|epoch| chain.key_for_epoch(epoch)).collect(),
        text: chain.to_text().unwrap(),
    }
}

fn fields(name: &str) -> CardFields {
    CardFields {
        name: name.parse().unwrap(),
        addresses: vec![format!("/dns/{name}/udp/4001/quic-v1")],
        https: Some("chat.acme.example:8443".parse().unwrap()),
        region: Some("eu-1".to_owned()),
    }
}

fn begin() -> CardChain {
    let fields = CardFields {
        addresses: vec!["/ip4/192.0.2.7/udp/4001/quic-v1".to_owned()],
        https: None,
        region: None,
        ..fields("acme.example")
    };
    CardChain::genesis(fields, &key(OPERATIONAL), key(RECOVERY).public(), 1, AT).unwrap()
}

fn vector(about: &str, chain: &CardChain) -> Chain {
    Chain {
        about: about.to_owned(),
        cards: chain.cards().map(item).collect(),
        says: says(chain),
    }
}

fn rotation(new: &SecretKey, epoch: u64) -> CardChange<'_> {
    CardChange {
        new_key: Some((new, epoch)),
        ..fields("acme.example").into()
    }
}

fn chains() -> Vec<Chain> {
    let (operational, recovery) = (key(OPERATIONAL), key(RECOVERY));
    let mut chain = begin();
    let genesis = chain.tip();
    let mut chains = vec![vector("card 0", &chain)];
    let next = |chain: &CardChain, name: &str| {
        chain.next(fields(name).into(), Signer::Home, &operational, AT)
    };
    let one = next(&chain, "acme.example").unwrap();
    let two = next(&chain, "other.example").unwrap();
    chain.extend(&one).unwrap();
    chains.push(vector("new addresses", &chain));
    let rotated = chain.next(rotation(&key(3), 4), Signer::Home, &operational, AT);
    chain.extend(&rotated.unwrap()).unwrap();
    chains.push(vector("a new key from epoch 4 on", &chain));
    chain.extend(&two).unwrap();
    chains.push(vector("contested: two cards on card 0", &chain));
    let back = chain.card_on(
        genesis,
        rotation(&key(5), 6),
        Signer::Recovery,
        &recovery,
        AT,
    );
    chain.extend(&back.unwrap()).unwrap();
    chains.push(vector("settled by the recovery key on card 0", &chain));
    chains
}

fn refused() -> Vec<Refused> {
    let chain = begin();
    let after: Vec<RawCard> = chain.cards().cloned().collect();
    let good = chain
        .next(rotation(&key(3), 4), Signer::Home, &key(OPERATIONAL), AT)
        .unwrap();
    let case = |about: &str, card: RawCard| {
        let mut chain = CardChain::verify(&after).unwrap();
        Refused {
            about: about.to_owned(),
            after: after.iter().map(item).collect(),
            why: why(&chain.extend(&card).unwrap_err()).to_owned(),
            card: item(&card),
        }
    };
    let mut forged = good.clone();
    forged.signature = after[0].signature;
    let mut silent = good.clone();
    silent.new_key_signature = None;
    let mut cut = good;
    cut.card.0.pop();
    vec![
        case("the signature of another card", forged),
        case("a new key that did not sign", silent),
        case("a byte short", cut),
    ]
}

fn why(error: &CardError) -> &'static str {
    match error {
        CardError::Decode(_) => "malformed",
        CardError::Signature(_) => "signature",
        CardError::NewKeySignature => "new_key_signature",
        _ => "other",
    }
}

#[test]
fn card_json_is_what_this_program_makes() {
    let file = File {
        chains: chains(),
        refused: refused(),
    };
    vectors::compare_or_write(FILE, &file);
}

#[test]
fn card_json_is_read_as_it_says() {
    let file: File = vectors::read(FILE);
    assert!(!file.chains.is_empty() && !file.refused.is_empty());
    for vector in &file.chains {
        let cards: Vec<RawCard> = vector.cards.iter().map(raw).collect();
        let chain = CardChain::verify(&cards).unwrap();
        assert_eq!(says(&chain), vector.says, "{}", vector.about);
        let told = CardChain::from_text(&vector.says.text).unwrap();
        assert_eq!(told.server(), chain.server(), "{}", vector.about);
        assert_eq!(told.current(), chain.current(), "{}", vector.about);
    }
    for case in &file.refused {
        let after: Vec<RawCard> = case.after.iter().map(raw).collect();
        let mut chain = CardChain::verify(&after).unwrap();
        let error = chain.extend(&raw(&case.card)).unwrap_err();
        assert_eq!(why(&error), case.why, "{}: {error}", case.about);
    }
}
