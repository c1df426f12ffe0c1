//! A short run of every target, the same each time, with memory measured: what `./dev fuzz` and
//! `comity-testnet prove hostile-input` do for long.

use std::path::Path;

use comity_fuzz::{TARGETS, Target, allocation, run};

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// Inputs for each target, unless the variable `INPUTS` says another number.
const INPUTS: u64 = 20_000;

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn short(target: &Target) {
    let seed = number("SEED", 1);
    println!("SEED={seed}");
    assert!(allocation::is_counting(), "memory is measured");
    let inputs = run::inputs_of(target, number("INPUTS", INPUTS));
    let report = run::run(target, seed, inputs);
    println!("{}", summary(&report));
    for failure in &report.failures {
        println!("{}\n  {}", failure.what, failure.input);
    }
    assert_eq!(report.inputs, inputs);
    assert!(report.taken > 0, "some inputs are sound");
    assert!(report.taken < inputs, "some are not");
    assert_eq!(
        (report.panics, report.too_large),
        (0, 0),
        "{:#?}",
        report.failures
    );
    assert!(report.largest_piece > 0, "memory is measured");
}

fn summary(report: &run::Report) -> String {
    let failures = Vec::new();
    format!(
        "{:?}",
        run::Report {
            failures,
            ..report.clone()
        }
    )
}

macro_rules! short {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            short(comity_fuzz::find(stringify!($name)).expect("a target of this name"));
        })*

        #[test]
        fn every_target_is_run_shortly_and_has_its_file_for_libfuzzer() {
            let named = [$(stringify!($name),)*];
            let here = Path::new(env!("CARGO_MANIFEST_DIR"));
            let manifest = std::fs::read_to_string(here.join("Cargo.toml")).unwrap();
            for target in TARGETS {
                let name = target.name;
                assert!(named.contains(&name), "{name}");
                let file = format!("fuzz_targets/{name}.rs");
                let wrapper = std::fs::read_to_string(here.join(&file)).unwrap();
                assert!(wrapper.contains(&format!("::{name}(bytes)")), "{file}");
                assert!(manifest.contains(&format!("path = \"{file}\"")), "{name}");
            }
            assert_eq!(named.len(), TARGETS.len());
        }
    };
}

short! {
    event signed_event content commit signed_commit root later_root identity_entry identity_log card card_chain
    card_text handle server_name user_address id_text place_key tips link_frame bundle client_frame
    client_frame_json server_frame server_frame_json cursor pack_snapshot state_snapshot session link
    conversation batch replication
}
