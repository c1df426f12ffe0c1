//! The options of `up --netns`, and the command `wire`, which changes a running network.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::ensure;
use clap::Args;

use super::{
    control::Control,
    rule::{CERTAIN_PPM, Rule},
    site::{Site, Udp},
};
use crate::cli::{Latency, latency};

/// A chance between two regions, in parts of a million.
type Chance = ((String, String), u32);

/// How a network of namespaces is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Servers as hosts (needs root, iproute2 and nftables)")]
pub struct Netns {
    /// Each server is a host of its own: a network namespace behind a router of ours, which
    /// delays, loses, reorders and cuts. `--latency` works as it does without. Change links of the
    /// running network with `comity-testnet wire`.
    #[arg(long)]
    pub netns: bool,
    /// This region is behind NAT: it reaches the others, and nobody reaches in; may be repeated.
    #[arg(long, value_name = "REGION", requires = "netns")]
    nat: Vec<String>,
    /// UDP from and to this region is refused with an ICMP message; may be repeated.
    #[arg(long, value_name = "REGION", requires = "netns")]
    udp_refused: Vec<String>,
    /// UDP from and to this region is dropped without a word; may be repeated.
    #[arg(long, value_name = "REGION", requires = "netns")]
    udp_dropped: Vec<String>,
    /// Up to so much more one-way delay for each packet, such as eu-us=10ms; may be repeated.
    #[arg(long, value_name = "A-B=TIME", value_parser = latency, requires = "netns")]
    jitter: Vec<Latency>,
    /// Chance of a packet to be lost, each way, such as eu-us=1%; may be repeated.
    #[arg(long, value_name = "A-B=PERCENT", value_parser = chance, requires = "netns")]
    loss: Vec<Chance>,
    /// Chance of a packet to be overtaken, each way, such as eu-us=1%; may be repeated.
    #[arg(long, value_name = "A-B=PERCENT", value_parser = chance, requires = "netns")]
    reorder: Vec<Chance>,
}

impl Netns {
    /// The sites of these regions.
    ///
    /// # Errors
    ///
    /// If an option names a region that is not there.
    pub fn sites(&self, regions: &[String]) -> anyhow::Result<Vec<Site>> {
        for region in self
            .nat
            .iter()
            .chain(&self.udp_refused)
            .chain(&self.udp_dropped)
        {
            known(region, regions)?;
        }
        let site = |region: &String| Site {
            name: region.clone(),
            nat: self.nat.contains(region),
            udp: if self.udp_dropped.contains(region) {
                Udp::Dropped
            } else if self.udp_refused.contains(region) {
                Udp::Refused
            } else {
                Udp::Open
            },
        };
        Ok(regions.iter().map(site).collect())
    }

    /// What is asked for, by directed pair of these regions.
    ///
    /// # Errors
    ///
    /// If an option names a region that is not there, or the same twice.
    pub fn rules(
        &self,
        regions: &[String],
        delays: &[Latency],
    ) -> anyhow::Result<Vec<(String, String, Rule)>> {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let named = delays.iter().chain(&self.jitter).map(|(pair, _)| pair);
        for (a, b) in named.chain(self.loss.iter().chain(&self.reorder).map(|(pair, _)| pair)) {
            known(a, regions)?;
            known(b, regions)?;
            ensure!(a != b, "{a}-{b}: a link has two ends");
        }
        let mut rules = Vec::new();
        for a in regions {
            for b in regions.iter().filter(|b| *b != a) {
                let mut rule = Rule::default();
                if let Some(delay) = between(delays, a, b) {
                    rule.delay_us = us(delay);
                }
                if let Some(jitter) = between(&self.jitter, a, b) {
                    rule.jitter_us = us(jitter);
                }
                rule.loss_ppm = between(&self.loss, a, b).unwrap_or(0);
                rule.reorder_ppm = between(&self.reorder, a, b).unwrap_or(0);
                if rule != Rule::default() {
                    rules.push((a.clone(), b.clone(), rule));
                }
            }
        }
        Ok(rules)
    }
}

fn known(region: &str, regions: &[String]) -> anyhow::Result<()> {
    ensure!(
        regions.iter().any(|known| known == region),
        "there is no region {region}: this network has {}",
        regions.join(", ")
    );
    Ok(())
}

/// The last value for two regions, whichever is named first.
fn between<T: Copy>(values: &[((String, String), T)], a: &str, b: &str) -> Option<T> {
    let is = |x: &str, y: &str| (x, y) == (a, b) || (x, y) == (b, a);
    let found = values.iter().rev().find(|((x, y), _)| is(x, y));
    found.map(|(_, value)| *value)
}

/// Reads `eu-us=1%`.
fn chance(text: &str) -> Result<Chance, String> {
    let wrong = || format!("{text}: a chance is written like eu-us=1%, from 0 to 100");
    let (pair, percent) = text.split_once('=').ok_or_else(wrong)?;
    let (a, b) = pair.split_once('-').ok_or_else(wrong)?;
    Ok((
        (a.to_owned(), b.to_owned()),
        ppm(percent).ok_or_else(wrong)?,
    ))
}

/// Parts of a million of `1%` or `0.05%`: what is finer is refused, not rounded away.
fn ppm(percent: &str) -> Option<u32> {
    const PER_PERCENT: u32 = CERTAIN_PPM / 100;
    let digits = percent.strip_suffix('%')?;
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !number(whole) || !number(part) || part.len() > 4 {
        return None;
    }
    let whole = whole.parse::<u32>().ok().filter(|whole| *whole <= 100)?;
    let part: u32 = format!("{part:0<4}").parse().ok()?;
    let ppm = whole * PER_PERCENT + part;
    (ppm <= CERTAIN_PPM).then_some(ppm)
}

