//! The loop: typed lines in, events in, lines out.

use std::{future::Future, io::Write, time::SystemTime};

use anyhow::{Context, Result, bail};
use comity_sdk::{
    Act, Client, Confirmed, ConnectionState, Conversation, ConversationId, Draft, Error, Event,
    EventId, Events, Grant, Member, Message, Outgoing, Role, SendState, Target, Timestamp, UserId,
    Voided,
};
use tokio::{sync::mpsc, task::JoinHandle, time};

use crate::{
    command::{self, Command, HELP},
    render::{self, Names, Numbered, Numbers, short},
    text::safe,
};

/// Wait for a list of members before names are shown as ids.
const NAMES_WAIT: time::Duration = time::Duration::from_secs(2);
/// Lines shown when a conversation is opened.
const OPENED_LINES: u32 = 20;
/// Conversations listed.
const LISTED: usize = 100;
/// Direct conversations of a list whose partner is asked for.
const PARTNERS_ASKED: usize = 20;
/// Acceptances not yet printed.
const ACCEPTED_WAITING: usize = 64;

/// What a command that asked the server ended in.
enum Outcome {
    Nothing,
    Complain(String),
    Done(&'static str),
    Listed(Vec<(Conversation, Vec<Member>)>),
    Opened {
        conversation: Conversation,
        members: Vec<Member>,
        lines: Vec<Message>,
    },
    Lines(Vec<Message>),
    Members(Conversation, Vec<Member>),
    Voided(Conversation, Vec<Voided>),
    Confirmed(Conversation, Vec<(Voided, Confirmed)>),
    Sent(Outgoing, &'static str),
}

/// Everything that is on the screen.
pub(crate) struct App {
    client: Client,
    events: Events,
    open: Option<Conversation>,
    listed: Vec<ConversationId>,
    numbers: Numbers,
    names: Names,
    state: Option<String>,
    failed: bool,
    /// The own act of which it was told last that it took something away.
    took_away: Option<EventId>,
    /// Acceptances of what was sent, each from a task that waits for one.
    accepted: mpsc::Receiver<EventId>,
    on_accepted: mpsc::Sender<EventId>,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }))
}

