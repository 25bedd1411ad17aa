//! The manifest for Kubernetes, as far as it can be tried without one: it is read, what it names exists, and the
//! script of its pods runs, with the manifest's settings, as processes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Ca, Process, Signal, binary, eventually, free_port, yaml};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than a formation takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The line of the script by which pods are found, and which alone is another one here.
const ADDRESS: &str = r#"address() { echo "memkv-$1.memkv:11081"; }"#;

/// The objects by kind and name.
fn objects() -> BTreeMap<(String, String), Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/kubernetes/memkv.yaml");
    let all = yaml(&file);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keyed = all.into_iter().map(|one| {
        let key = (text(&one["kind"]), text(&one["metadata"]["name"]));
        (key, one)
    });
    keyed.collect()
}

fn object<'a>(objects: &'a BTreeMap<(String, String), Value>, kind: &str, name: &str) -> &'a Value {
    objects.get(&(kind.to_owned(), name.to_owned())).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap();
    list.iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect()
}

/// Pods of the manifest as processes, with a directory for what Kubernetes mounts.
struct Pods {
    dir: TempDir,
    script: String,
    /// Variables of the container that are plain texts.
    variables: Vec<String>,
    ports: Vec<u16>,
}

impl Pods {
    fn new(script: &str, container: &Value, count: usize) -> Pods {
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let cases = ports.iter().enumerate();
        let cases: String = cases
            .map(|(at, port)| format!("{at}) echo 127.0.0.1:{port};; "))
            .collect();
        assert_eq!(script.matches(ADDRESS).count(), 1, "{script}");
        let script = script.replace(
            ADDRESS,
            &format!("address() {{ case $1 in {cases} esac; }}"),
        );
        let variables = names(&container["env"])
            .into_iter()
            .map(str::to_owned)
            .collect();
        let pods = Pods {
            dir,
            script,
            variables,
            ports,
        };
        pods.make_secrets();
        pods
    }

