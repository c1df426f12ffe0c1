//! One open session.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use comity_protocol::session::{Accepted, ClientFrame, Reply, Request, ServerFrame, WireError};
use tokio::time;

use super::{
    Driver, End,
    flights::{Due, Flights},
    refused, stopped, until,
};
use crate::{
    client::{Call, Stop},
    error::{Error, ErrorKind, Result},
    events::Event,
    intake::Job,
    limits::{
        BACKLOG_HARD_BYTES, BACKLOG_SOFT_BYTES, CALLS_MAX, CLOSE_MS, SEND_WINDOW,
        WRITE_QUEUED_BYTES,
    },
    transport::Link,
};

/// Frames handled before other tasks get a turn.
const FRAMES_IN_A_ROW: u32 = 128;

/// What to do with an answer.
#[derive(Debug)]
enum Token {
    Call(Call),
    Send(u64),
    Ping,
}

struct Session {
    link: Box<dyn Link>,
    flights: Flights<Token>,
    sends: usize,
    calls: usize,
    flush_until: Option<u64>,
}

impl Session {
    fn ask(&mut self, now: u64, request: Request, token: Token) -> Result<()> {
        let id = self.flights.next_id();
        self.link.queue(&ClientFrame { id, request })?;
        match token {
            Token::Call(_) => self.calls += 1,
            Token::Send(_) => self.sends += 1,
            Token::Ping => {}
        }
        self.flights.asked(now, token);
        Ok(())
    }

    fn ask_call(&mut self, now: u64, call: Call) -> Result<()> {
        // Its caller gave up meanwhile.
        if call.reply.is_closed() {
            return Ok(());
        }
        self.ask(now, call.request.clone(), Token::Call(call))
    }

    fn answered(&mut self, id: u64) -> Option<Token> {
        let token = self.flights.answered(id)?;
        match token {
            Token::Call(_) => self.calls -= 1,
            Token::Send(_) => self.sends -= 1,
            Token::Ping => {}
        }
        Some(token)
    }

    /// Writes what is queued and reads a frame, whichever comes first.
    fn poll(&mut self, read: bool, cx: &mut Context<'_>) -> Poll<Result<Step>> {
        if self.link.queued_bytes() > 0
            && let Poll::Ready(flushed) = self.link.poll_flush(cx)
        {
            return Poll::Ready(flushed.map(|()| Step::Flushed));
        }
        if read {
            let frame = self.link.poll_frame(cx);
            return frame.map_ok(|(frame, bytes)| Step::Frame(Box::new(frame), bytes));
        }
        Poll::Pending
    }
}

enum Step {
    Flushed,
    Frame(Box<ServerFrame>, usize),
}

impl Driver {
    /// Runs a session to its end.
    pub(super) async fn session(&mut self, link: Box<dyn Link>) -> End {
        let mut session = Session {
            link,
            flights: Flights::new(self.now()),
            sends: 0,
            calls: 0,
            flush_until: None,
        };
        let end = match self.drive(&mut session).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if matches!(end, End::Stopped) {
            let within = Duration::from_millis(CLOSE_MS / 5);
            let close = std::future::poll_fn(|cx| session.link.poll_close(cx));
            let _ = time::timeout(within, close).await;
        }
        for token in session.flights.into_tokens() {
            if let Token::Call(call) = token {
                self.again.push_back(call);
            }
        }
        end
    }

