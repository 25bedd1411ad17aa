//! How a peer's connection opens where there is a cluster secret. The dialling side proves first, so
//! the answering side tells nothing to a caller that does not know the secret, not even its name:
//!
//! ```text
//! dialler                                        answerer
//!   GET /memkv{to}/raft/{lane}, its nonce   ->
//!                                           <-   101, its nonce
//!   proof                                   ->
//!                                           <-   proof, length u16, verdict
//! ```
//!
//! An empty verdict lets the dialler in; any other is the reason of the rejection, which the
//! answerer's proof covers. Without TLS the frames after it are neither encrypted nor signed. Inside TLS
//! both proofs cover a value that only this connection has, so that nothing between both ends can pass
//! them on.
//!
//! Invariant: nothing that the other side sends is believed before its proof holds, and nothing
//! is allocated on the word of a length before that.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::secret::{ClusterSecret, Meeting, PROOF_BYTES, is_nonce, random_hex};
use crate::password::same;

/// The callers with which a node speaks the peers' protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those that prove that they know this secret.
    Secret(ClusterSecret),
    /// All: only this machine reaches the node, and clients need no password either.
    Everybody,
    /// None: there is something to protect, and no secret to prove.
    Nobody,
}

/// Why the two ends do not come together.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side does not know the secret.
    #[error(
        "it does not prove that it knows this node's cluster secret: give all nodes the same \
         cluster_secret_file, and the one with the wrong one a restart"
    )]
    Unproven,
    /// The other side knows the secret and says why it will not talk, or this side has said so.
    #[error("{0}")]
    Refused(String),
}

/// What a meeting is about, on the answering side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    secret: ClusterSecret,
    from: String,
    to: String,
    lane: &'static str,
    asked: String,
    answered: String,
    channel: String,
    verdict: String,
}

impl Challenge {
    /// A new one for a node that calls itself `from` and wants to speak to `to`; `asked` is its
    /// nonce, `channel` as in [`Meeting`], and `verdict` why it will not be let in although it knows the secret, or empty.
    /// `None` if the nonce is none.
    pub fn new(
        secret: ClusterSecret,
        (from, to): (&str, &str),
        lane: &'static str,
        (asked, channel): (&str, &str),
        verdict: String,
    ) -> Option<Self> {
        is_nonce(asked).then(|| Self {
            secret,
            from: from.to_owned(),
            to: to.to_owned(),
            lane,
            asked: asked.to_owned(),
            answered: random_hex(),
            channel: channel.to_owned(),
            verdict,
        })
    }

    /// This side's nonce, for the answer to the upgrade.
    pub fn nonce(&self) -> &str {
        &self.answered
    }

    /// Waits for the dialler's proof and answers it. `input` is what has been read already, and
    /// afterwards what was read too much.
    ///
    /// # Errors
    /// The dialler must not be served.
    pub async fn settle(
        self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        input: &mut BytesMut,
    ) -> Result<(), HandshakeError> {
        let meeting = Meeting {
            from: &self.from,
            to: &self.to,
            lane: self.lane,
            asked: &self.asked,
            answered: &self.answered,
            channel: &self.channel,
        };
        let shown = read_proof(stream, input).await?;
        if !same(&shown, &self.secret.dialler_proof(meeting)) {
            return Err(HandshakeError::Unproven);
        }
        let mut out = self.secret.answer_proof(meeting, &self.verdict).to_vec();
        let length = u16::try_from(self.verdict.len()).unwrap_or_default();
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(self.verdict.as_bytes());
        stream.write_all(&out).await?;
        stream.flush().await?;
        match self.verdict.is_empty() {
            true => Ok(()),
            false => Err(HandshakeError::Refused(self.verdict)),
        }
    }
}

/// The dialling side: proves that it knows the secret, and demands the same. `input` is what was
/// read behind the answer to the upgrade.
///
/// # Errors
/// The answerer must not be spoken to.
pub async fn prove(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    input: &mut BytesMut,
    secret: &ClusterSecret,
    meeting: Meeting<'_>,
) -> Result<(), HandshakeError> {
    // Whoever has no nonce wants no proof, and gets none.
    if !is_nonce(meeting.answered) {
        return Err(HandshakeError::Unproven);
    }
    // Whoever does not believe it closes without a word.
    let unproven = |_: io::Error| HandshakeError::Unproven;
    stream
        .write_all(&secret.dialler_proof(meeting))
        .await
        .map_err(unproven)?;
    stream.flush().await.map_err(unproven)?;
    let proof = read_proof(stream, input).await.map_err(unproven)?;
    fill(stream, input, 2).await.map_err(unproven)?;
    let length = usize::from(input.get_u16_le());
    fill(stream, input, length).await.map_err(unproven)?;
    let verdict = input.split_to(length);
    let verdict = std::str::from_utf8(&verdict).map_err(|_| HandshakeError::Unproven)?;
    if !same(&proof, &secret.answer_proof(meeting, verdict)) {
        return Err(HandshakeError::Unproven);
    }
    match verdict {
        "" => Ok(()),
        why => Err(HandshakeError::Refused(why.to_owned())),
    }
}

async fn read_proof(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> io::Result<[u8; PROOF_BYTES]> {
    fill(stream, input, PROOF_BYTES).await?;
    let mut proof = [0; PROOF_BYTES];
    input.copy_to_slice(&mut proof);
    Ok(proof)
}

/// Reads until `input` holds so many bytes: at most 64 KiB, which a length of two bytes can say.
async fn fill(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    bytes: usize,
) -> io::Result<()> {
    while input.len() < bytes {
        if stream.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