/// Prints a line. A closed pipe is no reason to panic: the next read of input ends the program.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl App {
    pub(crate) fn new(client: Client) -> Self {
        let (on_accepted, accepted) = mpsc::channel(ACCEPTED_WAITING);
        Self {
            accepted,
            on_accepted,
            events: client.events(),
            client,
            open: None,
            listed: vec![],
            numbers: Numbers::default(),
            names: Names::default(),
            state: None,
            failed: false,
            took_away: None,
        }
    }

    /// Runs until the input ends or the user quits. Gives whether everything went well.
    pub(crate) async fn run(
        mut self,
        mut input: mpsc::Receiver<String>,
        first: Option<String>,
    ) -> Result<bool> {
        say(&format!(
            "signed in as {}; /help lists commands",
            safe(self.client.address())
        ));
        let mut task: Option<JoinHandle<Result<Outcome, Error>>> = None;
        if let Some(name) = first {
            task = self.command(Command::Open(name));
        }
        loop {
            tokio::select! {
                // Lines of a pipe wait for the command before them, as they would in a shell.
                line = input.recv(), if task.is_none() => {
                    let Some(line) = line else { break };
                    match command::parse(&line) {
                        Ok(Command::Quit) => break,
                        Ok(command) => task = self.command(command),
                        Err(hint) => self.complain(&hint),
                    }
                }
                outcome = finished(&mut task) => {
                    task = None;
                    match outcome {
                        Ok(outcome) => self.outcome(outcome).await,
                        Err(error) => self.complain(&error.chain()),
                    }
                }
                Some(event) = self.accepted.recv() => self.mark(event, "✓"),
                event = self.events.next() => match event {
                    Some(event) => self.event(event).await,
                    None => bail!("the connection was closed"),
                },
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        let closed = self.client.close().await;
        // The tasks that wait end with the client; what was accepted in time is still told.
        let (unused, _) = mpsc::channel(1);
        self.on_accepted = unused;
        while let Some(event) = self.accepted.recv().await {
            self.mark(event, "✓");
        }
        closed.context("ending")?;
        Ok(!self.failed)
    }

    fn complain(&mut self, text: &str) {
        self.failed = true;
        say(&format!("!! {}", safe(text)));
    }

    fn opened(&mut self) -> Option<Conversation> {
        if self.open.is_none() {
            // Whoever has one conversation only can mean no other.
            match &self.client.known_conversations()[..] {
                [only] => self.open = Some(only.clone()),
                _ => self.complain("no conversation is open: /list, then /open N"),
            }
        }
        self.open.clone()
    }

    fn numbered(&mut self, number: u64) -> Option<(Conversation, Numbered)> {
        let Some(line) = self.numbers.find(number) else {
            self.complain(&format!("no line #{number}"));
            return None;
        };
        Some((self.client.conversation(line.conversation), line))
    }

    /// Does what needs no server at once; gives a task for the rest.
    fn command(&mut self, command: Command) -> Option<JoinHandle<Result<Outcome, Error>>> {
        let client = self.client.clone();
        match command {
            Command::Nothing | Command::Quit => None,
            Command::Help => {
                say(HELP);
                None
            }
            Command::Who => {
                self.who();
                None
            }
            Command::Say(text) => self.send(Draft::text(text)),
            Command::Me(text) => self.send(Draft::text(text).action()),
            Command::Reply(number, text) => {
                let (conversation, line) = self.numbered(number)?;
                let draft = Draft::text(text).reply_to(line.event);
                spawn(async move { Ok(Outcome::Sent(conversation.send_content(draft).await?, "")) })
            }
            Command::Edit(number, text) => {
                let (conversation, line) = self.numbered(number)?;
                spawn(async move {
                    Ok(Outcome::Sent(
                        conversation.edit(line.event, text).await?,
                        "edit",
                    ))
                })
            }
            Command::Delete(number) => {
                let (conversation, line) = self.numbered(number)?;
                spawn(async move {
                    let sent = if line.own {
                        conversation.delete(line.event).await?
                    } else {
                        conversation.delete_as_moderator(line.event).await?
                    };
                    Ok(Outcome::Sent(sent, "deletion"))
                })
            }
            Command::React(number, emoji, on) => {
                let (conversation, line) = self.numbered(number)?;
                spawn(async move {
                    let sent = if on {
                        conversation.react(line.event, emoji).await?
                    } else {
                        conversation.unreact(line.event, emoji).await?
                    };
                    Ok(Outcome::Sent(sent, "reaction"))
                })
            }
            Command::List => spawn(async move {
                let listed = match client.conversations().await {
                    Ok(listed) => listed,
                    Err(error) if error.is_retryable() => client.known_conversations(),
                    Err(error) => return Err(error),
                };
                Ok(Outcome::Listed(with_partners(listed).await))
            }),
            Command::Open(name) => match self.find(&name) {
                Some(conversation) => spawn(open(conversation)),
                None if name.contains('@') => spawn(async move {
                    let conversation = client.open_direct(name).await?;
                    open(conversation).await
                }),
                // Not known here yet: the server may know it.
                None => spawn(async move {
                    match find(&client.conversations().await?, &name) {
                        Some(conversation) => open(conversation).await,
                        None => {
                            let text = format!("no conversation {name:?}: /list shows them");
                            Ok(Outcome::Complain(text))
                        }
                    }
                }),
            },
            Command::Create { title, members } => {
                spawn(async move { open(client.create_group(title, members).await?).await })
            }
            Command::Direct(user) => {
                spawn(async move { open(client.open_direct(user).await?).await })
            }
            Command::Join(id) => match id.parse::<ConversationId>() {
                Ok(id) => spawn(async move {
                    let conversation = client.conversation(id);
                    conversation.join().await?.accepted().await?;
                    open(conversation).await
                }),
                Err(error) => {
                    self.complain(&format!("{id:?} is no conversation id: {error}"));
                    None
                }
            },
            about_open => self.about_open(about_open),
        }
    }

    fn about_open(&mut self, command: Command) -> Option<JoinHandle<Result<Outcome, Error>>> {
        let room = self.opened()?;
        spawn(async move {
            let sent = match command {
                Command::History(lines) => {
                    let page = room.history().newest().limit(lines).page().await?;
                    return Ok(Outcome::Lines(page.messages));
                }
                Command::Members => {
                    let members = room.members().await?;
                    return Ok(Outcome::Members(room, members));
                }
                Command::Voided => {
                    let voided = room.voided().await?;
                    return Ok(Outcome::Voided(room, voided));
                }
                Command::Confirm => {
                    let mut voided = room.voided().await?;
                    voided.retain(Voided::can_be_confirmed);
                    let confirmed = room.confirm(&voided).await;
                    let confirmed = voided.into_iter().zip(confirmed).collect();
                    return Ok(Outcome::Confirmed(room, confirmed));
                }
                Command::Owner(user) => {
                    room.transfer_ownership(user).await?;
                    return Ok(Outcome::Done("done: you are an admin now"));
                }
                Command::Stewards => {
                    room.set_stewards(None).await?;
                    return Ok(Outcome::Done("done: the usual servers are stewards"));
                }
                Command::Invite(user, role) => (room.invite(user, role).await?, "invitation"),
                Command::SetRole(user, role) => (room.set_role(user, role).await?, "role"),
                Command::Remove(user) => (room.remove(user).await?, "removal"),
                Command::Ban(user) => (room.ban(user).await?, "ban"),
                Command::Unban(user) => (room.unban(user).await?, "lift"),
                Command::Door(true) => (room.open_door(Role::Member).await?, "door"),
                Command::Door(false) => (room.close_door().await?, "door"),
                Command::Title(text) => (room.set_title(text).await?, "title"),
                Command::Topic(text) => (room.set_topic(text).await?, "topic"),
                Command::Name(text) => (room.set_name(text).await?, "name"),
                Command::Leave => (room.leave().await?, "leaving"),
                _ => return Ok(Outcome::Nothing),
            };
            Ok(Outcome::Sent(sent.0, sent.1))
        })
    }

    fn send(&mut self, draft: Draft) -> Option<JoinHandle<Result<Outcome, Error>>> {
        let room = self.opened()?;
        spawn(async move { Ok(Outcome::Sent(room.send_content(draft).await?, "")) })
    }

    /// A conversation by the number of the last list, its title, or the beginning of its id.
    fn find(&self, name: &str) -> Option<Conversation> {
        if let Ok(number) = name.trim_start_matches('#').parse::<usize>()
            && let Some(id) = number.checked_sub(1).and_then(|n| self.listed.get(n))
        {
            return Some(self.client.conversation(*id));
        }
        if let Ok(id) = name.parse::<ConversationId>() {
            return Some(self.client.conversation(id));
        }
        find(&self.client.known_conversations(), name)
    }

    fn who(&self) {
        say(&format!(
            "you are {}, user {}",
            safe(self.client.address()),
            self.client.user()
        ));
        say(&format!("device {}", self.client.device()));
        say(&format!(
            "connection: {}",
            safe(&self.client.connection().to_string())
        ));
        let stats = self.client.stats();
        say(&format!(
            "{} waiting in the outbox, {} lines not verified",
            stats.outbox, stats.unverified
        ));
        if let Some(conversation) = &self.open {
            say(&format!("open: {}", self.title(conversation)));
            say(&format!("its id: {}", conversation.id()));
        }
    }

    async fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Complain(text) => self.complain(&text),
            Outcome::Done(text) => say(text),
            Outcome::Listed(conversations) => {
                if conversations.is_empty() {
                    say("no conversations yet: /create TITLE, or /direct alice@eu.example");
                }
                let shown = conversations.len().min(LISTED);
                for (conversation, members) in &conversations {
                    self.names.learn(conversation.id(), members);
                }
                for (index, (conversation, _)) in conversations[..shown].iter().enumerate() {
                    say(&format!("{:>3}  {}", index + 1, self.title(conversation)));
                }
                if shown < conversations.len() {
                    say(&format!("     and {} more", conversations.len() - shown));
                }
                self.listed = conversations.iter().map(|(c, _)| c.id()).collect();
            }
            Outcome::Opened {
                conversation,
                members,
                lines,
            } => {
                self.names.learn(conversation.id(), &members);
                say(&format!("== {}", self.title(&conversation)));
                self.open = Some(conversation);
                self.lines(&lines).await;
            }
            Outcome::Lines(lines) => self.lines(&lines).await,
            Outcome::Members(conversation, members) => {
                self.names.learn(conversation.id(), &members);
                for member in &members {
                    let name = self.names.of(conversation.id(), member.user);
                    say(&format!("  {:<9}  {name}", member.role.to_string()));
                }
            }
            Outcome::Voided(conversation, voided) => {
                if voided.is_empty() {
                    say("nothing: no act of yours took anything away from others");
                }
                for act in &voided {
                    self.voided(&conversation, act, "").await;
                }
                if voided.iter().any(Voided::can_be_confirmed) {
                    say("/confirm says what others can say again under your name");
                }
            }
            Outcome::Confirmed(conversation, confirmed) => {
                if confirmed.is_empty() {
                    say("nothing to confirm");
                }
                for (act, outcome) in &confirmed {
                    let became = render::confirmed(outcome);
                    self.voided(&conversation, act, &format!(": {became}"))
                        .await;
                }
            }
            Outcome::Sent(outgoing, what) => self.sent(&outgoing, what),
        }
    }

    /// Tells that something is on its way; its arrival is told by its own event.
    fn sent(&mut self, outgoing: &Outgoing, what: &str) {
        let (waiting, tell) = (outgoing.clone(), self.on_accepted.clone());
        // A refusal is told by its own event.
        tokio::spawn(async move {
            if waiting.accepted().await.is_ok() {
                let _ = tell.send(waiting.event_id()).await;
            }
        });
        let number = self.numbers.of(Numbered {
            conversation: outgoing.conversation_id(),
            event: outgoing.event_id(),
            own: true,
        });
        let what = if what.is_empty() {
            String::new()
        } else {
            format!(" ({what})")
        };
        match outgoing.state() {
            SendState::Pending if !self.client.connection().is_online() => {
                say(&format!("   … #{number}{what} waits for the connection"));
            }
            SendState::Pending => say(&format!("   … #{number}{what}")),
            _ => {}
        }
    }

    async fn voided(&mut self, conversation: &Conversation, act: &Voided, became: &str) {
        self.learn_names(conversation.id(), act.author()).await;
        let line = render::voided(conversation.id(), act, &self.names, &self.numbers);
        say(&format!("  {line}{became}"));
    }

    async fn lines(&mut self, messages: &[Message]) {
        for message in messages {
            self.line(message, "").await;
        }
    }

    async fn line(&mut self, message: &Message, before: &str) {
        let conversation = message.conversation_id();
        self.learn_names(conversation, message.author()).await;
        if let Act::Grant(Grant {
            target: Target::User { user, .. },
            role,
            ..
        }) = message.act()
        {
            // Whoever was a stranger may have a name from now on.
            if *role != Role::None {
                self.names.forget(conversation, *user);
            }
            self.learn_names(conversation, *user).await;
        }
        let line = render::line(message, &mut self.numbers, &self.names, now());
        let elsewhere = self.elsewhere(message.conversation_id());
        say(&format!("{elsewhere}{before}{line}"));
    }

    fn title(&self, conversation: &Conversation) -> String {
        let partner = self.names.partner(conversation.id(), self.client.user());
        render::conversation(conversation, partner)
    }

    fn elsewhere(&self, conversation: ConversationId) -> String {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.id() == conversation)
        {
            return String::new();
        }
        let title = self.client.conversation(conversation).title();
        let partner = || {
            self.names
                .partner(conversation, self.client.user())
                .map(str::to_owned)
        };
        let direct = self.client.conversation(conversation).is_direct();
        let name = title.map(|title| safe(&title));
        let name = name.or_else(|| partner().filter(|_| direct));
        let name = name.unwrap_or_else(|| short(&conversation.to_string()));
        format!("<{name}> ")
    }

    async fn learn_names(&mut self, conversation: ConversationId, user: UserId) {
        if self.names.knows(conversation, user) || !self.client.connection().is_online() {
            return;
        }
        let members = self.client.conversation(conversation);
        if let Ok(Ok(members)) = time::timeout(NAMES_WAIT, members.members()).await {
            self.names.learn(conversation, &members);
        }
        // Somebody who left has no name any more: do not ask for each of his lines.
        if !self.names.knows(conversation, user) {
            self.names.stranger(conversation, user);
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            // The own line was typed: its acceptance is told by its mark.
            Event::Message(m) if m.is_own() && self.known(m.id()) => {}
            Event::Message(m) | Event::Activity(m) => self.line(&m, "").await,
            Event::Edited(m) => self.line(&m, "edited: ").await,
            Event::EditLost { message, .. } => {
                self.line(&message, "your edit lost against: ").await;
            }
            Event::Deleted(m) => self.line(&m, "").await,
            Event::Reacted(m) => self.line(&m, "reactions: ").await,
            Event::Changed(m) => self.line(&m, "changed: ").await,
            Event::Vanished {
                conversation,
                event,
                reason,
                by,
            } => {
                let own = by.filter(|by| by.author == self.client.user());
                // One removal may take away a thousand things.
                if let Some(by) = own
                    && self.took_away.replace(by.event) != Some(by.event)
                {
                    let elsewhere = self.elsewhere(conversation);
                    say(&format!(
                        "-- {elsewhere}your act took away what others did: /voided lists it"
                    ));
                }
                if let Some(number) = self.numbers.known(&event) {
                    say(&format!(
                        "-- #{number} was overruled ({}{}) and is gone",
                        safe(&reason),
                        by.map_or_else(String::new, |by| format!(
                            ", by {}",
                            short(&by.author.to_string())
                        ))
                    ));
                }
            }
            // Before the first session the list comes whole: /list shows it better.
            Event::ConversationUpdated(conversation) if self.state.is_some() => {
                say(&format!("-- {}", self.title(&conversation)));
            }
            Event::Left { conversation, by } => {
                let by = by.filter(|by| by.author != self.client.user());
                let by = by.map(|by| self.names.of(conversation, by.author));
                say(&format!(
                    "-- you are no longer in {}{}",
                    short(&conversation.to_string()),
                    by.map_or_else(String::new, |by| format!(", by an act of {by}"))
                ));
                self.open.take_if(|open| open.id() == conversation);
            }
            Event::Connection(state) => self.connection(&state),
            Event::Gap { conversation } => {
                let name = short(&conversation.to_string());
                say(&format!(
                    "-- lines of {name} may be missing here: /history shows them"
                ));
            }
            Event::Lagged(lost) => say(&format!("-- {lost} events were not shown: /history")),
            Event::Reset => say("-- the server began anew: /history shows what is current"),
            Event::Delivery {
                event,
                replicated,
                of,
                ..
            } if of > 0 && replicated >= of => self.mark(event, "✓✓"),
            Event::Rejected { event, error, .. } => {
                let number = self.numbers.known(&event);
                let line = number.map_or_else(String::new, |n| format!("#{n} "));
                self.complain(&format!("{line}was refused: {error} ({})", error.code()));
            }
            Event::Warning(warning) => {
                say(&format!(
                    "-- a line was not shown: {}",
                    safe(&warning.reason)
                ));
            }
            _ => {}
        }
    }

    fn known(&self, event: EventId) -> bool {
        self.numbers.known(&event).is_some()
    }

    fn mark(&self, event: EventId, mark: &str) {
        if let Some(number) = self.numbers.known(&event) {
            say(&format!("   {mark} #{number}"));
        }
    }

    fn connection(&mut self, state: &ConnectionState) {
        // Tries follow each other with the same outcome: only news is worth a line.
        let shown = match state {
            ConnectionState::Connecting => return,
            ConnectionState::Offline { cause, .. } => cause.chain(),
            state => state.to_string(),
        };
        if self.state.as_ref() != Some(&shown) {
            say(&format!("** {}", safe(&state.to_string())));
        }
        self.state = Some(shown);
    }
}

