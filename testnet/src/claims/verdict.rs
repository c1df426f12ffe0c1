//! From figures and limits to a verdict.

use std::collections::BTreeMap;
use std::fmt;

use crate::machine::Machine;

/// The figure that counts what a run looked at; a run that looked at nothing proves nothing.
pub(super) const SAMPLES: &str = "samples";

/// One measured value.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Figure {
    /// A count or a measure, its unit in its name.
    Number(f64),
    /// Whether something was so.
    Flag(bool),
    /// A digest, or a name.
    Text(String),
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl From<f64> for Figure {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Figure {
    /// Exact up to 2^53, far above every count here.
    fn from(number: u64) -> Self {
        Self::Number(number as f64)
    }
}

impl From<bool> for Figure {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for Figure {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// What a figure must keep.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// A number of at least this.
    Min(f64),
    /// A number of at most this.
    Max(f64),
    /// Exactly this.
    Equals(Figure),
}

impl Limit {
    /// Why `figure` breaks the limit, if it does. What is no number is neither large nor small.
    fn broken_by(&self, figure: &Figure) -> Option<String> {
        let (kept, wanted) = match (self, figure) {
            (Self::Min(min), Figure::Number(number)) => (number >= min, format!("at least {min}")),
            (Self::Max(max), Figure::Number(number)) => (number <= max, format!("at most {max}")),
            (Self::Equals(equal), figure) => (figure == equal, equal.to_string()),
            (Self::Min(_) | Self::Max(_), _) => (false, "a number".to_owned()),
        };
        (!kept).then(|| format!("{figure} instead of {wanted}"))
    }
}

/// What a run measured, and what it must keep.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Outcome {
    /// Measured values by name; `samples` among them.
    pub figures: BTreeMap<String, Figure>,
    /// Limits by the name of the figure they bind.
    pub limits: BTreeMap<String, Limit>,
}

impl Outcome {
    /// An outcome of a run that looked at `samples` things.
    #[must_use]
    pub fn of(samples: u64) -> Self {
        Self::default().figure(SAMPLES, samples)
    }

    /// Adds a figure.
    #[must_use]
    pub fn figure(mut self, name: &str, value: impl Into<Figure>) -> Self {
        self.figures.insert(name.to_owned(), value.into());
        self
    }

    /// The figure `name` must be at least `min`.
    #[must_use]
    pub fn min(self, name: &str, min: f64) -> Self {
        self.limit(name, Limit::Min(min))
    }

    /// The figure `name` must be at most `max`.
    #[must_use]
    pub fn max(self, name: &str, max: f64) -> Self {
        self.limit(name, Limit::Max(max))
    }

    /// The figure `name` must be exactly `value`.
    #[must_use]
    pub fn equals(self, name: &str, value: impl Into<Figure>) -> Self {
        self.limit(name, Limit::Equals(value.into()))
    }

    fn limit(mut self, name: &str, limit: Limit) -> Self {
        self.limits.insert(name.to_owned(), limit);
        self
    }
}

/// How a binary was built.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Build {
    /// With debug assertions: slow, its speed means nothing.
    Debug,
    /// Optimized.
    Release,
}

impl Build {
    /// How this binary was built.
    #[must_use]
    pub const fn this() -> Self {
        if cfg!(debug_assertions) {
            Self::Debug
        } else {
            Self::Release
        }
    }
}

/// The machine, in the few figures that every verdict carries.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct MachineFigures {
    /// Processor cores that we may use.
    pub cores: usize,
    /// Half of the syncs took at most this, in milliseconds.
    pub fdatasync_p50_ms: f64,
    /// Signatures that one thread checks in a second.
    pub verify_per_s: f64,
}

impl From<&Machine> for MachineFigures {
    fn from(machine: &Machine) -> Self {
        Self {
            cores: machine.cores,
            fdatasync_p50_ms: machine.fdatasync.p50_ms,
            verify_per_s: machine.verify_per_s,
        }
    }
}

