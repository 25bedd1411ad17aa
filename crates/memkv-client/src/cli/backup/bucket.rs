//! Backups in a bucket of an object store that speaks S3's protocol. Settings and credentials are those of AWS's
//! own tools: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL` and the like.
//!
//! Never replaces or removes an object that is no backup. Invariant: an object appears only once all its bytes
//! were verified on their way; what is not whole never gets a name.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use memkv_backup::{BackupReader, Head, Summary};
use memkv_client::{Client, Download, Tls, TlsFiles};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart};
use tokio::signal;
use tokio::time::timeout;

use super::carrier::Carriers;
use super::checked::Checked;
use super::{Found, is_named, name_of, old, unremoved};
use crate::cli::progress::Progress;
use crate::cli::{Failure, usage};

/// How an address in a bucket begins.
const SCHEME: &str = "s3://";

/// Bytes of a part. S3 takes 10,000 parts, which makes 156 GiB of a backup; each part on its way is in memory.
const PART_BYTES: usize = 16 << 20;

/// Parts on their way at a time: enough to fill a line on which each has to wait for its answer.
const PARTS: usize = 4;

/// Longest time from one piece of an object to the next.
const PIECE_WITHIN: Duration = Duration::from_secs(60);

/// Bytes in which the head of every backup is: its start, and at most 64 KiB.
const HEAD_BYTES: u64 = 65 * 1024;

/// Longest time for a request whose answer is short. A store may take minutes to put the parts of an object together.
const ASK_WITHIN: Duration = Duration::from_secs(600);

/// Heads that are read at a time.
const HEADS: usize = 8;

/// How often a request is repeated that the store answered with a failure of its own, or not at all.
const RETRIES: usize = 5;

/// Longest time in which one is repeated.
const RETRY_WITHIN: Duration = Duration::from_secs(60);

/// An object's address, or that of all below a prefix.
pub(super) struct Address {
    bucket: String,
    /// What the name begins with, up to the last `/`; empty or ending with one.
    folder: String,
    /// The rest of the name; empty for a prefix.
    name: String,
}

impl Address {
    /// Reads `s3://BUCKET/KEY` or `s3://BUCKET/PREFIX/`; nothing if it is the name of a file.
    pub(super) fn of(text: &Path) -> Option<Result<Self, Failure>> {
        let is_ours = text
            .as_os_str()
            .as_encoded_bytes()
            .starts_with(SCHEME.as_bytes());
        if !is_ours {
            return None;
        }
        let text = text.to_str().and_then(|text| text.strip_prefix(SCHEME));
        let (bucket, key) = match text {
            Some(text) => text.split_once('/').unwrap_or((text, "")),
            None => return Some(Err(usage("an address in a bucket is UTF-8".to_owned()))),
        };
        // What S3 allows in a bucket's name, so that nothing of it can become a host of its own.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(is_name) {
            return Some(Err(usage(format!(
                "{bucket:?} is the name of no bucket: write s3://BUCKET/KEY"
            ))));
        }
        let (folder, name) = key.rsplit_once('/').map_or(("", key), |(_, name)| {
            (key.strip_suffix(name).unwrap_or_default(), name)
        });
        let is_odd = key.starts_with('/') || key.contains("//");
        if is_odd || Key::parse(key).is_err() {
            return Some(Err(usage(format!(
                "{key:?} is the key of no object here: between two / there is something, and not . or .."
            ))));
        }
        Some(Ok(Self {
            bucket: bucket.to_owned(),
            folder: folder.to_owned(),
            name: name.to_owned(),
        }))
    }

    /// The last part of the object's name.
    pub(super) fn file_name(&self) -> Option<&str> {
        (!self.name.is_empty()).then_some(self.name.as_str())
    }

    /// The same place with this name.
    fn with(&self, name: &str) -> Self {
        Self {
            bucket: self.bucket.clone(),
            folder: self.folder.clone(),
            name: name.to_owned(),
        }
    }

    fn key(&self) -> Key {
        Key::from(format!("{}{}", self.folder, self.name))
    }

    fn store(&self) -> Result<AmazonS3, Failure> {
        let ca = env::var_os("AWS_CA_BUNDLE").map(PathBuf::from);
        let tls = match Tls::new(&TlsFiles {
            ca: ca.clone(),
            own: None,
        }) {
            Ok(tls) => Some(tls),
            // Without a list of CAs a store on this machine can be used still.
            Err(_) if ca.is_none() => None,
            Err(err) => return Err(err.into()),
        };
        let builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.bucket)
            .with_http_connector(Carriers { tls })
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: RETRIES,
                retry_timeout: RETRY_WITHIN,
            });
        builder.build().map_err(|err| self.failed(&err))
    }

    fn late(&self) -> Failure {
        Failure::Backup(format!("{self}: nothing came for {PIECE_WITHIN:?}"))
    }

    /// What the store answered, in words.
    fn failed(&self, err: &object_store::Error) -> Failure {
        use object_store::Error;
        let text = err.to_string();
        let next = match err {
            Error::NotFound { .. } => "there is no such object",
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                "the store refuses these credentials; look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the \
                 rights of their owner to read, write, list and delete there"
            }
            _ if text.contains("169.254.169.254") => {
                "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run this on a machine \
                 that has a role"
            }
            _ => "",
        };
        Failure::Backup(match next {
            "" => format!("{self}: {text}"),
            next => format!("{self}: {next} ({text})"),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{SCHEME}{}/{}{}", self.bucket, self.folder, self.name)
    }
}

