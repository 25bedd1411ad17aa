//! One node from start to end: check, listen, start consensus, serve, hand over, stop.
//! Never returns while the node serves; each failure is reported once, with the next step.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use memkv_node::{Event, FatalError, Node, NodeStatus, Phase, StartError};
use memkv_proto::config::split_addr;
use memkv_proto::{Durability, TlsClientAuth, TlsClients, TlsPeers};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::admission::{Admission, AdmissionSettings, Counts, know_peers};
use crate::audit::{self, AuditError};
use crate::consensus::Consensus;
use crate::drain::Drain;
use crate::exposure::{self, Exposed};
use crate::http::{Api, ApiSettings, Limits};
use crate::ledger::Ledger;
use crate::listener::Listener;
use crate::peer::Trust;
use crate::resp::{Resp, RespSettings};
use crate::rights::{JudgeAgain, Rights};
use crate::service::Service;
use crate::settings::{RedisListener, Settings, process_memory};
use crate::signals::StopSignals;
use crate::supervisor::Supervisor;
use crate::tls::{self, Tls};
use crate::{client_socket, console, logging, memory, panics, process, reset};

/// Exit codes: documented in `--help` and `docs/operations.md`.
mod exit {
    pub(super) const OK: u8 = 0;
    /// It cannot run, or cannot go on; the text says why.
    pub(super) const FAILED: u8 = 1;
    /// The command line or the configuration is wrong.
    pub(super) const CONFIG: u8 = 2;
}

/// A node that is told to stop has ended after three seconds. Until then, from the signal on:
/// leadership is handed over, which takes a tenth of this where another voter answers;
const HAND_OVER_MAX: Duration = Duration::from_millis(1200);
/// clients that are at work send a request, to which the answer is that they must go;
const LAST_REQUEST_MAX: Duration = Duration::from_millis(400);
/// what has been received is answered;
const ANSWERS_MAX: Duration = Duration::from_millis(600);
/// the log is closed. Then the process ends anyway: the log is safe at any moment.
const CLOSED_BY: Duration = Duration::from_millis(2500);
/// Answers that the end itself has caused, such as "unknown", get this long to leave.
const LAST_WORDS_MAX: Duration = Duration::from_millis(200);

/// How often a node that starts or stops looks whether it has.
const READY_POLL: Duration = Duration::from_millis(10);

/// Redis's own port, where its clients look first.
pub(crate) const REDIS_PORT: u16 = 6379;

/// Ports from Redis's own on that are tried where none was chosen.
const REDIS_PORTS: u16 = 100;

/// A Redis client that takes less than 1 KiB/s of its replies for this long is taken to have gone.
const WRITE_STALL: Duration = Duration::from_secs(10);

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Exposed(#[from] Exposed),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Tls(#[from] tls::StartError),
    #[error("cannot listen on {bind}: {source}; {next}")]
    Listen {
        bind: String,
        source: io::Error,
        next: &'static str,
    },
    #[error("the operating system refuses {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

impl RunError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Exposed(_) | Self::Audit(_) | Self::Tls(tls::StartError::Files(_)) => {
                exit::CONFIG
            }
            Self::Tls(tls::StartError::Thread(_)) | Self::Listen { .. } | Self::System { .. } => {
                exit::FAILED
            }
        }
    }
}

/// Runs a node until a signal or a failure; returns the exit code.
pub fn node(settings: Settings) -> u8 {
    logging::start(settings.config.log_level, settings.config.log_format);
    panics::install();
    #[cfg(memkv_bugs)]
    if let Ok(point) = std::env::var("MEMKV_DELIBERATE_PANIC") {
        memkv_disk::bugs::order_panic(&point);
    }
    // One core is for consensus; a second thread there would only take turns with it.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .thread_name("memkv-clients")
        .enable_all()
        .build()
        .map_err(|source| RunError::System {
            what: "threads",
            source,
        });
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(serve(&settings));
        // Connections that are still open do not keep the process.
        runtime.shutdown_background();
        result
    });
    audit::finish();
    result.unwrap_or_else(|error| {
        console::error(&error);
        error.exit_code()
    })
}

