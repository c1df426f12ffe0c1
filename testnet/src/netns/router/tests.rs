use super::*;
use crate::netns::rule::CERTAIN_PPM;

const SEED: u64 = 7;

fn address(host: u8) -> [u8; 4] {
    [10, 77, host, 1]
}

fn hosts() -> Vec<Host> {
    [("eu", 1), ("us", 2), ("ap", 3)]
        .into_iter()
        .map(|(name, number)| Host {
            name: name.into(),
            addresses: vec![
                address(number).into(),
                format!("fd77:{number}::1").parse().unwrap(),
            ],
        })
        .collect()
}

/// An IPv4 packet between hosts, which bears a number.
fn packet(from: u8, to: u8, number: u32) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    bytes[0] = 0x45;
    bytes[12..16].copy_from_slice(&address(from));
    bytes[16..20].copy_from_slice(&address(to));
    bytes[20..24].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number(delivery: &Delivery) -> u32 {
    u32::from_be_bytes(delivery.bytes[20..24].try_into().unwrap())
}

fn all(router: &mut Router, now_us: u64) -> Vec<u32> {
    std::iter::from_fn(|| router.arrived(now_us).map(|it| number(&it))).collect()
}

fn of(router: &Router, from: &str, to: &str) -> Counters {
    let found = router.counters().into_iter();
    let mut found = found.filter(|(a, b, _)| (a.as_str(), b.as_str()) == (from, to));
    found.next().unwrap().2
}

fn router(rule: Rule) -> Router {
    let mut router = Router::new(hosts(), SEED).unwrap();
    router.set("eu", "us", rule).unwrap();
    router
}

#[test]
fn a_packet_arrives_after_its_delay_and_not_before() {
    let mut router = router(Rule {
        delay_us: 50_000,
        ..Rule::default()
    });
    router.take(1_000, 0, packet(1, 2, 9));
    assert_eq!(router.next_us(), Some(51_000));
    assert_eq!(router.arrived(50_999), None);
    let arrived = router.arrived(51_000).unwrap();
    assert_eq!((arrived.from, arrived.to, number(&arrived)), (0, 1, 9));
    assert_eq!(router.next_us(), None);
    // The way back has a rule of its own.
    router.take(60_000, 1, packet(2, 1, 10));
    assert_eq!(all(&mut router, 60_000), [10]);
}

#[test]
fn a_cut_is_one_way_and_takes_what_is_under_way() {
    let delay = Rule {
        delay_us: 1_000,
        ..Rule::default()
    };
    let mut router = router(delay);
    router.take(0, 0, packet(1, 2, 1));
    router.set("eu", "us", Rule { cut: true, ..delay }).unwrap();
    router.take(0, 0, packet(1, 2, 2));
    router.take(0, 1, packet(2, 1, 3));
    router.take(0, 0, packet(1, 3, 4));
    assert_eq!(all(&mut router, 5_000), [3, 4]);
    assert_eq!(of(&router, "eu", "us").cut, 2);
    router.set("eu", "us", delay).unwrap();
    router.take(6_000, 0, packet(1, 2, 5));
    assert_eq!(all(&mut router, 9_000), [5]);
}

#[test]
fn losses_are_as_many_as_the_chance_and_the_same_for_one_seed() {
    let run = |seed| {
        let mut router = Router::new(hosts(), seed).unwrap();
        let rule = Rule {
            loss_ppm: 10_000,
            ..Rule::default()
        };
        router.set("eu", "us", rule).unwrap();
        for number in 0..100_000 {
            router.take(0, 0, packet(1, 2, number));
            router.arrived(0);
        }
        of(&router, "eu", "us")
    };
    let lost = run(SEED).lost;
    // Six standard deviations of 100,000 tries at 1 % are 189.
    assert!((811..=1_189).contains(&lost), "seed {SEED}: {lost}");
    assert_eq!(run(SEED), run(SEED));
    assert_ne!(run(SEED), run(SEED + 1));
}

#[test]
fn one_lane_leaves_the_luck_of_another_alone() {
    let lost_of = |also: bool| {
        let mut router = router(Rule {
            loss_ppm: 500_000,
            ..Rule::default()
        });
        let mut arrived = Vec::new();
        for number in 0..200 {
            if also {
                router.take(0, 2, packet(3, 2, 1_000));
                assert_eq!(all(&mut router, 0), [1_000]);
            }
            router.take(0, 0, packet(1, 2, number));
            arrived.extend(all(&mut router, 0));
        }
        arrived
    };
    assert_eq!(lost_of(false), lost_of(true));
}

#[test]
fn certain_loss_loses_everything() {
    let mut router = router(Rule {
        loss_ppm: CERTAIN_PPM,
        ..Rule::default()
    });
    for number in 0..1_000 {
        router.take(0, 0, packet(1, 2, number));
    }
    assert_eq!(all(&mut router, u64::MAX), Vec::<u32>::new());
    assert_eq!(of(&router, "eu", "us").lost, 1_000);
}

