//! A backup that is read while it comes from elsewhere: its bytes go to a thread that verifies them.
//! Never holds more than a few pieces: the sender waits for the thread.

use std::io::{self, Read};
use std::thread;

use bytes::{Buf, Bytes};
use memkv_backup::{BackupError, BackupReader, Head, Summary};
use tokio::sync::{mpsc, oneshot};

/// Pieces on their way to the thread. A piece is what one read of the network gave, up to 1 MiB.
const PIECES: usize = 8;

/// The way into a verification that runs.
pub(super) struct Checked {
    pieces: mpsc::Sender<Bytes>,
    head: oneshot::Receiver<Head>,
    outcome: oneshot::Receiver<Result<(Head, Summary), BackupError>>,
}

impl Checked {
    /// Begins one.
    ///
    /// # Errors
    /// The system gives this process no thread.
    pub(super) fn begin() -> io::Result<Self> {
        let (pieces, coming) = mpsc::channel(PIECES);
        let (tell_head, head) = oneshot::channel();
        let (tell_outcome, outcome) = oneshot::channel();
        let verify = move || {
            let read = || {
                let reader = BackupReader::open(Pieces {
                    coming,
                    rest: Bytes::new(),
                })?;
                let head = reader.head().clone();
                // The sender may not want to know the head first.
                let _ = tell_head.send(head.clone());
                Ok((head, reader.verify()?))
            };
            let _ = tell_outcome.send(read());
        };
        thread::Builder::new()
            .name("verify".to_owned())
            .spawn(verify)?;
        Ok(Self {
            pieces,
            head,
            outcome,
        })
    }

    /// Hands it the next bytes; false once it has found that this is no backup, and [`Checked::end`] says why.
    pub(super) async fn take(&self, bytes: Bytes) -> bool {
        self.pieces.send(bytes).await.is_ok()
    }

    /// The head, once enough bytes were taken; nothing if they are no backup, and [`Checked::end`] says why.
    pub(super) async fn head(&mut self) -> Option<Head> {
        (&mut self.head).await.ok()
    }

    /// No more bytes come: whether they were a whole backup.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub(super) async fn end(self) -> Result<(Head, Summary), String> {
        drop(self.pieces);
        match self.outcome.await {
            Ok(outcome) => outcome.map_err(|err| err.to_string()),
            Err(_) => Err("the thread that verifies it has failed".to_owned()),
        }
    }
}

/// The pieces as a reader wants them.
struct Pieces {
    coming: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.coming.blocking_recv() {
                Some(bytes) => self.rest = bytes,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(into.len());
        let (now, _) = into.split_at_mut(count);
        self.rest.copy_to_slice(now);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        super::super::tests::head(7, "11111111-1")
    }

    fn backup() -> Bytes {
        let mut writer = memkv_backup::BackupWriter::new(Vec::new(), &head()).unwrap();
        writer.record(&[1; 700_000]).unwrap();
        writer.finish().unwrap().into()
    }

    async fn check(bytes: Bytes, piece: usize) -> Result<(Head, Summary), String> {
        let checked = Checked::begin().unwrap();
        for piece in bytes.chunks(piece) {
            if !checked.take(Bytes::copy_from_slice(piece)).await {
                break;
            }
        }
        checked.end().await
    }

    #[tokio::test]
    async fn a_whole_backup_is_whole_however_it_is_cut() {
        for piece in [1, 7, 4096, usize::MAX] {
            let (found, summary) = check(backup(), piece).await.unwrap();
            assert_eq!(found.revision, head().revision);
            assert_eq!(summary.file_bytes, backup().len() as u64);
        }
    }

    #[tokio::test]
    async fn what_is_no_whole_backup_is_refused() {
        let whole = backup();
        let cut = whole.slice(..whole.len() - 1);
        assert!(check(cut, 4096).await.is_err());
        let foreign = Bytes::from(vec![b'x'; 4 << 20]);
        assert!(check(foreign, 4096).await.is_err());
        assert!(check(Bytes::new(), 1).await.is_err());
    }

    #[tokio::test]
    async fn the_head_is_known_before_the_end() {
        let mut checked = Checked::begin().unwrap();
        let whole = backup();
        assert!(checked.take(whole.slice(..whole.len() - 1)).await);
        assert_eq!(checked.head().await.unwrap().revision, head().revision);
    }
}