async fn serve(settings: &Settings) -> Result<u8, RunError> {
    let started = Instant::now();
    if !settings.config.audit_file.is_empty() {
        audit::start(Path::new(&settings.config.audit_file))?;
    }
    let system = |what| move |source| RunError::System { what, source };
    let mut signals = StopSignals::listen_as_node().map_err(system("signal handlers"))?;
    let tls = Tls::start(&settings.config)?;
    let socket = listen(settings, &settings.bind, true).await?;
    let redis = listen_redis(settings).await?;
    let bound = socket.local_addr().map_err(system("the address"))?;
    let trust = exposure::trust(settings, &[bound]);
    let consensus = Consensus::start(
        settings.node_config(),
        trust.clone(),
        tls.clone(),
        Handle::current(),
    )
    .map_err(system("the consensus thread"))?;
    let supervisor = Supervisor::start(consensus.handle.clone());
    let ledger = ledger(settings);
    let service = service(settings, &ledger);
    let redis_settings = resp_settings(settings, redis.as_ref());
    let resp = Arc::new(Resp::new(service.clone(), redis_settings));
    let api = http_api(settings, trust.clone(), service.clone(), resp.clone());
    let limits = Limits {
        ledger: ledger.clone(),
        drain: service.drain().clone(),
        ..Limits::default()
    };
    let admission = admission(settings, &trust, &service, resp.counts().clone());
    let listener = Listener::new(
        api,
        resp.clone(),
        limits,
        admission.clone(),
        consensus.handle.clone(),
    );
    let listener = Arc::new(listener.with_tls(tls));
    introduce(settings, redis.as_ref());
    let accepting = accept(listener, socket, redis);

    let node = match start(consensus.node, &mut signals).await {
        Ok(node) => node,
        Err(code) => return Ok(code),
    };
    node.judge_by(Box::new(JudgeAgain::default()));
    resp.attach(node.clone());
    service.attach(node.clone());
    follow_users(settings, resp.clone(), service.clone(), &node);
    start_tasks(settings, &node, admission, (started, supervisor.clone()));
    let why = match stop_reason(&node, &resp, &mut signals).await {
        Ok(why) => why,
        Err(code) => return Ok(code),
    };
    supervisor.stopping(&why);
    node.timeline().note(&Event::Draining { why });
    let drained = drain(&node, &resp, service.drain(), accepting);
    tokio::select! {
        () = drained => Ok(exit::OK),
        // A second signal ends the process at once.
        (_, code) = signals.next() => Ok(code),
    }
}

/// Waits for a reason to stop; an exit code if the node has failed.
async fn stop_reason(
    node: &Node,
    resp: &Resp<Node>,
    signals: &mut StopSignals,
) -> Result<String, u8> {
    tokio::select! {
        failure = node.failed() => {
            tracing::error!(%failure, "the node has failed");
            console::error(&failure);
            if let FatalError::OldDisk(_) | FatalError::NoSeat(_) | FatalError::Diverged(_) = failure {
                begin_anew();
            }
            Err(exit::FAILED)
        }
        (name, _) = signals.next() => {
            tracing::info!(signal = name, "stopping");
            Ok(format!("signal {name}"))
        }
        () = resp.stop_asked() => {
            tracing::info!("stopping: a client has said SHUTDOWN");
            Ok("a client has said SHUTDOWN".to_owned())
        }
    }
}

/// Accepts connections, in tasks that end with the drain.
fn accept(
    listener: Arc<Listener<Node>>,
    socket: TcpListener,
    redis: Option<TcpListener>,
) -> Vec<JoinHandle<()>> {
    let shared = tokio::spawn(listener.clone().accept(socket));
    let own = redis.map(|redis| tokio::spawn(listener.accept_resp(redis)));
    [shared].into_iter().chain(own).collect()
}

