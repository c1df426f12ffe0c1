//! Many users speaking at once: each in his own order, answers after what they answer.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use comity_sdk::{Client, Conversation, Draft, EventId, Outgoing, Place, Replicas, ServerId};
use indicatif::ProgressBar;
use tokio::{sync::watch, task::JoinSet};

use crate::logs::{Kind, script::Script};

/// How fast.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// As fast as the servers take it.
    Max,
    /// As the log's times say, a minute lasting this long.
    Minute(Duration),
    /// A line after each such time, whoever speaks it.
    Line(Duration),
}

/// Lines that one user has under way at once.
const UNDER_WAY: usize = 16;
/// Time for one line to be accepted, restarts of servers included.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two tries of what the SDK leaves to its caller.
const AGAIN: Duration = Duration::from_millis(250);

/// What was played.
#[derive(Debug, Default)]
pub struct Played {
    /// For each step that is part of the history: the event and where its home put it.
    pub sent: Vec<Option<(EventId, Place)>>,
    /// Membership and names.
    pub acts: u64,
    /// From the first to the last accepted.
    pub seconds: f64,
    /// Why users stopped before their last line: refusals, and what was not accepted in time.
    pub failures: Vec<String>,
}

/// Tells users to begin no further line.
#[derive(Clone, Debug)]
pub struct Curtain(Arc<watch::Sender<bool>>);

impl Default for Curtain {
    fn default() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }
}

impl Curtain {
    /// Lets what is under way end, and nothing else begin.
    pub fn fall(&self) {
        self.0.send_replace(true);
    }

    fn has_fallen(&self) -> bool {
        *self.0.borrow()
    }

    /// Awaits `other`; `None` if the curtain falls first.
    async fn or<T>(&self, other: impl Future<Output = T>) -> Option<T> {
        let mut fallen = self.0.subscribe();
        tokio::select! {
            biased;
            _ = fallen.wait_for(|fallen| *fallen) => None,
            done = other => Some(done),
        }
    }
}

/// A step as others wait for it, once accepted.
#[derive(Clone, Copy)]
struct Heard {
    event: EventId,
    /// The one server that is known to have it, or none if all do.
    only_on: Option<ServerId>,
}

/// What all users share.
struct Scene {
    script: Arc<Script>,
    answered: Vec<bool>,
    heard: Vec<watch::Sender<Option<Heard>>>,
    sent: Mutex<Vec<Option<(EventId, Place)>>>,
    acts: AtomicU64,
    pace: Pace,
    curtain: Curtain,
    started: Instant,
    bar: ProgressBar,
}

impl Scene {
    fn note(&self, step: usize, event: EventId, place: Place) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent[step] = Some((event, place));
    }
}

/// Plays a script. Returns when every line was accepted; or, once a user failed or the curtain
/// fell, when what was under way has ended.
pub(crate) async fn play(
    conversation: comity_sdk::ConversationId,
    script: &Arc<Script>,
    clients: &[Client],
    pace: Pace,
    curtain: &Curtain,
    bar: &ProgressBar,
) -> Played {
    let mut answered = vec![false; script.steps.len()];
    for target in script.steps.iter().flat_map(|step| &step.replies) {
        answered[*target] = true;
    }
    let scene = Arc::new(Scene {
        script: Arc::clone(script),
        answered,
        heard: script
            .steps
            .iter()
            .map(|_| watch::channel(None).0)
            .collect(),
        sent: Mutex::new(vec![None; script.steps.len()]),
        acts: AtomicU64::new(0),
        pace,
        curtain: curtain.clone(),
        started: Instant::now(),
        bar: bar.clone(),
    });
    let mut steps = vec![Vec::new(); clients.len()];
    for (i, step) in script.steps.iter().enumerate() {
        steps[step.user.0 as usize].push(i);
    }
    let mut users = JoinSet::new();
    for (client, steps) in clients.iter().zip(steps) {
        let user = User {
            address: client.address().to_owned(),
            home: client.server(),
            conversation: client.conversation(conversation),
            scene: Arc::clone(&scene),
        };
        users.spawn(user.speak(steps));
    }
    let mut failures = Vec::new();
    while let Some(spoken) = users.join_next().await {
        let spoken = spoken.map_err(anyhow::Error::from).flatten();
        if let Err(error) = spoken {
            failures.push(format!("{error:#}"));
            curtain.fall();
        }
    }
    let mut sent = scene.sent.lock().unwrap_or_else(PoisonError::into_inner);
    Played {
        sent: std::mem::take(&mut *sent),
        acts: scene.acts.load(Ordering::Relaxed),
        seconds: scene.started.elapsed().as_secs_f64(),
        failures,
    }
}

struct User {
    address: String,
    home: ServerId,
    conversation: Conversation,
    scene: Arc<Scene>,
}

type UnderWay = JoinSet<anyhow::Result<()>>;

impl User {
    async fn speak(self, steps: Vec<usize>) -> anyhow::Result<()> {
        let mut under_way = JoinSet::new();
        let spoken = self.speak_all(steps, &mut under_way).await;
        let settled = settle(&mut under_way, 0).await;
        spoken.and(settled)
    }