/// Shows or changes one direction between two servers of a network that `up --netns` runs.
///
///   comity-testnet wire eu us                      its rule and what became of its packets
///   comity-testnet wire eu us --cut                nothing from eu reaches us; the way back works
///   comity-testnet wire eu us --mend
///   comity-testnet wire eu us --delay-ms 80 --loss 1%
///
/// What is not named stays as it is. Prints one JSON line.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Wire {
    /// The sending region.
    from: String,
    /// The receiving region.
    to: String,
    /// Where the network is kept.
    #[arg(long, default_value = ".comity/testnet")]
    dir: PathBuf,
    /// Nothing gets through any more.
    #[arg(long, conflicts_with = "mend")]
    cut: bool,
    /// It does again.
    #[arg(long)]
    mend: bool,
    /// One-way delay.
    #[arg(long)]
    delay_ms: Option<u64>,
    /// Up to so much more for each packet.
    #[arg(long)]
    jitter_ms: Option<u64>,
    /// Chance of a packet to be lost, such as 1%.
    #[arg(long, value_parser = percent)]
    loss: Option<u32>,
    /// Chance of a packet to be overtaken, such as 1%.
    #[arg(long, value_parser = percent)]
    reorder: Option<u32>,
    /// Bytes a second; 0 for no limit.
    #[arg(long)]
    rate: Option<u64>,
}

fn percent(text: &str) -> Result<u32, String> {
    ppm(text).ok_or_else(|| format!("{text}: a chance is written like 1%, from 0% to 100%"))
}

impl Wire {
    /// The rule that is wanted, from the one that is.
    fn change(&self, rule: Rule) -> Rule {
        let us = |ms: u64| ms.saturating_mul(1_000);
        Rule {
            delay_us: self.delay_ms.map_or(rule.delay_us, us),
            jitter_us: self.jitter_ms.map_or(rule.jitter_us, us),
            loss_ppm: self.loss.unwrap_or(rule.loss_ppm),
            reorder_ppm: self.reorder.unwrap_or(rule.reorder_ppm),
            rate: self.rate.unwrap_or(rule.rate),
            cut: self.cut || (rule.cut && !self.mend),
            ..rule
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// If no network runs there, or the rule cannot be done.
pub async fn wire(args: Wire) -> anyhow::Result<ExitCode> {
    let control = Control::of(&args.dir);
    let (from, to) = (&args.from, &args.to);
    let before = control.rule(from, to).await?;
    let rule = args.change(before);
    if rule != before {
        control.set(from, to, rule).await?;
    }
    let counters = control.traffic().await?.of(from, to);
    let line = serde_json::json!({ "from": from, "to": to, "rule": rule, "packets": counters });
    println!("{line}");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions() -> Vec<String> {
        ["eu", "us", "ap"].map(str::to_owned).to_vec()
    }

    #[test]
    fn chances_are_percents_from_0_to_100() {
        assert_eq!(ppm("1%"), Some(10_000));
        assert_eq!(ppm("0.05%"), Some(500));
        assert_eq!(ppm("0.0001%"), Some(1));
        assert_eq!(ppm("100%"), Some(1_000_000));
        for wrong in [
            "1",
            "%",
            "101%",
            "100.1%",
            "0.00001%",
            "-1%",
            "1.x%",
            ".5%",
            "99999999999%",
        ] {
            assert_eq!(ppm(wrong), None, "{wrong}");
        }
        assert!(chance("eu=1%").is_err());
        assert_eq!(chance("eu-us=2%").unwrap().1, 20_000);
    }

    #[test]
    fn a_pair_means_both_directions_and_others_stay_perfect() {
        let netns = Netns {
            loss: vec![chance("us-eu=1%").unwrap()],
            ..Netns::default()
        };
        let delays = [
            latency("eu-us=50ms").unwrap(),
            latency("eu-ap=9ms").unwrap(),
        ];
        let rules = netns.rules(&regions(), &delays).unwrap();
        let of = |a: &str, b: &str| {
            let found = rules
                .iter()
                .find(|(x, y, _)| (x.as_str(), y.as_str()) == (a, b));
            found.map(|(_, _, rule)| (rule.delay_us, rule.loss_ppm))
        };
        assert_eq!(of("eu", "us"), Some((50_000, 10_000)));
        assert_eq!(of("us", "eu"), Some((50_000, 10_000)));
        assert_eq!(of("ap", "eu"), Some((9_000, 0)));
        assert_eq!(of("us", "ap"), None);
    }

    #[test]
    fn a_region_that_is_not_there_is_an_error_and_not_ignored() {
        let netns = Netns {
            nat: vec!["xx".into()],
            ..Netns::default()
        };
        let error = netns.sites(&regions()).unwrap_err().to_string();
        assert_eq!(error, "there is no region xx: this network has eu, us, ap");
        let delays = [latency("eu-xx=1ms").unwrap()];
        assert!(Netns::default().rules(&regions(), &delays).is_err());
        let delays = [latency("eu-eu=1ms").unwrap()];
        assert!(Netns::default().rules(&regions(), &delays).is_err());
    }

    #[test]
    fn a_wire_keeps_what_is_not_named() {
        let wire = Wire {
            from: "eu".into(),
            to: "us".into(),
            dir: PathBuf::new(),
            cut: false,
            mend: true,
            delay_ms: None,
            jitter_ms: None,
            loss: Some(5),
            reorder: None,
            rate: None,
        };
        let before = Rule {
            delay_us: 7,
            cut: true,
            ..Rule::default()
        };
        let after = Rule {
            loss_ppm: 5,
            cut: false,
            ..before
        };
        assert_eq!(wire.change(before), after);
    }
}