/// Waits for a short answer about an address.
async fn ask<T>(
    address: &Address,
    asked: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Failure> {
    match timeout(ASK_WITHIN, asked).await {
        Ok(answer) => answer.map_err(|err| address.failed(&err)),
        Err(_) => Err(Failure::Backup(format!(
            "{address}: no answer for {ASK_WITHIN:?}"
        ))),
    }
}

/// Saves a backup at an address, or under a prefix with a name of its own; returns where, and what was found in it.
pub(super) async fn save(
    client: &Client,
    address: &Address,
    keep: Option<u64>,
) -> Result<(String, Head, Summary), Failure> {
    let is_folder = address.file_name().is_none();
    if keep.is_some() && !is_folder {
        return Err(usage(format!(
            "--keep needs a prefix that ends with /, and {address} is one object"
        )));
    }
    let store = address.store()?;
    if !is_folder {
        check_replaceable(&store, address).await?;
    }
    let mut download = client.backup().await?;
    let mut checked = Checked::begin().map_err(Failure::Start)?;
    let (begun, head) = match begin(&mut download, &mut checked).await? {
        (begun, Some(head)) => (begun, head),
        (_, None) => return Err(broken(checked, address).await),
    };
    let target = match is_folder {
        true => address.with(&name_of(&head)),
        false => address.with(&address.name),
    };
    let summary = upload(&store, &target, download, checked, begun).await?;
    let stored = ask(&target, store.head(&target.key())).await?;
    if stored.size != summary.file_bytes {
        return Err(Failure::Backup(format!(
            "{target} has {} bytes, and the backup {}: verify it before it is relied on",
            stored.size, summary.file_bytes
        )));
    }
    if let Some(keep) = keep {
        let saved = |failure| match failure {
            Failure::Backup(why) => unremoved("of this cluster", why),
            other => other,
        };
        for name in old(list(address).await.map_err(saved)?, &head, keep) {
            let gone = address.with(&name);
            let removed = ask(&gone, store.delete(&gone.key())).await;
            removed.map_err(saved)?;
        }
    }
    Ok((target.to_string(), head, summary))
}

/// Receives until the head is known. Returns what has come, and no head if it is no backup.
async fn begin(
    download: &mut Download,
    checked: &mut Checked,
) -> Result<(Vec<Bytes>, Option<Head>), Failure> {
    let mut begun = Vec::new();
    loop {
        let piece = tokio::select! {
            biased;
            head = checked.head() => return Ok((begun, head)),
            piece = download.next() => piece?,
        };
        let Some(bytes) = piece else {
            return Ok((begun, None));
        };
        begun.push(bytes.clone());
        // It may have refused: then there is no head.
        checked.take(bytes).await;
    }
}

/// Why what came is no backup.
async fn broken(checked: Checked, address: &Address) -> Failure {
    let why = checked.end().await.err().unwrap_or_default();
    Failure::Backup(format!(
        "what the node sent is no whole backup, and {address} was not written: {why}"
    ))
}

/// Uploads what has come and what still comes, and gives it its name if it is a whole backup.
async fn upload(
    store: &AmazonS3,
    target: &Address,
    mut download: Download,
    checked: Checked,
    begun: Vec<Bytes>,
) -> Result<Summary, Failure> {
    let upload = ask(target, store.put_multipart(&target.key())).await?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    let sent = {
        let sending = pin!(send(&mut upload, target, &mut download, checked, begun));
        tokio::select! {
            sent = sending => sent,
            _ = signal::ctrl_c() => Err(Failure::Backup(format!("interrupted: {target} was not written"))),
        }
    };
    match sent {
        Ok(summary) => {
            ask(target, upload.finish()).await?;
            Ok(summary)
        }
        Err(failure) => {
            // Parts without a name cost money until they go. A store that cannot be reached is left to its own rules.
            let _ = upload.abort().await;
            Err(failure)
        }
    }
}

/// Sends all of a backup; it is whole afterwards, and has no name yet.
async fn send(
    upload: &mut WriteMultipart,
    target: &Address,
    download: &mut Download,
    checked: Checked,
    begun: Vec<Bytes>,
) -> Result<Summary, Failure> {
    let mut progress = Progress::begin();
    for bytes in begun {
        progress.advance(bytes.len() as u64);
        upload.put(bytes);
    }
    while let Some(bytes) = download.next().await? {
        let room = upload.wait_for_capacity(PARTS).await;
        room.map_err(|err| target.failed(&err))?;
        progress.advance(bytes.len() as u64);
        upload.put(bytes.clone());
        if !checked.take(bytes).await {
            return Err(broken(checked, target).await);
        }
    }
    progress.end();
    match checked.end().await {
        Ok((_, summary)) => Ok(summary),
        Err(why) => Err(Failure::Backup(format!(
            "what the node sent is no whole backup, and {target} was not written: {why}"
        ))),
    }
}

/// An object that is there may be replaced if it is a backup: a slip must not cost another one.
async fn check_replaceable(store: &AmazonS3, address: &Address) -> Result<(), Failure> {
    match read_head(store, address).await? {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(_)) => Err(Failure::Backup(format!(
            "{address} is there and is no backup; name another key"
        ))),
    }
}