/// A conversation by its title, or by the first characters of its id.
fn find(conversations: &[Conversation], name: &str) -> Option<Conversation> {
    let lower = name.to_lowercase();
    let titled = |c: &&Conversation| c.title().as_deref() == Some(name);
    let begins = |c: &&Conversation| {
        let title = c.title().unwrap_or_default().to_lowercase();
        title.starts_with(&lower) || name.len() >= 4 && c.id().to_string().starts_with(name)
    };
    if let Some(found) = conversations.iter().find(titled) {
        return Some(found.clone());
    }
    let mut found = conversations.iter().filter(begins);
    // Of several that begin so none is meant for certain.
    let first = found.next()?;
    found.next().is_none().then(|| first.clone())
}

async fn open(conversation: Conversation) -> Result<Outcome, Error> {
    let members = conversation.members().await?;
    let page = conversation
        .history()
        .newest()
        .limit(OPENED_LINES)
        .page()
        .await?;
    Ok(Outcome::Opened {
        conversation,
        members,
        lines: page.messages,
    })
}

fn spawn(
    work: impl Future<Output = Result<Outcome, Error>> + Send + 'static,
) -> Option<JoinHandle<Result<Outcome, Error>>> {
    Some(tokio::spawn(work))
}

/// Conversations with the members of the direct ones, which have no other title.
async fn with_partners(conversations: Vec<Conversation>) -> Vec<(Conversation, Vec<Member>)> {
    let mut listed = vec![];
    let mut asked = 0;
    for conversation in conversations {
        let mut members = vec![];
        if conversation.is_direct() && asked < PARTNERS_ASKED {
            asked += 1;
            members = match time::timeout(NAMES_WAIT, conversation.members()).await {
                Ok(Ok(members)) => members,
                _ => vec![],
            };
        }
        listed.push((conversation, members));
    }
    listed
}

/// The end of the task under way, never without one.
async fn finished(task: &mut Option<JoinHandle<Result<Outcome, Error>>>) -> Result<Outcome, Error> {
    match task {
        Some(task) => match task.await {
            Ok(outcome) => outcome,
            Err(error) => Ok(Outcome::Complain(error.to_string())),
        },
        None => std::future::pending().await,
    }
}