/// What reads and writes for clients, once there is a node.
fn service(settings: &Settings, ledger: &Ledger) -> Arc<Service<Node>> {
    let timeout = Duration::from_millis(settings.config.request_timeout_ms);
    let from_everywhere = exposure::nopass_from_everywhere(settings);
    let rights = Rights::starting(settings.password.as_ref(), from_everywhere);
    Arc::new(Service::with_rights(timeout, rights).with_ledger(ledger.clone()))
}

/// The HTTP API, which shows the metrics of Redis's clients too.
fn http_api(
    settings: &Settings,
    trust: Trust,
    service: Arc<Service<Node>>,
    resp: Arc<Resp<Node>>,
) -> Arc<Api<Node>> {
    let api = Arc::new(Api::new(service, api_settings(settings, trust)));
    api.show_metrics_with(Box::new(move || resp.metrics()));
    api
}

/// Goes by the users of the cluster, now and after each change, and changes one if the operator has left a request
/// in the directory. Clients are judged from the moment on at which
/// the users here are not older than this process.
fn follow_users(
    settings: &Settings,
    resp: Arc<Resp<Node>>,
    service: Arc<Service<Node>>,
    node: &Node,
) {
    let layout = settings.node_config().layout;
    resp.follow_users();
    let (known, follower) = (node.knows_users(), resp.clone());
    tokio::spawn(async move {
        known.await;
        follower.follow_users();
        service.rights().known();
        reset::apply(service, layout).await;
    });
    let seen = resp.clone();
    tokio::spawn(async move { seen.follow_peaks().await });
    tokio::spawn(async move { resp.follow_all_users().await });
}

/// Starts what runs beside the node.
fn start_tasks(
    settings: &Settings,
    node: &Node,
    admission: Arc<Admission>,
    (started, supervisor): (Instant, Arc<Supervisor>),
) {
    supervisor.follow(node);
    tokio::spawn(announce(node.clone(), started, supervisor));
    tokio::spawn(memory::give_back());
    tokio::spawn(know_peers(admission, peer_addrs(settings, node.clone())));
    if settings.config.report_writes {
        tokio::spawn(report_writes(node.clone()));
    }
}

/// Puts a new process in the place of this one, which finds its directory marked and sets it aside.
/// Returns only if the system refuses; then the operator must start the node again.
fn begin_anew() {
    let arguments = std::env::args_os().skip(1);
    let refused = match std::env::current_exe() {
        Ok(program) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    };
    console::error(format_args!(
        "cannot start anew ({refused}): start this node again"
    ));
}

/// Waits until the node answers; an exit code if it never will.
async fn start(
    node: oneshot::Receiver<Result<Node, StartError>>,
    signals: &mut StopSignals,
) -> Result<Node, u8> {
    tokio::select! {
        node = node => match node {
            Ok(Ok(node)) => Ok(node),
            Ok(Err(error)) => {
                console::error(&error);
                let is_config = matches!(error, StartError::Config(_));
                Err(if is_config { exit::CONFIG } else { exit::FAILED })
            }
            Err(_ended) => {
                console::error("the consensus thread ended before the node started");
                Err(exit::FAILED)
            }
        },
        // Nothing was acknowledged yet, so there is nothing to hand over.
        _signal = signals.next() => Err(exit::OK),
    }
}

/// Listens where clients are served, and peers too if that is said.
async fn listen(settings: &Settings, bind: &str, peers: bool) -> Result<TcpListener, RunError> {
    let failed = |source: io::Error| {
        let next = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there; stop it (ss -ltnp shows it) or choose another port"
            }
            io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
            io::ErrorKind::PermissionDenied => "choose a port above 1023",
            _ => "check the address",
        };
        RunError::Listen {
            bind: bind.to_owned(),
            source,
            next,
        }
    };
    let addrs: Vec<_> = tokio::net::lookup_host(bind)
        .await
        .map_err(failed)?
        .collect();
    exposure::check_clients(settings, &addrs)?;
    exposure::check_clients_encryption(settings, &addrs)?;
    if peers {
        exposure::check_peers(settings, &addrs)?;
        exposure::check_peers_encryption(settings, &addrs)?;
    }
    client_socket::listen(&addrs).map_err(failed)
}

