//! The rights of a connection: whether its user may have a call executed, and what happens to it when users
//! change. Never decides itself; `crate::rights` does.

use std::sync::Arc;

use bytes::Bytes;
use memkv_resp::Request;
use memkv_store::{DEFAULT_USER, Principal};
use tokio::io::{AsyncRead, AsyncWrite};

use super::conn::{Conn, Disconnected};
use super::session::Session;
use super::subscriptions::Kind;
use crate::aside::step_aside;
use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::commands::{Args, ErrorReply, Handler, Op, Spec, flag, judge, judge_name, resolve};
use crate::rights::{Denied, Identity, User};

/// Whom the connection speaks for.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    identity: Option<Identity>,
    /// It may do everything: nothing needs to be judged.
    is_all: bool,
    /// The revision of the table by which it is judged.
    revision: u64,
}

impl Speaker {
    /// Judged by the table of that revision.
    pub(super) fn new(identity: Option<Identity>, revision: u64) -> Self {
        Self {
            is_all: identity
                .as_ref()
                .is_some_and(|identity| identity.user.is_all),
            identity,
            revision,
        }
    }
}

impl Session {
    /// Whether it is known who the client is.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.speaker.identity.is_some()
    }

    /// Whether nothing of it needs to be judged.
    pub(super) fn may_do_all(&self) -> bool {
        self.speaker.is_all
    }

    /// The name of its user.
    pub(crate) fn user_name(&self) -> Bytes {
        match &self.speaker.identity {
            Some(identity) => identity.user.name.clone(),
            None => Bytes::from_static(DEFAULT_USER),
        }
    }

    /// For whom its commands are executed.
    pub(super) fn principal(&self) -> Option<Principal> {
        let identity = self.speaker.identity.as_ref()?;
        Some(identity.principal(self.speaker.revision))
    }

    /// The user from now on.
    pub(super) fn become_user(&mut self, identity: Identity) {
        self.set_speaker(Some(identity));
    }

    fn set_speaker(&mut self, identity: Option<Identity>) {
        let table = self.server.rights.table();
        let was_known = identity.is_some();
        // The table may have moved since it was found out who the client is.
        let identity = identity.and_then(|identity| identity.renewed(&table));
        if was_known && identity.is_none() {
            self.client.kill();
        }
        self.client.shown.lock().identity.clone_from(&identity);
        self.speaker = Speaker::new(identity, table.revision);
    }

    /// Forgets who the client is, as at its beginning: the user for whom its certificate stands, or one who has
    /// shown nothing.
    pub(super) fn become_stranger(&mut self) {
        let rights = &self.server.rights;
        let first = match &self.client.certified {
            Some(user) => rights.certified(user),
            None => rights.stranger(self.client.addr.ip()),
        };
        self.set_speaker(first);
    }

    /// Whether the table has moved since the last command; asked before each.
    #[inline]
    pub(super) fn is_outdated(&self) -> bool {
        self.speaker.revision != self.server.rights.revision()
    }

    /// Goes by the present table; whether the client is still the same user, and may still have its
    /// subscriptions. If not, the connection ends, as in Redis.
    pub(super) fn renew(&mut self) -> bool {
        let table = self.server.rights.table();
        let Some(identity) = &self.speaker.identity else {
            // A stranger stays one until it authenticates.
            self.speaker = Speaker::new(None, table.revision);
            return true;
        };
        let renewed = identity.renewed(&table);
        let stays = renewed
            .as_ref()
            .is_some_and(|renewed| self.may_listen(&renewed.user));
        self.client.shown.lock().identity.clone_from(&renewed);
        self.speaker = Speaker::new(renewed, table.revision);
        stays
    }

    /// Whether a user may have all the subscriptions that the connection has.
    fn may_listen(&self, user: &User) -> bool {
        let kinds = [Kind::Channel, Kind::Pattern, Kind::Shard];
        user.is_all
            || kinds.into_iter().all(|kind| {
                let is_pattern = kind == Kind::Pattern;
                let mut names = self.listens[kind as usize].iter();
                names.all(|name| user.rules.allows_channel(name, is_pattern))
            })
    }

    /// How many steps judging a request takes at most: it names its keys once, and a script is judged for each
    /// command that it calls.
    pub(super) fn judging_steps(&self, request: &Request) -> usize {
        const TIMES: usize = 2;
        let rules = self.user().map(|user| &user.rules);
        let (names, bytes) = (request.args().len(), request.byte_count());
        rules.map_or(0, |rules| rules.steps(TIMES * names, TIMES * bytes))
    }

    fn user(&self) -> Option<&Arc<User>> {
        let identity = self.speaker.identity.as_ref()?;
        (!self.speaker.is_all).then_some(&identity.user)
    }

    /// Whether it may use a command at all, whatever the keys are.
    pub(super) fn judge_name(
        &self,
        spec: &'static Spec,
        request: &Request,
    ) -> Result<(), ErrorReply> {
        let Some(user) = self.user() else {
            return Ok(());
        };
        let first = request.arg(1 + usize::from(spec.is_subcommand()));
        judge_name(&user.rules, spec, first).map_err(|denied| {
            self.note(user, &denied);
            ErrorReply::denied(&denied)
        })
    }

    /// Whether it may have a call executed.
    pub(super) fn judge(
        &self,
        spec: &'static Spec,
        args: &Args<'_>,
        op: Option<&Op>,
    ) -> Result<(), Denied> {
        let Some(user) = self.user() else {
            return Ok(());
        };
        judge(&user.rules, spec, args, op).inspect_err(|denied| self.note(user, denied))
    }

    /// The same, aside if it takes long.
    pub(super) fn judge_aside(
        &self,
        spec: &'static Spec,
        args: &Args<'_>,
        op: Option<&Op>,
    ) -> Result<(), ErrorReply> {
        let steps = self.judging_steps(args.request);
        let judged = step_aside(steps, || self.judge(spec, args, op));
        judged.map_err(|denied| ErrorReply::denied(&denied))
    }

    fn note(&self, user: &User, denied: &Denied) {
        let rights = &self.server.rights;
        rights.denied();
        audit::record(&Event {
            kind: audit::Kind::Denial,
            allowed: false,
            user: &String::from_utf8_lossy(&user.name),
            origin: Some(self.client.addr),
            detail: denied.reason(),
        });
        let (reason, object) = (denied.reason(), denied.object());
        rights
            .log
            .add(reason, self.context(), object, &user.name, || {
                self.show();
                self.client.describe()
            });
    }

    /// Where a call comes from, for `ACL LOG`.
    pub(super) fn context(&self) -> &'static str {
        match self.queue {
            Some(_) => "multi",
            None => "toplevel",
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    /// Judges a command that the node executes by itself at the moment of its execution and only then: what came
    /// before it may have taken long. A command that acts on more than its connection needs rights that are fresh.
    pub(super) async fn judge_now(
        &mut self,
        spec: &'static Spec,
        args: &Args<'_>,
    ) -> Result<Result<(), ErrorReply>, Disconnected> {
        let rights = &self.resp.server.rights;
        let acts = spec.has(flag::ADMIN) || matches!(spec.handler, Handler::Publish(_));
        if acts && !rights.are_recent() && !Box::pin(rights.are_fresh()).await {
            return Ok(Err(ErrorReply::old_rights()));
        }
        self.resp.follow_users();
        if self.session.is_outdated() && !self.session.renew() {
            return Err(Disconnected);
        }
        Ok(self.session.judge_aside(spec, args, None))
    }

    /// Whether a command can be judged, or need not be. A node that starts waits for its cluster's users as it
    /// waits for a leader, once for each connection.
    pub(super) async fn can_be_judged(&mut self, request: &Request) -> bool {
        let rights = &self.resp.server.rights;
        if rights.is_known() || !needs_users(request) {
            return true;
        }
        if std::mem::replace(&mut self.session.has_waited, true) {
            return false;
        }
        let _judging = self.door.judging();
        rights.wait_known(self.resp.service.answer_within()).await
    }
}

/// Whether the users must be known before a command is executed. A node that starts tells of itself to those
/// who show what its own configuration says.
fn needs_users(request: &Request) -> bool {
    resolve(request).is_ok_and(|spec| match spec.name {
        "auth" | "hello" => true,
        "ping" | "info" => false,
        _ => !spec.has(flag::NO_AUTH),
    })
}
