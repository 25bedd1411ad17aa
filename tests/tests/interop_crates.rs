//! The `redis` and `fred` crates work with default settings, on a follower, over both of its
//! listeners, in RESP2 and RESP3.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use memkv_black_box::{Listener, eventually, on_every_listener};

/// Longer than any expiry or message takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Keys of an iteration.
const KEYS: usize = 300;

fn names() -> BTreeSet<String> {
    (0..KEYS).map(|number| format!("user:{number}")).collect()
}

mod redis_crate {
    use redis::{Commands, Connection, ErrorKind, ExistenceCheck, Expiry, RedisResult, SetOptions};

    use super::{BTreeSet, HashMap, LIMIT, Listener, eventually, names, on_every_listener};

    fn connect(listener: &Listener, settings: &str) -> (redis::Client, Connection) {
        let url = format!("redis://{}/{settings}", listener.addr());
        let client = redis::Client::open(url).unwrap();
        let connection = client.get_connection().unwrap();
        (client, connection)
    }

    #[test]
    fn a_session_with_redis() {
        on_every_listener(|listener| {
            for settings in ["", "?protocol=resp3"] {
                let (client, mut connection) = connect(listener, settings);
                () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
                strings(&mut connection).unwrap();
                expiry(&mut connection).unwrap();
                transactions(&client, &mut connection).unwrap();
                messages(&client, &mut connection).unwrap();
                iteration(&mut connection).unwrap();
            }
        });
    }

    fn strings(connection: &mut Connection) -> RedisResult<()> {
        () = connection.set("name", "value")?;
        assert_eq!(connection.get::<_, String>("name")?, "value");
        assert_eq!(connection.get::<_, Option<String>>("absent")?, None);
        let absent = SetOptions::default().conditional_set(ExistenceCheck::NX);
        let set: Option<String> = connection.set_options("name", "other", absent)?;
        assert_eq!(set, None);
        () = connection.mset(&[("a", 1), ("b", 2)])?;
        let found: Vec<Option<i64>> = connection.mget(&["a", "absent", "b"])?;
        assert_eq!(found, [Some(1), None, Some(2)]);
        assert_eq!(connection.incr::<_, _, i64>("counter", 41)?, 41);
        assert_eq!(connection.incr::<_, _, f64>("float", 0.5)?, 0.5);
        assert_eq!(connection.append::<_, _, usize>("name", "!")?, 6);
        assert_eq!(connection.del::<_, usize>(&["a", "b", "absent"])?, 2);
        let wrong = connection.incr::<_, _, i64>("name", 1).unwrap_err();
        assert!(wrong.to_string().contains("not an integer"), "{wrong}");
        Ok(())
    }

    fn expiry(connection: &mut Connection) -> RedisResult<()> {
        let short = SetOptions::default().with_expiration(redis::SetExpiry::PX(30));
        () = connection.set_options("short", "v", short)?;
        eventually("a short life ends", LIMIT, || {
            let found: Option<String> = connection.get("short").unwrap();
            found.is_none().then_some(())
        });
        () = connection.set_ex("long", "v", 1000)?;
        assert!((991..=1000).contains(&connection.ttl::<_, i64>("long")?));
        assert!(connection.persist::<_, bool>("long")?);
        let value: String = connection.get_ex("long", Expiry::EX(500))?;
        assert_eq!(value, "v");
        assert!(connection.ttl::<_, i64>("long")? <= 500);
        Ok(())
    }

    fn transactions(client: &redis::Client, connection: &mut Connection) -> RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.atomic().set("t", 1).ignore().incr("t", 1).get("t");
        assert_eq!(pipe.query::<(i64, i64)>(connection)?, (2, 2));

        let mut other = client.get_connection()?;
        let mut tries = 0;
        let changed: (i64,) = redis::transaction(connection, &["t"], |connection, pipe| {
            tries += 1;
            let held: i64 = connection.get("t")?;
            if tries == 1 {
                () = other.set("t", 10)?;
            }
            pipe.set("t", held + 1).ignore().get("t").query(connection)
        })?;
        assert_eq!((changed, tries), ((11,), 2), "the first try was aborted");

        let mut pipe = redis::pipe();
        for number in 0..100 {
            pipe.set(format!("p{number}"), number).ignore();
            pipe.get(format!("p{number}"));
        }
        let found: Vec<i64> = pipe.query(connection)?;
        assert_eq!(found, (0..100).collect::<Vec<i64>>());
        let mut aborted = redis::pipe();
        aborted.atomic().cmd("SET").arg("t");
        let error = aborted.query::<()>(connection).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Io, "{error}");
        Ok(())
    }

    fn messages(client: &redis::Client, connection: &mut Connection) -> RedisResult<()> {
        let mut listener = client.get_connection()?;
        listener.set_read_timeout(Some(LIMIT))?;
        let mut listener = listener.as_pubsub();
        listener.subscribe("news")?;
        listener.psubscribe("top*")?;
        assert_eq!(connection.publish::<_, _, usize>("news", "one")?, 1);
        let message = listener.get_message()?;
        assert_eq!(message.get_channel_name(), "news");
        assert_eq!(message.get_payload::<String>()?, "one");
        assert_eq!(connection.publish::<_, _, usize>("topic", "two")?, 1);
        let message = listener.get_message()?;
        assert_eq!(message.get_pattern::<String>()?, "top*");
        assert_eq!(message.get_payload::<String>()?, "two");
        listener.unsubscribe("news")?;
        listener.punsubscribe("top*")
    }

    fn iteration(connection: &mut Connection) -> RedisResult<()> {
        () = redis::cmd("FLUSHDB").query(connection)?;
        let pairs: Vec<(String, &str)> = names().into_iter().map(|name| (name, "x")).collect();
        () = connection.mset(&pairs)?;
        () = connection.set("other", "y")?;
        let found: RedisResult<BTreeSet<String>> = connection.scan_match("user:*")?.collect();
        assert_eq!(found?, names());
        let info: redis::InfoDict = redis::cmd("INFO").query(connection)?;
        assert_eq!(info.get::<String>("role").as_deref(), Some("master"));
        let config: HashMap<String, String> = redis::cmd("CONFIG")
            .arg(&["GET", "maxmemory-policy"])
            .query(connection)?;
        assert_eq!(config["maxmemory-policy"], "noeviction");
        Ok(())
    }
}

