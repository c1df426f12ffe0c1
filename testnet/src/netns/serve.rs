//! The router's process: devices, the clock, and its socket around [`Router`].

use std::{
    fs, io,
    net::IpAddr,
    os::unix::{fs::PermissionsExt as _, process::parent_id},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, timeout},
};

use super::{
    control::{PATIENCE, Reply, Request, Traffic},
    router::{Host, Router},
    tun::Tun,
};

/// Packets read and not yet decided about; then the kernel queues, and drops what is too much.
const READ_MAX: usize = 1_024;
/// Requests read and not yet answered.
const REQUESTS_MAX: usize = 16;
/// Bytes of a request.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time between two looks at whether the process is still wanted.
const ORPHAN_LOOK: Duration = Duration::from_secs(1);

/// A router between the hosts of a network.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where it listens for rules.
    #[arg(long)]
    socket: PathBuf,
    /// Decides what is drawn.
    #[arg(long)]
    seed: u64,
    /// Ends when this is not its parent any more.
    #[arg(long)]
    parent: u32,
    /// A host: name, device and addresses, as in eu=wan0=10.77.1.1,fd77:1::1.
    #[arg(long = "host", value_parser = host, required = true)]
    hosts: Vec<Plug>,
}

/// A host and its device.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Plug {
    host: Host,
    device: String,
}

fn host(text: &str) -> Result<Plug, String> {
    let wrong = || format!("{text}: a host is written name=device=address,address");
    let mut parts = text.splitn(3, '=');
    let mut part = || {
        parts
            .next()
            .filter(|part| !part.is_empty())
            .ok_or_else(wrong)
    };
    let (name, device) = (part()?.to_owned(), part()?.to_owned());
    let addresses = part()?.split(',').map(|address| {
        let address: Result<IpAddr, _> = address.parse();
        address.map_err(|error| format!("{text}: {error}"))
    });
    let addresses = addresses.collect::<Result<_, _>>()?;
    let host = Host { name, addresses };
    Ok(Plug { host, device })
}

/// A request and the way back.
type Asked = (Request, oneshot::Sender<Reply>);

