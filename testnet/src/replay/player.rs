//! Many users speaking at once: each in his own order, answers after what they answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use comity_sdk::{Client, Draft, EventId, Outgoing, Place, Replicas};
use indicatif::ProgressBar;
use tokio::{sync::watch, task::JoinSet};

use super::Stage;
use crate::logs::{Kind, script::Script};

/// How fast.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// As fast as the servers take it.
    Max,
    /// As the log's times say, a minute lasting this long.
    Minute(Duration),
}

/// Lines that one user has under way at once.
const UNDER_WAY: usize = 16;
/// Time for one line to be accepted, restarts of servers included.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was played.
#[derive(Debug)]
pub struct Played {
    /// For each step that is part of the history: the event and where its home put it.
    pub sent: Vec<Option<(EventId, Place)>>,
    /// Membership and names.
    pub acts: u64,
    /// From the first to the last accepted.
    pub seconds: f64,
}

/// A step as others wait for it: where it stands, once accepted.
type Heard = watch::Sender<Option<EventId>>;

/// Plays a script. Returns when every line was accepted.
///
/// # Errors
///
/// The first line that was refused or not accepted in time.
pub(super) async fn play(
    stage: &Stage,
    script: &Script,
    clients: &[Client],
    pace: Pace,
    bar: &ProgressBar,
) -> anyhow::Result<Played> {
    let heard: Arc<Vec<Heard>> = Arc::new(
        script
            .steps
            .iter()
            .map(|_| watch::channel(None).0)
            .collect(),
    );
    let acts = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut users = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        let steps: Vec<usize> = (0..script.steps.len())
            .filter(|i| script.steps[*i].user.0 as usize == number)
            .collect();
        let user = User {
            client: client.clone(),
            stage: stage.conversation,
            script: Arc::new(script.clone()),
            heard: Arc::clone(&heard),
            acts: Arc::clone(&acts),
            pace,
            started,
            bar: bar.clone(),
        };
        users.spawn(user.speak(steps));
    }
    let mut sent = vec![None; script.steps.len()];
    while let Some(spoken) = users.join_next().await {
        for (step, event, place) in spoken?? {
            sent[step] = Some((event, place));
        }
    }
    let acts = acts.load(Ordering::Relaxed);
    Ok(Played {
        sent,
        acts,
        seconds: started.elapsed().as_secs_f64(),
    })
}

struct User {
    client: Client,
    stage: comity_sdk::ConversationId,
    script: Arc<Script>,
    heard: Arc<Vec<Heard>>,
    acts: Arc<AtomicU64>,
    pace: Pace,
    started: Instant,
    bar: ProgressBar,
}

type Spoken = Vec<(usize, EventId, Place)>;

impl User {
    async fn speak(self, steps: Vec<usize>) -> anyhow::Result<Spoken> {
        let conversation = self.client.conversation(self.stage);
        let (mut spoken, mut under_way) = (Vec::new(), JoinSet::new());
        for i in steps {
            let step = &self.script.steps[i];
            self.wait_for_time(i).await;
            let context = || format!("line {} by {}", step.i, self.client.address());
            let outgoing = match step.kind {
                Kind::Message | Kind::Action => {
                    if !step.was_member {
                        // A log lacks a join now and then; who speaks must have come in.
                        self.settle(&mut under_way, &mut spoken, 0).await?;
                        self.act(conversation.join().await.with_context(context)?)
                            .await
                            .with_context(context)?;
                    }
                    let mut draft = Draft::text(step.body.clone());
                    if step.kind == Kind::Action {
                        draft = draft.action();
                    }
                    for target in &step.replies {
                        draft = draft.reply_to(self.wait_for(*target).await?);
                    }
                    conversation.send_content(draft).await?
                }
                Kind::Join if step.was_member => continue,
                Kind::Part | Kind::Quit if !step.was_member => continue,
                Kind::Join => {
                    self.settle(&mut under_way, &mut spoken, 0).await?;
                    self.act(conversation.join().await.with_context(context)?)
                        .await
                        .with_context(context)?;
                    continue;
                }
                Kind::Part | Kind::Quit => {
                    self.settle(&mut under_way, &mut spoken, 0).await?;
                    self.act(conversation.leave().await.with_context(context)?)
                        .await
                        .with_context(context)?;
                    continue;
                }
                Kind::Nick => {
                    if step.was_member {
                        self.act(conversation.set_name(step.body.clone()).await?)
                            .await?;
                    }
                    continue;
                }
            };
            // Each line is followed by itself: others may wait for it while this user waits for them.
            under_way.spawn(self.follow(i, outgoing));
            self.settle(&mut under_way, &mut spoken, UNDER_WAY - 1)
                .await?;
        }
        self.settle(&mut under_way, &mut spoken, 0).await?;
        Ok(spoken)
    }