/// The listener for Redis clients alone, if there is to be one.
async fn listen_redis(settings: &Settings) -> Result<Option<TcpListener>, RunError> {
    match &settings.redis {
        RedisListener::None => Ok(None),
        RedisListener::At(addr) => listen(settings, addr, false).await.map(Some),
        RedisListener::FirstFree => {
            for port in REDIS_PORT..REDIS_PORT + REDIS_PORTS {
                let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                if let Ok(listener) = client_socket::listen(&[addr]) {
                    return Ok(Some(listener));
                }
            }
            Ok(None)
        }
    }
}

/// Whether no client is served without a certificate.
fn needs_certificate(settings: &Settings) -> bool {
    settings.config.tls_client_auth == TlsClientAuth::Require
}

/// How connections are let in.
fn admission(
    settings: &Settings,
    trust: &Trust,
    service: &Service<Node>,
    counts: Arc<Counts>,
) -> Arc<Admission> {
    let config = &settings.config;
    let per_address = usize::try_from(config.max_connections_per_address).unwrap_or(usize::MAX);
    let settings = AdmissionSettings {
        descriptors: process::fit_connections(config.max_connections),
        per_address: (per_address > 0).then_some(per_address),
        clients_prove: match needs_certificate(settings) {
            true => Arc::new(AtomicBool::new(true)),
            false => service.rights().clients_prove(),
        },
        peers_prove: *trust != Trust::Everybody || config.tls_peers == TlsPeers::Require,
    };
    Admission::new(settings, service.ledger().clone(), counts)
}

/// The addresses of peers: those of the configuration and of the present members.
fn peer_addrs(settings: &Settings, node: Node) -> impl Fn() -> Vec<String> + use<> {
    let peers = settings.config.peer_addrs.iter();
    let configured: Vec<_> = peers.map(|peer| peer.addr.clone()).collect();
    move || {
        let members = node.status().members.into_iter();
        members
            .map(|member| member.addr)
            .chain(configured.iter().cloned())
            .collect()
    }
}

/// The account of the memory that clients take.
fn ledger(settings: &Settings) -> Ledger {
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let largest = whole(settings.config.max_value_bytes);
    match settings.config.max_client_memory {
        0 => Ledger::for_memory(process_memory(settings.config.max_memory), largest),
        bytes => Ledger::new(whole(bytes), largest),
    }
}

fn resp_settings(settings: &Settings, redis: Option<&TcpListener>) -> RespSettings {
    let config = &settings.config;
    RespSettings {
        port: redis_port(settings, redis),
        max_value_bytes: usize::try_from(config.max_value_bytes).unwrap_or(usize::MAX),
        max_connections: config.max_connections,
        write_stall: WRITE_STALL,
        idle_time: (config.timeout > 0).then(|| Duration::from_secs(config.timeout)),
        announce: settings.announce(),
        sync: config.durability == Durability::Sync,
    }
}

/// Where Redis clients are told to connect.
fn redis_port(settings: &Settings, redis: Option<&TcpListener>) -> u16 {
    let own = redis.and_then(|redis| redis.local_addr().ok());
    let shared = || split_addr(&settings.bind).map_or(0, |(_host, port)| port);
    own.map_or_else(shared, |addr| addr.port())
}

fn api_settings(settings: &Settings, trust: Trust) -> ApiSettings {
    let config = &settings.config;
    ApiSettings {
        name: config.node_addr.id.clone(),
        names: config
            .nodes()
            .into_iter()
            .map(|node| node.id.clone())
            .collect(),
        max_value_bytes: usize::try_from(config.max_value_bytes).unwrap_or(usize::MAX),
        trust,
        metrics_public: config.metrics_public,
        peers_need_tls: config.tls_peers == TlsPeers::Require,
        allowed_hosts: settings.allowed_hosts(),
    }
}

