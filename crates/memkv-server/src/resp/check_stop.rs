//! `MEMKV.CLUSTER CHECKSTOP`: whether the cluster can spare a node now, as the leader sees its members.
//!
//! Changes nothing and promises nothing: what it says holds for the moment. Invariant: the answer is yes only if the
//! voters that stay are a majority, answer and have the log.

use memkv_node::MemberView;

use crate::commands::ErrorReply;
use crate::members::is_silent;

/// A voter that lacks more entries than this may not be one of those that stay: until it has them, the loss of
/// another one would stop the cluster. Some are always on their way under load.
const MAX_LAG: u64 = 1_000;

/// A line for the node, or for each one: `yes: ` or `no: ` and a sentence.
///
/// # Errors
/// There is no such node.
pub(super) fn lines(views: &[MemberView], name: Option<&str>) -> Result<String, ErrorReply> {
    let joined = || views.iter().filter(|view| view.state.is_some());
    let asked: Vec<_> = match name {
        None => joined().collect(),
        // A newcomer may have the name of the node whose place it takes, which votes.
        Some(name) => {
            let named = || joined().filter(|view| view.name == name);
            let voter = named().find(|view| view.votes);
            let node = voter.or_else(|| named().next());
            vec![node.ok_or_else(|| unknown(name, joined()))?]
        }
    };
    let lines: Vec<_> = asked.into_iter().map(|node| line(views, node)).collect();
    Ok(lines.join("\n"))
}

fn unknown<'a>(name: &str, joined: impl Iterator<Item = &'a MemberView>) -> ErrorReply {
    let names: Vec<&str> = joined.map(|view| &*view.name).collect();
    ErrorReply::with(format!(
        "ERR no node named {name} is in the cluster; there are {}",
        names.join(", ")
    ))
}

fn line(views: &[MemberView], node: &MemberView) -> String {
    match judge(views, node) {
        Ok(why) => format!("yes: {} may stop: {why}", node.name),
        Err(why) => format!("no: {} must not stop now: {why}", node.name),
    }
}

/// Why the node may stop, or why not.
fn judge(views: &[MemberView], node: &MemberView) -> Result<String, String> {
    if !node.votes {
        return Ok("it has no vote, and the others serve without it".to_owned());
    }
    let voters = views.iter().filter(|view| view.votes).count();
    if voters == 1 {
        return Err("it is the only voter, and nothing is served without it".to_owned());
    }
    let needed = voters / 2 + 1;
    let is_other = |view: &&MemberView| view.votes && view.id != node.id;
    let (silent, answering): (Vec<_>, Vec<_>) = views
        .iter()
        .filter(is_other)
        .partition(|view| is_silent(view));
    let names = |views: &[&MemberView]| {
        let names: Vec<&str> = views.iter().map(|view| &*view.name).collect();
        names.join(", ")
    };
    if answering.len() < needed {
        let next = match silent.is_empty() {
            true => "let other nodes join first".to_owned(),
            false => format!("start {} first", names(&silent)),
        };
        return Err(format!(
            "{needed} of {voters} voters must answer without it, and {} would; {next}",
            answering.len(),
        ));
    }
    let lags = |view: &&MemberView| view.lag.is_none_or(|lag| lag > MAX_LAG);
    let (behind, ready): (Vec<_>, Vec<_>) = answering.into_iter().partition(lags);
    if ready.len() < needed {
        return Err(format!(
            "{needed} of {voters} voters must have the log without it, and {} would; wait until `member list` \
             shows a lag of {MAX_LAG} or less for {}",
            ready.len(),
            names(&behind),
        ));
    }
    let leads = match node.leads {
        true => "; it leads, and hands leadership over before it stops",
        false => "",
    };
    Ok(format!(
        "{} of {voters} voters answer without it and have the log; {} of them may fail meanwhile{leads}",
        ready.len(),
        match ready.len() - needed {
            0 => "none".to_owned(),
            spare => spare.to_string(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use memkv_store::{MemberState, Role};

    use super::*;

    /// The first one leads.
    fn cluster(seen: &[(Option<u64>, Option<u64>)]) -> Vec<MemberView> {
        let view = |(id, (heard_ms, lag)): (u64, &(Option<u64>, Option<u64>))| MemberView {
            name: format!("n{id}"),
            id,
            addr: "h:1".to_owned(),
            role: Role::Voter,
            state: Some(MemberState::Member),
            votes: true,
            leads: id == 1,
            lag: *lag,
            heard_ms: *heard_ms,
            highest_level: 3,
        };
        (1..).zip(seen).map(view).collect()
    }

    const WELL: (Option<u64>, Option<u64>) = (Some(5), Some(3));
    const SILENT: (Option<u64>, Option<u64>) = (Some(4_000), Some(3));

    #[track_caller]
    fn says(views: &[MemberView], name: &str, words: &str) {
        assert_eq!(lines(views, Some(name)).unwrap(), words);
    }

    #[test]
    fn a_majority_must_stay_that_answers_and_has_the_log() {
        let well = cluster(&[WELL, WELL, WELL]);
        says(
            &well,
            "n2",
            "yes: n2 may stop: 2 of 3 voters answer without it and have the log; none of them may fail meanwhile",
        );
        says(
            &well,
            "n1",
            "yes: n1 may stop: 2 of 3 voters answer without it and have the log; none of them may fail meanwhile; \
             it leads, and hands leadership over before it stops",
        );
        let one_down = cluster(&[WELL, WELL, SILENT]);
        says(
            &one_down,
            "n2",
            "no: n2 must not stop now: 2 of 3 voters must answer without it, and 1 would; start n3 first",
        );
        assert!(
            lines(&one_down, Some("n3")).unwrap().starts_with("yes: "),
            "it is silent already"
        );
        let all = lines(&one_down, None).unwrap();
        let words: Vec<_> = all.lines().map(|line| &line[..3]).collect();
        assert_eq!(words, ["no:", "no:", "yes"]);
        for lag in [None, Some(MAX_LAG + 1)] {
            let behind = cluster(&[WELL, WELL, (Some(5), lag)]);
            says(
                &behind,
                "n2",
                "no: n2 must not stop now: 2 of 3 voters must have the log without it, and 1 would; wait until \
                 `member list` shows a lag of 1000 or less for n3",
            );
        }
        let five = cluster(&[WELL; 5]);
        assert!(
            lines(&five, Some("n5"))
                .unwrap()
                .contains("1 of them may fail")
        );
    }

    #[test]
    fn one_or_two_voters_spare_none_and_a_replica_is_always_spared() {
        says(
            &cluster(&[WELL]),
            "n1",
            "no: n1 must not stop now: it is the only voter, and nothing is served without it",
        );
        let mut two = cluster(&[WELL, WELL, SILENT]);
        two[2].votes = false;
        says(
            &two,
            "n2",
            "no: n2 must not stop now: 2 of 2 voters must answer without it, and 1 would; let other nodes join first",
        );
        assert!(lines(&two, Some("n3")).unwrap().starts_with("yes: "));
        let unknown = lines(&two, Some("n9")).unwrap_err();
        let text = String::from_utf8_lossy(unknown.as_bytes()).into_owned();
        assert!(text.contains("there are n1, n2, n3"), "{text}");
    }
}
