//! Cost of a commit in a long history: taking it into the graph and judging its message.

use comity_protocol::{
    authority::Authority,
    commit::{AuthorityChange, Commit, RawCommit, RootRef, SignedCommit, UnverifiedCommit},
    event::{Act, ContentRef, Event, Grant, Target},
    history::{Graph, Inserted},
    ids::{Blob, CommitId, ContentHash, EventId, Nonce, PublicKey, ServerId, Signature, UserId},
    role::Role,
    root::{Genesis, Root},
    signing::SecretKey,
    time::{Hlc, Timestamp},
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Homes that take part, each with one member.
const HOMES: u8 = 8;

type Made = (SignedCommit, EventId, Event);

fn user(n: u8) -> UserId {
    UserId::from_bytes([n; 32])
}

fn home(n: u8) -> ServerId {
    ServerId::from_bytes([n; 32])
}

fn genesis() -> Genesis {
    let root = Root {
        v: 1,
        n: 0,
        prev: None,
        owner: user(0),
        home: home(0),
        stewards: vec![home(0)],
        frontier: vec![],
        digest: None,
        nonce: Nonce::from_bytes([3; 16]),
        created_at: Timestamp(1),
    };
    Genesis::sign(root, &SecretKey::from_seed([1; 32]))
}

/// `count` commits of one message each by turns of the homes, after one grant to each member; the
/// homes name each other's newest commit as parent.
fn history(genesis: &Genesis, count: usize) -> Vec<Made> {
    let mut made: Vec<Made> = Vec::new();
    let mut last: Vec<Option<usize>> = vec![None; usize::from(HOMES)];
    for i in 0..count + usize::from(HOMES) - 1 {
        let n = u8::try_from(i).unwrap_or(u8::MAX);
        let granting = n < HOMES - 1;
        let of = if granting {
            0
        } else {
            u8::try_from(i % usize::from(HOMES)).expect("fewer homes")
        };
        let act = if granting {
            Act::Grant(Grant {
                target: Target::User {
                    user: user(n + 1),
                    home: home(n + 1),
                },
                role: Role::Member,
                cut: vec![],
                ban: false,
                lifts: vec![],
            })
        } else {
            Act::Message {
                content: ContentRef {
                    hash: ContentHash::from_bytes([5; 32]),
                    len: 20,
                },
            }
        };
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&i.to_be_bytes());
        let event = Event {
            conversation: genesis.conversation(),
            author: user(of),
            device: PublicKey::from_bytes([0; 32]),
            nonce: Nonce::from_bytes(nonce),
            claims: if granting {
                Role::Moderator
            } else {
                Role::Member
            },
            act,
            sent_at: Timestamp(0),
        };
        let id = EventId::from_bytes(*blake3::hash(&event.to_bytes()).as_bytes());
        let prev = last[usize::from(of)].map(|p| &made[p].0);
        let parents: Vec<CommitId> = made
            .last()
            .filter(|_| !granting)
            .map(|m| m.0.id())
            .into_iter()
            .collect();
        let grants = made.get(usize::from(HOMES) - 2);
        let authority = prev.is_none().then(|| AuthorityChange {
            tips: grants.map(|m| m.0.tip()).into_iter().collect(),
            root: Some(RootRef {
                n: 0,
                id: genesis.id(),
            }),
        });
        let commit = Commit {
            v: 1,
            conversation: genesis.conversation(),
            origin: home(of),
            epoch: 0,
            seq: prev.map_or(0, |p| p.commit().seq + 1),
            prev: prev.map(SignedCommit::id),
            hlc: Hlc::new(Timestamp(1 + u64::try_from(i).unwrap_or(0)), 0),
            parents,
            authority,
            events: vec![id],
        };
        let raw = RawCommit {
            commit: Blob(commit.to_bytes()),
            signature: Signature::from_bytes([0; 64]),
        };
        let signed = UnverifiedCommit::decode(raw)
            .expect("well-formed")
            .trusted();
        last[usize::from(of)] = Some(made.len());
        made.push((signed, id, event));
    }
    made
}

fn take(graph: &mut Graph, authority: Option<&mut Authority>, made: &[Made]) {
    let mut authority = authority;
    for (signed, id, event) in made {
        let Inserted::New(node) = graph.insert(signed) else {
            panic!("dependencies come first");
        };
        if let Some(authority) = &mut authority {
            let effects = authority.insert(graph, node, &[(*id, event)]);
            assert!(effects.verdicts.iter().all(|v| v.stands()));
        }
    }
}

fn insert(c: &mut Criterion) {
    let genesis = genesis();
    let mut group = c.benchmark_group("insert");
    group.sample_size(10);
    for count in [1_000, 10_000, 100_000] {
        let made = history(&genesis, count);
        group.throughput(Throughput::Elements(u64::try_from(count).unwrap_or(0)));
        group.bench_function(BenchmarkId::new("graph", count), |b| {
            b.iter_batched(
                || Graph::new(genesis.conversation()),
                |mut graph| {
                    take(&mut graph, None, &made);
                    graph
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("graph_and_authority", count), |b| {
            b.iter_batched(
                || {
                    let graph = Graph::new(genesis.conversation());
                    (graph, Authority::group(&genesis))
                },
                |(mut graph, mut authority)| {
                    take(&mut graph, Some(&mut authority), &made);
                    (graph, authority)
                },
                BatchSize::PerIteration,
            );
        });
        let mut graph = Graph::new(genesis.conversation());
        let mut authority = Authority::group(&genesis);
        take(&mut graph, Some(&mut authority), &made);
        let message = &made[made.len() - 1].2.act;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("judge_new", count), |b| {
            b.iter(|| {
                let at = Timestamp(1_000_000);
                authority.judge_new(&graph, at, &home(3), &user(3), Role::Member, message)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, insert);
criterion_main!(benches);
