//! Two nodes that exchange requests inside TLS. Each shakes hands, serves and runs its consensus on
//! runtimes of their own, as the program does, so every connection is moved twice on either side.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use memkv_node::{CallError, Frame, Lane, Transport};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::{SOON, Tls, ca, config, issue_node, listen};
use crate::peer::{ClusterSecret, Links, Trust};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// One byte, more than TLS takes in one call, and more than both sockets hold.
const SIZES: [usize; 3] = [1, 200 * 1024, 6 * 1024 * 1024];

/// A node's runtimes, each with one thread.
struct Runtimes {
    clients: Runtime,
    consensus: Runtime,
    handshakes: Runtime,
}

impl Runtimes {
    fn start() -> Self {
        let start = || {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(1).enable_all().build().unwrap()
        };
        Self {
            clients: start(),
            consensus: start(),
            handshakes: start(),
        }
    }

    fn tls(&self, dir: &Path, me: &str) -> Arc<Tls> {
        let _inside = self.handshakes.enter();
        Tls::started(&config(dir, me, me, &[]))
    }

    fn links(&self, dir: &Path, me: &str, trust: Trust) -> Links {
        Links::new(me.to_owned(), self.consensus.handle().clone())
            .with_reads_on(self.clients.handle().clone())
            .with_trust(trust)
            .with_tls(Some(self.tls(dir, me)))
    }
}

/// A frame of several parts, which leave in one call.
fn frame(lane: Lane, bytes: usize) -> Frame {
    let part = Bytes::from(vec![lane as u8; bytes]);
    Frame(vec![part.clone(), Bytes::from_static(b"between"), part])
}

/// Whether the lane is answered. A dial may take longer than it has on a busy machine.
async fn opens(links: &Links, addr: &str, lane: Lane) {
    let opened = async {
        loop {
            match links.call("n2", addr, lane, frame(lane, 0)).await {
                Ok(answer) => return answer,
                Err(CallError::Unreachable(_)) => {}
                Err(error) => panic!("{lane:?}: {error}"),
            }
        }
    };
    let answer = timeout(SOON, opened).await;
    assert_eq!(answer.expect("a connection"), "between", "{lane:?}");
}

/// Small and large requests on all lanes at once.
async fn exchange(links: &Links, addr: &str) {
    join_all(Lane::ALL.map(|lane| opens(links, addr, lane))).await;
    let calls = Lane::ALL.into_iter().flat_map(|lane| {
        let sizes = SIZES.into_iter().chain([1, 2, 3]);
        sizes.map(move |bytes| async move {
            let sent = frame(lane, bytes);
            let answer = links.call("n2", addr, lane, sent.clone()).await;
            let answer = answer.unwrap_or_else(|error| panic!("{lane:?}: {error}"));
            assert!(answer == sent.0.concat(), "{lane:?}: {bytes} bytes");
        })
    });
    timeout(2 * SOON, join_all(calls)).await.expect("answers");
}

#[test]
fn nodes_exchange_requests_on_every_lane_between_their_runtimes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ca(dir);
    issue_node(dir, "n1", "prod");
    issue_node(dir, "n2", "prod");
    let secret = ClusterSecret::new(SECRET).unwrap();
    // By the certificates alone, and by a proof that the certificates' connection is part of.
    for trust in [Trust::Nobody, Trust::Secret(secret)] {
        let (dialler, answerer) = (Runtimes::start(), Runtimes::start());
        let tls = answerer.tls(dir, "n2");
        let consensus = answerer.consensus.handle().clone();
        let listening = listen("n2", tls, trust.clone(), consensus);
        let addr = answerer.clients.block_on(listening).to_string();
        let links = dialler.links(dir, "n1", trust);
        dialler.clients.block_on(exchange(&links, &addr));
    }
}
