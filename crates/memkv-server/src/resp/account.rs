//! Who the client is, and changes of users: commands whose answer has to wait for a password's hash or for the
//! log.
//!
//! Invariants: a change is answered once this node goes by it; a password is in no error.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use memkv_proto::ErrorCode;
use memkv_resp::{Output, ReplyWriter, Request};
use memkv_store::{Command, MAX_SECRETS, MAX_USER_NAME_BYTES, ReplyValue, SecretKind, UserSpec};
use tokio::io::{AsyncRead, AsyncWrite};

use super::conn::Conn;
use super::subscriptions::Kind;
use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::commands::{Account, Args, ErrorReply, Hello, NO_PASSWORD, Spec, write_hello};
use crate::password::{Shown, USER};
use crate::rights::{Bad, Draft, Identity, Rights, Table, User, merge, new_token};

/// How often a change is computed anew because others have changed the same user meanwhile.
const MAX_ATTEMPTS: usize = 16;

/// How long a token lives if nothing is said: 90 days.
const TOKEN_SECONDS: i64 = 90 * 24 * 3600;

/// The longest life of a token: ten years.
const MAX_TOKEN_SECONDS: i64 = 3650 * 24 * 3600;

const BAD_NAME: ErrorReply =
    ErrorReply::new("ERR Usernames can't contain spaces or null characters");

const NOT_UNDERSTOOD: ErrorReply = ErrorReply::new(
    "ERR this version does not understand the rights that the user has; nothing was changed; change the user \
     through a node with a newer version, or remove it",
);

/// The draft of a user, made anew from what is there now.
type Change = Arc<dyn Fn(Option<&User>) -> Result<(UserSpec, bool), ErrorReply> + Send + Sync>;

/// What a successful command answers.
enum Done {
    Ok,
    Number(i64),
    Text(String),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    /// Executes and answers. Only while no batch is being collected.
    pub(super) async fn account(
        &mut self,
        account: Account,
        spec: &'static Spec,
        request: &Request,
    ) {
        let args = Args {
            request,
            name: spec.name,
            db: self.session.db,
        };
        let done = match account {
            Account::Hello => return self.hello(&args).await,
            Account::Auth => self.auth(&args).await,
            Account::SetUser => self.set_user(&args).await,
            Account::DelUser => self.del_users(&args).await,
            Account::Init => self.init_users().await,
            Account::Token => self.token(&args).await,
            Account::Members(members) => self.members(members, &args).await.map(Done::Text),
        };
        match done {
            Ok(done) => self.answer_account(|reply| match done {
                Done::Ok => reply.ok(),
                Done::Number(number) => reply.integer(number),
                Done::Text(text) => reply.bulk(text.as_bytes()),
            }),
            Err(error) => self.fail_account(&error),
        }
    }

