//! What the deployments take away from the monitor is nothing that it needs: the unit of `deploy/systemd` as it is shipped, under a real systemd, which is
//! process 1 of a namespace of its own; and a root like that of `deploy/image`, which is read-only and has the program and the C library.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::run::{BINARY, SOON, check, config, observed};
use crate::service::{Process, until};
use crate::world::{BEACON4, Host, Lab, WITNESS4};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// Its hierarchy of control groups is below one of its own, whichever version this host has; `$1` is the folder of the test, `$2` a name that is free.
const CONTAINED: &str = "for d in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    if [ -e $d/cgroup.procs ] && mkdir $d/$2; then echo $$ >$d/$2/cgroup.procs; fi
done
shift 2
exec \"$@\"";

/// As a host that was just set up: the user by sysusers.d, the program, its file. `$1` is the folder of the test.
const HOST: &str = "cp -a /etc $1/etc
mount --bind $1/etc /etc
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /usr/local/bin
touch /usr/local/bin/mustnot
mount --bind $2 /usr/local/bin/mustnot
systemd-sysusers $1/mustnot.sysusers
install -d -m 0750 -g mustnot /etc/mustnot
install -m 0640 -g mustnot $1/probes.toml /etc/mustnot/probes.toml
export SYSTEMD_UNIT_PATH=$1/units container=lab
exec /usr/lib/systemd/systemd --system --log-target=console --show-status=no";

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd").join(name);
    fs::read_to_string(path).unwrap()
}

/// A systemd that has this unit and what it stands on.
struct Systemd {
    // Before the groups, which can be removed only when nobody is in them.
    process: Process,
    _groups: Groups,
}

struct Groups(String);

impl Drop for Groups {
    fn drop(&mut self) {
        for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"] {
            let group = Path::new(hierarchy).join(&self.0);
            // They empty themselves when the last process is buried.
            let gone = until(Duration::from_secs(5), || {
                let _ = Command::new("find").arg(&group).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).output();
                (!group.exists()).then_some(())
            });
            if gone.is_none() {
                eprintln!("left behind: {}", group.display());
            }
        }
    }
}

