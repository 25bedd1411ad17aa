//! `GET /v1/backup`: the whole state as a backup file, from a finished snapshot. One at a time on each node.
//!
//! A piece is made when the one before has left, on a thread that may wait: a slow reader holds an open file
//! and one piece, never the store, the log or a thread. A snapshot that turns out to be damaged ends the
//! connection, so that no reader takes the rest for a backup.

use std::io;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use memkv_backup::{BackupWriter, Head as BackupHead};
use memkv_disk::SnapshotReader;
use memkv_node::Event as Timed;
use memkv_proto::ErrorCode;
use memkv_store::SnapshotHead;
use tokio::sync::OwnedSemaphorePermit;

use super::app::Api;
use super::head::Head;
use super::response::{Answer, Pieces, Response};
use super::status::uuid;
use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::failure;
use crate::ledger::{Class, Held};
use crate::service::ServiceError;

/// A piece has so many bytes before compression at least, but for the last: as much as a block of the file,
/// so that each costs one turn on another thread.
const PIECE_BYTES: usize = memkv_backup::CONTENT_BYTES;

/// The command whose right a backup needs.
const COMMAND: &str = "memkv.backup";

/// Answers with a backup.
pub(super) async fn answer<B: Backend>(api: &Api<B>, head: &Head) -> Answer {
    begin(api, head).await.unwrap_or_else(Answer::Whole)
}

async fn begin<B: Backend>(api: &Api<B>, head: &Head) -> Result<Answer, Response> {
    let refused = |refusal: super::Refusal| Response::error(refusal.code, refusal.detail);
    let principal = api.judge(head, COMMAND, &|_| {}).map_err(refused)?;
    let backend = api
        .backend()
        .ok_or_else(|| Response::problem(&failure::loading()))?;
    let turn = api.backup_turn().ok_or_else(|| {
        let detail =
            "another backup of this node is under way; wait for its end, or ask another node";
        Response::error(ErrorCode::Overloaded, detail)
    })?;
    let taken = backend.backup().await;
    let failed = |error| Response::problem(&failure::problem(&ServiceError::Request(error)));
    let snapshot = taken.map_err(failed)?;
    // Rights that were taken away meanwhile count: nothing has left yet.
    api.check_read(principal).map_err(refused)?;
    let user = head.identity.as_ref().map(|it| it.user.name.clone());
    let user = String::from_utf8_lossy(&user.unwrap_or_default()).into_owned();
    let mut body = Body {
        name: api.settings().name.clone(),
        snapshot,
        writer: None,
        block: Vec::new(),
        sent: 0,
        is_done: false,
        held: api.service().ledger().hold(Class::Output),
        _turn: turn,
    };
    let begun = tokio::task::spawn_blocking(move || {
        let first = body.begin();
        first.map(|()| body)
    });
    let damaged = |error: io::Error| {
        let detail =
            format!("the snapshot cannot be read: {error}; take the backup from another node");
        Response::error(ErrorCode::Internal, detail)
    };
    let begun = begun
        .await
        .map_err(io::Error::other)
        .and_then(|begun| begun);
    let body = begun.map_err(damaged)?;
    audit::record(&Event {
        kind: audit::Kind::Backup,
        allowed: true,
        user: &user,
        origin: head.client,
        detail: "backup over HTTP",
    });
    let response = Response::bytes(Bytes::new()).with("Cache-Control", "no-store");
    let timeline = backend.timeline();
    timeline.note(&Timed::BackupBegun { user });
    let story = Story {
        backend: backend.clone(),
        began: Instant::now(),
        bytes: 0,
        is_whole: false,
    };
    let body = Some(body);
    Ok(Answer::Streamed(response, Box::new(Stream { body, story })))
}

