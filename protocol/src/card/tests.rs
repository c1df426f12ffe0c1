use super::*;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn fields(address: &str) -> CardFields {
    CardFields {
        name: "acme.example".parse().unwrap(),
        addresses: vec![address.to_owned()],
        https: Some("chat.acme.example:8443".parse().unwrap()),
        region: Some("eu-1".to_owned()),
    }
}

/// Operational key 1, recovery key 2, first epoch 1.
fn chain() -> CardChain {
    let at = Timestamp(1);
    CardChain::genesis(
        fields("/dns/acme.example/udp/4001/quic-v1"),
        &key(1),
        key(2).public(),
        1,
        at,
    )
    .unwrap()
}

fn rotate(new: &SecretKey, epoch: u64) -> CardChange<'_> {
    CardChange {
        new_key: Some((new, epoch)),
        ..fields("/memory/1").into()
    }
}

fn sign(
    chain: &CardChain,
    change: CardChange<'_>,
    by: Signer,
    seed: u8,
) -> Result<RawCard, CardError> {
    chain.next(change, by, &key(seed), Timestamp(2))
}

#[test]
fn chain_read_back_from_cards_or_text_is_the_same() {
    let mut chain = chain();
    let raw = sign(&chain, fields("/memory/2").into(), Signer::Home, 1).unwrap();
    assert_eq!(chain.extend(&raw).unwrap().effect, Effect::Advanced);
    assert_eq!(chain.extend(&raw).unwrap().effect, Effect::Known);
    let cards: Vec<RawCard> = chain.cards().cloned().collect();
    assert_eq!(CardChain::verify(&cards).unwrap(), chain);
    assert_eq!(chain.server().as_bytes(), cards[0].id().as_bytes());
    assert_eq!(chain.current().addresses, ["/memory/2"]);
    let text = chain.to_text().unwrap();
    assert_eq!(CardChain::from_text(&format!("  {text}\n")).unwrap(), chain);
}

#[test]
fn each_epoch_has_the_key_of_its_time() {
    let mut chain = chain();
    let raw = sign(&chain, rotate(&key(3), 5), Signer::Home, 1).unwrap();
    chain.extend(&raw).unwrap();
    let raw = sign(&chain, rotate(&key(4), 9), Signer::Recovery, 2).unwrap();
    chain.extend(&raw).unwrap();
    let public = |seed| Some(key(seed).public());
    assert_eq!(chain.key_for_epoch(0), None);
    assert_eq!(chain.key_for_epoch(1), public(1));
    assert_eq!(chain.key_for_epoch(4), public(1));
    assert_eq!(chain.key_for_epoch(5), public(3));
    assert_eq!(chain.key_for_epoch(8), public(3));
    assert_eq!(chain.key_for_epoch(u64::MAX), public(4));
}

#[test]
fn epoch_grows_with_the_key_and_not_without() {
    let chain = chain();
    let refused = Err(CardError::Epoch);
    assert_eq!(sign(&chain, rotate(&key(3), 1), Signer::Home, 1), refused);
    assert_eq!(sign(&chain, rotate(&key(1), 2), Signer::Home, 1), refused);
}

#[test]
fn new_key_that_did_not_sign_is_refused() {
    let mut chain = chain();
    let good = sign(&chain, rotate(&key(3), 2), Signer::Home, 1).unwrap();
    let unsigned = RawCard {
        new_key_signature: None,
        ..good.clone()
    };
    assert_eq!(chain.extend(&unsigned), Err(CardError::NewKeySignature));
    let stolen = RawCard {
        new_key_signature: Some(good.signature),
        ..good.clone()
    };
    assert_eq!(
        chain.extend(&stolen),
        Err(CardError::Signature(WrongSignature))
    );
    let same = sign(&chain, fields("/memory/2").into(), Signer::Home, 1).unwrap();
    let surplus = RawCard {
        new_key_signature: Some(same.signature),
        ..same
    };
    assert_eq!(chain.extend(&surplus), Err(CardError::NewKeySignature));
    assert_eq!(chain.len(), 1);
    assert!(chain.extend(&good).is_ok());
}

#[test]
fn only_the_recovery_key_changes_the_recovery_key() {
    let chain = chain();
    let change = || CardChange {
        new_recovery: Some(key(8).public()),
        ..fields("/memory/2").into()
    };
    assert_eq!(
        sign(&chain, change(), Signer::Home, 1),
        Err(CardError::RecoveryChanged)
    );
    assert!(sign(&chain, change(), Signer::Recovery, 2).is_ok());
}