    fn answer_account(&mut self, write: impl FnOnce(&mut ReplyWriter<'_, dyn Output>)) {
        if !self.session.is_silent() {
            write(&mut ReplyWriter::new(&mut self.out, self.session.protocol));
        }
    }

    fn fail_account(&mut self, error: &ErrorReply) {
        self.note_error(error);
        self.answer_account(|reply| reply.error(error.as_bytes()));
    }

    async fn auth(&mut self, args: &Args<'_>) -> Result<Done, ErrorReply> {
        match args.len() {
            2 => {
                let is_open = self.resp.server.rights.table().default_user().nopass;
                if is_open {
                    return Err(NO_PASSWORD);
                }
                self.authenticate(USER.as_bytes(), args.get(1)).await?;
            }
            3 => self.authenticate(args.get(1), args.get(2)).await?,
            _ => return Err(ErrorReply::SYNTAX),
        }
        Ok(Done::Ok)
    }

    /// A failure changes nothing for a connection that has authenticated before.
    async fn authenticate(&mut self, user: &[u8], secret: &[u8]) -> Result<(), ErrorReply> {
        let rights = self.resp.server.rights.clone();
        let shown = Shown {
            user: Some(user),
            secret,
        };
        let addr = self.session.client.addr.ip();
        let now_ms = self.resp.service.log_time_ms();
        let judging = self.door.judging();
        let result = Box::pin(rights.authenticate(addr, &shown, now_ms)).await;
        drop(judging);
        audit::record(&Event {
            kind: audit::Kind::Authentication,
            allowed: result.is_ok(),
            user: &String::from_utf8_lossy(user),
            origin: Some(self.session.client.addr),
            detail: "password or token",
        });
        match result {
            Ok(identity) => {
                self.session.become_user(identity);
                Ok(())
            }
            Err(error) => {
                self.session.show();
                let client = &self.session.client;
                let context = self.session.context();
                rights
                    .log
                    .add("auth", context, b"AUTH", user, || client.describe());
                Err(ErrorReply::not_authenticated(error))
            }
        }
    }

    async fn hello(&mut self, args: &Args<'_>) {
        match self.try_hello(args).await {
            Ok(()) if self.session.is_silent() => {}
            Ok(()) => {
                let (id, protocol) = (self.session.client.id, self.session.protocol);
                let mut reply = ReplyWriter::new(&mut self.out, protocol);
                write_hello(&mut reply, protocol, id);
            }
            Err(error) => self.fail_account(&error),
        }
    }

    async fn try_hello(&mut self, args: &Args<'_>) -> Result<(), ErrorReply> {
        let hello = Hello::parse(args, self.session.protocol)?;
        if let Some((user, secret)) = hello.auth {
            self.authenticate(args.get(user), args.get(secret)).await?;
        }
        if let Some(error) = hello.failed {
            return Err(error);
        }
        if !self.session.is_authenticated() {
            return Err(ErrorReply::new(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                 HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
                 select the RESP protocol version at the same time",
            ));
        }
        if let Some(name) = hello.name {
            self.session.client.shown.lock().name = name;
        }
        self.session.protocol = hello.protocol;
        Ok(())
    }

    async fn set_user(&mut self, args: &Args<'_>) -> Result<Done, ErrorReply> {
        let name = user_name(args.get(2))?;
        let words: Vec<&[u8]> = (3..args.len()).map(|at| args.get(at)).collect();
        let ops = merge(&words).map_err(|at| {
            let word = words.get(at).copied().unwrap_or_default();
            let text = b"ERR Unmatched parenthesis in acl selector starting at '";
            ErrorReply::with([&text[..], word, b"'."].concat())
        })?;
        let change = move |user: Option<&User>| {
            let mut draft = user.map_or_else(Draft::default, Draft::of);
            for op in &ops {
                draft.modify(op).map_err(|bad| bad_modifier(op, &bad))?;
            }
            Ok((
                draft.spec().map_err(|bad| too_much(&bad))?,
                draft.narrows(user),
            ))
        };
        self.change_user(name, Arc::new(change)).await?;
        Ok(Done::Ok)
    }

    async fn token(&mut self, args: &Args<'_>) -> Result<Done, ErrorReply> {
        let name = user_name(args.get(2))?;
        let seconds = match args.len() {
            3 => TOKEN_SECONDS,
            4 => args.int(3)?,
            _ => return Err(ErrorReply::subcommand_syntax(args.name, args.get(1))),
        };
        if !(1..=MAX_TOKEN_SECONDS).contains(&seconds) {
            return Err(ErrorReply::with(format!(
                "ERR a token lives from 1 to {MAX_TOKEN_SECONDS} seconds"
            )));
        }
        let now_ms = self.resp.service.log_time_ms();
        let life_ms = u64::try_from(seconds)
            .unwrap_or_default()
            .saturating_mul(1000);
        let (token, secret) = new_token(now_ms.saturating_add(life_ms));
        let change = move |user: Option<&User>| {
            let user = user.ok_or(ErrorReply::new("ERR there is no such user"))?;
            let mut spec = Draft::of(user).spec().map_err(|bad| too_much(&bad))?;
            spec.secrets.retain(|secret| match secret.kind() {
                SecretKind::Token { expires_at_ms, .. } => now_ms < *expires_at_ms,
                _ => true,
            });
            if spec.secrets.len() >= MAX_SECRETS {
                return Err(ErrorReply::with(format!(
                    "ERR a user has at most {MAX_SECRETS} passwords and tokens"
                )));
            }
            spec.secrets.push(secret.clone());
            Ok((spec, false))
        };
        self.change_user(name, Arc::new(change)).await?;
        Ok(Done::Text(token))
    }

    /// Changes a user as it is now, and computes the change anew if another one came before.
    async fn change_user(&mut self, name: Bytes, change: Change) -> Result<(), ErrorReply> {
        let rights = self.resp.server.rights.clone();
        for _ in 0..MAX_ATTEMPTS {
            self.resp.follow_users();
            let user = rights.table().get(&name).cloned();
            // What it has would be lost.
            if user.as_ref().is_some_and(|user| !user.is_understood) {
                return Err(NOT_UNDERSTOOD);
            }
            let (change, of) = (change.clone(), user.clone());
            let draft = rights
                .authenticator
                .run(move || change(of.as_deref()))
                .await;
            let (spec, narrows) = draft.map_err(|_busy| busy())??;
            if narrows {
                wait_for_turn(&rights).await?;
            }
            let command = Command::SetUser {
                name: name.clone(),
                expected: user.map_or(0, |user| user.changed_at),
                user: spec,
                narrows,
            };
            if self.propose(command).await? != ReplyValue::Nil {
                return Ok(());
            }
        }
        Err(ErrorReply::of(
            ErrorCode::Overloaded,
            "others change this user all the time; nothing was changed; try again",
        ))
    }

    async fn del_users(&mut self, args: &Args<'_>) -> Result<Done, ErrorReply> {
        let names: Vec<Bytes> = (2..args.len())
            .map(|at| Bytes::copy_from_slice(args.get(at)))
            .collect();
        if names.iter().any(|name| name == USER) {
            let text = "ERR The 'default' user cannot be removed";
            return Err(ErrorReply::new(text));
        }
        // Others than these cannot be there.
        let names: Vec<Bytes> = names
            .into_iter()
            .filter(|name| user_name(name).is_ok())
            .collect();
        let rights = self.resp.server.rights.clone();
        wait_for_turn(&rights).await?;
        match self.propose(Command::DelUsers { names }).await? {
            ReplyValue::Integer(removed) => Ok(Done::Number(removed)),
            _ => Ok(Done::Number(0)),
        }
    }

    async fn init_users(&mut self) -> Result<Done, ErrorReply> {
        let users = self.resp.server.rights.first.clone();
        match self.propose(Command::InitUsers { users }).await? {
            ReplyValue::Integer(1..) => Ok(Done::Ok),
            _ => Err(ErrorReply::new(
                "ERR this cluster has a table of users already",
            )),
        }
    }

    /// Executes a change of the table, and lets this node go by it.
    async fn propose(&mut self, command: Command) -> Result<ReplyValue, ErrorReply> {
        let name = command.name();
        let (principal, service) = (self.session.principal(), &self.resp.service);
        let reply = service.write_as(command, 0, principal).await;
        audit::record(&Event {
            kind: audit::Kind::Users,
            allowed: reply.is_ok(),
            user: &String::from_utf8_lossy(&self.session.user_name()),
            origin: Some(self.session.client.addr),
            detail: name,
        });
        let reply = reply.map_err(|error| ErrorReply::from(&error))?;
        self.resp.follow_users();
        match reply.value {
            ReplyValue::Error(error) => Err(ErrorReply::executed(error, name)),
            value => Ok(value),
        }
    }
}

/// Waits until this node may take away rights once more.
async fn wait_for_turn(rights: &Rights) -> Result<(), ErrorReply> {
    let wait = rights.turn_to_narrow().map_err(|_busy| busy())?;
    tokio::time::sleep(wait).await;
    Ok(())
}

fn busy() -> ErrorReply {
    ErrorReply::of(
        ErrorCode::Overloaded,
        "too many users are changed or authenticate at once; try again",
    )
}

fn user_name(name: &[u8]) -> Result<Bytes, ErrorReply> {
    let splits = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b);
    if name.iter().any(splits) {
        return Err(BAD_NAME);
    }
    if name.is_empty() || name.len() > MAX_USER_NAME_BYTES {
        return Err(ErrorReply::with(format!(
            "ERR the name of a user has 1 to {MAX_USER_NAME_BYTES} bytes"
        )));
    }
    Ok(Bytes::copy_from_slice(name))
}

