//! Many seeds at once, and what they come to.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Kind, Options, Outcome, Planted, Violation, run, shrink};

/// Accepted events that a seed has at least.
pub const EVENTS_MIN: u64 = 2_000;
/// Conversations in which a seed accepts something, at least.
pub const CONVERSATIONS_MIN: usize = 10;
/// Faults of a seed, at least.
pub const FAULTS_MIN: u64 = 30;
/// Times that each kind of fault happens over a whole range, at least.
pub const EACH_FAULT_MIN: u64 = 50;
/// Kinds of events; each has to occur in every seed.
pub const KINDS: [&str; 11] = [
    "message", "edit", "delete", "react", "pin", "state", "grant", "join", "leave", "move",
    "policy",
];
/// Kinds of root records; each has to occur in every seed.
pub const RECORDS: [&str; 4] = ["checkpoint", "transfer", "stewards", "together"];
/// Kinds of root records that have to occur in a range of at least [`RANGE_MIN`] seeds.
pub const RARE_RECORDS: [&str; 2] = ["twin", "succession"];
/// Seeds of a range that are enough for everything to occur.
pub const RANGE_MIN: u64 = 20;

/// A range of seeds to play.
#[derive(Clone, Debug)]
pub struct Range {
    /// The first seed.
    pub from: u64,
    /// The last seed.
    pub to: u64,
    /// Everything else; its seed is not used.
    pub options: Options,
    /// Threads.
    pub threads: usize,
    /// Time for making failing runs smaller.
    pub shrink: Duration,
}

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub struct Failed {
    /// As it was played.
    pub outcome: Outcome,
    /// The smallest run found that breaks the same.
    pub smallest: Options,
    /// How that one breaks.
    pub violation: Violation,
}

/// What a range came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds played.
    pub seeds: u64,
    /// Those that broke a promise, in order.
    pub failed: Vec<Failed>,
    /// Seeds below the least numbers, and in what.
    pub thin: Vec<(u64, String)>,
    /// Accepted events by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// Root records by what they are.
    pub records: BTreeMap<&'static str, u64>,
    /// Texts that were erased because their days were over, each at each honest server.
    pub expired: u64,
    /// Faults by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// Frames, syncs, ticks and steps.
    pub handled: u64,
    /// Time it took, in milliseconds.
    pub took_ms: u64,
}

impl Summary {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        for (kind, count) in &outcome.events {
            *self.events.entry(kind).or_default() += count;
        }
        for (kind, count) in &outcome.records {
            *self.records.entry(kind).or_default() += count;
        }
        for (kind, count) in &outcome.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        self.expired += outcome.expired;
        self.virtual_ms += outcome.virtual_ms;
        self.handled += outcome.handled;
        if let Some(thin) = thin(outcome) {
            self.thin.push((outcome.seed, thin));
        }
    }

    /// Kinds of faults that happened less often than a range of 200 seeds has them; fewer seeds
    /// have to have their share.
    #[must_use]
    pub fn rare(&self) -> Vec<Kind> {
        let least = (EACH_FAULT_MIN * self.seeds)
            .div_ceil(200)
            .min(EACH_FAULT_MIN);
        let count = |kind: &Kind| self.faults.get(kind).copied().unwrap_or(0);
        let all = Kind::ALL.iter().copied();
        all.filter(|kind| count(kind) < least).collect()
    }

    /// Kinds of root records that a range of this length has and this one did not.
    #[must_use]
    pub fn lacking(&self) -> Vec<&'static str> {
        let lacks = |kind: &&str| self.seeds >= RANGE_MIN && !self.records.contains_key(*kind);
        RARE_RECORDS.into_iter().filter(lacks).collect()
    }

    /// Whether everything held, and enough happened to say so.
    #[must_use]
    pub fn holds(&self) -> bool {
        let enough = self.thin.is_empty() && self.rare().is_empty() && self.lacking().is_empty();
        self.seeds > 0 && self.failed.is_empty() && enough
    }

    /// One JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let failed: Vec<_> = self.failed.iter().map(Failed::to_json).collect();
        let thin = self.thin.iter();
        let thin: Vec<_> = thin
            .map(|(seed, why)| serde_json::json!({ "seed": seed, "why": why }))
            .collect();
        let faults: serde_json::Map<_, _> = Kind::ALL
            .iter()
            .map(|kind| {
                let count = self.faults.get(kind).copied().unwrap_or(0);
                (kind.name().to_owned(), count.into())
            })
            .collect();
        let rare: Vec<_> = self.rare().iter().map(|kind| kind.name()).collect();
        serde_json::json!({
            "claim": "sim",
            "holds": self.holds(),
            "seeds": self.seeds,
            "failed": failed,
            "thin": thin,
            "rare": rare,
            "events": self.events,
            "events_total": self.events.values().sum::<u64>(),
            "records": self.records,
            "lacking": self.lacking(),
            "expired": self.expired,
            "faults": faults,
            "faults_total": self.faults.values().sum::<u64>(),
            "handled": self.handled,
            "virtual_hours": self.virtual_ms / 3_600_000,
            "virtual_hours_per_s": self.hours_per_s(),
            "seconds": self.took_ms / 1_000,
        })
    }

    fn hours_per_s(&self) -> f64 {
        let hours = self.virtual_ms as f64 / 3_600_000.0;
        (hours / (self.took_ms.max(1) as f64 / 1_000.0) * 100.0).round() / 100.0
    }
}

