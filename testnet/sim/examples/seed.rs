//! Plays seeds one after the other: `seed FROM TO SERVERS USERS HOURS [PLANTED]`.
use comity_sim::{Options, Planted, run};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let n = |i: usize| args[i].parse::<u64>().unwrap();
    for seed in n(0)..=n(1) {
        let mut o = Options::new(seed, n(2) as usize, n(3) as usize, n(4));
        if let Some(p) = args.get(5) {
            o.planted = Planted::ALL.iter().copied().find(|x| x.name() == p);
            assert!(o.planted.is_some());
        }
        if let Some(s) = args.get(6) {
            o.steps = Some(s.parse().unwrap());
        }
        let t = std::time::Instant::now();
        let r = run(&o);
        let events: u64 = r.events.values().sum();
        let faults: u64 = r.faults.values().sum();
        println!(
            "seed {seed} {:?} events {events} conv {} faults {faults} steps {} at {}s handled {} in {:.1}s",
            r.violation,
            r.conversations,
            r.steps,
            r.virtual_ms / 1000,
            r.handled,
            t.elapsed().as_secs_f32()
        );
        if std::env::var("V").is_ok() {
            println!("{:?}\n{:?}", r.events, r.faults);
        }
    }
}