/// Whether a claim holds, and why not. One line of JSON.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Verdict {
    /// The claim's name.
    pub claim: String,
    /// Whether it was run with its mechanism broken.
    pub broken: bool,
    /// Whether it holds: its figures are there and keep every limit.
    pub holds: bool,
    /// What was measured.
    pub figures: BTreeMap<String, Figure>,
    /// What it had to keep.
    pub limits: BTreeMap<String, Limit>,
    /// Why it does not hold; empty if it does.
    pub reasons: Vec<String>,
    /// The machine.
    pub machine: MachineFigures,
    /// The build.
    pub build: Build,
    /// Whether a measured figure broke its limit, which is what a broken mechanism must lead to:
    /// a run that failed, or measured nothing, is false too, but shows nothing.
    #[serde(skip)]
    pub found_false: bool,
}

/// Judges an outcome by nothing but its figures and limits. It holds when there is a sample and a
/// limit, and every limit's figure is there and keeps it.
///
/// Returns the reasons why it does not hold, and whether a figure broke its limit.
#[must_use]
pub fn judge(outcome: &Outcome) -> (Vec<String>, bool) {
    let mut reasons = Vec::new();
    let sampled = match outcome.figures.get(SAMPLES) {
        Some(Figure::Number(samples)) => *samples >= 1.0,
        _ => false,
    };
    if !sampled {
        reasons.push("no samples".to_owned());
    }
    if outcome.limits.is_empty() {
        reasons.push("no limits".to_owned());
    }
    let mut broken = false;
    for (name, limit) in &outcome.limits {
        match outcome.figures.get(name) {
            None => reasons.push(format!("{name}: not measured")),
            Some(Figure::Number(number)) if number.is_nan() => {
                reasons.push(format!("{name}: not a number"));
            }
            Some(figure) => {
                if let Some(reason) = limit.broken_by(figure) {
                    reasons.push(format!("{name}: {reason}"));
                    broken = true;
                }
            }
        }
    }
    (reasons, broken && sampled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(outcome: &Outcome) -> bool {
        judge(outcome).0.is_empty()
    }

    #[test]
    fn figures_at_their_limits_hold_and_beyond_do_not() {
        let outcome = |number: f64| {
            Outcome::of(1)
                .figure("a", number)
                .min("a", 2.0)
                .figure("b", number)
                .max("b", 2.0)
        };
        assert!(holds(&outcome(2.0)));
        for number in [1.9, 2.1] {
            let (reasons, broken) = judge(&outcome(number));
            assert_eq!(reasons.len(), 1);
            assert!(broken);
        }
    }

    #[test]
    fn equality_is_of_value_and_kind() {
        let outcome = |figure: Figure| Outcome::of(1).figure("a", figure).equals("a", 0_u64);
        assert!(holds(&outcome(0_u64.into())));
        for wrong in [1_u64.into(), false.into(), "0".into(), f64::NAN.into()] {
            assert!(!holds(&outcome(wrong)));
        }
        let text = Outcome::of(1).figure("a", "x").equals("a", "x");
        assert!(holds(&text));
    }

    #[test]
    fn a_limit_without_its_figure_does_not_hold_and_is_not_found_false() {
        let (reasons, broken) = judge(&Outcome::of(1).max("latency_ms", 5.0));
        assert_eq!(reasons, ["latency_ms: not measured"]);
        assert!(!broken);
    }

    #[test]
    fn what_is_not_a_number_keeps_no_limit() {
        for figure in [Figure::Number(f64::NAN), true.into(), "5".into()] {
            let least = Outcome::of(1).figure("a", figure.clone()).min("a", -1.0);
            let most = Outcome::of(1).figure("a", figure).max("a", 1e9);
            assert!(!holds(&least) && !holds(&most));
        }
    }

    #[test]
    fn nothing_looked_at_or_nothing_demanded_does_not_hold() {
        let good = |outcome: Outcome| outcome.figure("lost", 0_u64).equals("lost", 0_u64);
        assert!(holds(&good(Outcome::of(1))));
        assert!(!holds(&good(Outcome::of(0))));
        assert!(!holds(&good(Outcome::default())));
        assert!(!holds(&Outcome::of(1).figure("lost", 0_u64)));
        let (_, broken) = judge(&Outcome::of(0).figure("lost", 1_u64).equals("lost", 0_u64));
        assert!(!broken, "a broken limit on no samples shows nothing");
    }
}
