//! Users over RESP: ACL, AUTH, and what a user may not do, in each place where a command can stand.

use super::*;
use crate::backend::Backend as _;

/// A server whose cluster has users, and a client that may do everything.
async fn with_users(lines: &[&str]) -> (TestServer, TestClient) {
    let server = start_with(Some(Fake::at_edge_level()), resp_settings()).await;
    let mut admin = server.client().await;
    assert_eq!(admin.ask("MEMKV.USERS INIT").await, "+OK");
    for line in lines {
        assert_eq!(admin.ask(line).await, "+OK", "{line}");
    }
    (server, admin)
}

async fn client_of(server: &TestServer, user: &str, password: &str) -> TestClient {
    let mut client = server.client().await;
    let auth = format!("AUTH {user} {password}");
    assert_eq!(client.ask(&auth).await, "+OK");
    client
}

const NO_SET: &str = "-NOPERM this user has no permissions to run the 'set' command";
const NO_KEY: &str =
    "-NOPERM this user has no permissions to access one of the keys used as arguments";
const NO_CHANNEL: &str =
    "-NOPERM this user has no permissions to access one of the channels used as arguments";
const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

#[tokio::test]
async fn without_a_table_there_is_one_user_who_may_do_everything() {
    let server = start_with(Some(Fake::at_edge_level()), resp_settings()).await;
    let mut client = server.client().await;
    client
        .dialogue(&[
            ("ACL WHOAMI", "$default"),
            ("ACL USERS", "[$default]"),
            ("ACL LIST", "[$user default on nopass ~* &* +@all]"),
            ("ACL DRYRUN default get k", "+OK"),
            (
                "ACL SETUSER ann on",
                "-ERR the cluster has no users yet; initialise them first",
            ),
        ])
        .await;
}

#[tokio::test]
async fn users_are_made_shown_changed_and_removed() {
    let (_server, mut admin) = with_users(&[]).await;
    let hash = "0123456789abcdef".repeat(4);
    admin
        .dialogue(&[
            ("ACL SETUSER ann", "+OK"),
            ("ACL LIST", "[$user ann off resetchannels -@all $user default on nopass ~* &* +@all]"),
            (&format!("ACL SETUSER ann on #{hash} ~a* +get (+set ~b)"), "+OK"),
            (
                "ACL GETUSER ann",
                &format!(
                    "[$flags [$on] $passwords [${hash}] $commands $-@all +get $keys $~a* $channels $ \
                     $selectors [[$commands $-@all +set $keys $~b $channels $]]]"
                ),
            ),
            ("ACL GETUSER nosuch", "$-1"),
            (
                "ACL SETUSER ann +nosuch",
                "-ERR Error in ACL SETUSER modifier '+nosuch': Unknown command or category name in ACL",
            ),
            (
                "ACL SETUSER ann <secret",
                "-ERR Error in ACL SETUSER modifier '<(password)': The password you are trying to remove from the user does not exist",
            ),
            (
                "ACL SETUSER ann (+get",
                "-ERR Unmatched parenthesis in acl selector starting at '(+get'.",
            ),
            ("ACL USERS", "[$ann $default]"),
            ("ACL DELUSER default", "-ERR The 'default' user cannot be removed"),
            ("ACL DELUSER ann nosuch", ":1"),
            ("ACL USERS", "[$default]"),
            ("MEMKV.USERS INIT", "-ERR this cluster has a table of users already"),
            ("ACL GENPASS 0", "-ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096"),
            ("ACL CAT nosuch", "-ERR Unknown category 'nosuch'"),
            ("ACL CAT transaction", "[$multi $exec $discard $watch $unwatch]"),
        ])
        .await;
    for (line, length) in [("ACL GENPASS", 64), ("ACL GENPASS 5", 2)] {
        assert_eq!(admin.ask(line).await.len(), 1 + length, "{line}");
    }
    assert!(
        admin
            .ask("ACL SAVE")
            .await
            .contains("not configured to use an ACL file")
    );
}

#[tokio::test]
async fn a_user_does_what_it_may_and_nothing_else() {
    let (server, mut admin) =
        with_users(&["ACL SETUSER ann on >pw ~a* %R~r* &news +@all -set -acl +acl|whoami"]).await;
    let mut ann = client_of(&server, "ann", "pw").await;
    ann.dialogue(&[
        ("ACL WHOAMI", "$ann"),
        (
            "ACL LIST",
            "-NOPERM this user has no permissions to run the 'acl|list' command",
        ),
        ("GET a1", "$-1"),
        ("GET r1", "$-1"),
        ("GET b1", NO_KEY),
        ("SET a1 1", NO_SET),
        // As in Redis, the command is judged before its arguments are read.
        ("SET a1 1 NOSUCH", NO_SET),
        ("APPEND a1 x", ":1"),
        ("APPEND r1 x", NO_KEY),
        ("MGET a1 b1", NO_KEY),
        ("COPY r1 a2", ":0"),
        ("COPY a1 r1", NO_KEY),
        ("PUBLISH news x", ":0"),
        ("PUBLISH other x", NO_CHANNEL),
        ("SPUBLISH other x", NO_CHANNEL),
        ("SUBSCRIBE news other", NO_CHANNEL),
        ("PSUBSCRIBE news*", NO_CHANNEL),
        ("SSUBSCRIBE other", NO_CHANNEL),
        ("WATCH b1", NO_KEY),
        ("WATCH r1", "+OK"),
        ("UNWATCH", "+OK"),
        ("KEYS *", "[$a1]"),
        ("DBSIZE", ":1"),
        ("MEMKV.RANGE a KEYS", "[$-1 [$a1]]"),
        ("MEMKV.RANGE b", NO_KEY),
    ])
    .await;
    let log = admin.ask("ACL LOG 1").await;
    for part in ["$reason $key", "$context $toplevel", "$username $ann"] {
        assert!(log.contains(part), "{log}");
    }
    assert_eq!(admin.ask("ACL LOG RESET").await, "+OK");
    assert_eq!(admin.ask("ACL LOG").await, "[]");
}

