//! The other half of `acl reset-admin`: a node that finds a request in its directory has it executed by the
//! cluster, once, and removes it.
//!
//! The request holds for the user as the node first sees it, which is written into the file before anything is
//! proposed. So a crash at any moment, or a node that comes back later, repeats nothing: not even a password that
//! was changed again meanwhile. Invariant: the file goes only when it is known what became of it.

use std::sync::Arc;
use std::time::Duration;

use memkv_disk::disk::Disk;
use memkv_disk::disk::real::RealDisk;
use memkv_disk::{Layout, OpenError, ResetAdmin};
use memkv_node::seldom::Seldom;
use memkv_store::{Command, Principal, ReplyValue, Secret, SecretKind, UserSpec, UserTable};

use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::rights::Rules;
use crate::service::{Service, ServiceError};

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);

static WAITS: Seldom = Seldom::new();

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The user is as it was asked for.
    Done,
    /// Nothing was changed, and nothing will be.
    Void(String),
}

/// Looks for a request and has it executed. Called once the users of the cluster are known here.
pub(crate) async fn apply<B: Backend>(service: Arc<Service<B>>, layout: Layout) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let request = match on_disk(&disk, &layout, ResetAdmin::find).await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(error) => {
            return tracing::error!(%error, "acl reset-admin: say it again on the stopped node");
        }
    };
    let Some(outcome) = execute(&service, &disk, &layout, request.clone()).await else {
        return;
    };
    let user = String::from_utf8_lossy(&request.user);
    audit::record(&Event {
        kind: audit::Kind::Users,
        allowed: outcome == Outcome::Done,
        user: &user,
        origin: None,
        detail: "acl reset-admin",
    });
    match &outcome {
        Outcome::Done => {
            tracing::warn!(%user, "acl reset-admin: the user has all rights and the new password");
        }
        Outcome::Void(why) => {
            tracing::error!(%user, why, "acl reset-admin: nothing was changed, and the request is gone");
        }
    }
    if let Err(error) = on_disk(&disk, &layout, ResetAdmin::remove).await {
        tracing::error!(%error, "acl reset-admin: the request stays; it has no effect any more");
    }
}

/// Has the request executed; nothing if its file cannot be written.
async fn execute<B: Backend>(
    service: &Service<B>,
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    mut request: ResetAdmin,
) -> Option<Outcome> {
    loop {
        let backend = service.backend()?;
        if backend.status().cluster != Some(request.cluster) {
            return Some(Outcome::Void("it was made for another cluster".to_owned()));
        }
        let Some(users) = backend.users() else {
            let why = "the cluster has no table of users: the node's password_file decides";
            return Some(Outcome::Void(why.to_owned()));
        };
        let Some(expected) = request.expected else {
            request.expected = Some(changed_at(&users, &request));
            let pinned = request.clone();
            let save = move |disk: &dyn Disk, layout: &Layout| pinned.save(disk, layout);
            if let Err(error) = on_disk(disk, layout, save).await {
                tracing::error!(%error, "acl reset-admin: start the node again when this is mended");
                return None;
            }
            continue;
        };
        if let Some(outcome) = outcome(&users, &request, expected) {
            return Some(outcome);
        }
        let command = Command::SetUser {
            name: request.user.clone(),
            expected,
            user: wanted(&request),
            narrows: true,
        };
        match service
            .write_as(command, 0, Some(Principal::OPERATOR))
            .await
        {
            Ok(reply) => match reply.value {
                ReplyValue::Error(error) => return Some(Outcome::Void(error.to_string())),
                ReplyValue::Nil => {}
                _ => return Some(Outcome::Done),
            },
            Err(error) => wait(&error).await,
        }
    }
}

/// What became of a request that may have been proposed before; nothing if it has no effect yet.
fn outcome(users: &UserTable, request: &ResetAdmin, expected: u64) -> Option<Outcome> {
    if changed_at(users, request) == expected {
        return None;
    }
    let wanted = wanted(request);
    let is_wanted = users
        .get(&request.user)
        .is_some_and(|user| user.spec() == wanted);
    Some(match is_wanted {
        true => Outcome::Done,
        false => Outcome::Void("the user has been changed since by others".to_owned()),
    })
}

fn changed_at(users: &UserTable, request: &ResetAdmin) -> u64 {
    users.get(&request.user).map_or(0, |user| user.changed_at)
}

/// The user as it will be.
fn wanted(request: &ResetAdmin) -> UserSpec {
    UserSpec {
        enabled: true,
        nopass: false,
        secrets: vec![Secret::new(SecretKind::Password(request.hash.clone()))],
        rules: Rules::everything().text().into(),
    }
}