    async fn wait_for_time(&self, step: usize) {
        let Pace::Minute(minute) = self.pace else {
            return;
        };
        let minutes = |i: usize| {
            let time = self.script.steps[i].time;
            u32::from(time.hour) * 60 + u32::from(time.minute)
        };
        // Logs pass midnight at most once.
        let since = (minutes(step) + 24 * 60 - minutes(0)) % (24 * 60);
        tokio::time::sleep_until((self.started + minute * since).into()).await;
    }

    /// Waits until a line was accepted and is at this user's home, as it would be on his screen
    /// before he answers it.
    async fn wait_for(&self, step: usize) -> anyhow::Result<EventId> {
        let mut heard = self.heard[step].subscribe();
        let waited = tokio::time::timeout(PATIENCE, heard.wait_for(Option::is_some)).await;
        let event = waited
            .with_context(|| format!("line {step} was never accepted"))??
            .context("a line without an event")?;
        Ok(event)
    }

    async fn act(&self, outgoing: Outgoing) -> anyhow::Result<()> {
        accepted(&outgoing).await?;
        self.acts.fetch_add(1, Ordering::Relaxed);
        self.bar.inc(1);
        Ok(())
    }

    /// Waits until at most `left` lines are under way.
    async fn settle(
        &self,
        under_way: &mut JoinSet<anyhow::Result<(usize, EventId, Place)>>,
        spoken: &mut Spoken,
        left: usize,
    ) -> anyhow::Result<()> {
        while under_way.len() > left {
            let Some(done) = under_way.join_next().await else {
                break;
            };
            spoken.push(done??);
        }
        Ok(())
    }

    /// Follows a line until it was accepted and, if somebody answers it, is everywhere.
    fn follow(
        &self,
        step: usize,
        outgoing: Outgoing,
    ) -> impl Future<Output = anyhow::Result<(usize, EventId, Place)>> + Send + use<> {
        let context = format!(
            "line {} of {}",
            self.script.steps[step].i,
            self.client.address()
        );
        let (answered, heard, bar) = (
            self.is_answered(step),
            Arc::clone(&self.heard),
            self.bar.clone(),
        );
        async move {
            let place = accepted(&outgoing).await.with_context(|| context.clone())?;
            let event = outgoing.event_id();
            // An answer is sent after its target reached the answering user's server.
            if answered {
                let there =
                    tokio::time::timeout(PATIENCE, outgoing.replicated(Replicas::All)).await;
                there
                    .with_context(|| format!("{context}: not everywhere in time"))?
                    .context(context)?;
            }
            heard[step].send_replace(Some(event));
            bar.inc(1);
            Ok((step, event, place))
        }
    }

    fn is_answered(&self, step: usize) -> bool {
        self.script.steps[step + 1..]
            .iter()
            .any(|later| later.replies.contains(&step))
    }
}

async fn accepted(outgoing: &Outgoing) -> anyhow::Result<Place> {
    let place = tokio::time::timeout(PATIENCE, outgoing.accepted()).await;
    Ok(place.context("not accepted in time")??)
}