#[test]
fn thiefs_cards_fall_to_a_card_of_the_recovery_key() {
    let mut chain = chain();
    let genesis = chain.tip();
    let theft = sign(&chain, rotate(&key(66), 2), Signer::Home, 1).unwrap();
    chain.extend(&theft).unwrap();
    assert_eq!(chain.key_for_epoch(2), Some(key(66).public()));

    let back = chain.card_on(
        genesis,
        rotate(&key(3), 3),
        Signer::Recovery,
        &key(2),
        Timestamp(3),
    );
    assert_eq!(
        chain.extend(&back.unwrap()).unwrap().effect,
        Effect::Settled
    );
    assert_eq!(chain.key_for_epoch(2), Some(key(1).public()));
    assert_eq!(chain.key_for_epoch(3), Some(key(3).public()));
    assert!(chain.contains(&theft.id()), "kept as proof");
    assert_eq!(
        CardChain::from_text(&chain.to_text().unwrap())
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn two_cards_of_the_operational_key_on_one_contest_the_chain() {
    let mut chain = chain();
    let one = sign(&chain, fields("/memory/2").into(), Signer::Home, 1).unwrap();
    let two = sign(&chain, fields("/memory/3").into(), Signer::Home, 1).unwrap();
    chain.extend(&one).unwrap();
    assert_eq!(chain.extend(&two).unwrap().effect, Effect::Contested);
    assert_eq!(chain.current().n, 0);
    let refused = sign(&chain, fields("/memory/4").into(), Signer::Home, 1);
    assert_eq!(refused, Err(CardError::Contested));
    let raw = sign(&chain, fields("/memory/4").into(), Signer::Recovery, 2).unwrap();
    assert_eq!(chain.extend(&raw).unwrap().effect, Effect::Settled);
}

#[test]
fn fields_outside_the_limits_are_refused() {
    let made = |change: fn(&mut CardFields)| {
        let mut fields = fields("/memory/1");
        change(&mut fields);
        CardChain::genesis(fields, &key(1), key(2).public(), 1, Timestamp(1)).is_ok()
    };
    assert!(made(|_| {}));
    assert!(made(|f| f.addresses.clear()));
    assert!(!made(|f| f.addresses = vec!["/memory/1".into(); 2]));
    assert!(!made(
        |f| f.addresses = (0..17).map(|i| format!("/memory/{i}")).collect()
    ));
    assert!(!made(|f| f.addresses = vec!["memory/1".into()]));
    assert!(!made(|f| f.addresses = vec!["/memory/ 1".into()]));
    assert!(!made(
        |f| f.addresses = vec![format!("/{}", "a".repeat(256))]
    ));
    assert!(!made(|f| f.region = Some(String::new())));
    assert!(!made(|f| f.region = Some("EU".into())));
    let same = CardChain::genesis(
        fields("/memory/1"),
        &key(1),
        key(1).public(),
        1,
        Timestamp(1),
    );
    assert!(same.is_err(), "one key for both");
}

#[test]
fn any_flipped_byte_is_refused() {
    let mut chain = chain();
    let raw = sign(&chain, rotate(&key(3), 2), Signer::Home, 1).unwrap();
    for i in 0..raw.card.0.len() {
        let mut bad = raw.clone();
        bad.card.0[i] ^= 1;
        assert!(chain.extend(&bad).is_err(), "byte {i}");
    }
    assert_eq!(chain.len(), 1);
}

#[test]
fn damaged_text_is_refused_with_its_cause() {
    let text = chain().to_text().unwrap();
    let read = |text: &str| CardChain::from_text(text).map(|chain| chain.server());
    assert_eq!(read("acme.example"), Err(ParseCardsError::Prefix));
    assert_eq!(
        read(&text.replace("comity-card:", "comity-card:=")),
        Err(ParseCardsError::Base64)
    );
    assert!(read(&text[..text.len() - 4]).is_err());
    assert!(matches!(
        read("comity-card:"),
        Err(ParseCardsError::Decode(_))
    ));
    let empty = format!(
        "comity-card:{}",
        data_encoding::BASE64URL_NOPAD.encode(&[0x80])
    );
    assert_eq!(
        read(&empty),
        Err(ParseCardsError::Card(CardError::NotGenesis))
    );
    let long = format!("comity-card:{}", "A".repeat(2 * CARD_TEXT_BYTES_MAX));
    assert_eq!(read(&long), Err(ParseCardsError::TooLong));
}
