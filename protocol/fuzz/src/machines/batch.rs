//! One hostile item in a batch of sound ones, from the link to the conversation.

use std::cell::OnceCell;

use comity_protocol::{
    commit::RootRef,
    conversation::{CheckedBundle, Conversation, Received},
    encoding,
    event::Tip,
    ids::{ConversationId, Nonce, ServerId},
    limits::LINK_FRAME_BYTES_MAX,
    link::{
        Bundle, Frame, FrameChannel, Input, Link, Offer, Output, VERSION, Verdict, World as Known,
        decode_frame, encode_frame,
    },
    session::Code,
    time::Timestamp,
};

use crate::world::{Chronicle, T0, World};

/// Sound items of a batch.
pub const SOUND: usize = 8;
const NOW: Timestamp = Timestamp(T0 + 10_000);

struct Scene {
    world: World,
    sound: Vec<Bundle>,
}

fn scene() -> Scene {
    let mut history = Chronicle::new(World::new(3, 6));
    history.found();
    for n in 1..SOUND {
        let said = history.world.message(n % 2, "a line");
        history.append(n % 2, vec![said]);
    }
    let sound = history.bundles();
    let world = history.world;
    Scene { world, sound }
}

/// A history that goes on where [`batch`]'s sound items end: what its hostile items are made of.
pub(crate) fn hostile_seeds() -> Vec<Bundle> {
    let mut history = Chronicle::new(World::new(3, 6));
    history.found();
    for n in 0..6 {
        let said = history.world.message(2 + n % 4, "from elsewhere");
        history.append((2 + n % 4) % 3, vec![said]);
    }
    history.fork(2);
    history.bundles()
}

/// The conversation as the link asks about it.
struct Held<'a>(&'a Conversation);

impl Known for Held<'_> {
    fn frontier(&self, id: &ConversationId) -> Option<Vec<Tip>> {
        (*id == self.0.id()).then(|| self.0.frontier())
    }

    fn offer(&self, id: &ConversationId) -> Option<Offer> {
        (*id == self.0.id()).then(|| self.0.offer().clone())
    }

    fn root(&self, _: &ConversationId) -> Option<RootRef> {
        let newest = self.0.newest_record().map(|(newest, _)| newest);
        newest.filter(|newest| newest.n > 0)
    }
}

struct Receiver<'a> {
    scene: &'a Scene,
    link: Link,
    machine: Conversation,
    verdicts: Vec<(u64, Verdict)>,
    closed: bool,
}

impl Receiver<'_> {
    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.link.handle(NOW, input, &Held(&self.machine), &mut out);
        let mut next = Vec::new();
        for output in out {
            match output {
                Output::Judge { session, n, bundle } => {
                    let verdict = self.judge(bundle);
                    next.push(Input::Judged {
                        session,
                        n,
                        verdict,
                    });
                }
                Output::Send(FrameChannel::Live, Frame::Verdicts { verdicts }) => {
                    self.verdicts.extend(verdicts);
                }
                Output::Close(_) => self.closed = true,
                _ => {}
            }
        }
        next.into_iter().for_each(|input| self.input(input));
    }

    fn judge(&mut self, bundle: Bundle) -> Verdict {
        let world = &self.scene.world;
        let key = |server: &ServerId, _| world.key_of(server);
        let bundle = match CheckedBundle::check(bundle, key) {
            Ok(bundle) if bundle.conversation() == self.machine.id() => bundle,
            Ok(_) => return Verdict::Refused(Code::NotFound),
            Err(error) => return Verdict::Refused(error.code()),
        };
        let devices = |user: &_, device: &_| world.has_device(user, device);
        match self.machine.receive(NOW, bundle, &devices) {
            Received::Taken(_) | Received::Known => Verdict::Stored,
            Received::Waiting { .. } => Verdict::Waiting,
            Received::Refused(code, _) => Verdict::Refused(code),
        }
    }

    fn connect(&mut self, peer: ServerId) {
        self.closed = false;
        self.verdicts.clear();
        self.input(Input::Down);
        self.input(Input::Up(Nonce::from_bytes([1; 16])));
        let nonce = Nonce::from_bytes([2; 16]);
        self.frame(&encode_frame(&Frame::Hello {
            version: VERSION,
            server: peer,
            nonce,
        }));
    }

    /// A frame as it came; the link closes where it cannot be read.
    fn frame(&mut self, bytes: &[u8]) {
        match decode_frame(bytes) {
            Ok(frame) => self.input(Input::Frame(frame)),
            Err(_) => self.closed = true,
        }
    }
}

fn push(n: usize, bundle: &[u8]) -> Vec<u8> {
    // By hand: the hostile one need not be a bundle.
    let n = encoding::encode(&(n as u64));
    [
        b"\xa1\x64push\xa2\x61n",
        n.as_slice(),
        b"\x66bundle",
        bundle,
    ]
    .concat()
}

/// Pushes sound items over a link with these bytes in the place of an item between them. However
/// bad it is, each of the others is stored: at once, or, if the link had to be closed, on the next.
#[must_use]
pub fn batch(bytes: &[u8]) -> bool {
    thread_local! {
        static SCENE: OnceCell<Scene> = const { OnceCell::new() };
    }
    SCENE.with(|it| attack(it.get_or_init(scene), bytes))
}

fn attack(scene: &Scene, bytes: &[u8]) -> bool {
    let (me, peer) = (scene.world.homes[2].id, scene.world.homes[1].id);
    let mut receiver = Receiver {
        scene,
        link: Link::new(me, peer),
        machine: Conversation::group(&scene.world.genesis, me, 1),
        verdicts: Vec::new(),
        closed: false,
    };
    let place = bytes.iter().fold(bytes.len(), |sum, byte| {
        sum.wrapping_add(usize::from(*byte))
    }) % (SOUND + 1);
    receiver.connect(peer);
    for n in 0..=SOUND {
        if n == place {
            receiver.frame(&push(usize::MAX, bytes));
        }
        if receiver.closed {
            break;
        }
        if let Some(bundle) = scene.sound.get(n) {
            receiver.frame(&push(n, &encoding::encode(bundle)));
        }
    }
    let read = encoding::decode_frame::<Bundle>(bytes, LINK_FRAME_BYTES_MAX).is_ok();
    assert!(
        !receiver.closed || !read,
        "an item that can be read closes no link"
    );
    if receiver.closed {
        // What was not judged is pushed again on the next link.
        receiver.connect(peer);
        for (n, bundle) in scene.sound.iter().enumerate() {
            receiver.frame(&push(n, &encoding::encode(bundle)));
        }
    }
    for n in 0..SOUND as u64 {
        let last = receiver.verdicts.iter().rev().find(|(of, _)| *of == n);
        assert_eq!(
            last,
            Some(&(n, Verdict::Stored)),
            "a sound item is stored beside a bad one"
        );
    }
    let hostile = receiver
        .verdicts
        .iter()
        .rev()
        .find(|(of, _)| *of == usize::MAX as u64);
    matches!(hostile, Some((_, Verdict::Stored | Verdict::Waiting)))
}
