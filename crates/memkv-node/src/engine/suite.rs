//! The engine's own suite for log stores and state machines, on the adapter: over real files and
//! over the simulated disk.

use std::path::PathBuf;
use std::sync::Arc;

use memkv_disk::disk::Disk;
use memkv_disk::disk::real::RealDisk;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{Layout, Options};
use memkv_store::KeyEventClasses;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::TypeConfig;
use super::log_store::LogStore;
use super::state_machine::StateMachine;
use crate::Env;
use crate::pubsub::announce::Announcer;
use crate::replica::Replica;
use crate::time::log_clock::LogClock;
use crate::write::session::Session;

/// Makes an empty store for each of the suite's tests.
struct Builder<F>(F);

/// Ends the WAL's thread and removes the directory after a test.
struct Guard {
    wal: memkv_disk::WalHandle,
    _directory: Option<tempfile::TempDir>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.wal.shutdown();
    }
}

type Directory = (Arc<dyn Disk>, PathBuf, Option<tempfile::TempDir>);

impl<F: Fn() -> Directory + Send + Sync> StoreBuilder<TypeConfig, LogStore, StateMachine, Guard>
    for Builder<F>
{
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let (disk, root, directory) = (self.0)();
        let layout = Layout {
            log: root.join("log"),
            metadata: root.join("metadata"),
            snapshot: root.join("snapshot"),
        };
        let opened = memkv_disk::open(disk, &layout, Options::default()).unwrap();
        let env = Env::real();
        (env.drive_wal)(opened.worker, opened.wal.clone());
        let store = LogStore::new(
            opened.wal.clone(),
            opened.log,
            opened.metadata.hard_state,
            opened.metadata.committed_hint,
            Arc::default(),
            env.clone(),
            Arc::default(),
        );
        let replica = Arc::new(Replica::new(Arc::new(Session::new(1, 64 << 20))));
        let clock = Arc::new(LogClock::resume(env.clone(), None, None));
        let machine = StateMachine::new(
            replica,
            opened.snapshots,
            clock,
            env,
            Arc::default(),
            Announcer {
                publisher: Arc::default(),
                configured: KeyEventClasses::default(),
                old_through: 0,
            },
            memkv_store::HIGHEST_LEVEL,
        );
        Ok((
            Guard {
                wal: opened.wal,
                _directory: directory,
            },
            store,
            machine,
        ))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_suite_passes_on_real_files() {
    let builder = Builder(|| {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        (Arc::new(RealDisk) as Arc<dyn Disk>, root, Some(directory))
    });
    Suite::test_all(builder).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_suite_passes_on_the_simulated_disk() {
    let builder = Builder(|| {
        (
            Arc::new(SimDisk::new(1)) as Arc<dyn Disk>,
            PathBuf::from("/node"),
            None,
        )
    });
    Suite::test_all(builder).await.unwrap();
}