/// The head of an object, or why it is no backup; nothing if there is no object.
async fn read_head(
    store: &AmazonS3,
    address: &Address,
) -> Result<Option<Result<Head, String>>, Failure> {
    let key = address.key();
    let reading = timeout(PIECE_WITHIN, store.get_range(&key, 0..HEAD_BYTES)).await;
    let start = match reading.map_err(|_| address.late())? {
        Ok(start) => start,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        // An object without a byte has no range.
        Err(err) => match store.head(&key).await {
            Ok(found) if found.size == 0 => Bytes::new(),
            _ => return Err(address.failed(&err)),
        },
    };
    let reader = BackupReader::open(&*start).map_err(|err| err.to_string());
    Ok(Some(reader.map(|reader| reader.head().clone())))
}

/// What a backup says of itself.
pub(super) async fn head(address: &Address) -> Result<Head, Failure> {
    let found = read_head(&address.store()?, address).await?;
    let found = found.unwrap_or_else(|| Err("there is no such object".to_owned()));
    found.map_err(|why| Failure::Backup(format!("{address}: {why}")))
}

/// The objects under a prefix that are named as backups, in the order of their names.
pub(super) async fn list(address: &Address) -> Result<Vec<Found>, Failure> {
    if address.file_name().is_some() {
        return Err(usage(format!(
            "{address} is one object: end a prefix with /"
        )));
    }
    let store = address.store()?;
    let folder = address.key();
    let listed = ask(address, store.list_with_delimiter(Some(&folder))).await?;
    let named = listed.objects.into_iter().filter_map(|object| {
        let name = object.location.filename()?.to_owned();
        is_named(&name).then_some((name, object.size))
    });
    let found = futures_util::stream::iter(named).map(|(name, bytes)| {
        let store = &store;
        async move {
            let head = match read_head(store, &address.with(&name)).await {
                Ok(Some(head)) => head,
                // It has gone since: another program keeps the newest here, too.
                Ok(None) => Err("it has been removed".to_owned()),
                // One in an archive, or of another owner, hides no other.
                Err(Failure::Backup(why)) => Err(why),
                Err(failure) => return Err(failure),
            };
            Ok::<_, Failure>(Found { name, bytes, head })
        }
    });
    let mut found: Vec<Found> = found.buffer_unordered(HEADS).try_collect().await?;
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Reads and verifies a whole backup, and gives out its bytes as they come: only the end says that they are whole.
pub(super) async fn read(
    address: &Address,
    mut out: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(Head, Summary), Failure> {
    let store = address.store()?;
    let object = store.get(&address.key()).await;
    let mut pieces = object.map_err(|err| address.failed(&err))?.into_stream();
    let checked = Checked::begin().map_err(Failure::Start)?;
    let mut progress = Progress::begin();
    loop {
        let piece = timeout(PIECE_WITHIN, pieces.next()).await;
        let Some(piece) = piece.map_err(|_| address.late())? else {
            break;
        };
        let bytes = piece.map_err(|err| address.failed(&err))?;
        out(&bytes)?;
        progress.advance(bytes.len() as u64);
        if !checked.take(bytes).await {
            break;
        }
    }
    progress.end();
    let whole = checked.end().await;
    whole.map_err(|why| Failure::Backup(format!("{address}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        match Address::of(Path::new(text)) {
            Some(Ok(address)) => address,
            _ => panic!("{text} is an address"),
        }
    }

    #[test]
    fn addresses_are_objects_or_prefixes() {
        for (text, folder, name) in [
            ("s3://b", "", ""),
            ("s3://b/", "", ""),
            ("s3://b/k", "", "k"),
            ("s3://b/p/", "p/", ""),
            ("s3://b/p/q/k.backup", "p/q/", "k.backup"),
        ] {
            let found = address(text);
            assert_eq!(found.bucket, "b");
            assert_eq!((found.folder.as_str(), found.name.as_str()), (folder, name));
        }
        assert_eq!(address("s3://b/p/").with("k").to_string(), "s3://b/p/k");
        assert_eq!(address("s3://b/p/").with("k").key().as_ref(), "p/k");
    }

    #[test]
    fn files_are_no_addresses_and_odd_buckets_are_refused() {
        assert!(Address::of(Path::new("s3:/b/k")).is_none());
        assert!(Address::of(Path::new("./s3://b/k")).is_none());
        for odd in ["s3://", "s3:///k", "s3://a@b/k", "s3://a:80/k", "s3://b//k"] {
            assert!(matches!(Address::of(Path::new(odd)), Some(Err(_))), "{odd}");
        }
    }
}