    /// What `docs/kubernetes.md` has made, with the permissions that `fsGroup` gives.
    fn make_secrets(&self) {
        let secrets = self.path("secrets");
        let ca = Ca::new(self.dir.path(), "ca");
        let secret = Command::new(binary("memkv_server"))
            .arg("secret")
            .output()
            .unwrap();
        fs::create_dir(&secrets).unwrap();
        for name in ["cluster_secret", "password"] {
            fs::write(secrets.join(name), &secret.stdout).unwrap();
        }
        fs::copy(ca.file("ca.crt"), secrets.join("ca.crt")).unwrap();
        for at in 0..self.ports.len() {
            let name = format!("memkv-{at}");
            ca.issue_node(&name);
            for end in ["crt", "key"] {
                let file = format!("{name}.{end}");
                fs::copy(ca.file(&file), secrets.join(&file)).unwrap();
            }
        }
        for file in fs::read_dir(&secrets).unwrap().flatten() {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o440)).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, at: usize) -> Process {
        let dir = self.path(&format!("pod-{at}"));
        let file = dir.join("start.sh");
        for name in ["run", "data"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        // So are volumes of a pod with a group.
        fs::set_permissions(dir.join("data"), fs::Permissions::from_mode(0o2770)).unwrap();
        fs::write(&file, &self.script).unwrap();
        let bin = binary("memkv_server").parent().unwrap().to_path_buf();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut pod = Command::new("/bin/sh");
        pod.arg(&file)
            .current_dir("/")
            .env_clear()
            .env("PATH", path);
        for name in &self.variables {
            let value = match name.as_str() {
                "POD_NAME" => format!("memkv-{at}"),
                "LISTEN" => format!("127.0.0.1:{}", self.ports[at]),
                "SECRETS" => self.path("secrets").display().to_string(),
                "RUN" => dir.join("run").display().to_string(),
                "DATA" => dir.join("data").display().to_string(),
                other => panic!("the pod has a variable that this test does not know: {other}"),
            };
            pod.env(name, value);
        }
        Process::start(&mut pod, &dir.join("log"))
    }

    /// Whether a probe of Kubernetes, which checks no certificate, is answered with 200.
    fn is_probed(&self, at: usize, probe: &Value) -> bool {
        let get = &probe["httpGet"];
        assert_eq!(
            (&get["scheme"], &get["port"]),
            (&"HTTPS".into(), &"memkv".into())
        );
        let path = get["path"].as_str().unwrap();
        let url = format!("https://127.0.0.1:{}{path}", self.ports[at]);
        let seconds = probe["timeoutSeconds"].to_string();
        let mut curl = Command::new("curl");
        curl.args([
            "--insecure",
            "--silent",
            "--fail",
            "--max-time",
            &seconds,
            &url,
        ]);
        curl.output().unwrap().status.success()
    }

    /// What the client prints at a pod.
    fn client(&self, at: usize, words: &[&str]) -> String {
        let run = self.path("pod-0/run");
        let mut client = Command::new(binary("memkv_client"));
        client.args([
            "--endpoints",
            &format!("https://127.0.0.1:{}", self.ports[at]),
        ]);
        client.arg("--cacert").arg(run.join("ca.crt"));
        client
            .arg("--password-file")
            .arg(run.join("password"))
            .args(words);
        let output = client.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

#[test]
fn pods_of_the_manifest_form_a_cluster_and_a_fourth_joins() {
    let objects = objects();
    let set = &object(&objects, "StatefulSet", "memkv")["spec"];
    let pod = &set["template"]["spec"];
    let container = &pod["containers"][0];
    check_names(&objects, set);
    let start = &object(&objects, "ConfigMap", "memkv-start")["data"]["start.sh"];
    let pods = Pods::new(start.as_str().unwrap(), container, 4);
    let mut running: Vec<Process> = (0..2).map(|at| pods.start(at)).collect();
    // Alive, and not ready before the third is there.
    let live = || pods.is_probed(0, &container["livenessProbe"]).then_some(());
    eventually("the first pod is alive", LIMIT, live);
    assert!(!pods.is_probed(0, &container["readinessProbe"]));
    running.push(pods.start(2));
    let ready = |at: usize| {
        pods.is_probed(at, &container["readinessProbe"])
            .then_some(())
    };
    for at in 0..3 {
        eventually("a pod is ready", LIMIT, || ready(at));
    }
    assert_eq!(pods.client(0, &["set", "k", "v"]), "ok\n");
    running.push(pods.start(3));
    eventually("the fourth pod is ready", LIMIT, || ready(3));
    assert_eq!(pods.client(3, &["get", "k"]), "v\n");
    let members = pods.client(3, &["member", "list"]);
    for at in 0..4 {
        assert!(members.contains(&format!("memkv-{at}")), "{members}");
    }
    // A pod that ends has time for it.
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    running[0].signal(Signal::TERM);
    assert!(running[0].wait_end(Duration::from_secs(grace)).success());
}

/// What one object names in another is there.
fn check_names(objects: &BTreeMap<(String, String), Value>, set: &Value) {
    let labels = &set["template"]["metadata"]["labels"];
    assert_eq!(&set["selector"]["matchLabels"], labels);
    for name in ["memkv", "memkv-client"] {
        let service = &object(objects, "Service", name)["spec"];
        assert_eq!(&service["selector"], labels, "{name}");
        assert_eq!(service["ports"][0]["port"], 11081);
    }
    let headless = &object(objects, "Service", set["serviceName"].as_str().unwrap())["spec"];
    assert_eq!(
        (
            &headless["clusterIP"],
            &headless["publishNotReadyAddresses"]
        ),
        (&"None".into(), &true.into())
    );
    let budget = &object(objects, "PodDisruptionBudget", "memkv")["spec"];
    assert_eq!(&budget["selector"]["matchLabels"], labels);
    assert_eq!(budget["maxUnavailable"], 1);
    let pod = &set["template"]["spec"];
    let mut volumes = names(&pod["volumes"]);
    volumes.push(
        set["volumeClaimTemplates"][0]["metadata"]["name"]
            .as_str()
            .unwrap(),
    );
    let container = &pod["containers"][0];
    let mut mounted = names(&container["volumeMounts"]);
    volumes.sort_unstable();
    mounted.sort_unstable();
    assert_eq!(volumes, mounted);
    // Each directory of a variable is mounted, and the script is where the command looks.
    let paths = container["volumeMounts"].as_array().unwrap().iter();
    let paths: Vec<&str> = paths
        .map(|one| one["mountPath"].as_str().unwrap())
        .collect();
    for variable in container["env"].as_array().unwrap() {
        let value = variable["value"]
            .as_str()
            .filter(|value| value.starts_with('/'));
        assert!(
            value.is_none_or(|value| paths.contains(&value)),
            "{variable}"
        );
    }
    assert_eq!(container["command"][1], "/etc/memkv/start.sh");
    assert!(paths.contains(&"/etc/memkv"));
}