impl Systemd {
    fn start(lab: &Lab, host: Host, probes: &str) -> Systemd {
        let dir = lab.dir();
        let units = dir.join("units");
        fs::create_dir_all(units.join("mustnot.service.d")).unwrap();
        for target in ["sysinit", "basic", "network-online", "nss-lookup", "multi-user", "shutdown"] {
            fs::write(units.join(format!("{target}.target")), format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n")).unwrap();
        }
        fs::write(units.join("default.target"), "[Unit]\nDescription=all\nDefaultDependencies=no\nWants=mustnot.service\n").unwrap();
        fs::write(units.join("mustnot.service"), shipped("mustnot.service")).unwrap();
        // There is no journal here.
        let log = "[Service]\nStandardOutput=append:/run/mustnot.log\nStandardError=append:/run/mustnot.log\n";
        fs::write(units.join("mustnot.service.d/log.conf"), log).unwrap();
        fs::write(dir.join("mustnot.sysusers"), shipped("mustnot.sysusers")).unwrap();
        fs::write(dir.join("probes.toml"), probes).unwrap();

        let folder = dir.to_str().unwrap();
        let groups = Groups(format!("{}.lab", dir.file_name().unwrap().to_str().unwrap()));
        let namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup"];
        let program = [&namespaces[..], &["sh", "-euc", HOST, "sh", folder, BINARY]].concat();
        let process = Process::spawn_by(&["sh", "-euc", CONTAINED, "sh", folder, &groups.0], lab, host, "systemd", &program);
        Systemd { process, _groups: groups }
    }

    /// The number of its process 1, as this host counts.
    fn first(&self) -> Option<String> {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        Some(children.split_whitespace().next()?.to_string())
    }

    fn inside(&self, command: &[&str]) -> (bool, String) {
        let first = self.first().expect("systemd is there");
        let done = Command::new("nsenter").args(["--target", &first, "--mount", "--pid", "--"]).args(command).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
    }

    /// A property of the unit.
    fn shows(&self, property: &str) -> String {
        self.inside(&["systemctl", "show", "--property", property, "--value", "mustnot.service"]).1.trim().to_string()
    }

    /// The lines of /proc/PID/status, of whoever answers for the unit.
    fn status(&self) -> String {
        self.inside(&["cat", &format!("/proc/{}/status", self.shows("MainPID"))]).1
    }

    fn log(&self) -> String {
        self.inside(&["cat", "/run/mustnot.log"]).1
    }
}

/// The page of the monitor's own listener; nothing while it does not answer.
fn page(lab: &Lab, host: Host, path: &str) -> Option<String> {
    let done = lab.inside(host, &["curl", "-sS", "-m", "5", &format!("http://127.0.0.1:9890{path}")]).output().unwrap();
    done.status.success().then(|| String::from_utf8(done.stdout).unwrap())
}

fn metric(page: &str, name: &str) -> Option<f64> {
    page.lines().find(|line| line.starts_with(name) && !line.starts_with('#'))?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn the_unit_as_shipped_takes_nothing_away_that_the_monitor_needs() {
    let Some(lab) = Lab::new() else { return };
    if !Path::new(SYSTEMD).exists() {
        println!("SKIPPED the_unit_as_shipped_takes_nothing_away_that_the_monitor_needs: there is no {SYSTEMD} (Debian: systemd)");
        return;
    }
    let body = [
        "[web]\nlisten = \"127.0.0.1:9890\"\n[beacon]\nlisten = [\"0.0.0.0:443\"]\nkey_file = \"/var/lib/mustnot/beacon.key\"\n"
            .to_string(),
        check("internet", "tcp", &format!("{WITNESS4}:443"), "expect = \"open\""),
        check("name", "dns", "witness.lab.test", &format!("server = \"{WITNESS4}:53\"\nexpect = \"open\"\nfamilies = [\"ipv4\"]")),
        check("echo", "icmp", WITNESS4, "expect = \"open\""),
        check("sweep", "ports", BEACON4, "ports = \"440-450\"\nexpect = \"blocked\"\nwitness = [\"internet\"]"),
    ]
    .concat();
    let probes = format!("state_dir = \"/var/lib/mustnot\"\n{}", config("host", &body));
    let host = Host::Allowed;
    let mut systemd = Systemd::start(&lab, host, &probes);

    let checks = until(SOON, || {
        assert!(systemd.process.ended().is_none(), "systemd ended: {}", lab.log("systemd"));
        (page(&lab, host, "/readyz")?.starts_with("ok")).then(|| page(&lab, host, "/api/v1/checks"))?
    });
    let checks = checks.unwrap_or_else(|| panic!("not ready: {}\n{}", lab.log("systemd"), systemd.log()));
    let report: Value = serde_json::from_str(&checks).unwrap();
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["verdict"], "holds", "{check:#}");
    }
    let sweep = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "sweep").unwrap();
    assert!(observed(sweep).iter().all(|o| o["evidence"]["sweep"]["method"] == "syn"), "it may send SYNs of its own: {sweep:#}");

    // It is nobody special, may do those two things, and nothing can change that.
    let status = systemd.status();
    let word = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{status}")).trim().to_string();
    assert_ne!(word("Uid:").split_whitespace().next(), Some("0"), "{status}");
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&word(set), 16).unwrap(), 1 << 10 | 1 << 13, "NET_BIND_SERVICE and NET_RAW: {status}");
    }
    assert_eq!((word("NoNewPrivs:"), word("Seccomp:")), ("1".into(), "2".into()), "{status}");

    let text = page(&lab, host, "/metrics").unwrap();
    // Where this host's own limit is lower, and its root may not raise it, it is that.
    let (_, own) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = metric(&text, "mustnot_fd_limit").unwrap();
    assert!(limit == 65535.0 || own < 65535 && limit == own as f64, "{limit}, and this test has {own}");
    assert!(metric(&text, "process_start_time_seconds").is_some_and(|at| at > 0.0), "the alert for overdue drills asks for it");

    // A broken file changes nothing.
    assert!(systemd.inside(&["sh", "-c", "echo broken >>/etc/mustnot/probes.toml && systemctl reload mustnot"]).0);
    let failed =
        until(SOON, || (metric(&page(&lab, host, "/metrics")?, "mustnot_config_last_reload_successful") == Some(0.0)).then_some(()));
    assert!(failed.is_some(), "{}", systemd.log());
    fs::write(lab.dir().join("etc/mustnot/probes.toml"), &probes).unwrap();

    // Killed, it comes again; the state and the key are kept.
    let key = systemd.inside(&["cat", "/var/lib/mustnot/beacon.key"]).1;
    assert!(systemd.inside(&["systemctl", "kill", "--signal", "KILL", "mustnot"]).0);
    let again = until(SOON, || (systemd.shows("NRestarts") == "1" && page(&lab, host, "/healthz").is_some()).then_some(()));
    assert!(again.is_some(), "{}", systemd.log());
    assert_eq!(systemd.inside(&["cat", "/var/lib/mustnot/beacon.key"]).1, key);

    // Told to end, it ends well.
    let (stopped, said) = systemd.inside(&["systemctl", "stop", "mustnot"]);
    assert!(stopped, "{said}");
    assert_eq!((systemd.shows("Result"), systemd.shows("ExecMainStatus")), ("success".into(), "0".into()), "{}", systemd.log());
    systemd.process.signal(Signal::SIGKILL);
}

