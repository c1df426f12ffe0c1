use std::path::PathBuf;

use serde_json::Value;

use super::super::{MachineFigures, Promise, Run};
use super::*;

/// How a fake claim behaves, whole and broken.
#[derive(Clone, Copy)]
enum Does {
    /// Loses this many of ten messages; none may be lost.
    Lose(u64),
    /// Measures nothing.
    Nothing,
    /// Fails to run.
    Fail,
    /// Panics.
    Panic,
    /// Never ends.
    Hang,
}

struct Fake {
    name: &'static str,
    promise: Promise,
    quick: bool,
    whole: Does,
    broken: Does,
}

impl Claim for Fake {
    fn name(&self) -> &'static str {
        self.name
    }
    fn says(&self) -> &'static str {
        "nothing is lost"
    }
    fn promise(&self) -> Promise {
        self.promise
    }
    fn quick(&self) -> bool {
        self.quick
    }
    fn run<'a>(&'a self, _: &'a Context, broken: bool) -> Run<'a> {
        Box::pin(async move {
            match if broken { self.broken } else { self.whole } {
                Does::Lose(lost) => Ok(Outcome::of(10).figure("lost", lost).equals("lost", 0_u64)),
                Does::Nothing => Ok(Outcome::of(0).figure("lost", 0_u64).equals("lost", 0_u64)),
                Does::Fail => anyhow::bail!("no server started"),
                Does::Panic => panic!("an invariant is gone"),
                Does::Hang => std::future::pending().await,
            }
        })
    }
}

const fn fake(name: &'static str, whole: Does, broken: Does) -> Fake {
    Fake {
        name,
        promise: Promise::P1,
        quick: true,
        whole,
        broken,
    }
}

static GOOD: Fake = fake("good", Does::Lose(0), Does::Lose(3));
static SLOW: Fake = Fake {
    quick: false,
    ..fake("slow", Does::Lose(0), Does::Lose(1))
};
static FALSE: Fake = fake("false", Does::Lose(1), Does::Lose(1));
static EMPTY: Fake = fake("empty", Does::Nothing, Does::Nothing);
static UNFALLING: Fake = fake("unfalling", Does::Lose(0), Does::Lose(0));
static SPEED: Fake = Fake {
    promise: Promise::P8,
    ..fake("speed", Does::Lose(0), Does::Lose(1))
};

struct Ran {
    code: u8,
    lines: Vec<Value>,
    out: String,
    told: String,
}

async fn run(claims: &[&dyn Claim], options: Options, build: Build) -> Ran {
    let context = Context {
        directory: PathBuf::new(),
        machine: MachineFigures {
            cores: 2,
            fdatasync_p50_ms: 0.5,
            verify_per_s: 20_000.0,
        },
        build,
        quick: false,
    };
    let (mut out, mut told) = (Vec::new(), Vec::new());
    let limit = Duration::from_millis(100);
    let code = prove_within(limit, claims, &options, &context, &mut out, &mut told)
        .await
        .unwrap();
    let out = String::from_utf8(out).unwrap();
    Ran {
        code,
        lines: out
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect(),
        out,
        told: String::from_utf8(told).unwrap(),
    }
}

