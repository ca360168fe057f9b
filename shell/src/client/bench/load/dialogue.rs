//! What a client and the server say to each other in a cycle, without any I/O: bytes in, bytes out.

use std::mem;

use async_tungstenite::tungstenite::{self, error::ProtocolError};
use session_core::protocol::ServerMessage;

use super::script::Script;
use super::wire::{Frame, MAX_MESSAGE_BYTES, Opcode, read_frame, write_frame};
use crate::client::connection::{authenticate_failure, lost_error, unexpected_reply};
use crate::client::upgrade::{MAX_HEAD_BYTES, Refusal};
use crate::client::{ConnectError, Error};

/// One cycle, from the server's answer to the handshake on.
#[derive(Debug, Default)]
pub(super) struct Dialogue {
    state: State,
    /// The begin of something that is not whole yet.
    unread: Vec<u8>,
    /// The fragments so far of a message.
    fragments: Option<Vec<u8>>,
    /// Whether the session stays after the answer, until [`Dialogue::leave`].
    stays: bool,
}

/// What comes next.
#[derive(Debug, Default)]
enum State {
    /// The head of the answer.
    #[default]
    Head,
    /// The body of another answer than 101.
    Body(Refusal),
    Hello,
    /// Nothing: [`Dialogue::authenticate`] is next.
    Greeted,
    Answer,
    /// [`Dialogue::leave`], or that the session is evicted.
    Held,
    ByeSuccess,
    Close,
    /// The close frame after EVICTED.
    CloseAfterEviction,
    /// The end of the stream.
    End,
}

/// What happened meanwhile.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The server greets. [`Dialogue::authenticate`] is next.
    pub(super) greeted: bool,
    /// The server has answered AUTHENTICATE. BYE is sent, unless the session stays.
    pub(super) answered: Option<Answer>,
    /// The server has told a session that stays of its eviction.
    pub(super) evicted: bool,
    /// The server has refused the connection. What it says may still come: [`Dialogue::stop_reading`] ends the wait.
    pub(super) refused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Granted,
    /// At the limit.
    Refused,
    /// A slot was granted, but taken by another session before the server told of it. Only for a session that stays: for
    /// others it is an error.
    Superseded,
}

/// The code of a close after BYE (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;

/// The code for a close frame without one (RFC 6455 §7.1.5).
const NO_CODE: u16 = 1005;

impl Dialogue {
    /// A session that stays after the answer.
    pub(super) fn staying() -> Self {
        Self { stays: true, ..Self::default() }
    }

    /// Appends BYE, if the session stays and was not evicted.
    pub(super) fn leave(&mut self, script: &Script, out: &mut Vec<u8>) {
        if let State::Held = self.state {
            script.write_bye(out);
            self.state = State::ByeSuccess;
        }
    }

    /// Hears what the server sent, however it is cut. Appends what to send to `out`, also before an error.
    ///
    /// # Errors
    /// The cycle has failed.
    pub(super) fn receive(&mut self, script: &Script, bytes: &[u8], out: &mut Vec<u8>) -> Result<Heard, Error> {
        let mut heard = Heard::default();
        if self.unread.is_empty() {
            let read = self.read(script, bytes, out, &mut heard)?;
            self.unread.extend_from_slice(&bytes[read..]);
        } else {
            self.unread.extend_from_slice(bytes);
            let mut unread = mem::take(&mut self.unread);
            let read = self.read(script, &unread, out, &mut heard)?;
            drop(unread.drain(..read));
            self.unread = unread;
        }
        Ok(heard)
    }

