//! The closed loop: connections that each wait for an answer before they ask again, on one thread.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cpu::cpu_time;
use crate::latency::Latencies;
use crate::request::{Kind, read_response};

/// One row of the table.
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    pub(crate) value_bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// What a row measured.
pub(crate) struct Outcome {
    name: &'static str,
    connections: usize,
    seconds: f64,
    latencies: Latencies,
    failed: u64,
    cpu: Duration,
}

impl Outcome {
    /// Head of the table.
    pub(crate) const HEAD: &'static str = "request    connections      req/s    p50 ms    p99 ms  \
         p99.9 ms   failed  CPU us/req";
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.latencies.count();
        write!(
            f,
            "{:<10} {:>11} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>8} {:>11.1}",
            self.name,
            self.connections,
            count as f64 / self.seconds,
            self.latencies.quantile_ms(0.5),
            self.latencies.quantile_ms(0.99),
            self.latencies.quantile_ms(0.999),
            self.failed,
            self.cpu.as_secs_f64() * 1e6 / count.max(1) as f64,
        )
    }
}

/// What one connection did within the measured time.
#[derive(Default)]
struct Done {
    latencies: Latencies,
    failed: u64,
}

impl Load {
    /// Runs the row against `targets` (address and id), while `servers` (process ids) work.
    pub(crate) fn run(&self, targets: &[(String, String)], servers: &[u32]) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be built");
        runtime.block_on(self.measure(targets, servers))
    }

    async fn measure(&self, targets: &[(String, String)], servers: &[u32]) -> Outcome {
        let start = Instant::now() + self.warm_up;
        let end = start + self.duration;
        let value: Arc<str> = "v".repeat(self.value_bytes).into();
        let mut tasks = JoinSet::new();
        for connection in 0..self.connections {
            let (addr, id) = targets[connection % targets.len()].clone();
            let kind = self.kind;
            let value = Arc::clone(&value);
            tasks.spawn(async move {
                let first = (connection as u64) << 32;
                drive(kind, &addr, &id, &value, first, (start, end)).await
            });
        }
        tokio::time::sleep_until(start.into()).await;
        let cpu_before = cpu_time(servers);
        tokio::time::sleep_until(end.into()).await;
        let cpu = cpu_time(servers) - cpu_before;
        let mut all = Done::default();
        while let Some(done) = tasks.join_next().await {
            let done = done.expect("a connection's task does not panic");
            all.latencies.merge(done.latencies);
            all.failed += done.failed;
        }
        all.latencies.sort();
        Outcome {
            name: self.kind.name(),
            connections: self.connections,
            seconds: self.duration.as_secs_f64(),
            latencies: all.latencies,
            failed: all.failed,
            cpu,
        }
    }
}

/// Drives one connection until the end; a broken one counts as one failure and is opened again.
async fn drive(
    kind: Kind,
    addr: &str,
    id: &str,
    value: &str,
    first: u64,
    (start, end): (Instant, Instant),
) -> Done {
    let mut done = Done::default();
    let mut number = first;
    while Instant::now() < end {
        let Ok(mut stream) = connect(addr).await else {
            done.failed += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let mut buffer = Vec::with_capacity(1024);
        while Instant::now() < end {
            let request = kind.request(id, number, value);
            number += 1;
            let sent = Instant::now();
            let outcome = ask(&mut stream, request.as_bytes(), &mut buffer).await;
            let now = Instant::now();
            let measured = sent >= start && now <= end;
            match outcome {
                Ok(()) if !measured => {}
                Ok(()) if kind.succeeded(&buffer) => done.latencies.add(now - sent),
                Ok(()) => done.failed += 1,
                Err(_) => {
                    done.failed += 1;
                    break;
                }
            }
        }
    }
    done
}

pub(crate) async fn connect(addr: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) async fn ask(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    stream.write_all(request).await?;
    read_response(stream, buffer).await
}