mod fred_crate {
    use fred::prelude::*;
    use fred::types::RespVersion;
    use fred::types::scan::ScanType;

    use super::{BTreeSet, KEYS, LIMIT, names, on_every_listener};

    #[test]
    fn a_session_with_fred() {
        on_every_listener(|listener| {
            // For RESP3 it sends HELLO as an inline command, which only a listener of its own takes.
            let versions: &[RespVersion] = match listener.dedicated {
                true => &[RespVersion::RESP2, RespVersion::RESP3],
                false => &[RespVersion::RESP2],
            };
            for version in versions {
                let mut config = Config::from_url(&format!("redis://{}", listener.addr())).unwrap();
                config.version = version.clone();
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let session = async { tokio::time::timeout(LIMIT, session(config)).await };
                runtime.block_on(session).unwrap().unwrap();
            }
        });
    }

    async fn session(config: Config) -> Result<(), Error> {
        let builder = Builder::from_config(config);
        let client = builder.build()?;
        client.init().await?;
        client.flushall::<()>(false).await?;
        strings(&client).await?;
        expiry(&client).await?;
        transactions(&client).await?;
        messages(&builder, &client).await?;
        iteration(&client).await?;
        client.quit().await
    }

    async fn strings(client: &Client) -> Result<(), Error> {
        let _: () = client.set("name", "value", None, None, false).await?;
        let value: String = client.get("name").await?;
        assert_eq!(value, "value");
        let set: Option<String> = client
            .set("name", "other", None, Some(SetOptions::NX), false)
            .await?;
        assert_eq!(set, None);
        let _: () = client.mset(vec![("a", 1), ("b", 2)]).await?;
        let found: Vec<Option<i64>> = client.mget(vec!["a", "absent", "b"]).await?;
        assert_eq!(found, [Some(1), None, Some(2)]);
        let count: i64 = client.incr_by("counter", 41).await?;
        assert_eq!(count, 41);
        let length: usize = client.append("name", "!").await?;
        assert_eq!(length, 6);
        let removed: usize = client.del(vec!["a", "b", "absent"]).await?;
        assert_eq!(removed, 2);
        let wrong = client.incr::<i64, _>("name").await.unwrap_err();
        assert!(wrong.to_string().contains("not an integer"), "{wrong}");
        Ok(())
    }

    async fn expiry(client: &Client) -> Result<(), Error> {
        let short = Some(Expiration::PX(30));
        let _: () = client.set("short", "v", short, None, false).await?;
        while client.exists::<i64, _>("short").await? != 0 {
            tokio::task::yield_now().await;
        }
        let long = Some(Expiration::EX(1000));
        let _: () = client.set("long", "v", long, None, false).await?;
        let ttl: i64 = client.ttl("long").await?;
        assert!((991..=1000).contains(&ttl));
        let removed: i64 = client.persist("long").await?;
        assert_eq!(removed, 1);
        Ok(())
    }

    async fn transactions(client: &Client) -> Result<(), Error> {
        let transaction = client.multi();
        let _: () = transaction.set("t", 1, None, None, false).await?;
        let _: () = transaction.incr("t").await?;
        let _: () = transaction.get("t").await?;
        let replies: (String, i64, i64) = transaction.exec(true).await?;
        assert_eq!(replies, ("OK".to_owned(), 2, 2));

        let pipeline = client.pipeline();
        for number in 0..1000 {
            let _: () = pipeline.incr_by("sum", number).await?;
        }
        let sums: Vec<i64> = pipeline.all().await?;
        assert_eq!(sums.last(), Some(&(999 * 1000 / 2)));
        Ok(())
    }

    async fn messages(builder: &Builder, client: &Client) -> Result<(), Error> {
        let listener = builder.build_subscriber_client()?;
        listener.init().await?;
        let mut inbox = listener.message_rx();
        listener.subscribe("news").await?;
        listener.psubscribe("top*").await?;
        // It does not wait until a subscription is confirmed; the whole session has a time limit.
        while client.publish::<i64, _, _>("news", "one").await? != 1 {}
        let message = inbox.recv().await.unwrap();
        assert_eq!((&*message.channel, message.value), ("news", "one".into()));
        while client.publish::<i64, _, _>("topic", "two").await? != 1 {}
        let message = inbox.recv().await.unwrap();
        assert_eq!((&*message.channel, message.value), ("topic", "two".into()));
        listener.quit().await
    }

    async fn iteration(client: &Client) -> Result<(), Error> {
        client.flushall::<()>(false).await?;
        let pairs: Vec<(String, &str)> = names().into_iter().map(|name| (name, "x")).collect();
        let _: () = client.mset(pairs).await?;
        let _: () = client.set("other", "y", None, None, false).await?;
        let mut found = BTreeSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys): (String, Vec<String>) = client
                .scan_page(cursor, "user:*", Some(50), Some(ScanType::String))
                .await?;
            found.extend(keys);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(found, names());
        let size: usize = client.dbsize().await?;
        assert_eq!(size, KEYS + 1);
        Ok(())
    }
}
