//! The memory that this process may use: the smallest limit of its cgroup and of all groups above it,
//! and the memory of the machine. Never changes a limit; reads files of `/proc` and `/sys` only.

use std::fs;
use std::path::Path;

/// Where cgroups of version 2 are, and those of version 1 that limit memory.
const UNIFIED: &str = "/sys/fs/cgroup";
const MEMORY: &str = "/sys/fs/cgroup/memory";

/// The limit in bytes; nothing where the system does not tell.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().filter_map(of_group).min();
    own.into_iter().chain(machine()).min()
}

/// RAM of the machine.
fn machine() -> Option<u64> {
    total_of(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// The smallest limit up the chain of a line `id:controllers:path` of `/proc/self/cgroup`.
fn of_group(line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    match controllers {
        "" => smallest(Path::new(UNIFIED), path, "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            smallest(Path::new(MEMORY), path, "memory.limit_in_bytes")
        }
        _ => None,
    }
}

/// The smallest limit of the groups from `path` up to `root`. In a container the path may lie outside of
/// what is mounted; then the root is the container's own group.
fn smallest(root: &Path, path: &str, file: &str) -> Option<u64> {
    let own = root.join(path.trim_start_matches('/'));
    let chain = own.ancestors().take_while(|group| group.starts_with(root));
    chain
        .filter_map(|group| limit_of(&fs::read_to_string(group.join(file)).ok()?))
        .min()
}

/// A limit as the kernel prints it; `max` is none.
fn limit_of(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_the_chain_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        let limit = || smallest(root.path(), "/a/b", "memory.max");
        assert_eq!(limit(), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(limit(), None);
        write("a/memory.max", "1048576\n");
        assert_eq!(limit(), Some(1_048_576));
        write("a/b/memory.max", "2097152\n");
        write("memory.max", "4096\n");
        assert_eq!(limit(), Some(4096));
        // A path that is not mounted here leaves the root.
        assert_eq!(smallest(root.path(), "/x/y", "memory.max"), Some(4096));
    }

    #[test]
    fn this_machine_has_memory() {
        assert_eq!(
            total_of("MemFree: 1 kB\nMemTotal:       2048 kB\n"),
            Some(2 << 20)
        );
        assert!(memory_limit().is_some_and(|bytes| bytes > 1 << 20));
    }
}