#[tokio::test]
async fn transactions_and_scripts_are_judged_by_what_they_call() {
    let (server, mut admin) = with_users(&["ACL SETUSER ann on >pw ~a* +@all -del"]).await;
    let mut ann = client_of(&server, "ann", "pw").await;
    ann.dialogue(&[
        ("MULTI", "+OK"),
        ("SET b 1", NO_KEY),
        (
            "EXEC",
            "-EXECABORT Transaction discarded because of previous errors.",
        ),
        ("MULTI", "+OK"),
        ("SET a 1", "+QUEUED"),
        ("GET a", "+QUEUED"),
    ])
    .await;
    // What was queued is judged by the rights of the moment that it is executed in.
    assert_eq!(admin.ask("ACL SETUSER ann -get").await, "+OK");
    assert_eq!(
        ann.ask("EXEC").await,
        "[+OK -NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC \
         call. This command is no longer allowed for the following reason: no permission to execute the \
         command or subcommand]"
    );
    assert_eq!(admin.ask("ACL SETUSER ann +get").await, "+OK");
    let unlock = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else \
                  return 0 end";
    ann.send_args(&["EVAL", unlock, "1", "a", "1"]).await;
    let no_del = "-NOPERM this user has no permissions to run the 'del' command";
    assert_eq!(ann.shown().await, no_del);
    assert_eq!(admin.ask("ACL SETUSER ann +del").await, "+OK");
    ann.send_args(&["EVAL", unlock, "1", "b", "1"]).await;
    assert_eq!(ann.shown().await, NO_KEY);
    ann.send_args(&["EVAL", unlock, "1", "a", "1"]).await;
    assert_eq!(ann.shown().await, ":1");
}

#[tokio::test]
async fn passwords_are_checked_and_tokens_are_shown_once() {
    let (server, mut admin) = with_users(&["ACL SETUSER ann on >pw +@all ~*"]).await;
    let token = admin.ask("MEMKV.USERS TOKEN ann 60").await;
    let token = token.strip_prefix('$').unwrap().to_owned();
    assert!(!admin.ask("ACL LIST").await.contains(&token));
    let mut client = server.client().await;
    client
        .dialogue(&[
            ("AUTH ann wrong", WRONG),
            ("AUTH nosuch pw", WRONG),
            ("ACL WHOAMI", "$default"),
            (&format!("AUTH ann {token}"), "+OK"),
            ("ACL WHOAMI", "$ann"),
            ("AUTH default any", "+OK"),
            ("HELLO 3 AUTH ann wrong", WRONG),
        ])
        .await;
    client.send("HELLO 3 AUTH ann pw SETNAME me").await;
    assert!(client.shown().await.contains("$proto=:3"));
    assert_eq!(client.ask("ACL WHOAMI").await, "$ann");
    assert!(client.ask("CLIENT INFO").await.contains("user=ann"));
    let listed = admin.ask("ACL LOG").await;
    assert!(
        listed.contains("$reason $auth") && !listed.contains("wrong"),
        "{listed}"
    );
}

#[tokio::test]
async fn a_connection_ends_with_its_user_its_credential_and_its_channels() {
    let (server, mut admin) = with_users(&[
        "ACL SETUSER ann on >pw >old +@all ~* &*",
        "ACL SETUSER bob on >pw +@all ~* &*",
    ])
    .await;
    let mut by_old = client_of(&server, "ann", "old").await;
    let mut by_new = client_of(&server, "ann", "pw").await;
    assert_eq!(admin.ask("ACL SETUSER ann <old").await, "+OK");
    assert_eq!(by_old.shown().await, "(closed)");
    assert_eq!(by_new.ask("PING").await, "+PONG");
    let mut listens = client_of(&server, "ann", "pw").await;
    assert_eq!(listens.ask("SUBSCRIBE news").await, "[$subscribe $news :1]");
    assert_eq!(admin.ask("ACL SETUSER ann resetchannels").await, "+OK");
    assert_eq!(listens.shown().await, "(closed)");
    assert_eq!(admin.ask("PUBLISH news x").await, ":0");
    assert_eq!(admin.ask("ACL SETUSER ann off").await, "+OK");
    assert_eq!(by_new.shown().await, "(closed)");
    let mut bob = client_of(&server, "bob", "pw").await;
    assert_eq!(admin.ask("ACL DELUSER bob").await, ":1");
    assert_eq!(bob.shown().await, "(closed)");
    let mut killed = server.client().await;
    assert_eq!(killed.ask("PING").await, "+PONG");
    assert_eq!(
        admin.ask("CLIENT KILL USER nosuch").await,
        "-ERR No such user 'nosuch'"
    );
    assert_eq!(admin.ask("CLIENT KILL USER default").await, ":1");
    assert_eq!(killed.shown().await, "(closed)");
}

