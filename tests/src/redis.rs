//! Debian's redis-server 7.0, the oracle: a process of our own on a free port, without a
//! configuration file and without anything on the disk.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::ports::free_port;
use crate::process::Process;
use crate::resp::Resp;
use crate::wait::eventually;

/// Longer than it needs to listen on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The release whose texts and replies are the contract.
const VERSION: &str = "7.0.";

/// The default of memkv's `max_value_bytes`, so that both refuse the same values.
const MAX_VALUE_BYTES: &str = "8388608";

/// A running redis-server, ended on drop.
pub struct Redis {
    /// Where it listens, `host:port`.
    pub addr: String,
    _process: Process,
}

impl Redis {
    /// Starts one whose log goes below `dir`.
    ///
    /// # Panics
    ///
    /// If it does not start, or is another release.
    pub fn start(dir: &Path) -> Redis {
        Redis::start_with(dir, &[])
    }

    /// The same with further arguments.
    pub fn start_with(dir: &Path, arguments: &[&str]) -> Redis {
        let port = free_port().to_string();
        let mut command = Command::new("redis-server");
        command.current_dir(dir).args(["--port", &port]);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--proto-max-bulk-len", MAX_VALUE_BYTES]);
        // Which commands are slow depends on the machine, and they would be in the slow log.
        command.args(["--slowlog-log-slower-than", "-1"]);
        command.args(arguments);
        let log = dir.join(format!("redis-{port}.log"));
        let mut process = Process::start(&mut command, &log);
        let addr = format!("127.0.0.1:{port}");
        let info = eventually("redis-server answers", START_LIMIT, || {
            if let Some(status) = process.ended() {
                panic!("redis-server ended with {status}:\n{}", process.output());
            }
            let mut client = Resp::connect(&addr).ok()?;
            client.call(&["INFO", "server"]).ok()
        });
        let info = String::from_utf8_lossy(info.text()).into_owned();
        assert!(
            info.contains(&format!("redis_version:{VERSION}")),
            "the oracle is redis-server {VERSION}x, this is:\n{info}"
        );
        Redis {
            addr,
            _process: process,
        }
    }
}
