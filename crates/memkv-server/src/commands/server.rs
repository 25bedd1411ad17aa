//! Commands about the node and the cluster that need no key.

use memkv_raft::{NodeStatus, Role};

use super::{Args, Call, Failure};
use crate::resp::View;

pub(super) fn time(call: &mut Call<'_>) -> Result<(), Failure> {
    let now_ms = view(call)?.now_ms;
    let mut reply = call.reply();
    reply.array(2);
    reply.bulk((now_ms / 1000).to_string().as_bytes());
    reply.bulk((now_ms % 1000 * 1000).to_string().as_bytes());
    Ok(())
}

/// Every acknowledged write is durable already, so "now" is right.
pub(super) fn lastsave(call: &mut Call<'_>) -> Result<(), Failure> {
    let seconds = view(call)?.now_ms / 1000;
    call.reply().integer(seconds.cast_signed());
    Ok(())
}

fn view(call: &Call<'_>) -> Result<View, Failure> {
    call.server.view().ok_or_else(Failure::loading)
}

pub(super) fn lolwut(call: &mut Call<'_>) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("memkv {version}: Redis's interface, and no acknowledged write is lost.\n");
    call.reply().verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// Any node executes anything, so every node is a master; some clients refuse to write otherwise.
pub(super) fn role(call: &mut Call<'_>) -> Result<(), Failure> {
    let index = call
        .server
        .view()
        .map_or(0, |view| view.status.applied_index);
    let mut reply = call.reply();
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(index.cast_signed());
    reply.array(0);
    Ok(())
}

/// On how many nodes beside the leader an acknowledged write certainly is: a majority has it.
pub(super) fn certain_replicas(status: &NodeStatus) -> i64 {
    let is_voter = |role| matches!(role, Role::Leader | Role::Follower | Role::Candidate);
    let voters = status
        .members
        .iter()
        .filter(|member| is_voter(member.role))
        .count();
    i64::try_from(voters / 2).unwrap_or(i64::MAX)
}

fn check_timeout(args: &Args<'_>, at: usize) -> Result<(), Failure> {
    match args.int(at) {
        Ok(0..) => Ok(()),
        Ok(_) => Err(Failure::new("ERR timeout is negative")),
        Err(_) => Err(Failure::new(
            "ERR timeout is not an integer or out of range",
        )),
    }
}

/// Whatever was acknowledged before this command is on a majority already, so there is nothing to
/// wait for; how many more nodes have it by now, nobody here knows.
pub(super) fn wait(call: &mut Call<'_>) -> Result<(), Failure> {
    call.args.int(1)?;
    check_timeout(&call.args, 2)?;
    let replicas = certain_replicas(&view(call)?.status);
    call.reply().integer(replicas);
    Ok(())
}

pub(super) fn waitaof(call: &mut Call<'_>) -> Result<(), Failure> {
    let local = call.args.int(1)?;
    if !(0..=1).contains(&local) {
        return Err(Failure::new(
            "ERR value is out of range, must be between 0 and 1",
        ));
    }
    if call.args.int(2)? < 0 {
        return Err(Failure::new("ERR value is out of range, must be positive"));
    }
    check_timeout(&call.args, 3)?;
    let status = view(call)?.status;
    // Without fsync nothing is certain to be on a disk.
    let (leader, others) = if status.sync {
        (1, certain_replicas(&status))
    } else {
        (0, 0)
    };
    let mut reply = call.reply();
    reply.array(2);
    reply.integer(leader);
    reply.integer(others);
    Ok(())
}

pub(super) fn shutdown(call: &mut Call<'_>) -> Result<(), Failure> {
    let args = call.args;
    for at in 1..args.len() {
        match &args.word(at)[..] {
            b"NOSAVE" | b"SAVE" | b"NOW" | b"FORCE" => {}
            b"ABORT" if args.len() == 2 => {
                return Err(Failure::new("ERR No shutdown in progress."));
            }
            _ => return Err(Failure::SYNTAX),
        }
    }
    call.session.is_closing = true;
    call.server.stop.notify_one();
    Ok(())
}