    async fn speak_all(&self, steps: Vec<usize>, under_way: &mut UnderWay) -> anyhow::Result<()> {
        for i in steps {
            let due = self.due(i).into();
            let in_time = self.scene.curtain.or(tokio::time::sleep_until(due)).await;
            if in_time.is_none() || self.scene.curtain.has_fallen() {
                return Ok(());
            }
            let step = &self.scene.script.steps[i];
            let context = || format!("line {} by {}", step.i, self.address);
            let outgoing = match step.kind {
                Kind::Message | Kind::Action => {
                    if !step.was_member {
                        // A log lacks a join now and then; who speaks must have come in.
                        settle(under_way, 0).await?;
                        self.join().await.with_context(context)?;
                    }
                    let mut draft = Draft::text(step.body.clone());
                    if step.kind == Kind::Action {
                        draft = draft.action();
                    }
                    for target in &step.replies {
                        let Some(target) = self.wait_for(*target).await.with_context(context)?
                        else {
                            return Ok(());
                        };
                        draft = draft.reply_to(target);
                    }
                    self.conversation
                        .send_content(draft)
                        .await
                        .with_context(context)?
                }
                Kind::Join if step.was_member => continue,
                Kind::Part | Kind::Quit if !step.was_member => continue,
                Kind::Join => {
                    settle(under_way, 0).await?;
                    self.join().await.with_context(context)?;
                    continue;
                }
                Kind::Part | Kind::Quit => {
                    settle(under_way, 0).await?;
                    let left = patiently(|| self.conversation.leave()).await;
                    self.act(left.with_context(context)?)
                        .await
                        .with_context(context)?;
                    continue;
                }
                Kind::Nick => {
                    if step.was_member {
                        let named = self.conversation.set_name(step.body.clone()).await;
                        self.act(named.with_context(context)?)
                            .await
                            .with_context(context)?;
                    }
                    continue;
                }
            };
            // Each line is followed by itself: others may wait for it while this user waits for
            // them.
            under_way.spawn(self.follow(i, outgoing));
            settle(under_way, UNDER_WAY - 1).await?;
        }
        Ok(())
    }

    /// When a step is to be spoken.
    fn due(&self, step: usize) -> Instant {
        let started = self.scene.started;
        match self.scene.pace {
            Pace::Max => started,
            Pace::Line(line) => started + line * u32::try_from(step).unwrap_or(u32::MAX),
            Pace::Minute(minute) => {
                let minutes = |i: usize| {
                    let time = self.scene.script.steps[i].time;
                    u32::from(time.hour) * 60 + u32::from(time.minute)
                };
                // Logs pass midnight at most once.
                let since = (minutes(step) + 24 * 60 - minutes(0)) % (24 * 60);
                started + minute * since
            }
        }
    }

    /// Waits until a line is at this user's home, as it would be on his screen before he answers
    /// it. `None` if the curtain falls first.
    async fn wait_for(&self, step: usize) -> anyhow::Result<Option<EventId>> {
        let mut heard = self.scene.heard[step].subscribe();
        let here = |heard: &Option<Heard>| {
            heard.is_some_and(|heard| heard.only_on.is_none_or(|only| only == self.home))
        };
        let waiting = self.scene.curtain.or(heard.wait_for(here));
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        let i = self.scene.script.steps[step].i;
        let Some(heard) = waited.with_context(|| format!("line {i} never came here"))? else {
            return Ok(None);
        };
        Ok(heard?.map(|heard| heard.event))
    }

    async fn join(&self) -> anyhow::Result<()> {
        self.act(patiently(|| self.conversation.join()).await?)
            .await
    }

    async fn act(&self, outgoing: Outgoing) -> anyhow::Result<()> {
        accepted(&outgoing).await?;
        self.scene.acts.fetch_add(1, Ordering::Relaxed);
        self.scene.bar.inc(1);
        Ok(())
    }

    /// Follows a line until it was accepted and, if somebody answers it, is everywhere.
    fn follow(
        &self,
        step: usize,
        outgoing: Outgoing,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + use<> {
        let (scene, home) = (Arc::clone(&self.scene), self.home);
        let context = format!("line {} of {}", scene.script.steps[step].i, self.address);
        async move {
            let place = accepted(&outgoing).await.with_context(|| context.clone())?;
            let event = outgoing.event_id();
            scene.note(step, event, place);
            let hear = |only_on| scene.heard[step].send_replace(Some(Heard { event, only_on }));
            hear(Some(home));
            // An answer is sent after its target reached the answering user's server.
            if scene.answered[step] {
                let everywhere = outgoing.replicated(Replicas::All);
                let there = tokio::time::timeout(PATIENCE, scene.curtain.or(everywhere)).await;
                let there = there.with_context(|| format!("{context}: not everywhere in time"))?;
                there.transpose().context(context)?;
            }
            hear(None);
            scene.bar.inc(1);
            Ok(())
        }
    }
}

/// Waits until at most `left` lines are under way.
async fn settle(under_way: &mut UnderWay, left: usize) -> anyhow::Result<()> {
    while under_way.len() > left {
        let Some(done) = under_way.join_next().await else {
            break;
        };
        done??;
    }
    Ok(())
}

async fn accepted(outgoing: &Outgoing) -> anyhow::Result<Place> {
    let place = tokio::time::timeout(PATIENCE, outgoing.accepted()).await;
    Ok(place.context("not accepted in time")??)
}

/// Asks again what failed only for now. The SDK retries what is in its outbox; a question to the
/// server that comes before is its caller's to repeat.
async fn patiently<F: Future<Output = comity_sdk::Result<Outgoing>>>(
    ask: impl Fn() -> F,
) -> anyhow::Result<Outgoing> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                tokio::time::sleep(error.retry_after().unwrap_or(AGAIN)).await;
            }
            done => return Ok(done?),
        }
    }
}