#[test]
fn jitter_spreads_packets_and_keeps_their_order() {
    let mut router = router(Rule {
        delay_us: 10_000,
        jitter_us: 4_000,
        ..Rule::default()
    });
    let mut late = 0;
    let mut numbers = Vec::new();
    for number in 0..1_000_u32 {
        let now = u64::from(number) * 20_000;
        router.take(now, 0, packet(1, 2, number));
        let at = router.next_us().unwrap();
        assert!((now + 10_000..=now + 14_000).contains(&at));
        late += u32::from(at > now + 12_000);
        numbers.extend(all(&mut router, at));
    }
    assert!((400..=600).contains(&late), "seed {SEED}: {late}");
    assert!(numbers.is_sorted() && numbers.len() == 1_000);
    // Sent together they would overtake each other by their jitter, and do not.
    for number in 0..100 {
        router.take(50_000_000, 0, packet(1, 2, number));
    }
    assert!(all(&mut router, u64::MAX).is_sorted());
}

#[test]
fn reordering_lets_later_packets_overtake_and_loses_none() {
    let mut router = router(Rule {
        reorder_ppm: 100_000,
        ..Rule::default()
    });
    for number in 0..1_000 {
        router.take(u64::from(number) * 100, 0, packet(1, 2, number));
    }
    let mut arrived = all(&mut router, u64::MAX);
    assert!(!arrived.is_sorted());
    arrived.sort_unstable();
    assert!(arrived.into_iter().eq(0..1_000));
    let reordered = of(&router, "eu", "us").reordered;
    assert!((50..=150).contains(&reordered), "seed {SEED}: {reordered}");
}

#[test]
fn a_rate_spaces_packets_and_its_queue_overflows() {
    // 100 bytes take 10 ms at this rate, so 6 wait at most 50 ms.
    let mut router = router(Rule {
        rate: 10_000,
        queue_us: 50_000,
        ..Rule::default()
    });
    for number in 0..10 {
        router.take(0, 0, packet(1, 2, number));
    }
    assert_eq!(all(&mut router, 9_999), Vec::<u32>::new());
    assert_eq!(all(&mut router, 10_000), [0]);
    assert_eq!(all(&mut router, 60_000), [1, 2, 3, 4, 5]);
    assert_eq!(of(&router, "eu", "us").overflow, 4);
    assert_eq!(router.next_us(), None);
}

#[test]
fn what_is_under_way_is_bounded() {
    let mut router = router(Rule {
        delay_us: 1_000,
        ..Rule::default()
    });
    let fit = LANE_BYTES_MAX / 100;
    for number in 0..=u32::try_from(fit).unwrap() {
        router.take(0, 0, packet(1, 2, number));
    }
    assert_eq!(of(&router, "eu", "us").overflow, 1);
    assert_eq!(all(&mut router, 1_000).len(), fit);
    // What has arrived makes room.
    router.take(2_000, 0, packet(1, 2, 0));
    assert_eq!(all(&mut router, 3_000), [0]);
}

#[test]
fn packets_of_strangers_and_no_packets_go_nowhere() {
    let mut router = Router::new(hosts(), SEED).unwrap();
    let spoofed = packet(2, 3, 0);
    let to_nobody = packet(1, 9, 0);
    let to_itself = packet(1, 1, 0);
    let short = packet(1, 2, 0)[..19].to_vec();
    for bytes in [spoofed, to_nobody, to_itself, short, vec![], vec![0x60; 39]] {
        router.take(0, 0, bytes);
    }
    assert_eq!(router.unroutable(), 6);
    assert_eq!(router.next_us(), None);
}

#[test]
fn both_versions_of_ip_are_routed() {
    let mut router = Router::new(hosts(), SEED).unwrap();
    let mut six = vec![0; 60];
    six[0] = 0x60;
    let octets = |n: u16| std::net::Ipv6Addr::new(0xfd77, n, 0, 0, 0, 0, 0, 1).octets();
    six[8..24].copy_from_slice(&octets(1));
    six[24..40].copy_from_slice(&octets(3));
    router.take(0, 0, six.clone());
    assert_eq!(router.arrived(0).map(|it| it.to), Some(2));
    router.take(0, 0, packet(1, 3, 4));
    assert_eq!(router.arrived(0).map(|it| it.to), Some(2));
}

#[test]
fn a_device_that_refuses_is_counted_once() {
    let mut router = Router::new(hosts(), SEED).unwrap();
    router.take(0, 0, packet(1, 2, 0));
    let arrived = router.arrived(0).unwrap();
    router.refused(&arrived);
    let expected = Counters {
        refused: 1,
        ..Counters::default()
    };
    assert_eq!(of(&router, "eu", "us"), expected);
}

#[test]
fn rules_need_two_hosts_that_are_there() {
    let mut router = Router::new(hosts(), SEED).unwrap();
    let rule = Rule::default();
    assert!(matches!(
        router.set("eu", "xx", rule),
        Err(Error::NoHost(_))
    ));
    assert!(matches!(router.set("eu", "eu", rule), Err(Error::Same(_))));
    let bad = Rule { rate: 1, ..rule };
    assert!(matches!(router.set("eu", "us", bad), Err(Error::Rule(_))));
    assert_eq!(router.rule("eu", "us").unwrap(), rule);
    let mut twice = hosts();
    twice[1].addresses = twice[0].addresses.clone();
    assert!(matches!(Router::new(twice, SEED), Err(Error::Twice(_))));
    let named_twice = vec![
        hosts()[0].clone(),
        Host {
            addresses: vec![],
            ..hosts()[0].clone()
        },
    ];
    assert!(matches!(
        Router::new(named_twice, SEED),
        Err(Error::Twice(_))
    ));
}