    async fn drive(&mut self, session: &mut Session) -> Result<std::convert::Infallible, End> {
        let mut frames = 0;
        let mut stop = self.stop.clone();
        loop {
            self.fill(session)?;
            let now = self.now();
            if session.flush_until.is_some_and(|until| now >= until) {
                return Err(End::Stopped);
            }
            if session.flush_until.is_some() && self.shared.outbox().queue.len() == 0 {
                return Err(End::Stopped);
            }
            let deadline = self.deadline(session, now)?;
            let read = self.may_read()?;
            let more_calls = session.calls < CALLS_MAX;
            let (base, shared) = (self.base, Arc::clone(&self.shared));
            let stop_seen = session.flush_until.map_or(Stop::No, |_| Stop::Flush);
            tokio::select! {
                step = std::future::poll_fn(|cx| session.poll(read, cx)) => {
                    if let Step::Frame(frame, bytes) = step? {
                        let heard = self.now();
                        session.flights.heard(heard);
                        self.frame(session, *frame, bytes)?;
                        frames += 1;
                        if frames % FRAMES_IN_A_ROW == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                }
                Some(call) = self.calls.recv(), if more_calls => {
                    session.ask_call(self.now(), call)?;
                }
                () = shared.wake.notified() => {}
                how = stopped(&mut stop, stop_seen) => match how {
                    Stop::Flush => session.flush_until = Some(self.now() + CLOSE_MS),
                    Stop::No | Stop::Now => return Err(End::Stopped),
                },
                () = until(base, Some(deadline)) => {}
            }
        }
    }

    /// Queues what may leave.
    fn fill(&mut self, session: &mut Session) -> Result<(), End> {
        let now = self.now();
        while session.calls < CALLS_MAX
            && let Some(call) = self.again.pop_front()
        {
            session.ask_call(now, call)?;
        }
        let mut outbox = self.shared.outbox();
        while session.sends < SEND_WINDOW && session.link.queued_bytes() < WRITE_QUEUED_BYTES {
            let Some((number, item)) = outbox.queue.next(now) else {
                break;
            };
            let request = Request::Send {
                event: item.raw.clone(),
                content: item.content.clone(),
            };
            session.ask(now, request, Token::Send(number))?;
        }
        Ok(())
    }

    /// Does what the clock asks for, and gives the next time to look at it.
    fn deadline(&mut self, session: &mut Session, now: u64) -> Result<u64, End> {
        let due = match session.flights.due(now) {
            Due::Nothing(at) => at,
            Due::Ping => {
                session.ask(now, Request::Ping, Token::Ping)?;
                now
            }
            Due::Silent => {
                let text = "nothing was heard from the server";
                return Err(Error::new(ErrorKind::Timeout, text).into());
            }
            Due::Unanswered => {
                let text = "the server leaves a request unanswered";
                return Err(Error::new(ErrorKind::Timeout, text).into());
            }
        };
        if self.sync_deadline().is_some_and(|at| now >= at) {
            self.sync_in_background();
        }
        let others = [
            self.sync_deadline(),
            self.shared.outbox().queue.next_hold(),
            session.flush_until,
        ];
        Ok(others.into_iter().flatten().fold(due, u64::min))
    }

    fn sync_in_background(&mut self) {
        self.sync_at = None;
        if let Some(file) = self.shared.outbox().take_unsynced() {
            tokio::task::spawn_blocking(move || {
                if let Err(error) = file.sync_data() {
                    tracing::warn!(%error, "the outbox could not be synced");
                }
            });
        }
    }

    /// Whether the intake can take more.
    fn may_read(&mut self) -> Result<bool, End> {
        let bytes = self.shared.jobs.bytes();
        if bytes < BACKLOG_SOFT_BYTES {
            return Ok(true);
        }
        // The intake may be waiting for an answer that comes behind these updates.
        let waiting = self.shared.waiting.load(Ordering::Acquire) > 0;
        if waiting && bytes >= BACKLOG_HARD_BYTES {
            // What was not taken in is dropped here and comes again: so the answer waited for, which
            // is asked for first on the next session, comes before too much else.
            self.shared.jobs.clear();
            self.cursor = self.shared.taken();
            let text = "updates came faster than their authors could be verified";
            return Err(Error::new(ErrorKind::Unavailable, text).into());
        }
        Ok(waiting)
    }

    fn frame(
        &mut self,
        session: &mut Session,
        frame: ServerFrame,
        bytes: usize,
    ) -> Result<(), End> {
        match frame {
            ServerFrame::Update { cursor, changes } => {
                if cursor.is_some() {
                    self.cursor.clone_from(&cursor);
                }
                self.shared.jobs.push(Job::Update {
                    cursor,
                    changes,
                    bytes,
                });
                Ok(())
            }
            ServerFrame::Response { id, reply } => match session.answered(id) {
                Some(Token::Call(call)) => {
                    let _ = call.reply.send(Ok(*reply));
                    Ok(())
                }
                Some(Token::Send(number)) => self.accepted(number, &reply),
                Some(Token::Ping) | None => Ok(()),
            },
            ServerFrame::Refused { id, error } => {
                match session.answered(id) {
                    Some(Token::Call(call)) => {
                        let _ = call.reply.send(Err(error));
                    }
                    Some(Token::Send(number)) => self.refused(number, error),
                    Some(Token::Ping) | None => {}
                }
                Ok(())
            }
            ServerFrame::Bye(error) => Err(refused(error)),
        }
    }

    fn accepted(&self, number: u64, reply: &Reply) -> Result<(), End> {
        let Reply::Accepted(Accepted { event, place }) = *reply else {
            return Err(Error::unexpected_reply().into());
        };
        let mut outbox = self.shared.outbox();
        if outbox.queue.event(number) != Some(event) {
            drop(outbox);
            let text = "the server accepted another event than the one sent";
            return Err(Error::new(ErrorKind::Protocol, text).into());
        }
        outbox.accepted(number, place);
        Ok(())
    }

    fn refused(&self, number: u64, error: WireError) {
        if error.code.is_retryable() {
            let now = self.now();
            let mut outbox = self.shared.outbox();
            outbox.queue.refused(number, now, error.retry_after_ms);
            return;
        }
        let error = Error::from(error);
        let dropped = self.shared.outbox().rejected(number, &error);
        for ticket in dropped {
            self.shared.hub.publish(Event::Rejected {
                conversation: ticket.conversation,
                event: ticket.event,
                error: error.clone(),
            });
        }
    }
}