/// A backup that is being written.
struct Body {
    /// This node's name.
    name: String,
    snapshot: SnapshotReader,
    /// Writes into memory, from where each piece is taken.
    writer: Option<BackupWriter<Vec<u8>>>,
    /// The block of the snapshot that is being sent, and how much of it was.
    block: Vec<u8>,
    sent: usize,
    is_done: bool,
    held: Held,
    _turn: OwnedSemaphorePermit,
}

impl Body {
    /// Reads the first block, which the head of the backup follows from.
    fn begin(&mut self) -> io::Result<()> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "the snapshot is empty");
        self.block = self.snapshot.next_block()?.ok_or_else(missing)?;
        let state = SnapshotHead::decode(&self.block).map_err(io::Error::other)?;
        let last = self.snapshot.meta().last;
        let head = BackupHead {
            cluster: state.member_table().cluster().map(uuid).unwrap_or_default(),
            level: state.member_table().level(),
            revision: state.revision(),
            log_time_ms: state.stamp_ms(),
            keys: state.keys(),
            hash_seed: state.hash_seed(),
            term: last.term,
            index: last.index,
            node: self.name.clone(),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            salvaged: false,
            committed: last.index,
            terms: Vec::new(),
            stopped: None,
            condemned: None,
        };
        let mut writer = BackupWriter::new(Vec::new(), &head)?;
        writer.begin_record(self.block.len())?;
        self.writer = Some(writer);
        Ok(())
    }

    /// The next piece; nothing after the last.
    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut taken = 0;
        while taken < PIECE_BYTES && !self.is_done {
            let Some(writer) = &mut self.writer else {
                break;
            };
            let rest = self.block.get(self.sent..).unwrap_or_default();
            let now = rest.get(..PIECE_BYTES - taken).unwrap_or(rest);
            writer.put(now)?;
            taken += now.len();
            self.sent += now.len();
            if self.sent < self.block.len() {
                break;
            }
            self.sent = 0;
            // The old one is dropped first: a block may be as large as a value.
            self.block = Vec::new();
            match self.snapshot.next_block()? {
                Some(block) => {
                    writer.begin_record(block.len())?;
                    self.block = block;
                }
                None => self.is_done = true,
            }
            self.held.set(self.block.len());
        }
        let bytes = match self.is_done {
            true => self.writer.take().map(BackupWriter::finish).transpose()?,
            false => self
                .writer
                .as_mut()
                .map(|writer| std::mem::take(writer.out())),
        };
        match bytes {
            Some(bytes) if bytes.is_empty() => self.piece(),
            bytes => Ok(bytes.map(Bytes::from)),
        }
    }
}

/// The body between two pieces; nothing while a piece is made, or after a panic of that.
struct Stream<B: Backend> {
    body: Option<Body>,
    story: Story<B>,
}

/// What is told of the backup in the node's timeline, once it has ended.
struct Story<B: Backend> {
    backend: B,
    began: Instant,
    /// Bytes that were sent.
    bytes: u64,
    is_whole: bool,
}

impl<B: Backend> Drop for Story<B> {
    fn drop(&mut self) {
        let (bytes, took) = (self.bytes, self.began.elapsed());
        self.backend.timeline().note(&match self.is_whole {
            true => Timed::BackupDone { bytes, took },
            false => Timed::BackupBroken { bytes },
        });
    }
}

impl<B: Backend> Pieces for Stream<B> {
    fn next(&mut self) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        Box::pin(async {
            let gone = || io::Error::other("the backup has ended");
            let mut body = self.body.take().ok_or_else(gone)?;
            let made = tokio::task::spawn_blocking(move || {
                let piece = body.piece();
                (body, piece)
            });
            let (body, piece) = made.await.map_err(io::Error::other)?;
            if let Err(error) = &piece {
                tracing::error!(%error, "a backup breaks off: the snapshot cannot be read");
            }
            match &piece {
                Ok(Some(sent)) => self.story.bytes += sent.len() as u64,
                Ok(None) => self.story.is_whole = true,
                Err(_) => {}
            }
            self.body = Some(body);
            piece
        })
    }
}
