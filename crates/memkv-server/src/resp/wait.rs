//! WAIT and WAITAOF: the connection waits until other nodes have its writes, or its time is over.
//!
//! Never reads ahead meanwhile by more than a turn; notices that the client has gone. Earlier requests do
//! not wait: they have been answered.

use std::time::Duration;

use memkv_node::Copies;
use memkv_resp::ReplyWriter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::conn::{Conn, Disconnected, OUTPUT_BYTES};
use crate::backend::Backend;
use crate::commands::{ErrorReply, Waiting};

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    /// Answers, at once unless `may_wait`: within a transaction nothing is waited for, as in Redis.
    pub(super) async fn wait_copies(
        &mut self,
        waiting: Result<Waiting, ErrorReply>,
        may_wait: bool,
    ) -> Result<(), Disconnected> {
        let waiting = match waiting {
            Ok(waiting) => waiting,
            Err(error) => {
                self.fail_at_once(&error);
                return Ok(());
            }
        };
        let Some(backend) = self.resp.service.backend() else {
            self.fail_at_once(&ErrorReply::loading());
            return Ok(());
        };
        let within = if may_wait {
            waiting.within
        } else {
            Some(Duration::ZERO)
        };
        let drain = self.resp.service.drain();
        let mut copies = backend.wait_copies(waiting.wanted, within);
        let copies: Copies = if may_wait {
            self.flush().await?;
            let mut may_speak = true;
            loop {
                // A client that pipelines on is read from up to a buffer's size.
                let has_room = may_speak && self.input.len() < OUTPUT_BYTES;
                tokio::select! {
                    // Where the copies are known, it does not matter that the client has said all.
                    biased;
                    copies = &mut copies => break copies,
                    read = self.stream.read_buf(&mut self.input), if has_room => {
                        match read {
                            Ok(1..) if self.hold() => {}
                            // It has said all that it will, and may still read the answer.
                            Ok(0) if within.is_some() => may_speak = false,
                            _ => return Err(Disconnected),
                        }
                    }
                    () = self.session.client.woken() => {
                        if self.session.client.is_killed() {
                            return Err(Disconnected);
                        }
                        if drain.refuses() {
                            // What there is by now, as if its time was over.
                            let now = Some(Duration::ZERO);
                            break backend.wait_copies(waiting.wanted, now).await;
                        }
                    }
                }
            }
        } else {
            copies.await
        };
        if !self.session.is_silent() {
            let sync = self.resp.server.settings.sync;
            let mut reply = ReplyWriter::new(&mut self.out, self.session.protocol);
            (waiting.write)(&mut reply, copies, sync);
        }
        Ok(())
    }

    fn fail_at_once(&mut self, error: &ErrorReply) {
        self.note_error(error);
        if !self.session.is_silent() {
            ReplyWriter::new(&mut self.out, self.session.protocol).error(error.as_bytes());
        }
    }
}