/// Runs until SIGTERM, or until its parent is gone. Says that it is ready once all devices are
/// there and the socket listens.
///
/// # Errors
///
/// What the system says to the devices or the socket.
pub fn run(args: &Serve) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &Serve) -> anyhow::Result<()> {
    let hosts = args.hosts.iter().map(|plug| plug.host.clone()).collect();
    let router = Router::new(hosts, args.seed)?;
    let mut devices = Vec::new();
    for plug in &args.hosts {
        let device = Tun::open(&plug.device);
        devices.push(Arc::new(
            device.with_context(|| format!("making the device {}", plug.device))?,
        ));
    }
    let requests =
        listen(&args.socket).with_context(|| format!("listening at {}", args.socket.display()))?;
    let mut term = signal(SignalKind::terminate())?;
    // Ctrl-C reaches the whole group: the servers say goodbye to each other through this process,
    // which ends when its parent says so.
    let _ignored = signal(SignalKind::interrupt())?;
    println!(
        "{}",
        serde_json::json!({ "state": "ready", "hosts": router.hosts() })
    );
    let mut look = tokio::time::interval(ORPHAN_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let orphaned = async {
        while parent_id() == args.parent {
            look.tick().await;
        }
    };
    tokio::select! {
        _ = term.recv() => Ok(()),
        () = orphaned => Ok(()),
        done = forward(router, &devices, requests) => done,
    }
}

/// Reads, decides and writes, until a device is gone.
async fn forward(
    mut router: Router,
    devices: &[Arc<Tun>],
    mut requests: mpsc::Receiver<Asked>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let now_us = || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let (read, mut packets) = mpsc::channel(READ_MAX);
    for (index, device) in devices.iter().enumerate() {
        let (device, read) = (device.clone(), read.clone());
        // A thread each: a file of packets is read by waiting, and the runtime's way of watching
        // files is unsafe. They end with the process.
        thread::spawn(move || receive(index, &device, &read));
    }
    loop {
        let next_us = router.next_us();
        let due = async {
            match next_us {
                Some(us) => tokio::time::sleep_until(started + Duration::from_micros(us)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((from, packet)) = packets.recv() => {
                let packet: io::Result<Vec<u8>> = packet;
                router.take(now_us(), from, packet.context("reading a device")?);
            }
            Some((request, reply)) = requests.recv() => {
                // Who asked may have left.
                let _ = reply.send(answer(&mut router, request));
            }
            () = due => {}
        }
        while let Some(delivery) = router.arrived(now_us()) {
            if devices[delivery.to].send(&delivery.bytes).is_err() {
                router.refused(&delivery);
            }
        }
    }
}

fn receive(index: usize, device: &Tun, read: &mpsc::Sender<(usize, io::Result<Vec<u8>>)>) {
    loop {
        let packet = device.receive();
        let gone = packet.is_err();
        if read.blocking_send((index, packet)).is_err() || gone {
            return;
        }
    }
}

fn answer(router: &mut Router, request: Request) -> Reply {
    let done = match request {
        Request::Set { from, to, rule } => router.set(&from, &to, rule).map(|()| Reply::Rule(rule)),
        Request::Rule { from, to } => router.rule(&from, &to).map(Reply::Rule),
        Request::Counters => {
            let mut traffic = Traffic {
                unroutable: router.unroutable(),
                ..Traffic::default()
            };
            for (from, to, counters) in router.counters() {
                traffic.pairs.entry(from).or_default().insert(to, counters);
            }
            Ok(Reply::Counters(traffic))
        }
    };
    done.unwrap_or_else(|error| Reply::Refused(error.to_string()))
}

fn listen(socket: &Path) -> io::Result<mpsc::Receiver<Asked>> {
    // A socket of a run that was killed refuses everybody, and the directory is this run's.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    let (ask, asked) = mpsc::channel(REQUESTS_MAX);
    tokio::spawn(async move {
        // The testnet, and now and then a person: one at a time.
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Who says nothing must not keep others waiting; who is refused sees the end of the
            // stream.
            let _ = timeout(PATIENCE / 2, talk(stream, &ask)).await;
        }
    });
    Ok(asked)
}

async fn talk(stream: UnixStream, ask: &mpsc::Sender<Asked>) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(REQUEST_BYTES_MAX));
    reader.read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, replied) = oneshot::channel();
            ask.send((request, reply)).await?;
            replied.await?
        }
        Err(error) => Reply::Refused(format!("no request: {error}")),
    };
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    Ok(write.write_all(text.as_bytes()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::{router::Counters, rule::Rule};

    #[test]
    fn a_host_is_a_name_a_device_and_addresses() {
        let plug = host("eu=wan0=10.77.1.1,fd77:1::1").unwrap();
        assert_eq!(
            (plug.host.name.as_str(), plug.device.as_str()),
            ("eu", "wan0")
        );
        assert_eq!(plug.host.addresses.len(), 2);
        for wrong in [
            "eu",
            "eu=wan0",
            "eu=wan0=",
            "=wan0=10.77.1.1",
            "eu=wan0=here",
        ] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_router_answers_what_holds_and_refuses_with_a_reason() {
        let hosts = ["eu=wan0=10.77.1.1", "us=wan1=10.77.2.1"];
        let hosts = hosts.map(|text| host(text).unwrap().host).to_vec();
        let mut router = Router::new(hosts, 1).unwrap();
        let rule = Rule {
            cut: true,
            ..Rule::default()
        };
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        let (from, to) = pair("eu", "us");
        let set = Request::Set { from, to, rule };
        assert_eq!(answer(&mut router, set), Reply::Rule(rule));
        let (from, to) = pair("eu", "xx");
        let refused = answer(&mut router, Request::Rule { from, to });
        assert_eq!(refused, Reply::Refused("there is no host xx".into()));
        let Reply::Counters(traffic) = answer(&mut router, Request::Counters) else {
            panic!("no counters");
        };
        assert_eq!(traffic.pairs["eu"].len(), 1);
        assert_eq!(traffic.of("us", "eu"), Counters::default());
    }
}
