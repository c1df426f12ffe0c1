//! Short runs: that a seed decides everything, that they hold, and that they can fail.

use comity_sim::{Options, Planted, run, shrink};

/// A network small enough for a debug build.
fn small(seed: u64) -> Options {
    Options::new(seed, 4, 8, 1)
}

#[test]
fn a_seed_decides_everything_and_what_it_decides_holds() {
    let seed = 7;
    println!("SEED={seed}");
    let (one, two) = (run(&small(seed)), run(&small(seed)));
    assert_eq!(one.violation, None);
    assert_eq!(one.events, two.events);
    assert_eq!(one.faults, two.faults);
    assert_eq!((one.handled, one.steps), (two.handled, two.steps));
    assert!(one.events.values().sum::<u64>() > 500, "{:?}", one.events);
    assert!(one.expired > 0);
    for kind in ["checkpoint", "transfer", "together"] {
        assert!(one.records[kind] > 0, "{:?}", one.records);
    }
    assert!(one.events["move"] > 0, "{:?}", one.events);
    let other = run(&small(seed + 2));
    assert_ne!(one.handled, other.handled);
}

#[test]
fn a_planted_bug_breaks_its_promise_and_the_run_shrinks() {
    let seed = 3;
    println!("SEED={seed}");
    for planted in [
        Planted::ForgetDeletion,
        Planted::ForgetTransfer,
        Planted::KeepExpired,
        Planted::HastyHeir,
        Planted::NoRecords,
    ] {
        let mut options = small(seed);
        options.planted = Some(planted);
        let outcome = run(&options);
        let found = outcome.violation.clone().map(|v| v.promise);
        assert_eq!(found, Some(planted.promise()));
        let time = std::time::Duration::from_secs(6);
        let (smallest, again) = shrink(&options, &outcome, time);
        assert!(smallest.steps.unwrap() <= outcome.steps);
        assert_eq!(again.violation.map(|v| v.promise), found);
        let repeated = run(&smallest).violation.map(|v| v.promise);
        assert_eq!(repeated, found);
    }
}
