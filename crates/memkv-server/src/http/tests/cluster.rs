//! `/v1/cluster`: each verb reaches the leader once, and nothing that is not understood completely does.

use memkv_node::MemberVerb;
use memkv_store::Role;
use serde_json::Value;

use super::*;

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

fn clustered(left: &str) -> (Client, Fake) {
    let fake = Fake::working();
    fake.has_left_to_do(Some(left));
    (connect_to(api(Some(fake.clone()))), fake)
}

fn named(name: &str) -> String {
    name.to_owned()
}

#[tokio::test]
async fn each_verb_is_sent_once() {
    let (mut client, fake) = clustered("");
    let (name, role) = (named("n4"), Role::Replica);
    let verbs = [
        (
            r#"{"add": {"name": "n4"}}"#,
            MemberVerb::Add {
                name: named("n4"),
                role: Role::Voter,
            },
        ),
        (
            r#"{"add": {"name": "n4", "role": "replica"}}"#,
            MemberVerb::Add { name, role },
        ),
        (
            r#"{"remove": {"name": "n4"}}"#,
            MemberVerb::Remove { name: named("n4") },
        ),
        (
            r#"{"replace": {"old": "n3", "new": "n4"}}"#,
            MemberVerb::Replace {
                old: named("n3"),
                new: named("n4"),
            },
        ),
        (
            r#"{"promote": {"name": "n4"}}"#,
            MemberVerb::Promote { name: named("n4") },
        ),
        (
            r#"{"demote": {"name": "n4"}}"#,
            MemberVerb::Demote { name: named("n4") },
        ),
        (
            r#"{"transfer": {"to": "n4"}}"#,
            MemberVerb::Transfer {
                to: Some(named("n4")),
            },
        ),
        (r#"{"transfer": {}}"#, MemberVerb::Transfer { to: None }),
    ];
    for (at, (body, verb)) in verbs.into_iter().enumerate() {
        for (path, status, dry_run) in [
            ("/v1/cluster", 202, false),
            ("/v1/cluster?dry_run=true", 200, true),
        ] {
            let answer = client.ask("POST", path, body.as_bytes()).await;
            assert_eq!(answer.status, status, "{body} {}", answer.text());
            let sent = fake.verbs();
            assert_eq!(sent.len(), 2 * at + 1 + usize::from(dry_run));
            assert_eq!(sent.last(), Some(&(verb.clone(), dry_run)));
            assert_eq!(json(&answer)["dry_run"], dry_run);
        }
    }
}

#[tokio::test]
async fn what_is_not_understood_completely_changes_nothing() {
    let (mut client, fake) = clustered("");
    for (path, body, code) in [
        ("/v1/cluster", "", "MK-011"),
        ("/v1/cluster", "{}", "MK-011"),
        ("/v1/cluster", r#"{"purge": {"name": "n4"}}"#, "MK-011"),
        ("/v1/cluster", r#"{"Remove": {"name": "n4"}}"#, "MK-011"),
        ("/v1/cluster", r#"{"remove": {"nmae": "n4"}}"#, "MK-011"),
        ("/v1/cluster", r#"{"remove": {"name": ""}}"#, "MK-011"),
        ("/v1/cluster", r#"{"remove": {"name": "a b"}}"#, "MK-011"),
        (
            "/v1/cluster",
            r#"{"remove": {"name": "n4", "force": true}}"#,
            "MK-011",
        ),
        (
            "/v1/cluster",
            r#"{"remove": {"name": "n4"}, "demote": {"name": "n4"}}"#,
            "MK-011",
        ),
        (
            "/v1/cluster",
            r#"{"add": {"name": "n4", "role": "Voter"}}"#,
            "MK-011",
        ),
        (
            "/v1/cluster?dryrun=true",
            r#"{"remove": {"name": "n4"}}"#,
            "MK-010",
        ),
        (
            "/v1/cluster?dry_run=1",
            r#"{"remove": {"name": "n4"}}"#,
            "MK-010",
        ),
        (
            "/v1/cluster?wait=61",
            r#"{"remove": {"name": "n4"}}"#,
            "MK-010",
        ),
    ] {
        let answer = client.ask("POST", path, body.as_bytes()).await;
        assert_eq!(json(&answer)["code"], code, "{path} {body}");
    }
    assert_eq!(fake.verbs(), []);
    let mut alone = connect();
    let body = br#"{"remove": {"name": "n4"}}"#;
    let answer = alone.ask("POST", "/v1/cluster", body).await;
    assert_eq!(
        (answer.status, &json(&answer)["code"]),
        (409, &"MK-050".into())
    );
    assert_eq!(json(&answer)["executed"], "no");
    let mut loading = connect_to(api(None));
    assert_eq!(loading.ask("GET", "/v1/cluster", b"").await.status, 503);
    assert_eq!(loading.ask("POST", "/v1/cluster", body).await.status, 503);
    let long = vec![b' '; 5_000];
    let answer = client.ask("POST", "/v1/cluster", &long).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test(start_paused = true)]
async fn a_wait_says_whether_something_is_left() {
    let body = br#"{"remove": {"name": "n4"}}"#;
    for (left, status) in [("", 200), ("n4 leaves", 202)] {
        let (mut client, _) = clustered(left);
        let answer = client.ask("POST", "/v1/cluster?wait=2", body).await;
        assert_eq!(answer.status, status);
        let json = json(&answer);
        assert_eq!(json["settled"], left.is_empty());
        let words = json["left_to_do"].as_str().unwrap();
        assert!(words.contains(left), "{words}");
        let shown = client.ask("GET", "/v1/cluster?wait=2", b"").await;
        let shown: Value = serde_json::from_slice(&shown.body).unwrap();
        assert_eq!(shown["settled"], left.is_empty());
        assert_eq!(shown["left_to_do"], left);
    }
}
