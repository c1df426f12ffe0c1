//! A server in a process of its own, which can be killed and stopped like any.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use comity_links::{LinkEvent, PeerKey, Reach, StaticPeer};

use crate::support::{Server, peer, seed};

/// Sends every frame back where it came from.
pub(crate) struct Process {
    child: Child,
    pub(crate) key: PeerKey,
    address: String,
}

impl Process {
    /// Starts the server of seed `n`, on a given address after a restart.
    pub(crate) fn start(n: u8, listen: Option<&str>, knows: &StaticPeer) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "process::server_process",
                "--ignored",
                "--nocapture",
            ])
            .env("LINKS_SEED", n.to_string())
            .env(
                "LINKS_LISTEN",
                listen.unwrap_or("/ip4/127.0.0.1/udp/0/quic-v1"),
            )
            .env("LINKS_PEER_KEY", hex(knows.key))
            .env("LINKS_PEER_ADDRESSES", knows.addresses.join(","))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let address = output
            .lines()
            .map(Result::unwrap)
            .find_map(|line| {
                line.split_once("listening ")
                    .map(|(_, rest)| rest.to_owned())
            })
            .expect("the process says where it listens");
        Self {
            child,
            key: PeerKey::of_seed(seed(n)),
            address,
        }
    }

    pub(crate) fn as_peer(&self) -> StaticPeer {
        StaticPeer {
            key: self.key,
            addresses: vec![self.address.clone()],
            reach: Reach::anywhere(),
        }
    }

    /// With SIGKILL; returns the address it had.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address.clone()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hex(key: PeerKey) -> String {
    key.to_string()
}

fn key_of_hex(text: &str) -> PeerKey {
    let byte = |at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    PeerKey(std::array::from_fn(byte))
}

#[test]
#[ignore = "the process that other tests start"]
fn server_process() {
    let Ok(n) = env::var("LINKS_SEED") else {
        return;
    };
    let addresses = env::var("LINKS_PEER_ADDRESSES").unwrap();
    let addresses = addresses
        .split(',')
        .filter(|part| !part.is_empty())
        .map(str::to_owned);
    let knows = StaticPeer {
        addresses: addresses.collect(),
        ..peer(0, &[])
    };
    let knows = StaticPeer {
        key: key_of_hex(&env::var("LINKS_PEER_KEY").unwrap()),
        ..knows
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listen = env::var("LINKS_LISTEN").unwrap();
        let mut server = Server::start_on(n.parse().unwrap(), &listen, vec![knows]).await;
        println!("listening {}", server.addresses()[0]);
        std::io::stdout().flush().unwrap();
        while let Some(event) = server.events.recv().await {
            if let LinkEvent::Frame {
                peer,
                link,
                channel,
                bytes,
            } = event
            {
                let _ = server.links.try_send(peer, link, channel, bytes);
            }
        }
    });
}