impl Failed {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "seed": self.outcome.seed,
            "promise": self.violation.promise,
            "what": self.violation.what,
            "again": self.again(),
        })
    }

    /// The command that plays the smallest run again.
    #[must_use]
    pub fn again(&self) -> String {
        let options = &self.smallest;
        let mut line = format!(
            "comity-testnet sim --seeds {0}..{0} --servers {1} --users {2} --hours {3}",
            options.seed,
            options.servers,
            options.users,
            options.length_ms / 3_600_000
        );
        if let Some(planted) = options.planted {
            let _ = write!(line, " --fault {}", planted.name());
        }
        if let Some(steps) = options.steps {
            let _ = write!(line, " --steps {steps}");
        }
        if !options.without.is_empty() {
            let names: Vec<_> = options.without.iter().map(|kind| kind.name()).collect();
            let _ = write!(line, " --without {}", names.join(","));
        }
        line
    }
}

/// What a whole seed has too little of.
fn thin(outcome: &Outcome) -> Option<String> {
    if outcome.violation.is_some() {
        // It ended where the promise broke.
        return None;
    }
    let events: u64 = outcome.events.values().sum();
    let faults: u64 = outcome.faults.values().sum();
    let missing: Vec<_> = KINDS
        .iter()
        .filter(|kind| !outcome.events.contains_key(*kind))
        .chain(
            RECORDS
                .iter()
                .filter(|kind| !outcome.records.contains_key(*kind)),
        )
        .collect();
    if events < EVENTS_MIN {
        Some(format!("{events} events"))
    } else if outcome.conversations < CONVERSATIONS_MIN {
        Some(format!("{} conversations", outcome.conversations))
    } else if faults < FAULTS_MIN {
        Some(format!("{faults} faults"))
    } else if outcome.expired == 0 {
        Some("no text whose days were over".to_owned())
    } else if !missing.is_empty() {
        Some(format!("no {missing:?}"))
    } else {
        None
    }
}

/// Plays a range, a seed a thread, and calls `progress` after each seed with how many are done and
/// how many of them failed.
pub fn play(range: &Range, progress: &(dyn Fn(u64, u64) + Sync)) -> Summary {
    let since = Instant::now();
    let next = AtomicU64::new(range.from);
    let outcomes = Mutex::new(BTreeMap::new());
    let options_of = |seed| {
        let mut options = range.options.clone();
        options.seed = seed;
        options
    };
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > range.to {
                break;
            }
            let outcome = run(&options_of(seed));
            let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            outcomes.insert(seed, outcome);
            let failed = |o: &&Outcome| o.violation.is_some();
            let failed = outcomes.values().filter(failed).count();
            progress(outcomes.len() as u64, failed as u64);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..range.threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let mut summary = Summary::default();
    outcomes.values().for_each(|outcome| summary.add(outcome));
    summary.took_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
    let broken: Vec<_> = outcomes
        .into_values()
        .filter(|outcome| outcome.violation.is_some())
        .collect();
    let each = range.shrink / u32::try_from(broken.len().max(1)).unwrap_or(u32::MAX);
    for outcome in broken {
        let (smallest, found) = shrink(&options_of(outcome.seed), &outcome, each);
        summary
            .failed
            .extend(found.violation.map(|violation| Failed {
                outcome,
                smallest,
                violation,
            }));
    }
    summary
}

/// Whether a planted bug was found, and as the breach of which promise.
#[must_use]
pub fn names_promise(summary: &Summary, planted: Planted) -> bool {
    let named = |failed: &Failed| failed.violation.promise == planted.promise();
    summary.failed.iter().any(named)
}