    /// Appends AUTHENTICATE for the user with this number.
    pub(super) fn authenticate(&mut self, script: &Script, user: u32, out: &mut Vec<u8>) {
        script.write_authenticate(user, out);
        self.state = State::Answer;
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// It has ended too early.
    pub(super) fn end(&mut self, script: &Script) -> Result<(), Error> {
        if let State::Head = self.state {
            return Err(not_http(script, &self.unread));
        }
        self.break_off(script, &ProtocolError::ResetWithoutClosingHandshake.into())
    }

    /// The stream is broken.
    ///
    /// # Errors
    /// The cycle was not over.
    pub(super) fn fail(&mut self, script: &Script, error: std::io::Error) -> Result<(), Error> {
        if let State::Head = self.state {
            let reason = ConnectError::from_stream_error(&error);
            let reason = reason.unwrap_or_else(|| ConnectError::Protocol(error.to_string()));
            return Err(Error::handshake(&script.url, reason));
        }
        self.break_off(script, &error.into())
    }

    /// The stream is over, after the head.
    fn break_off(&mut self, script: &Script, error: &tungstenite::Error) -> Result<(), Error> {
        if let State::Body(_) = self.state {
            Err(self.stop_reading(script))
        } else if let State::End = self.state {
            Ok(())
        } else {
            Err(lost_error(error))
        }
    }

    /// The refusal of a server that takes too long to say why.
    pub(super) fn stop_reading(&mut self, script: &Script) -> Error {
        let reason = if let State::Body(refusal) = mem::take(&mut self.state) {
            refusal.with_body(&self.unread)
        } else {
            ConnectError::HungUp
        };
        Error::handshake(&script.url, reason)
    }

    /// How many of the bytes were read.
    fn read(&mut self, script: &Script, bytes: &[u8], out: &mut Vec<u8>, heard: &mut Heard) -> Result<usize, Error> {
        let mut read = if let State::Head = self.state { self.read_head(script, bytes)? } else { 0 };
        if let State::Head = self.state {
            return Ok(read);
        }
        if let State::Body(refusal) = &self.state {
            heard.refused = true;
            let body = &bytes[read..];
            if body.len() < refusal.body_bytes() {
                return Ok(read);
            }
            self.unread = body.to_vec();
            return Err(self.stop_reading(script));
        }
        let broken = |what: &str| Error::Lost(format!("the server broke the rules of WebSocket: {what}"));
        while let Some(frame) = read_frame(&bytes[read..]).map_err(broken)? {
            if let State::End = self.state {
                return Err(broken("it sent a frame after its close frame"));
            }
            read += frame.length;
            self.hear_frame(script, &frame, out, heard).map_err(|error| match error {
                FrameError::Broken(what) => broken(what),
                FrameError::Failed(error) => error,
            })?;
        }
        Ok(read)
    }

    fn read_head(&mut self, script: &Script, bytes: &[u8]) -> Result<usize, Error> {
        const END: &[u8] = b"\r\n\r\n";

        let end = bytes.windows(END.len()).position(|window| window == END).map(|at| at + END.len());
        if let Some(end) = end
            && bytes.first() == Some(&b'H')
        {
            let head = &bytes[..end];
            self.state = script.refusal(head).map_or(State::Hello, State::Body);
            Ok(end)
        } else if bytes.first().is_some_and(|&first| first != b'H') || bytes.len() > MAX_HEAD_BYTES {
            Err(not_http(script, bytes))
        } else {
            Ok(0)
        }
    }

    fn hear_frame(
        &mut self,
        script: &Script,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        heard: &mut Heard,
    ) -> Result<(), FrameError> {
        match (frame.opcode, &mut self.fragments) {
            (Opcode::Ping, _) => write_frame(Opcode::Pong, &[frame.payload], out),
            (Opcode::Pong, _) => {}
            (Opcode::Close, _) => return self.hear_close(frame.payload, out).map_err(FrameError::Failed),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(FrameError::Broken("a message began within another one"));
            }
            (Opcode::Text, None) if frame.is_last => self.hear(script, frame.payload, out, heard)?,
            // Nothing of this protocol is binary. A later version may have such messages.
            (Opcode::Binary, None) if frame.is_last => {}
            (Opcode::Text | Opcode::Binary, None) => self.fragments = Some(frame.payload.to_vec()),
            (Opcode::Continuation, None) => return Err(FrameError::Broken("a message has no beginning")),
            (Opcode::Continuation, Some(fragments)) => {
                fragments.extend_from_slice(frame.payload);
                if fragments.len() > MAX_MESSAGE_BYTES {
                    return Err(FrameError::Broken("a message is too long"));
                }
                if frame.is_last {
                    let message = self.fragments.take().unwrap_or_default();
                    self.hear(script, &message, out, heard)?;
                }
            }
        }
        Ok(())
    }

    fn hear_close(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let (code, reason) = match payload {
            &[a, b, ref reason @ ..] => (u16::from_be_bytes([a, b]), String::from_utf8_lossy(reason)),
            _ => (NO_CODE, "".into()),
        };
        write_frame(Opcode::Close, &[payload.get(..2).unwrap_or_default()], out);
        match self.state {
            State::Close if code == NORMAL => {
                self.state = State::End;
                Ok(())
            }
            State::CloseAfterEviction => {
                self.state = State::End;
                Ok(())
            }
            State::Head
            | State::Body(_)
            | State::Hello
            | State::Greeted
            | State::Answer
            | State::Held
            | State::ByeSuccess
            | State::Close
            | State::End => Err(Error::Closed { code, reason: reason.into_owned() }),
        }
    }

