//! Publish and subscribe over a whole cluster: whichever node a message is published on, whoever
//! listens on a node that answers gets it once, and each publisher's messages in their order.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use memkv_black_box::{Cluster, Frame, Resp, Signal, encode, eventually, within};

/// Longer than a restart and its detection take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Messages of each publisher.
const MESSAGES: usize = 500;

/// Connections to the node at each index, as many as there are nodes.
fn clients(cluster: &Cluster) -> Vec<Resp> {
    let connect = |node: &memkv_black_box::Node| Resp::connect(&node.addr).unwrap();
    cluster.nodes.iter().map(connect).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// A message as its words, whatever the protocol: `message news hello`.
fn shown(frame: &Frame) -> String {
    let items: Vec<_> = frame
        .items
        .iter()
        .map(|item| String::from_utf8_lossy(item.text()))
        .collect();
    items.join(" ")
}

#[track_caller]
fn subscribe(client: &mut Resp, line: &str) {
    let arguments = words(line);
    client.send(&encode(&arguments)).unwrap();
    for _ in 1..arguments.len() {
        let confirmed = client.receive().unwrap();
        assert!(shown(&confirmed).contains("subscribe"), "{confirmed}");
    }
}

#[track_caller]
fn count(client: &mut Resp, line: &str) -> i64 {
    let reply = client.call(&words(line)).unwrap();
    reply.integer().unwrap_or_else(|| panic!("{line}: {reply}"))
}

#[track_caller]
fn expect(client: &mut Resp, message: &str) {
    assert_eq!(shown(&client.receive().unwrap()), message);
}

#[test]
fn messages_reach_listeners_on_every_node_once_and_in_order() {
    let cluster = Cluster::start(3);
    let mut listeners = clients(&cluster);
    let mut modern = clients(&cluster);
    for client in &mut modern {
        client.call(&["HELLO", "3"]).unwrap();
    }
    for client in listeners.iter_mut().chain(&mut modern) {
        subscribe(client, "SUBSCRIBE news end");
        subscribe(client, "PSUBSCRIBE ne*");
        subscribe(client, "SSUBSCRIBE shard");
    }
    let mut publishers = clients(&cluster);
    for (index, publisher) in publishers.iter_mut().enumerate() {
        // Six listeners, each by name and by pattern.
        assert_eq!(count(publisher, &format!("PUBLISH news from-{index}")), 12);
        assert_eq!(count(publisher, &format!("SPUBLISH shard from-{index}")), 6);
        assert_eq!(count(publisher, "PUBLISH nobody x"), 0);
        for client in listeners.iter_mut().chain(&mut modern) {
            expect(client, &format!("message news from-{index}"));
            expect(client, &format!("pmessage ne* news from-{index}"));
            expect(client, &format!("smessage shard from-{index}"));
        }
    }
    // All at once, in pipelines, which writes interrupt: those must be executed in between.
    for (index, publisher) in publishers.iter_mut().enumerate() {
        let mut pipeline = Vec::new();
        for number in 0..MESSAGES {
            if number % 100 == 0 {
                pipeline.extend(encode(&[
                    "SET",
                    &format!("seen-{index}"),
                    &number.to_string(),
                ]));
            }
            pipeline.extend(encode(&["PUBLISH", "news", &format!("{index} {number}")]));
        }
        publisher.send(&pipeline).unwrap();
    }
    for publisher in &mut publishers {
        for number in 0..MESSAGES {
            if number % 100 == 0 {
                assert_eq!(publisher.receive().unwrap().line, b"OK");
            }
            assert_eq!(publisher.receive().unwrap().integer(), Some(12));
        }
    }
    assert_eq!(count(&mut publishers[0], "PUBLISH end of-it"), 6);
    for client in listeners.iter_mut().chain(&mut modern) {
        let mut next = BTreeMap::<String, usize>::new();
        loop {
            let frame = client.receive().unwrap();
            let message = shown(&frame);
            let words = words(&message);
            match words[..] {
                ["message", "news", index, number] => {
                    let next = next.entry(index.to_owned()).or_default();
                    assert_eq!(number, next.to_string(), "publisher {index}");
                    *next += 1;
                }
                ["pmessage", ..] => {}
                ["message", "end", ..] => break,
                _ => panic!("{message}"),
            }
        }
        // The pipelines were answered before the end was published, so all of it is here.
        let all = (0..3).map(|index| (index.to_string(), MESSAGES)).collect();
        assert_eq!(next, all);
    }
}

#[test]
fn a_transaction_publishes_to_its_own_connection_too() {
    let cluster = Cluster::start(3);
    let mut listeners = clients(&cluster);
    for client in &mut listeners {
        subscribe(client, "SUBSCRIBE news");
    }
    let mut client = Resp::connect(&cluster.nodes[0].addr).unwrap();
    for line in ["MULTI", "SET k v", "PUBLISH news x", "GET k"] {
        client.call(&words(line)).unwrap();
    }
    let reply = client.call(&["EXEC"]).unwrap();
    let answers: Vec<_> = reply.items.iter().map(Frame::text).collect();
    assert_eq!(answers, [&b"OK"[..], b"3", b"v"]);
    for client in &mut listeners {
        expect(client, "message news x");
    }
    client.call(&["HELLO", "3"]).unwrap();
    subscribe(&mut client, "SUBSCRIBE news");
    client
        .send(
            &[
                encode(&["PUBLISH", "news", "1"]),
                encode(&["PUBLISH", "news", "2"]),
            ]
            .concat(),
        )
        .unwrap();
    for number in ["1", "2"] {
        expect(&mut client, &format!("message news {number}"));
        assert_eq!(client.receive().unwrap().integer(), Some(4));
    }
}

#[test]
fn a_dead_or_paused_node_delays_no_publisher_and_returns() {
    let mut cluster = Cluster::start(3);
    let mut listeners = clients(&cluster);
    for client in &mut listeners {
        subscribe(client, "SUBSCRIBE news");
    }
    let mut publisher = Resp::connect(&cluster.nodes[0].addr).unwrap();
    let counts = |publisher: &mut Resp, receivers, what: &str| {
        eventually(what, LIMIT, || {
            (count(publisher, "PUBLISH news probe") == receivers).then_some(())
        });
    };
    counts(&mut publisher, 3, "all nodes are connected");

    cluster.nodes[2].kill();
    counts(&mut publisher, 2, "the dead node's listener is not counted");
    publish_without_waiting(&mut publisher);
    cluster.start_all();
    let mut returned = Resp::connect(&cluster.nodes[2].addr).unwrap();
    subscribe(&mut returned, "SUBSCRIBE news");
    counts(&mut publisher, 3, "the node is back");
    assert_eq!(count(&mut publisher, "PUBLISH news after-restart"), 3);
    wait_for(&mut returned, "after-restart");

    cluster.nodes[1].process().signal(Signal::STOP);
    // It is not known yet that the node does not answer: a pipeline waits for it once.
    let pipeline = encode(&["PUBLISH", "news", "at-once"]).repeat(MESSAGES);
    publisher.send(&pipeline).unwrap();
    within("a pipeline to a node that has just stopped", LIMIT, || {
        for _ in 0..MESSAGES {
            assert_eq!(publisher.receive().unwrap().integer(), Some(2));
        }
    });
    counts(
        &mut publisher,
        2,
        "the paused node's listener is not counted",
    );
    publish_without_waiting(&mut publisher);
    wait_for(&mut listeners[0], "without");
    cluster.nodes[1].process().signal(Signal::CONT);
    counts(&mut publisher, 3, "the node goes on");
    assert_eq!(count(&mut publisher, "PUBLISH news after-pause"), 3);
    wait_for(&mut listeners[1], "after-pause");
}

/// Publishes one after the other while two of three nodes answer. Waiting half a second for the
/// third at each of them would take four minutes.
fn publish_without_waiting(publisher: &mut Resp) {
    within("publishing without a node", LIMIT, || {
        for _ in 0..MESSAGES {
            assert_eq!(count(publisher, "PUBLISH news without"), 2);
        }
    });
}

/// Reads messages until this one arrives.
fn wait_for(client: &mut Resp, payload: &str) {
    let wanted = format!("message news {payload}");
    while shown(&client.receive().unwrap()) != wanted {}
}