/// The first lines: the node, its addresses, and the meaning of an acknowledgement.
fn introduce(settings: &Settings, redis: Option<&TcpListener>) {
    let (config, bind) = (&settings.config, &settings.bind);
    let peers: Vec<_> = config.peer_addrs.iter().map(ToString::to_string).collect();
    let cluster = match (peers.is_empty(), config.join.is_empty()) {
        (true, true) => "single node".to_owned(),
        (true, false) => format!("joins that of {}", config.join.join(", ")),
        (false, _) => peers.join(", "),
    };
    let durability = match config.durability {
        Durability::Sync => "sync: fsynced on a majority before every OK",
        Durability::Os => "os: NO fsync; survives the death of processes, not a power loss",
    };
    let tls = match config.uses_tls() {
        true => format!(
            "\n  tls     clients: {}, peers: {}",
            config.tls, config.tls_peers
        ),
        false => String::new(),
    };
    let http = match config.tls {
        TlsClients::Require => "https",
        _ => "http",
    };
    let port = redis_port(settings, redis);
    let taken = match settings.redis {
        RedisListener::FirstFree if port != REDIS_PORT => format!("     ({REDIS_PORT} is taken)"),
        _ => String::new(),
    };
    console::out(format!(
        "memkv {version}  node {id}  ({source})\n  \
           http    {http}://{bind}     curl -T- {http}://{bind}/v1/kv/hello <<< world\n  \
           redis   redis-cli -p {port}{taken}\n  \
           addr    {addr} (told to peers)\n  \
           peers   {cluster}{tls}\n  \
           data    {log} {snapshot} {metadata}\n  \
           durability  {durability}",
        version = env!("CARGO_PKG_VERSION"),
        id = config.node_addr.id,
        addr = config.told_addr(),
        source = settings.source,
        log = config.log_path,
        snapshot = config.snapshot_path,
        metadata = config.metadata_path,
    ));
}

/// Prints `ready` once the node leads or follows, and tells the supervisor. The node logs what it waits for
/// meanwhile.
async fn announce(node: Node, started: Instant, supervisor: Arc<Supervisor>) {
    let status = loop {
        let status = node.status();
        if is_ready(&status) {
            break status;
        }
        tokio::time::sleep(READY_POLL).await;
    };
    supervisor.ready();
    let leader = status.leader.unwrap_or_default();
    console::out(format!(
        "ready in {} ms  leader {leader}",
        started.elapsed().as_millis()
    ));
}

fn is_ready(status: &NodeStatus) -> bool {
    status.phase == Phase::Serving && status.leader.is_some()
}

/// The original's line, once a second: writes that were executed, wherever they came in.
async fn report_writes(node: Node) {
    let mut last = node.status().revision;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let revision = node.status().revision;
        console::out(format!("writes/second ({})", revision.saturating_sub(last)));
        last = revision;
    }
}

/// Hands over and stops, step by step.
async fn drain(node: &Node, resp: &Resp<Node>, drain: &Drain, accepting: Vec<JoinHandle<()>>) {
    let close_by = tokio::time::Instant::now() + CLOSED_BY;
    drain.begin();
    // Still accepting: the next leader may have to connect to this node to take over.
    node.hand_over(HAND_OVER_MAX).await;
    drain.refuse();
    resp.wake_all();
    gone(LAST_REQUEST_MAX, || drain.early()).await;
    drain.end();
    resp.wake_all();
    gone(ANSWERS_MAX, || drain.early()).await;
    let closed = node.close(Duration::ZERO);
    if tokio::time::timeout_at(close_by, closed).await.is_err() {
        tracing::warn!("the node took too long to stop; what was acknowledged is safe");
        node.kill();
    }
    drain.close();
    let last_words = async {
        for accepting in accepting {
            // It ends once it has accepted all that had come.
            let _ = accepting.await;
        }
        gone(LAST_WORDS_MAX, || drain.open()).await;
    };
    let _ = tokio::time::timeout(LAST_WORDS_MAX, last_words).await;
}

/// Waits until no connection is open of those that are counted, but no longer than this.
async fn gone(within: Duration, count: impl Fn() -> usize) {
    let start = Instant::now();
    while count() > 0 && start.elapsed() < within {
        tokio::time::sleep(READY_POLL).await;
    }
}