    /// A message. What it is stands at its beginning: a load need not read the rest of the usual ones.
    fn hear(&mut self, script: &Script, text: &[u8], out: &mut Vec<u8>, heard: &mut Heard) -> Result<(), Error> {
        match self.state {
            State::Hello => {
                if text.starts_with(br#"{"type":"HELLO""#) || is_hello(text)? {
                    self.state = State::Greeted;
                    heard.greeted = true;
                }
            }
            State::Answer => {
                let answer = if text.starts_with(br#"{"type":"AUTHENTICATE_SUCCESS""#) {
                    Ok(Some(Answer::Granted))
                } else {
                    read_answer(text)
                };
                heard.answered = match answer {
                    Err(Error::Evicted(_)) if self.stays => Some(Answer::Superseded),
                    answer => answer?,
                };
                match heard.answered {
                    None => {}
                    Some(Answer::Superseded) => self.state = State::CloseAfterEviction,
                    Some(Answer::Granted | Answer::Refused) => {
                        self.state = State::Held;
                        if !self.stays {
                            self.leave(script, out);
                        }
                    }
                }
            }
            State::ByeSuccess => {
                // Answers to earlier requests arrive first.
                if text.starts_with(br#"{"type":"BYE_SUCCESS""#) || parse(text) == Some(ServerMessage::ByeSuccess) {
                    self.state = State::Close;
                }
            }
            State::Greeted => {
                if let Some(message) = parse(text) {
                    not_asked_for(&message)?;
                }
            }
            State::Held => {
                if let Some(ServerMessage::Evicted(_) | ServerMessage::EvictedDetailed(_)) = parse(text) {
                    self.state = State::CloseAfterEviction;
                    heard.evicted = true;
                }
            }
            State::Close | State::CloseAfterEviction | State::Head | State::Body(_) | State::End => {}
        }
        Ok(())
    }
}

enum FrameError {
    Broken(&'static str),
    Failed(Error),
}

impl From<Error> for FrameError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The error for something that is not the head of an answer, or not all of it.
fn not_http(script: &Script, bytes: &[u8]) -> Error {
    let reason = script.refusal(bytes).map_or(ConnectError::HungUp, |refusal| refusal.with_body(&[]));
    Error::handshake(&script.url, reason)
}

/// `None` for a message that this version does not know. Such messages are skipped.
fn parse(text: &[u8]) -> Option<ServerMessage> {
    ServerMessage::parse(std::str::from_utf8(text).ok()?).ok()
}

fn is_hello(text: &[u8]) -> Result<bool, Error> {
    match parse(text) {
        None | Some(ServerMessage::SessionsChanged(_)) => Ok(false),
        Some(ServerMessage::Hello | ServerMessage::HelloDetailed(_)) => Ok(true),
        Some(other) => Err(unexpected_reply("HELLO", &other)),
    }
}

fn not_asked_for(message: &ServerMessage) -> Result<(), Error> {
    if let ServerMessage::SessionsChanged(_) = message {
        Ok(())
    } else {
        Err(unexpected_reply("the time to authenticate", message))
    }
}

fn read_answer(text: &[u8]) -> Result<Option<Answer>, Error> {
    let Some(message) = parse(text) else { return Ok(None) };
    let failure = match message {
        ServerMessage::SessionsChanged(_) | ServerMessage::AuthenticateWaiting(_) => return Ok(None),
        ServerMessage::AuthenticateSuccess(_) | ServerMessage::AuthenticateSuccessDetailed(_) => {
            return Ok(Some(Answer::Granted));
        }
        ServerMessage::AuthenticateFailure(reason) => authenticate_failure(None, reason, None),
        ServerMessage::AuthenticateFailureDetailed(details) => {
            authenticate_failure(None, details.reason.clone(), Some(details))
        }
        ServerMessage::Error(error) => Error::RequestFailed(error),
        ServerMessage::ErrorDetailed(details) => Error::RequestFailed(details.error),
        ServerMessage::Evicted(reason) => Error::Evicted(reason),
        ServerMessage::EvictedDetailed(details) => Error::Evicted(details.message),
        other @ (ServerMessage::Hello
        | ServerMessage::HelloDetailed(_)
        | ServerMessage::Pong
        | ServerMessage::ByeSuccess
        | ServerMessage::CheckConnectionsSuccess(_)
        | ServerMessage::ListSessionsSuccess(_)
        | ServerMessage::EndSessionSuccess(_)) => unexpected_reply("answer to AUTHENTICATE", &other),
    };
    if let Error::Denied { .. } = failure { Ok(Some(Answer::Refused)) } else { Err(failure) }
}

#[cfg(test)]
mod tests;
