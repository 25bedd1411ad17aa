//! `MEMKV.CLUSTER`: what a client asks about the cluster's members, and the lines that it gets.
//!
//! Never decides: the leader does. Every verb is in the audit log, whether it was carried out or refused.

use std::time::Duration;

use memkv_node::{MemberVerb, MemberView, VerbError};
use memkv_proto::ErrorCode;
use memkv_store::Role;
use tokio::io::{AsyncRead, AsyncWrite};

use super::check_stop;
use super::conn::Conn;
use crate::backend::Backend;
use crate::commands::{Args, ErrorReply, Members};
use crate::members::{self, BAD_NAME, MAX_WAIT, settle};

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    pub(super) async fn members(
        &mut self,
        asked: Members,
        args: &Args<'_>,
    ) -> Result<String, ErrorReply> {
        let backend = self
            .resp
            .service
            .backend()
            .ok_or_else(ErrorReply::loading)?;
        if asked == Members::List {
            let list = backend.members().await.map_err(|error| failed(&error))?;
            return Ok(lines(&list.members));
        }
        if asked == Members::CheckStop {
            let name = match args.len() {
                2 => None,
                3 => Some(node_name(args.get(2))?),
                _ => return Err(ErrorReply::subcommand_syntax(args.name, args.get(1))),
            };
            let list = backend.members().await.map_err(|error| failed(&error))?;
            return check_stop::lines(&list.members, name.as_deref());
        }
        if asked == Members::Wait {
            let seconds = u64::try_from(args.int(2)?).ok().map(Duration::from_secs);
            let within = seconds
                .filter(|within| *within <= MAX_WAIT)
                .ok_or_else(|| {
                    let most = MAX_WAIT.as_secs();
                    ErrorReply::with(format!("ERR a wait is a number of seconds, at most {most}"))
                })?;
            return Ok(match settle(&self.resp.service, within).await {
                Ok(()) => "yes: nothing is left to do".to_owned(),
                Err(why) => format!("no: {why}"),
            });
        }
        let (verb, dry_run) = verb(asked, args)?;
        let done = backend.administer(verb, dry_run).await;
        let origin = Some(self.session.client.addr);
        members::record(done.is_ok(), &self.session.user_name(), origin, args.name);
        done.map_err(|error| failed(&error))
    }
}

fn failed(error: &VerbError) -> ErrorReply {
    match error {
        VerbError::Refused(why) => ErrorReply::with(format!("ERR {why}")),
        VerbError::NoLeader(_) => ErrorReply::of(ErrorCode::NoLeader, &error.to_string()),
        VerbError::Unknown(_) => ErrorReply::of(ErrorCode::Unknown, &error.to_string()),
    }
}

/// A verb with its arguments: names, `VOTER` or `REPLICA` behind ADD, and `DRYRUN` at the end.
fn verb(members: Members, args: &Args<'_>) -> Result<(MemberVerb, bool), ErrorReply> {
    let last = args.len() - 1;
    let dry_run = last > 1 && args.is(last, "DRYRUN");
    let len = if dry_run { last } else { args.len() };
    let wrong = || ErrorReply::subcommand_syntax(args.name, args.get(1));
    let name = |at: usize| match at < len {
        true => node_name(args.get(at)),
        false => Err(wrong()),
    };
    let (verb, used) = match members {
        Members::List | Members::CheckStop | Members::Wait => return Err(wrong()),
        Members::Add => {
            let role = match len {
                ..=3 => Role::Voter,
                _ if args.is(3, "VOTER") => Role::Voter,
                _ if args.is(3, "REPLICA") => Role::Replica,
                _ => return Err(wrong()),
            };
            (
                MemberVerb::Add {
                    name: name(2)?,
                    role,
                },
                len.clamp(3, 4),
            )
        }
        Members::Remove => (MemberVerb::Remove { name: name(2)? }, 3),
        Members::Replace => {
            let (old, new) = (name(2)?, name(3)?);
            (MemberVerb::Replace { old, new }, 4)
        }
        Members::Promote => (MemberVerb::Promote { name: name(2)? }, 3),
        Members::Demote => (MemberVerb::Demote { name: name(2)? }, 3),
        Members::Transfer if len == 2 => (MemberVerb::Transfer { to: None }, 2),
        Members::Transfer => (MemberVerb::Transfer { to: Some(name(2)?) }, 3),
    };
    match used == len {
        true => Ok((verb, dry_run)),
        false => Err(wrong()),
    }
}

fn node_name(bytes: &[u8]) -> Result<String, ErrorReply> {
    members::node_name(bytes).ok_or_else(|| ErrorReply::with(format!("ERR {BAD_NAME}")))
}

/// A line for each member, then a sentence. Names and addresses have no blanks.
fn lines(views: &[MemberView]) -> String {
    let mut text = String::new();
    for view in views {
        let state = view.state.map_or("expected", |state| state.name());
        let number =
            |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        let addr = if view.addr.is_empty() {
            "-"
        } else {
            &view.addr
        };
        let word = |yes: bool| if yes { "yes" } else { "no" };
        text += &format!(
            "name={} id={} addr={addr} role={} state={state} votes={} leads={} lag={} heard-ms={}\n",
            view.name,
            view.id,
            view.role.name(),
            word(view.votes),
            word(view.leads),
            number(view.lag),
            number(view.heard_ms),
        );
    }
    text + &members::may_fail(members::voters(views)) + "\n"
}

#[cfg(test)]
mod tests {
    use memkv_store::MemberState;

    use super::*;

    #[test]
    fn members_are_lines_and_a_sentence() {
        let view = |name: &str, votes, heard_ms| MemberView {
            name: name.to_owned(),
            id: 1,
            addr: "h:1".to_owned(),
            role: Role::Voter,
            state: Some(MemberState::Member),
            votes,
            leads: name == "n1",
            lag: Some(0),
            heard_ms,
            highest_level: 3,
        };
        let expected = MemberView {
            addr: String::new(),
            state: None,
            lag: None,
            ..view("n4", false, None)
        };
        let views = [
            view("n1", true, Some(0)),
            view("n2", true, Some(5)),
            view("n3", true, None),
            expected,
        ];
        assert_eq!(
            lines(&views),
            "name=n1 id=1 addr=h:1 role=voter state=member votes=yes leads=yes lag=0 heard-ms=0\n\
             name=n2 id=1 addr=h:1 role=voter state=member votes=yes leads=no lag=0 heard-ms=5\n\
             name=n3 id=1 addr=h:1 role=voter state=member votes=yes leads=no lag=0 heard-ms=-\n\
             name=n4 id=1 addr=- role=voter state=expected votes=no leads=no lag=- heard-ms=-\n\
             2 of 3 voters answer; no other may fail\n"
        );
    }
}
