//! Namespaces for a test.

use std::{process::Command, sync::Arc, thread, time::Duration};

use comity_testnet::netns::{probe, site::Site, spaces::Spaces};

pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_comity-testnet");
pub(super) const SEED: u64 = 11;
/// Time for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Time in which what must not happen would have happened many times over.
pub(super) const SILENCE: Duration = Duration::from_millis(500);

/// Whether this machine can run these tests. In CI they may not be left out.
pub(super) fn available() -> bool {
    let Err(why) = probe::available() else {
        return true;
    };
    println!("netns unavailable: {why}");
    assert!(std::env::var_os("CI").is_none(), "CI must run this: {why}");
    false
}

/// Runs a test among the users of these sites. Nothing is left when it ends.
pub(super) fn among<T: Future>(sites: &[Site], test: impl FnOnce(Arc<Spaces>) -> T + Send) {
    if !available() {
        return;
    }
    let spaces = Arc::new(Spaces::create(sites).unwrap());
    // A thread that has entered a namespace stays there, so it is none that others use again.
    thread::scope(|scope| {
        scope.spawn(|| {
            spaces.enter_people().unwrap();
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(test(spaces.clone()));
        });
    });
    let prefix = spaces.name("");
    drop(spaces);
    assert_eq!(names_with(&prefix), Vec::<String>::new());
}

/// Does something inside a site. A socket that is made there stays there.
pub(super) fn at<T: Send>(spaces: &Spaces, site: &str, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            spaces.enter(site).unwrap();
            act()
        });
        inside.join().unwrap()
    })
}

pub(super) fn names_with(prefix: &str) -> Vec<String> {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter(|name| name.starts_with(prefix));
    names.map(str::to_owned).collect()
}
