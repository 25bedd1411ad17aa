//! The demo's questions to its nodes, over HTTP like any client's. Never retries.

use std::io;
use std::time::Duration;

use memkv_proto::compat::CompatStatus;
use memkv_proto::{STATUS_PATH, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A node answers everything within this.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest answer that is read: a status of many members.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Whether the node acknowledges a write. The key does not exist, so the write leaves nothing.
pub(super) async fn write(addr: &str) -> bool {
    let body = br#"{"key":"memkv-demo-ready"}"#;
    let answer = ask(addr, "POST", "/store/del", body).await;
    answer.is_some_and(|answer| answer == CompatStatus::Ok.body())
}

/// The node's status, if it answers.
pub(super) async fn status(addr: &str) -> Option<Status> {
    serde_json::from_slice(&ask(addr, "GET", STATUS_PATH, b"").await?).ok()
}

/// The body of an answer, whatever its status.
async fn ask(addr: &str, method: &str, path: &str, body: &[u8]) -> Option<Vec<u8>> {
    let answer = tokio::time::timeout(ANSWER_MAX, exchange(addr, method, path, body)).await;
    let answer = answer.ok()?.ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(answer[end + 4..].to_vec())
}

async fn exchange(addr: &str, method: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(answer)
}
