//! `/livez`: whether the process lives. `/readyz`: whether it can serve, found out by a read. With `?verbose`
//! both say so check by check, as Kubernetes does. None of them ever changes anything.
//!
//! Invariants: the code is the same with and without `?verbose`; what a check found is told to users only.

use std::fmt::Write as _;
use std::time::Duration;

use memkv_node::{NodeStatus, Phase};

use super::app::Api;
use super::head::Head;
use super::response::Response;
use super::status::phase;
use crate::backend::Backend;
use crate::failure;
use crate::tls;

/// A linearizable read takes one round trip; a balancer asks about once a second.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// Entries that a node may lack of what it knows to be committed; apply is about that far behind under load.
const LAG_ENTRIES: u64 = 10_000;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Well,
    /// The node serves all the same; why, and what to do.
    Warns(String),
    /// It does not serve; why, and what to do.
    Fails(String),
}

/// The checks with their names, in the order in which a start passes them.
#[derive(Debug, Default)]
struct Checks(Vec<(&'static str, Found)>);

impl Checks {
    fn add(&mut self, name: &'static str, found: Found) {
        self.0.push((name, found));
    }

    fn fails(&mut self, name: &'static str, why: &str) {
        self.add(name, Found::Fails(why.to_owned()));
    }

    fn is_ready(&self) -> bool {
        let is_failure = |(_, found): &(_, Found)| matches!(found, Found::Fails(_));
        !self.0.iter().any(is_failure)
    }

    /// A line for each check, then the verdict.
    fn text(&self) -> String {
        let mut text = String::new();
        for (name, found) in &self.0 {
            // Writing to a String cannot fail.
            let _ = match found {
                Found::Well => writeln!(text, "[+]{name} ok"),
                Found::Warns(why) => writeln!(text, "[!]{name} ok, but {why}"),
                Found::Fails(why) => writeln!(text, "[-]{name} failed: {why}"),
            };
        }
        text + if self.is_ready() {
            "ready"
        } else {
            "not ready"
        }
    }

    /// The last failure: a read needs all that is before it.
    fn short(&self) -> String {
        let why = self.0.iter().rev().find_map(|(_, found)| match found {
            Found::Fails(why) => Some(why),
            _ => None,
        });
        why.map_or("ready".to_owned(), |why| format!("not ready: {why}"))
    }
}

/// Whether the lines are asked for: `?verbose`, with whatever value.
fn is_verbose(head: &Head) -> bool {
    let mut pairs = head.query.split('&');
    pairs.any(|pair| pair.split('=').next() == Some("verbose"))
}

/// `GET /livez`.
pub(super) fn live<B: Backend>(api: &Api<B>, head: &Head) -> Response {
    let text = match (is_verbose(head), api.backend().is_some()) {
        (false, _) => "alive",
        (true, true) => "[+]process ok\n[+]data ok\nalive",
        (true, false) => "[+]process ok\n[!]data ok, but this node is loading it\nalive",
    };
    Response::text(200, text)
}

/// `GET /readyz`.
pub(super) async fn ready<B: Backend>(api: &Api<B>, head: &Head) -> Response {
    let checks = check(api).await;
    let code = if checks.is_ready() { 200 } else { 503 };
    let is_plain = matches!(checks.0.as_slice(), [(_, Found::Fails(_))]);
    if checks.is_ready() && !is_verbose(head) {
        return Response::text(code, "ready");
    }
    // A node that loads or stops says so to all: it tells nothing of the cluster.
    let rights = api.service().rights();
    let is_known = rights.is_known();
    if !is_plain && api.identify(head).await.is_err() {
        // By an old table this may be a mistake, so it is no failure; but the next attempt has to wait.
        if let (false, Some(client)) = (
            is_known,
            head.client.filter(|_| head.authorization.is_some()),
        ) {
            rights.delay(client.ip());
        }
        let word = if code == 200 { "ready" } else { "not ready" };
        return Response::text(code, word);
    }
    match is_verbose(head) {
        true => Response::text(code, checks.text()),
        false => Response::text(code, checks.short()),
    }
}

/// Looks at everything that a request needs.
async fn check<B: Backend>(api: &Api<B>) -> Checks {
    let mut checks = Checks::default();
    let service = api.service();
    let Some(backend) = api.backend() else {
        checks.fails("data", "this node is loading its data");
        return checks;
    };
    if service.drain().has_begun() {
        checks.fails("drain", "this node is stopping");
        return checks;
    }
    let read = service.confirm(READY_WITHIN).await;
    let status = backend.status();
    for name in ["data", "drain"] {
        checks.add(name, Found::Well);
    }
    checks.add("member", member(&status));
    checks.add("leader", leader(&status));
    checks.add(
        "users",
        match service.rights().is_known() {
            true => Found::Well,
            false => Found::Warns("the users are not known yet: requests wait".to_owned()),
        },
    );
    checks.add(
        "read",
        match &read {
            Ok(()) => Found::Well,
            Err(error) => Found::Fails(failed_read(&failure::problem(error).detail, &status)),
        },
    );
    for (name, found) in resources(&status) {
        checks.add(name, found);
    }
    let alarm = tls::alarms().into_iter().next();
    checks.add("tls", alarm.map_or(Found::Well, Found::Warns));
    if read.is_ok() {
        // What a read has confirmed counts for more than what was seen beside it.
        for (_, found) in &mut checks.0 {
            if let Found::Fails(why) = found {
                *found = Found::Warns(std::mem::take(why));
            }
        }
    }
    checks
}

fn failed_read(detail: &str, status: &NodeStatus) -> String {
    match status.message.is_empty() {
        true => detail.to_owned(),
        false => format!("{detail} ({})", status.message),
    }
}

fn member(status: &NodeStatus) -> Found {
    match status.phase {
        Phase::Serving => Found::Well,
        other => Found::Fails(format!("this node is {}: {}", phase(other), status.message)),
    }
}

fn leader(status: &NodeStatus) -> Found {
    match (&status.leader, status.message.is_empty()) {
        (Some(_), _) => Found::Well,
        (None, true) => Found::Fails("none is known; an election is under way".to_owned()),
        (None, false) => Found::Fails(status.message.clone()),
    }
}

/// What may soon keep it from serving.
fn resources(status: &NodeStatus) -> [(&'static str, Found); 3] {
    let lag = status.commit_index.saturating_sub(status.applied_index);
    let log = match lag > LAG_ENTRIES {
        true => Found::Warns(format!(
            "{lag} committed entries are not applied here yet: reads wait for them"
        )),
        false => Found::Well,
    };
    let disk = match status.disk_low {
        true => Found::Warns("its space is low: free some, or enlarge it".to_owned()),
        false => Found::Well,
    };
    let memory = match (status.memory_low, status.memory.refuses_growth()) {
        (true, _) => Found::Warns(
            "the process is near its limit and growth stops: give this node more, or delete keys"
                .to_owned(),
        ),
        (false, true) => Found::Warns(
            "the keys are at maxmemory and growth is refused: raise it, or delete keys".to_owned(),
        ),
        (false, false) => Found::Well,
    };
    [("log", log), ("disk", disk), ("memory", memory)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;

    fn status() -> NodeStatus {
        Fake::working().status()
    }

    #[test]
    fn each_shortage_is_named_and_fails_nothing() {
        let found = |status: &NodeStatus| {
            let names = resources(status).into_iter();
            let ill = names.filter(|(_, found)| matches!(found, Found::Warns(_)));
            ill.map(|(name, _)| name).collect::<Vec<_>>()
        };
        let mut node = status();
        assert_eq!(found(&node), [""; 0]);
        node.disk_low = true;
        node.memory_low = true;
        node.commit_index = node.applied_index + LAG_ENTRIES + 1;
        assert_eq!(found(&node), ["log", "disk", "memory"]);
    }

    #[test]
    fn a_node_without_a_leader_says_what_it_waits_for() {
        let mut node = status();
        assert_eq!((leader(&node), member(&node)), (Found::Well, Found::Well));
        node.leader = None;
        node.phase = Phase::Joining;
        node.message = "n2 is not reachable".to_owned();
        let mut checks = Checks::default();
        checks.add("member", member(&node));
        checks.add("leader", leader(&node));
        checks.add("log", Found::Well);
        assert_eq!(
            checks.text(),
            "[-]member failed: this node is joining: n2 is not reachable\n\
             [-]leader failed: n2 is not reachable\n[+]log ok\nnot ready"
        );
        assert_eq!(checks.short(), "not ready: n2 is not reachable");
    }
}
