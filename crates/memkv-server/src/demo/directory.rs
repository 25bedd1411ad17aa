//! Where a demo's nodes live: directories, ports, configuration files.
//! Never removes anything that it did not create.

use std::fs::{self, DirBuilder};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use memkv_proto::RaftConfig;
use memkv_proto::config::NodeAddr;

use super::DemoError;
use super::child::Node;
use crate::args::DemoArgs;
use crate::run::REDIS_PORT;
use crate::settings::process_memory;

/// The original's name for a node's configuration.
const CONFIG_FILE: &str = "raft_config.json";

/// A demo's directory; a temporary one is removed when this is dropped.
pub(super) struct DemoDirectory {
    root: PathBuf,
    temporary: bool,
}

impl DemoDirectory {
    /// The directory that was asked for, or a new one that only this user can read.
    pub(super) fn open(args: &DemoArgs) -> Result<Self, DemoError> {
        let failed = |root: &Path, error| {
            let root = root.display();
            DemoError::Directory(format!(
                "cannot create {root}: {error}; choose another with --dir"
            ))
        };
        if let Some(root) = &args.dir {
            fs::create_dir_all(root).map_err(|error| failed(root, error))?;
            // The nodes run in directories of their own.
            let root = root.canonicalize().map_err(|error| failed(root, error))?;
            return Ok(Self {
                root,
                temporary: false,
            });
        }
        let root = std::env::temp_dir().join(format!("memkv-demo-{}", std::process::id()));
        // Must not exist: it will be removed.
        DirBuilder::new()
            .mode(0o700)
            .create(&root)
            .map_err(|error| failed(&root, error))?;
        Ok(Self {
            root,
            temporary: true,
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The nodes of an earlier demo in this directory, or new ones.
    pub(super) fn nodes(
        &self,
        args: &DemoArgs,
        overrides: &[(&'static str, String, String)],
    ) -> Result<Vec<Node>, DemoError> {
        let earlier = self.earlier()?;
        if earlier.is_empty() {
            return self.new_nodes(args, overrides);
        }
        if earlier.len() != args.nodes {
            return Err(DemoError::Directory(format!(
                "{} holds a demo of {} nodes: say --nodes {}, or choose another --dir",
                self.root.display(),
                earlier.len(),
                earlier.len()
            )));
        }
        Ok(earlier)
    }

    fn earlier(&self) -> Result<Vec<Node>, DemoError> {
        let unreadable =
            |error| DemoError::Directory(format!("cannot read {}: {error}", self.root.display()));
        let mut nodes = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(unreadable)? {
            let dir = entry.map_err(unreadable)?.path();
            let file = dir.join(CONFIG_FILE);
            if file.is_file() {
                let text = fs::read_to_string(&file).map_err(unreadable)?;
                let config = RaftConfig::from_json(&text, &file.display().to_string())?;
                check_open(&config)?;
                nodes.push(Node::new(&config, dir, file));
            }
        }
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(nodes)
    }

    fn new_nodes(
        &self,
        args: &DemoArgs,
        overrides: &[(&'static str, String, String)],
    ) -> Result<Vec<Node>, DemoError> {
        let ports = free_ports(args.port, args.nodes)?;
        let redis_ports = free_ports(REDIS_PORT, args.nodes)?;
        // As in the original's examples, the port is the id.
        let addr = |port: &u16| NodeAddr {
            addr: format!("127.0.0.1:{port}"),
            id: port.to_string(),
        };
        let all: Vec<_> = ports.iter().map(addr).collect();
        let mut nodes = Vec::new();
        for (me, redis_port) in all.iter().zip(redis_ports) {
            let mut config = RaftConfig::default();
            for (key, value, flag) in overrides {
                config.apply_override(key, value, flag)?;
            }
            let limit = process_memory(config.max_memory);
            config.max_memory = limit.map_or(0, |limit| limit / args.nodes.max(1) as u64);
            config.node_addr = me.clone();
            config.redis_addr = format!("127.0.0.1:{redis_port}");
            config.peer_addrs = all.iter().filter(|node| *node != me).cloned().collect();
            config.validate()?;
            check_open(&config)?;
            let dir = self.root.join(&me.id);
            let file = dir.join(CONFIG_FILE);
            fs::create_dir_all(&dir)
                .and_then(|()| fs::write(&file, config.to_json()))
                .map_err(|error| {
                    DemoError::Directory(format!("cannot write {}: {error}", file.display()))
                })?;
            nodes.push(Node::new(&config, dir, file));
        }
        Ok(nodes)
    }
}

impl Drop for DemoDirectory {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed is in the directory for such things.
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// The demo asks its nodes itself, and shows no password.
fn check_open(config: &RaftConfig) -> Result<(), DemoError> {
    if config.password_file.is_empty() {
        return Ok(());
    }
    let why = "the demo's nodes take no password: leave password_file out, or run a node alone";
    Err(DemoError::Directory(why.to_owned()))
}

/// The first `count` free ports from `first` on.
fn free_ports(first: u16, count: usize) -> Result<Vec<u16>, DemoError> {
    let free: Vec<u16> = (first..=u16::MAX)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect();
    if free.len() < count {
        return Err(DemoError::Directory(format!(
            "there are no {count} free ports from {first} on; choose a lower --port"
        )));
    }
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &Path, nodes: usize, port: u16) -> DemoArgs {
        DemoArgs {
            nodes,
            dir: Some(dir.to_owned()),
            port,
        }
    }

    #[test]
    fn ports_that_are_taken_are_left_out() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let free = free_ports(port, 2).unwrap();
        assert!(free.len() == 2 && !free.contains(&port), "{free:?}");
        assert!(free_ports(u16::MAX, 2).is_err());
    }

    #[test]
    fn each_node_knows_all_others_and_a_second_demo_finds_them_again() {
        let dir = tempfile::tempdir().unwrap();
        let asked = args(dir.path(), 3, 20_000);
        let overrides = [("durability", "os".to_owned(), "--durability".to_owned())];
        let directory = DemoDirectory::open(&asked).unwrap();
        let nodes = directory.nodes(&asked, &overrides).unwrap();
        let ids: Vec<_> = nodes.iter().map(|node| node.id.clone()).collect();
        for id in &ids {
            let file = directory.root().join(id).join(CONFIG_FILE);
            let text = fs::read_to_string(file).unwrap();
            let config = RaftConfig::from_json(&text, "x").unwrap();
            assert_eq!(config.durability.as_str(), "os");
            let known: Vec<_> = config.nodes().iter().map(|node| node.id.clone()).collect();
            assert_eq!(known, ids);
        }
        let again = directory.nodes(&args(dir.path(), 3, 30_000), &[]).unwrap();
        assert_eq!(
            again.iter().map(|node| node.id.clone()).collect::<Vec<_>>(),
            ids
        );
        let password = (
            "password_file",
            "p".to_owned(),
            "--password-file".to_owned(),
        );
        let fresh = tempfile::tempdir().unwrap();
        let asked = args(fresh.path(), 1, 20_000);
        let with_password = DemoDirectory::open(&asked)
            .unwrap()
            .nodes(&asked, &[password]);
        assert!(with_password.is_err_and(|error| error.to_string().contains("no password")));
        let Err(error) = directory.nodes(&args(dir.path(), 5, 30_000), &[]) else {
            panic!("three nodes are not five")
        };
        assert!(error.to_string().contains("--nodes 3"), "{error}");
        drop(directory);
        assert!(
            dir.path().join(&ids[0]).exists(),
            "what was asked for is kept"
        );
    }

    #[test]
    fn a_temporary_directory_is_private_and_goes() {
        use std::os::unix::fs::PermissionsExt;
        let directory = DemoDirectory::open(&DemoArgs {
            nodes: 1,
            dir: None,
            port: 1,
        })
        .unwrap();
        let root = directory.root().to_owned();
        assert_eq!(
            fs::metadata(&root).unwrap().permissions().mode() & 0o777,
            0o700
        );
        drop(directory);
        assert!(!root.exists());
    }
}
