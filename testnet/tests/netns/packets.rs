//! What becomes of packets between hosts, seen by plain sockets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use comity_testnet::netns::{
    rule::Rule,
    site::{self, Site, Udp},
    spaces::Spaces,
    wires::Wires,
};

use super::place::{PROGRAM, SEED, SILENCE, among, at};

async fn wires(spaces: &Arc<Spaces>, directory: &Path) -> Wires {
    let wires = Wires::start(spaces.clone(), Path::new(PROGRAM), directory, SEED).await;
    wires.unwrap()
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, Duration::from_secs(10))
}

fn listen(address: impl Into<IpAddr>) -> TcpListener {
    TcpListener::bind((address.into(), 0)).unwrap()
}

fn datagrams(address: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> io::Result<usize> {
    socket.recv(&mut [0; 16])
}

#[test]
fn packets_take_their_delay_each_way_and_a_cut_is_one_way() {
    among(&[Site::open("eu"), Site::open("us")], async |spaces| {
        let directory = tempfile::tempdir().unwrap();
        let wires = wires(&spaces, directory.path()).await;
        let control = wires.control();
        let delayed = Rule {
            delay_us: 50_000,
            ..Rule::default()
        };
        control.set("eu", "us", delayed).await.unwrap();
        control.set("us", "eu", delayed).await.unwrap();
        for address in [IpAddr::from(site::outside(1)), site::outside6(1).into()] {
            let listener = at(&spaces, "us", || listen(address));
            let there = listener.local_addr().unwrap();
            let start = Instant::now();
            let stream = at(&spaces, "eu", || connect(there));
            stream.unwrap();
            let took = start.elapsed();
            // One way there, one back; what is above is this machine's.
            assert!(took >= Duration::from_millis(100), "{address}: {took:?}");
        }
        let eu = at(&spaces, "eu", || datagrams(site::outside(0)));
        let us = at(&spaces, "us", || datagrams(site::outside(1)));
        control.cut("eu", "us", true).await.unwrap();
        eu.send_to(b"hello", us.local_addr().unwrap()).unwrap();
        us.send_to(b"hello", eu.local_addr().unwrap()).unwrap();
        assert_eq!(received(&eu).unwrap(), 5);
        let silent = received(&us).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
        let traffic = control.traffic().await.unwrap();
        assert!(traffic.of("eu", "us").cut >= 1, "{traffic:?}");
        assert_eq!(traffic.of("us", "eu").cut, 0);
        control.cut("eu", "us", false).await.unwrap();
        eu.send_to(b"again", us.local_addr().unwrap()).unwrap();
        assert_eq!(received(&us).unwrap(), 5);
        let refused = control.set("eu", "xx", delayed).await.unwrap_err();
        assert!(refused.to_string().contains("no host xx"), "{refused}");
    });
}

#[test]
fn a_host_behind_nat_reaches_out_and_nobody_reaches_in() {
    let behind = Site {
        nat: true,
        ..Site::open("us")
    };
    among(&[Site::open("eu"), behind], async |spaces| {
        let directory = tempfile::tempdir().unwrap();
        let wires = wires(&spaces, directory.path()).await;
        let listener = at(&spaces, "eu", || listen(site::outside(0)));
        let there = listener.local_addr().unwrap();
        let _out = at(&spaces, "us", || connect(there)).unwrap();
        let (_in, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), site::outside(1), "others see the gate");

        let inner = at(&spaces, "us", || listen(Ipv4Addr::UNSPECIFIED));
        let gate = (site::outside(1), inner.local_addr().unwrap().port()).into();
        let refused = at(&spaces, "eu", || connect(gate)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        // Over UDP too: answers come in, and nobody else's.
        let (eu, other) = at(&spaces, "eu", || {
            (datagrams(site::outside(0)), datagrams(site::outside(0)))
        });
        let us = at(&spaces, "us", || datagrams(site::behind(1)));
        us.send_to(b"hello", eu.local_addr().unwrap()).unwrap();
        let (_, mapped) = eu.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(mapped.ip(), site::outside(1));
        other.send_to(b"stranger", mapped).unwrap();
        eu.send_to(b"answer", mapped).unwrap();
        assert_eq!(received(&us).unwrap(), b"answer".len());
        assert!(received(&us).is_err());
        // What was to be masked was: the router has seen no inner address.
        let inner = IpAddr::from(site::behind(1));
        assert_ne!(mapped.ip(), inner);
        let traffic = wires.control().traffic().await.unwrap();
        assert!(traffic.of("eu", "us").forwarded > 0);
    });
}

#[test]
fn where_udp_is_blocked_tcp_still_works() {
    let site = |name, udp| Site {
        udp,
        ..Site::open(name)
    };
    let sites = [
        Site::open("eu"),
        Site::open("us"),
        site("ap", Udp::Refused),
        site("sa", Udp::Dropped),
    ];
    among(&sites, async |spaces| {
        let directory = tempfile::tempdir().unwrap();
        let wires = wires(&spaces, directory.path()).await;
        let eu = at(&spaces, "eu", || datagrams(site::outside(0)));
        let there = eu.local_addr().unwrap();
        let send = |name: &str, number: usize| {
            let socket = at(&spaces, name, || datagrams(site::outside(number)));
            socket.connect(there).unwrap();
            socket.send(b"hello").unwrap();
            socket
        };
        let open = send("us", 1);
        assert_eq!(received(&eu).unwrap(), 5);
        drop(open);
        let refused = received(&send("ap", 2)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let dropped = received(&send("sa", 3)).unwrap_err();
        assert_eq!(dropped.kind(), io::ErrorKind::WouldBlock);
        assert!(received(&eu).is_err(), "nothing of these came through");
        // Nor does what comes to them.
        let listener = at(&spaces, "ap", || datagrams(site::outside(2)));
        eu.connect(listener.local_addr().unwrap()).unwrap();
        eu.send(b"hello").unwrap();
        assert_eq!(
            received(&eu).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert!(received(&listener).is_err());

        for (name, number) in [("ap", 2), ("sa", 3)] {
            let listener = at(&spaces, "eu", || listen(site::outside(0)));
            let there = listener.local_addr().unwrap();
            at(&spaces, name, || connect(there)).unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), site::outside(number));
            // And the other way: a firewall is no NAT.
            let listener = at(&spaces, name, || listen(site::outside(number)));
            let there = listener.local_addr().unwrap();
            at(&spaces, "eu", || connect(there)).unwrap();
        }
        let traffic = wires.control().traffic().await.unwrap();
        assert_eq!(traffic.of("sa", "eu").lost, 0);
    });
}
