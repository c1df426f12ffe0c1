use super::*;

/// Longest that a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(10);

async fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 2_048];
    let (len, from) = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer))
        .await
        .expect("a datagram in time")
        .unwrap();
    buffer.truncate(len);
    (buffer, from)
}

/// Waits until the counters satisfy `wanted`.
async fn until(proxy: &Proxy, wanted: impl Fn(&Counters) -> bool) -> Counters {
    let reached = async {
        loop {
            let counters = proxy.counters();
            if wanted(&counters) {
                return counters;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .unwrap_or_else(|_| panic!("counters stay at {:?}", proxy.counters()))
}

async fn pair() -> (UdpSocket, UdpSocket, Proxy) {
    let (client, server) = (socket().await, socket().await);
    let proxy = Proxy::start(server.local_addr().unwrap(), 1).await.unwrap();
    (client, server, proxy)
}

#[tokio::test]
async fn datagrams_go_there_and_answers_come_back_from_the_proxy() {
    let (client, server, proxy) = pair().await;
    client.send_to(b"ping", proxy.address()).await.unwrap();
    let (ping, via) = receive(&server).await;
    assert_eq!(ping, b"ping");
    assert_ne!(via, client.local_addr().unwrap());
    server.send_to(b"pong", via).await.unwrap();
    assert_eq!(receive(&client).await, (b"pong".to_vec(), proxy.address()));
    let counters = until(&proxy, |counters| counters.returned == 1).await;
    assert_eq!((counters.forwarded, counters.bytes), (1, 8));
}

#[tokio::test]
async fn each_source_gets_its_own_answers() {
    let (one, server, proxy) = pair().await;
    let two = socket().await;
    one.send_to(b"1", proxy.address()).await.unwrap();
    let (_, via_one) = receive(&server).await;
    two.send_to(b"2", proxy.address()).await.unwrap();
    let (_, via_two) = receive(&server).await;
    assert_ne!(via_one, via_two);
    server.send_to(b"to two", via_two).await.unwrap();
    server.send_to(b"to one", via_one).await.unwrap();
    assert_eq!(receive(&one).await.0, b"to one");
    assert_eq!(receive(&two).await.0, b"to two");
}

#[tokio::test]
async fn a_cut_cable_drops_both_ways_and_a_mended_one_carries_again() {
    let (client, server, proxy) = pair().await;
    client.send_to(b"before", proxy.address()).await.unwrap();
    let (_, via) = receive(&server).await;
    proxy.cut(true);
    client.send_to(b"there", proxy.address()).await.unwrap();
    server.send_to(b"back", via).await.unwrap();
    until(&proxy, |counters| counters.cut == 2).await;
    proxy.cut(false);
    client.send_to(b"after", proxy.address()).await.unwrap();
    assert_eq!(receive(&server).await.0, b"after");
    server.send_to(b"answer", via).await.unwrap();
    assert_eq!(receive(&client).await.0, b"answer");
}

#[tokio::test]
async fn what_is_under_way_when_the_cable_is_cut_never_arrives() {
    let (client, server, proxy) = pair().await;
    proxy.delay(Duration::from_millis(500));
    client.send_to(b"late", proxy.address()).await.unwrap();
    let mut sources = proxy.sources();
    sources.wait_for(|sources| *sources == 1).await.unwrap();
    proxy.cut(true);
    until(&proxy, |counters| counters.cut == 1).await;
    proxy.delay(Duration::ZERO);
    proxy.cut(false);
    client.send_to(b"next", proxy.address()).await.unwrap();
    assert_eq!(receive(&server).await.0, b"next");
}

#[tokio::test]
async fn a_delay_holds_each_way_and_keeps_the_order() {
    let (client, server, proxy) = pair().await;
    let delay = Duration::from_millis(40);
    proxy.delay(delay);
    let start = Instant::now();
    for number in 0..50_u8 {
        client.send_to(&[number], proxy.address()).await.unwrap();
    }
    let mut via = None;
    for number in 0..50_u8 {
        let (datagram, from) = receive(&server).await;
        assert_eq!(datagram, [number]);
        via = Some(from);
    }
    assert!(start.elapsed() >= delay);
    server.send_to(b"back", via.unwrap()).await.unwrap();
    receive(&client).await;
    assert!(start.elapsed() >= delay * 2);
}

#[tokio::test]
async fn loss_follows_the_seed_and_the_rate() {
    let mut lost = Vec::new();
    for seed in [7, 7, 8] {
        let shared = Shared {
            random: AtomicU64::new(seed),
            loss: AtomicU64::new(1 << 30),
            ..Shared::default()
        };
        lost.push((0..4_000).map(|_| shared.loses()).collect::<Vec<_>>());
    }
    assert_eq!(lost[0], lost[1]);
    assert_ne!(lost[0], lost[2]);
    let share = lost[0].iter().filter(|lost| **lost).count();
    assert!(
        (900..1_100).contains(&share),
        "{share} of 4000 at a rate of 1/4"
    );
}

#[tokio::test]
async fn a_cable_that_loses_all_carries_nothing_and_says_so() {
    let (client, server, proxy) = pair().await;
    proxy.loss(1.0);
    for _ in 0..20 {
        client.send_to(b"x", proxy.address()).await.unwrap();
    }
    let counters = until(&proxy, |counters| counters.lost == 20).await;
    assert_eq!(counters.forwarded, 0);
    proxy.loss(0.0);
    client.send_to(b"y", proxy.address()).await.unwrap();
    assert_eq!(receive(&server).await.0, b"y");
}

#[tokio::test]
async fn a_silent_source_is_forgotten_and_can_come_back() {
    let (client, server) = (socket().await, socket().await);
    let idle = Duration::from_millis(20);
    let proxy = Proxy::start_with_idle(server.local_addr().unwrap(), 1, idle)
        .await
        .unwrap();
    let mut sources = proxy.sources();
    client.send_to(b"x", proxy.address()).await.unwrap();
    receive(&server).await;
    let gone = sources.wait_for(|sources| *sources == 0);
    drop(tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap());
    client.send_to(b"y", proxy.address()).await.unwrap();
    assert_eq!(receive(&server).await.0, b"y");
}

#[tokio::test]
async fn sources_are_bounded_and_the_newest_is_served() {
    let (_, server, proxy) = pair().await;
    let mut clients = Vec::new();
    for _ in 0..SOURCES_MAX + 3 {
        let client = socket().await;
        client.send_to(b"x", proxy.address()).await.unwrap();
        receive(&server).await;
        clients.push(client);
    }
    assert_eq!(*proxy.sources().borrow(), SOURCES_MAX);
}

#[tokio::test]
async fn too_much_under_way_is_dropped_and_counted() {
    let (_, server, proxy) = pair().await;
    let mut tasks = JoinSet::new();
    proxy.delay(Duration::from_secs(3_600));
    let upstream = socket().await;
    upstream
        .connect(server.local_addr().unwrap())
        .await
        .unwrap();
    let lane = lane::there(proxy.shared.clone(), Arc::new(upstream), &mut tasks);
    let large = vec![0; 60_000];
    let fit = LANE_BYTES_MAX / large.len();
    for _ in 0..fit + 5 {
        lane.push(&large);
    }
    assert_eq!(proxy.counters().overflowed, 5);
}

#[tokio::test]
async fn a_dead_target_does_not_end_the_proxy_and_a_new_one_is_served() {
    let (client, server, proxy) = pair().await;
    drop(server);
    // The system reports a closed port only with a later call.
    let refused = async {
        while proxy.counters().refused == 0 {
            client.send_to(b"x", proxy.address()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    let next = socket().await;
    proxy.retarget(next.local_addr().unwrap());
    let mut buffer = [0; 8];
    let arrived = async {
        loop {
            client.send_to(b"y", proxy.address()).await.unwrap();
            tokio::task::yield_now().await;
            if let Ok((len, _)) = next.try_recv_from(&mut buffer) {
                // Datagrams of before may still come; they are the old ones.
                if &buffer[..len] == b"y" {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.unwrap();
}

#[tokio::test]
async fn a_dropped_proxy_frees_its_port() {
    let (_, _, proxy) = pair().await;
    let address = proxy.address();
    drop(proxy);
    let free = async {
        while UdpSocket::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
}