/// What is wrong with a modifier, without the password that it may have.
/// What all modifiers together would make of a user.
fn too_much(bad: &Bad) -> ErrorReply {
    ErrorReply::with(format!("ERR ACL SETUSER: {bad}; nothing was changed"))
}

fn bad_modifier(op: &[u8], bad: &Bad) -> ErrorReply {
    let shown: &[u8] = match op {
        [b'>', ..] => b">(password)",
        [b'<', ..] => b"<(password)",
        // What is no hash may be a password.
        [b'#', ..] => b"#(hash)",
        [b'!', ..] => b"!(hash)",
        op => op,
    };
    let why = bad.to_string();
    let text = b"ERR Error in ACL SETUSER modifier '";
    ErrorReply::with([&text[..], shown, b"': ", why.as_bytes()].concat())
}

impl super::Server {
    /// Ends the connections that have shown a token which has expired at this log time.
    pub(super) fn end_expired(&self, now_ms: u64) {
        for client in self.clients.all() {
            let shown = client.shown.lock();
            let has_expired = |identity: &Identity| identity.has_expired(now_ms);
            if shown.identity.as_ref().is_some_and(has_expired) {
                client.kill();
            }
        }
    }

    /// Ends the connections, and the subscriptions, that the table no longer allows.
    pub(super) fn enforce(&self, table: &Table) {
        let mut changed = HashMap::new();
        for client in self.clients.all() {
            let identity = client.shown.lock().identity.clone();
            let Some(identity) = identity else { continue };
            let renewed = identity.renewed(table);
            let user = renewed.as_ref().map(|renewed| renewed.user.clone());
            let is_same = user
                .as_ref()
                .is_some_and(|user| user.is_all || Arc::ptr_eq(user, &identity.user));
            if user.is_none() {
                client.kill();
            }
            if !is_same {
                changed.insert(client.id, (client, user));
            }
        }
        let is_changed = |client: u64| changed.contains_key(&client);
        for (kind, name, client) in self.subscriptions.of_clients(&is_changed) {
            let Some((client, user)) = changed.get(&client) else {
                continue;
            };
            let is_pattern = kind == Kind::Pattern;
            let allows = |user: &Arc<User>| user.rules.allows_channel(&name, is_pattern);
            if !user.as_ref().is_some_and(allows) {
                self.subscriptions.leave(kind, &name, client.id);
                client.kill();
            }
        }
    }
}