/// A root with nothing in it but `/lib` as the program wants it, its file and a place for its state; seen by one who is nobody and may nothing.
/// `$1` is the root; what follows is run in it. The three capabilities are those of chroot(8) itself, and end with its change of the user.
const CONTAINER: &str = "mount --bind $1 $1
mount -t proc -o ro proc $1/proc
mount -t tmpfs -o uid=65532,gid=65532,mode=0700 tmpfs $1/var/lib/mustnot
mount -o remount,bind,ro $1
root=$1
shift
exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid --inh-caps=-all chroot --userspec=65532:65532 --groups= $root \"$@\"";

/// What the base of the image brings (Debian's libc6, libgcc-s1 and libstdc++6).
const BASE: [&str; 6] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2"];

#[test]
fn a_read_only_root_without_a_shell_is_enough() {
    let Some(lab) = Lab::new() else { return };
    let root = lab.dir().join("root");
    for folder in ["proc", "etc/mustnot", "var/lib/mustnot", "usr/local/bin"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(BINARY, root.join("usr/local/bin/mustnot")).unwrap();
    fs::write(root.join("etc/resolv.conf"), format!("nameserver {WITNESS4}\n")).unwrap();
    let needed = String::from_utf8(Command::new("ldd").arg(BINARY).output().unwrap().stdout).unwrap();
    for library in needed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))) {
        let name = Path::new(library).file_name().unwrap().to_str().unwrap();
        assert!(BASE.contains(&name) || name.starts_with("ld-linux"), "the image's base has no {name}");
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
    let body = [
        "[web]\nlisten = \"127.0.0.1:9890\"\n[beacon]\nlisten = [\"127.0.0.1:9891\"]\nkey_file = \"/var/lib/mustnot/beacon.key\"\n"
            .to_string(),
        check("internet", "tcp", "witness.lab.test:443", "expect = \"open\"\nfamilies = [\"ipv4\"]"),
        check("sweep", "ports", BEACON4, "ports = \"444-450\"\nexpect = \"blocked\"\nwitness = [\"internet\"]"),
    ]
    .concat();
    fs::write(root.join("etc/mustnot/probes.toml"), format!("state_dir = \"/var/lib/mustnot\"\n{}", config("image", &body))).unwrap();

    let host = Host::Allowed;
    let folder = root.to_str().unwrap();
    let mustnot = ["/usr/local/bin/mustnot", "--config", "/etc/mustnot/probes.toml"];
    let contained = ["unshare", "--mount", "sh", "-euc", CONTAINER, "sh", folder];
    let mut monitor = Process::spawn(&lab, host, "image", &[&contained[..], &mustnot, &["run"]].concat(), false);
    let checks = until(SOON, || {
        assert!(monitor.ended().is_none(), "it ended: {}", lab.log("image"));
        (page(&lab, host, "/readyz")?.starts_with("ok")).then(|| page(&lab, host, "/api/v1/checks"))?
    });
    let report: Value = serde_json::from_str(&checks.unwrap_or_else(|| panic!("not ready: {}", lab.log("image")))).unwrap();
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["verdict"], "holds", "{check:#}");
    }
    // HEALTHCHECK is the program itself, in the same place.
    let ask = || {
        let status = fs::read_to_string(format!("/proc/{}/status", monitor.id())).unwrap();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap().to_string();
        let done = lab.inside(host, &[&contained[..], &mustnot, &["healthcheck"]].concat()).output().unwrap();
        (uid, done.status.code())
    };
    assert_eq!(ask(), ("65532".into(), Some(0)));
    monitor.signal(Signal::SIGTERM);
    assert_eq!(monitor.wait(SOON).and_then(|status| status.code()), Some(0), "{}", lab.log("image"));
    let done = lab.inside(host, &[&contained[..], &mustnot, &["healthcheck"]].concat()).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "nobody answers any more");
}
