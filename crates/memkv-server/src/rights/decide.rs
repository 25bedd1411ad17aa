//! The one decision: whether a user may have a command executed that touches these keys and channels. Every
//! interface asks here. Never executes, logs or counts anything.

use bytes::Bytes;
use memkv_store::{Touch, Touched};

use super::grammar::Rules;
use super::selector::Selector;
use crate::commands::{Spec, flag};

/// What is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The command.
    Command(&'static str),
    /// This key; empty for a range of keys.
    Key(Bytes),
    /// This channel.
    Channel(Bytes),
}

impl Denied {
    /// Of several reasons the one about the command counts least, and that about a channel most.
    fn rank(&self) -> u8 {
        match self {
            Self::Command(_) => 0,
            Self::Key(_) => 1,
            Self::Channel(_) => 2,
        }
    }

    /// The word of `ACL LOG`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Key(_) => "key",
            Self::Channel(_) => "channel",
        }
    }

    /// What was asked for, for `ACL LOG`.
    pub(crate) fn object(&self) -> &[u8] {
        match self {
            Self::Command(name) => name.as_bytes(),
            Self::Key(name) | Self::Channel(name) => name,
        }
    }
}

/// A call, besides what it touches.
#[derive(Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) spec: &'static Spec,
    /// The argument behind the command's name.
    pub(crate) first: Option<&'a [u8]>,
    pub(crate) channels: &'a [Bytes],
    /// The channels are patterns.
    pub(crate) are_patterns: bool,
}

impl<'a> Attempt<'a> {
    /// A command without channels, from another interface than RESP.
    pub(crate) fn command(spec: &'static Spec) -> Self {
        Attempt {
            spec,
            first: None,
            channels: &[],
            are_patterns: false,
        }
    }
}

/// Hands over what a call touches.
pub(crate) type Touches<'a, 'b> = &'b dyn Fn(&mut dyn FnMut(Touch<'a>));

/// Decides. `touches` hands over what the call touches; it may be called several times.
///
/// A touch of a whole database, such as that of `KEYS` and `FLUSHALL`, needs the command alone, as in
/// Redis.
///
/// # Errors
/// What is not allowed: of several keys the last one, as in Redis.
pub(crate) fn decide<'a>(
    rules: &Rules,
    asked: &Attempt<'_>,
    touches: Touches<'a, '_>,
) -> Result<(), Denied> {
    let mut worst = (Denied::Command(asked.spec.name), 0);
    for selector in rules.selectors() {
        match judge(selector, asked, touches) {
            Ok(()) => return Ok(()),
            Err((denied, at)) if (denied.rank(), at) > (worst.0.rank(), worst.1) => {
                worst = (denied, at);
            }
            Err(_) => {}
        }
    }
    Err(worst.0)
}

/// The decision of one selector. With what is not allowed comes its position among the keys or channels.
fn judge<'a>(
    selector: &Selector,
    asked: &Attempt<'_>,
    touches: Touches<'a, '_>,
) -> Result<(), (Denied, usize)> {
    let is_open = asked.spec.has(flag::NO_AUTH);
    if !is_open && !selector.allows_command(asked.spec, asked.first) {
        return Err((Denied::Command(asked.spec.name), 0));
    }
    let (mut refused, mut at) = (None, 0);
    touches(&mut |touch: Touch<'a>| {
        if refused.is_none() {
            at += 1;
            refused = refuse_touch(selector, &touch).map(|denied| (denied, at));
        }
    });
    if let Some(denied) = refused {
        return Err(denied);
    }
    let is_refused = |channel: &Bytes| !selector.allows_channel(channel, asked.are_patterns);
    match asked.channels.iter().position(is_refused) {
        Some(at) => {
            let channel = asked.channels.get(at).cloned().unwrap_or_default();
            Err((Denied::Channel(Bytes::copy_from_slice(&channel)), at + 1))
        }
        None => Ok(()),
    }
}

fn refuse_touch(selector: &Selector, touch: &Touch<'_>) -> Option<Denied> {
    match touch.what {
        Touched::Key { key, .. } => {
            let is_allowed = selector.allows_key(key, touch.access);
            (!is_allowed).then(|| Denied::Key(Bytes::copy_from_slice(key)))
        }
        Touched::Range { start, end, .. } => {
            let end = end.map(|end| &end[..]);
            let is_allowed = selector.allows_range(start, end, touch.access);
            (!is_allowed).then(|| Denied::Key(Bytes::new()))
        }
        Touched::Database { .. } | Touched::Everything | Touched::Cluster => None,
    }
}
