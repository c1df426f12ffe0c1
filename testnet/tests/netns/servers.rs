//! Whole servers in namespaces, and the command that runs them.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use comity_sdk::{Event, Events, Transport};
use comity_testnet::{
    bench::load::{self, Clients, Homes, Load, Until},
    netns::{rule::Rule, site::Site},
    network::{Network, Options},
};

use super::place::{PATIENCE, PROGRAM, SEED, SILENCE, among, available, names_with};

/// The texts of messages until there are so many, or the time is up.
async fn texts(events: &mut Events, count: usize, within: Duration) -> Vec<String> {
    let mut texts = Vec::new();
    let all = async {
        while texts.len() < count {
            match events.next().await {
                Some(Event::Message(message)) => texts.push(message.text().to_owned()),
                Some(_) => {}
                None => return,
            }
        }
    };
    // Who asks looks at how many there are.
    let _ = tokio::time::timeout(within, all).await;
    texts
}

#[test]
fn servers_deliver_over_rough_ways_and_a_mended_cut_leaves_no_hole() {
    let behind = Site {
        nat: true,
        ..Site::open("ap")
    };
    let sites = [Site::open("eu"), Site::open("us"), behind];
    among(&sites, async |spaces| {
        let directory = tempfile::tempdir().unwrap();
        let rough = Rule {
            delay_us: 50_000,
            loss_ppm: 10_000,
            ..Rule::default()
        };
        let regions = ["eu", "us", "ap"];
        let mut options = Options::new(directory.path(), &regions);
        for from in regions {
            for to in regions.into_iter().filter(|to| *to != from) {
                options.rules.push((from.into(), to.into(), rough));
            }
        }
        options.seed = SEED;
        options.spaces = Some(spaces);
        options.program = Some(PROGRAM.into());
        let mut network = Network::start(&options).await.unwrap();
        network.linked(PATIENCE).await.unwrap();
        let clients = Clients::single(Transport::Auto);

        // From one behind NAT, whom nobody can dial, and between two that can.
        let load = Load {
            body_bytes: 200,
            outstanding: 8,
            every: None,
            until: Until::Count(200),
        };
        let mut kept = None;
        for (from, to) in [(2, 0), (0, 1)] {
            let homes = Homes { from, to };
            let pairs = load::pairs(&network, 1, homes, &clients).await.unwrap();
            let (outcome, mut pairs) = load::run(pairs, &load, &Arc::default()).await.unwrap();
            assert!(outcome.counts().whole(), "{:?}", outcome.counts());
            let fastest = outcome.received.took.iter().min().copied();
            assert!(fastest >= Some(Duration::from_millis(50)), "{fastest:?}");
            kept = pairs.pop();
        }
        let control = network.wires().unwrap().control().clone();
        let traffic = control.traffic().await.unwrap();
        for (from, to) in [("eu", "us"), ("ap", "eu")] {
            let packets = traffic.of(from, to);
            // Which packets are lost follows from the seed alone: one of the first hundred here.
            assert!(packets.forwarded > 100 && packets.lost > 0, "{traffic:?}");
        }

        let mut pair = kept.unwrap();
        control.cut("eu", "us", true).await.unwrap();
        let conversation = pair.from.client.conversation(pair.conversation);
        let mut sent = Vec::new();
        for number in 0..20 {
            let text = format!("while cut: {number}");
            let outgoing = conversation.send(text.clone()).await.unwrap();
            outgoing.accepted().await.unwrap();
            sent.push(text);
        }
        let early = texts(&mut pair.events, 1, SILENCE * 4).await;
        assert_eq!(early, Vec::<String>::new());
        assert!(control.traffic().await.unwrap().of("eu", "us").cut > 0);
        control.cut("eu", "us", false).await.unwrap();
        let mended = Instant::now();
        let whole = texts(&mut pair.events, sent.len(), PATIENCE).await;
        println!("whole {:?} after the cut was mended", mended.elapsed());
        assert_eq!(whole, sent);
        network.settled(PATIENCE).await.unwrap();
        let more = texts(&mut pair.events, 1, SILENCE).await;
        assert_eq!(more, Vec::<String>::new(), "no copies");
        network.stop().await.unwrap();
    });
}

#[test]
fn up_says_where_its_hosts_are_and_leaves_none() {
    if !available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // What a killed run has left: its process is gone.
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let stale = format!("comity-{}-0-eu", gone.id());
    let added = Command::new("ip").args(["netns", "add", &stale]).status();
    assert!(added.unwrap().success());

    let child = Command::new(PROGRAM)
        .args([
            "up",
            "--netns",
            "--json",
            "--servers",
            "2",
            "--seconds",
            "1",
        ])
        .args([
            "--latency",
            "eu-us=20ms",
            "--loss",
            "eu-us=0.5%",
            "--nat",
            "us",
        ])
        .arg("--dir")
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let prefix = format!("comity-{}-", child.id());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let line = String::from_utf8(output.stdout).unwrap();
    let ready: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(ready["servers"].as_array().unwrap().len(), 2);
    let namespace = ready["servers"][0]["namespace"].as_str().unwrap();
    assert!(namespace.starts_with(&prefix) && namespace.ends_with("-eu"));
    let sign_in = ready["users"][0]["line"].as_str().unwrap();
    assert!(sign_in.starts_with("ip netns exec comity-"), "{sign_in}");
    assert_eq!(names_with(&prefix), Vec::<String>::new());
    assert_eq!(names_with(&stale), Vec::<String>::new());
}