fn names(names: &[&str]) -> Options {
    Options {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_claim_that_holds_says_so_in_its_line_and_its_code() {
    let ran = run(&[&GOOD, &FALSE], names(&["good"]), Build::Release).await;
    assert_eq!(ran.code, EXIT_HOLDS);
    let expected = serde_json::json!({
        "claim": "good", "broken": false, "holds": true,
        "figures": {"samples": 10.0, "lost": 0.0}, "limits": {"lost": {"equals": 0.0}},
        "reasons": [], "build": "release",
        "machine": {"cores": 2, "fdatasync_p50_ms": 0.5, "verify_per_s": 20_000.0},
    });
    assert_eq!(ran.lines, [expected]);
    assert!(ran.told.ends_with("1 passed, 0 failed\n"));
}

#[tokio::test]
async fn a_broken_claim_does_not_hold_and_the_code_says_so() {
    let options = Options {
        broken: true,
        ..names(&["good"])
    };
    let ran = run(&[&GOOD], options, Build::Release).await;
    assert_eq!(ran.code, EXIT_FALSE);
    assert_eq!(ran.lines[0]["holds"], false);
    assert_eq!(ran.lines[0]["broken"], true);
    assert_eq!(ran.lines[0]["reasons"][0], "lost: 3 instead of 0");
}

#[tokio::test]
async fn all_runs_every_claim_and_one_false_one_fails_the_run() {
    let ran = run(&[&GOOD, &SLOW], names(&["all"]), Build::Release).await;
    assert_eq!((ran.code, ran.lines.len()), (EXIT_HOLDS, 2));
    let ran = run(&[&GOOD, &FALSE, &SLOW], names(&["all"]), Build::Release).await;
    assert_eq!((ran.code, ran.lines.len()), (EXIT_FALSE, 3));
    assert!(ran.told.ends_with("2 passed, 1 failed\n"));
}

#[tokio::test]
async fn quick_leaves_slow_claims_out() {
    let options = Options {
        quick: true,
        ..Options::default()
    };
    let ran = run(&[&GOOD, &SLOW], options.clone(), Build::Release).await;
    assert_eq!((ran.code, ran.lines.len()), (EXIT_HOLDS, 1));
    let ran = run(&[&SLOW], options, Build::Release).await;
    assert_eq!(ran.code, EXIT_USAGE, "nothing run is nothing proven");
}

#[tokio::test]
async fn what_cannot_be_finished_or_measured_nothing_does_not_hold() {
    for (does, reason) in [
        (Does::Fail, "no server started"),
        (Does::Panic, "panicked: an invariant is gone"),
        (Does::Hang, "not finished within 100ms"),
        (Does::Nothing, "no samples"),
    ] {
        let claim = fake("claim", does, does);
        let ran = run(&[&claim], names(&["claim"]), Build::Release).await;
        assert_eq!(
            (ran.code, &ran.lines[0]["holds"]),
            (EXIT_FALSE, &false.into())
        );
        let told = ran.lines[0]["reasons"][0].as_str().unwrap();
        assert!(told.contains(reason), "{told}");
        // Nor does it show that the claim can fall.
        let options = Options {
            self_test: true,
            ..names(&["claim"])
        };
        assert_eq!(
            run(&[&claim], options, Build::Release).await.code,
            EXIT_FALSE
        );
    }
}

#[tokio::test]
async fn a_claim_that_hangs_does_not_keep_the_next_from_running() {
    let hang = fake("hang", Does::Hang, Does::Hang);
    let ran = run(&[&hang, &GOOD], names(&["all"]), Build::Release).await;
    assert_eq!(ran.lines[1]["holds"], true);
}

#[tokio::test]
async fn the_self_test_wants_every_claim_to_fall_by_its_figures() {
    let options = Options {
        self_test: true,
        ..Options::default()
    };
    let ran = run(&[&GOOD, &SLOW], options.clone(), Build::Release).await;
    assert_eq!(ran.code, EXIT_HOLDS);
    assert!(ran.lines.iter().all(|line| line["holds"] == false));
    for claim in [&UNFALLING, &EMPTY] {
        let ran = run(&[&GOOD, claim], options.clone(), Build::Release).await;
        assert_eq!(ran.code, EXIT_FALSE);
        assert!(ran.told.contains("NOT FOUND FALSE"), "{}", ran.told);
    }
}

#[tokio::test]
async fn a_debug_build_refuses_to_judge_speed_and_judges_the_rest() {
    let ran = run(&[&SPEED], names(&["speed"]), Build::Debug).await;
    assert_eq!(
        (ran.code, &ran.lines[0]["holds"]),
        (EXIT_FALSE, &false.into())
    );
    assert!(ran.told.contains("debug build"));
    assert_eq!(ran.lines[0]["build"], "debug");
    let options = Options {
        self_test: true,
        ..names(&["speed"])
    };
    assert_eq!(run(&[&SPEED], options, Build::Debug).await.code, EXIT_FALSE);
    assert_eq!(
        run(&[&GOOD], names(&["good"]), Build::Debug).await.code,
        EXIT_HOLDS
    );
    assert_eq!(
        run(&[&SPEED], names(&["speed"]), Build::Release).await.code,
        EXIT_HOLDS
    );
}

#[tokio::test]
async fn an_unknown_name_runs_nothing_and_names_the_claims() {
    let ran = run(&[&GOOD], names(&["good", "goof"]), Build::Release).await;
    assert_eq!((ran.code, ran.lines.len()), (EXIT_USAGE, 0));
    assert!(ran.told.contains("\"goof\"") && ran.told.contains("good, or all"));
    assert_eq!(
        run(&[&GOOD], Options::default(), Build::Release).await.code,
        EXIT_USAGE
    );
}

#[tokio::test]
async fn a_list_names_every_claim_and_runs_none() {
    let options = Options {
        list: true,
        ..Options::default()
    };
    let hang = fake("hang", Does::Hang, Does::Hang);
    let ran = run(&[&hang, &SPEED], options, Build::Release).await;
    assert_eq!((ran.code, ran.lines.len()), (EXIT_HOLDS, 0));
    assert!(ran.out.contains("hang") && ran.out.contains("speed"));
    assert!(ran.out.contains("P8") && ran.out.contains("nothing is lost"));
}