/// It was away while the user `default` lost its rights; its configuration does not know that.
#[tokio::test]
async fn a_node_that_starts_judges_nobody_until_it_knows_the_users() {
    let backend = Fake::at_edge_level();
    let rights = Rights::starting(None, false);
    let server = start_for(Some(backend.clone()), resp_settings(), rights).await;
    let mut early = server.client().await;
    let loading = "-LOADING memkv is loading the dataset in memory; nothing was executed";
    early
        .dialogue(&[
            ("SET k v", loading),
            ("GET k", loading),
            ("PUBLISH news x", loading),
            ("SUBSCRIBE news", loading),
            ("AUTH ann pw", loading),
            ("CONFIG SET maxmemory 1", loading),
            ("CLIENT KILL USER default", loading),
            ("SHUTDOWN", loading),
            ("PING", "+PONG"),
        ])
        .await;
    assert!(early.ask("INFO server").await.starts_with('$'));
    // Another node's clients have made the users.
    let other = start_with(Some(backend), resp_settings()).await;
    let mut admin = other.client().await;
    for line in [
        "MEMKV.USERS INIT",
        "ACL SETUSER ann on >pw +@all ~*",
        "ACL SETUSER default -set +@admin",
    ] {
        assert_eq!(admin.ask(line).await, "+OK", "{line}");
    }
    let mut waits = server.client().await;
    waits.send("SET k v").await;
    server.resp.follow_users();
    server.resp.server.rights.known();
    assert_eq!(waits.shown().await, NO_SET);
    early
        .dialogue(&[
            ("SET k v", NO_SET),
            ("AUTH ann pw", "+OK"),
            ("SET k v", "+OK"),
        ])
        .await;
}

/// What stands behind a change in the same transaction is judged by the changed rights.
#[tokio::test]
async fn what_a_node_executes_by_itself_is_judged_when_it_is_executed() {
    let (server, _admin) = with_users(&["ACL SETUSER ann on >pw +@all ~* &*"]).await;
    let mut ann = client_of(&server, "ann", "pw").await;
    ann.dialogue(&[
        ("MULTI", "+OK"),
        ("ACL SETUSER ann -publish -client", "+QUEUED"),
        ("PUBLISH news x", "+QUEUED"),
        ("CLIENT KILL USER nosuch", "+QUEUED"),
        ("PING", "+QUEUED"),
        (
            "EXEC",
            "[+OK -NOPERM this user has no permissions to run the 'publish' command -NOPERM this user has no \
             permissions to run the 'client|kill' command +PONG]",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_connection_ends_with_the_token_that_it_has_shown() {
    let (server, mut admin) = with_users(&["ACL SETUSER ann on >pw +@all ~*"]).await;
    let token = admin.ask("MEMKV.USERS TOKEN ann 60").await;
    let token = token.strip_prefix('$').unwrap().to_owned();
    let mut by_token = client_of(&server, "ann", &token).await;
    let mut by_password = client_of(&server, "ann", "pw").await;
    let at = server.resp.server.rights.table().next_expiry(0).unwrap();
    server.resp.server.end_expired(at - 1);
    assert_eq!(by_token.ask("PING").await, "+PONG");
    server.resp.server.end_expired(at);
    assert_eq!(by_token.shown().await, "(closed)");
    assert_eq!(by_password.ask("PING").await, "+PONG");
    assert_eq!(server.resp.server.rights.table().next_expiry(at), None);
}

/// It runs an older version than the node that has made the user.
#[tokio::test]
async fn a_user_whose_rights_are_not_understood_is_not_changed() {
    let backend = Fake::at_edge_level();
    let server = start_with(Some(backend.clone()), resp_settings()).await;
    let mut admin = server.client().await;
    assert_eq!(admin.ask("MEMKV.USERS INIT").await, "+OK");
    let user = memkv_store::UserSpec {
        enabled: true,
        nopass: true,
        secrets: Vec::new(),
        rules: "~* +@of-a-newer-version".into(),
    };
    let newer = memkv_store::Command::SetUser {
        name: "ann".into(),
        expected: 0,
        user: user.clone(),
        narrows: true,
    };
    backend.write(newer, None).await.unwrap();
    let refused = admin.ask("ACL SETUSER ann -get").await;
    assert!(
        refused.contains("does not understand the rights"),
        "{refused}"
    );
    let users = backend.users().unwrap();
    assert_eq!(users.get(b"ann").unwrap().spec(), user);
    assert_eq!(admin.ask("ACL DELUSER ann").await, ":1");
}
