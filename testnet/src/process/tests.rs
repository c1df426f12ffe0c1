use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn sh(&self, script: &str) -> Command {
        Command::new("sh", self.dir.path().join("sh.log"))
            .arg("-c")
            .arg(script)
            .directory(self.dir.path())
            .ready(Ready::Line("ready".to_owned()), PATIENCE)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("sh.log")).unwrap()
    }
}

/// Letter of the process's state, or `None` if there is no such process.
fn state(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1[..1].to_owned())
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let wait = async {
        while !reached() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect(what);
}

#[tokio::test]
async fn a_child_is_ready_when_it_says_so_and_not_before() {
    let bench = Bench::new();
    let script = "echo starting; echo to-errors >&2; echo it is ready on $PORT; exec sleep 60";
    let command = bench.sh(script).env("PORT", "7");
    let mut process = Process::start(command).await.unwrap();
    assert_eq!(process.ready_line(), "it is ready on 7");
    assert!(process.is_running().unwrap());
    until("both outputs in the log", || {
        ["starting", "to-errors", "it is ready on 7"]
            .iter()
            .all(|line| bench.log().contains(line))
    })
    .await;
}

#[tokio::test]
async fn a_json_object_is_a_sign_of_readiness_and_other_json_is_not() {
    let bench = Bench::new();
    let script = r#"echo 5; echo '{no'; echo '[{}]'; echo '{"port":7}'; exec sleep 60"#;
    let command = bench.sh(script).ready(Ready::Json, PATIENCE);
    let process = Process::start(command).await.unwrap();
    assert_eq!(process.ready_line(), r#"{"port":7}"#);
}

#[tokio::test]
async fn a_child_that_ends_before_it_is_ready_is_an_error_with_its_last_words() {
    let bench = Bench::new();
    let error = Process::start(bench.sh("echo no port left >&2; exit 3"))
        .await
        .unwrap_err();
    let Error::Ended {
        status, log_end, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(status.code(), Some(3));
    assert_eq!(log_end, "no port left");
}

#[tokio::test]
async fn a_child_that_is_never_ready_is_killed() {
    let bench = Bench::new();
    let command = bench
        .sh("echo $$ > pid; exec sleep 60")
        .ready(Ready::Json, Duration::from_millis(300));
    let error = Process::start(command).await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error}");
    if let Ok(pid) = std::fs::read_to_string(bench.dir.path().join("pid")) {
        let pid = pid.trim().parse().unwrap();
        until("the child is gone", || {
            state(pid).is_none_or(|state| state == "Z")
        })
        .await;
    }
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let bench = Bench::new();
    let command = Command::new("no-such-server", bench.dir.path().join("log"));
    let error = Process::start(command).await.unwrap_err();
    assert!(error.to_string().contains("no-such-server"), "{error}");
}

#[tokio::test]
async fn stop_lets_a_child_end_by_itself() {
    let bench = Bench::new();
    let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut process = Process::start(bench.sh(script)).await.unwrap();
    let stopped = process.stop(PATIENCE).await.unwrap();
    let Stopped::InTime(status) = stopped else {
        panic!("killed");
    };
    assert_eq!(status.code(), Some(7));
    assert!(!process.is_running().unwrap());
    assert!(matches!(process.pause(), Err(Error::NotRunning)));
}

#[tokio::test]
async fn stop_kills_a_child_that_does_not_listen() {
    let bench = Bench::new();
    let script = "trap '' TERM; echo ready; while :; do :; done";
    let mut process = Process::start(bench.sh(script)).await.unwrap();
    let stopped = process.stop(Duration::from_millis(50)).await.unwrap();
    assert_eq!(stopped, Stopped::Killed);
    assert!(!process.is_running().unwrap());
}

#[tokio::test]
async fn a_paused_child_stands_still_goes_on_and_can_be_stopped() {
    let bench = Bench::new();
    let mut process = Process::start(bench.sh("echo ready; exec sleep 60"))
        .await
        .unwrap();
    let pid = process.pid().unwrap();
    process.pause().unwrap();
    until("stopped", || state(pid).as_deref() == Some("T")).await;
    process.resume().unwrap();
    until("going on", || state(pid).as_deref() != Some("T")).await;
    process.pause().unwrap();
    let stopped = process.stop(PATIENCE).await.unwrap();
    assert!(matches!(stopped, Stopped::InTime(_)));
}

#[tokio::test]
async fn a_killed_child_starts_again_with_the_same_arguments() {
    let bench = Bench::new();
    let script = "echo run >> runs; echo ready $1 $(wc -l < runs); exec sleep 60";
    let command = bench.sh(script).args(["sh", "argument"]);
    let mut process = Process::start(command).await.unwrap();
    assert_eq!(process.ready_line(), "ready argument 1");
    assert!(matches!(process.restart().await, Err(Error::StillRunning)));
    let first = process.pid().unwrap();
    process.kill().await.unwrap();
    assert_eq!(state(first), None);
    process.restart().await.unwrap();
    assert_eq!(process.ready_line(), "ready argument 2");
    assert_ne!(process.pid(), Some(first));
}

#[tokio::test]
async fn a_dropped_child_is_killed() {
    let bench = Bench::new();
    let process = Process::start(bench.sh("echo ready; exec sleep 60"))
        .await
        .unwrap();
    let pid = process.pid().unwrap();
    drop(process);
    until("the child is gone", || {
        state(pid).is_none_or(|state| state == "Z")
    })
    .await;
}

#[tokio::test]
async fn a_child_that_talks_a_lot_is_never_held_up() {
    let bench = Bench::new();
    // Far more than a pipe holds, and a line longer than the limit.
    let script = "echo ready; head -c 300000 /dev/zero; echo; head -c 300000 /dev/zero >&2; exit 0";
    let mut process = Process::start(bench.sh(script)).await.unwrap();
    let status = timeout(PATIENCE, process.wait()).await.unwrap().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn usage_counts_work_and_memory() {
    let bench = Bench::new();
    // It stops itself: no child of its own is left when it is killed.
    let script = "x=$(head -c 4000000 /dev/zero | tr '\\0' x); \
                  i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo ready; kill -STOP $$";
    let mut process = Process::start(bench.sh(script)).await.unwrap();
    let usage = process.usage().unwrap();
    assert!(usage.cpu_s > 0.0 && usage.cpu_s < 60.0, "{usage:?}");
    assert!(usage.rss_bytes > 2_000_000, "{usage:?}");
    process.kill().await.unwrap();
    assert!(matches!(process.usage(), Err(Error::NotRunning)));
}