async fn wait(error: &ServiceError) {
    if let Some(left_out) = WAITS.say() {
        tracing::warn!(%error, left_out, "acl reset-admin waits for the cluster");
    }
    tokio::time::sleep(RETRY).await;
}

/// Works on the directory, on a thread that may wait.
async fn on_disk<T: Send + 'static>(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    work: impl FnOnce(&dyn Disk, &Layout) -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let (disk, of, kept) = (disk.clone(), layout.clone(), layout.metadata.clone());
    let done = tokio::task::spawn_blocking(move || work(&*disk, &of)).await;
    done.unwrap_or_else(|ended| {
        Err(OpenError::Io {
            action: "work on",
            path: kept,
            source: std::io::Error::other(ended),
        })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use memkv_disk::Stopped;

    use super::*;
    use crate::rights::Rights;
    use crate::testing::Fake;

    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2E$aGFzaGhhc2g";

    /// A cluster with the users `default` and `admin`, whose first password is another.
    async fn cluster() -> (Arc<Service<Fake>>, Fake) {
        let backend = Fake::at_edge_level();
        let service = Service::with_rights(Duration::from_secs(5), Rights::new(None, false));
        service.attach(backend.clone());
        let users = crate::rights::first_users(None);
        let first = Command::InitUsers { users };
        backend.write(first, None).await.unwrap();
        change(&backend, UserSpec::default()).await;
        (Arc::new(service), backend)
    }

    /// Changes the user `admin`, as another administrator would.
    async fn change(backend: &Fake, user: UserSpec) {
        let users = backend.users().unwrap();
        let command = Command::SetUser {
            name: Bytes::from_static(b"admin"),
            expected: users.get(b"admin").map_or(0, |user| user.changed_at),
            user,
            narrows: true,
        };
        let reply = backend.write(command, None).await.unwrap();
        assert_ne!(reply.value, ReplyValue::Nil);
    }

    fn admin(backend: &Fake) -> (u64, UserSpec) {
        let users = backend.users().unwrap();
        let user = users.get(b"admin").unwrap();
        (user.changed_at, user.spec())
    }

    fn request(cluster: u8, expected: Option<u64>) -> ResetAdmin {
        ResetAdmin {
            cluster: [cluster; 16],
            user: Bytes::from_static(b"admin"),
            hash: Bytes::from_static(HASH.as_bytes()),
            expected,
        }
    }

    /// The directory of a stopped node with this request in it.
    fn leave(request: &ResetAdmin) -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::under(dir.path());
        std::fs::create_dir(&layout.metadata).unwrap();
        let stopped = Stopped::open(&RealDisk, &layout.metadata).unwrap();
        stopped.request(&RealDisk, request).unwrap();
        (dir, layout)
    }

    #[tokio::test]
    async fn a_request_is_executed_and_removed() {
        let (service, backend) = cluster().await;
        let request = request(7, None);
        let (_dir, layout) = leave(&request);
        apply(service.clone(), layout.clone()).await;
        let (changed_at, user) = admin(&backend);
        assert_eq!(user, wanted(&request));
        assert_eq!(ResetAdmin::find(&RealDisk, &layout).unwrap(), None);
        apply(service, layout).await;
        assert_eq!(admin(&backend).0, changed_at);
    }

    #[tokio::test]
    async fn a_request_is_executed_once_wherever_the_node_was_killed() {
        let (service, backend) = cluster().await;
        let before = admin(&backend).0;
        // Before it was proposed.
        let pinned = request(7, Some(before));
        let (_dir, layout) = leave(&pinned);
        apply(service.clone(), layout).await;
        let done = admin(&backend);
        assert_eq!(done.1, wanted(&pinned));
        // Before it was removed.
        let (_dir, layout) = leave(&pinned);
        apply(service.clone(), layout.clone()).await;
        assert_eq!(admin(&backend), done);
        assert_eq!(ResetAdmin::find(&RealDisk, &layout).unwrap(), None);
        // The same, and the password was changed before the node came back.
        let changed = UserSpec::default();
        change(&backend, changed.clone()).await;
        let (_dir, layout) = leave(&pinned);
        apply(service, layout.clone()).await;
        assert_eq!(admin(&backend).1, changed);
        assert_eq!(ResetAdmin::find(&RealDisk, &layout).unwrap(), None);
    }

    #[tokio::test]
    async fn a_request_for_another_cluster_changes_nothing() {
        let (service, backend) = cluster().await;
        let before = admin(&backend);
        let (_dir, layout) = leave(&request(8, None));
        apply(service, layout.clone()).await;
        assert_eq!(admin(&backend), before);
        assert_eq!(ResetAdmin::find(&RealDisk, &layout).unwrap(), None);
    }
}
