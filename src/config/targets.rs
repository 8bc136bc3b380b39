//! Targets: one check, many targets. `targets` in the file itself, `targets_from` in files that others write (Prometheus
//! `file_sd`, JSON); each becomes a check of its own under the one name, as if its target stood there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::problem::{At, Place};
use super::reader::Section;
use super::written::MAX_LABELS;

/// The most targets of one check.
pub const MAX_TARGETS: usize = 1024;
/// The most that one file of targets may hold, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// The most of a label's value that is taken from a file, in bytes.
const MAX_VALUE: usize = 256;

/// One target of a check that has many.
pub(super) struct Target {
    /// As `target` would be written.
    text: String,
    /// Where it comes from: its own place in the file, or that of `targets_from`.
    place: Place,
    /// The file that names it; none for `targets`.
    file: Option<PathBuf>,
    /// The labels that the check takes from there.
    pub(super) labels: BTreeMap<String, String>,
}

/// A group of `file_sd` (Prometheus documentation, `<file_sd_config>`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Every target of the check; none where it has a single `target`, or where something is wrong, which is noted.
pub(super) fn read(section: &Section<'_, '_>) -> Vec<Target> {
    let many = section.keys().find(|(key, _)| ["targets", "targets_from"].contains(key));
    if let Some((_, place)) = many.filter(|_| section.has("target")) {
        section.context().wrong(&place, "stands beside target; write one of them");
        return Vec::new();
    }
    let taken = section.list("target_labels", "\"team\"", |text| super::value::parse_label(text).map(|()| text.to_string()));
    let taken: Vec<String> = taken.map_or(Vec::new(), |list| {
        if !section.has("targets_from") {
            section.context().wrong(&list.place, "names labels to take from targets_from, and there is none; leave it out");
        } else if list.value.len() > MAX_LABELS {
            section.context().wrong(&list.place, format!("names {} labels; write at most {MAX_LABELS}", list.value.len()));
        }
        list.value.into_iter().map(|label| label.value).collect()
    });
    let mut targets: Vec<Target> = Vec::new();
    let mut add = |target: Target| match targets.iter().any(|other| other.text == target.text) {
        true => target.file.is_some(),
        false => {
            targets.push(target);
            true
        }
    };
    if let Some(list) = section.list("targets", "\"db.example.com:5432\"", expand) {
        if list.value.is_empty() && !section.holds_problem_at(&list.place) {
            section.context().wrong(&list.place, "is empty, so nothing would be looked at; write at least one target");
        }
        for At { value, place } in list.value {
            for text in value {
                let message = format!("\"{text}\" stands there twice; write it once");
                if !add(Target { text, place: place.clone(), file: None, labels: BTreeMap::new() }) {
                    section.context().wrong(&place, message);
                }
            }
        }
    }
    let files = section.one_or_list("targets_from", "\"targets/*.json\"", super::value::filled);
    if let Some(list) = files.as_ref().filter(|list| list.value.is_empty() && !section.holds_problem_at(&list.place)) {
        section.context().wrong(&list.place, "is empty, so nothing would be looked at; write at least one file");
    }
    for file in files.map_or(Vec::new(), |list| list.value) {
        match of_files(section, &file, &taken) {
            Ok(found) => found.into_iter().for_each(|target| {
                add(target);
            }),
            Err(why) => section.context().wrong(&file.place, why),
        }
    }
    if targets.len() > MAX_TARGETS {
        let message = format!("has {} targets; write at most {MAX_TARGETS}, or split it into several checks", targets.len());
        section.context().wrong(&section.place, message);
        targets.truncate(MAX_TARGETS);
    }
    targets
}

/// The targets of every file that a `targets_from` names.
fn of_files(section: &Section<'_, '_>, pattern: &At<String>, taken: &[String]) -> Result<Vec<Target>, String> {
    let path = section.context().base_dir.join(&pattern.value);
    let files = matching(&path)?;
    section.context().depends_on(path);
    let mut targets = Vec::new();
    for file in &files {
        for group in groups(file)? {
            let labels: BTreeMap<String, String> = group.labels.into_iter().filter(|(name, _)| taken.contains(name)).collect();
            if let Some((name, value)) = labels.iter().find(|(_, value)| value.len() > MAX_VALUE || value.chars().any(char::is_control)) {
                let shown: String = value.chars().take(20).collect();
                return Err(format!("{}: the label {name} = {shown:?}… is no line of at most {MAX_VALUE} bytes", file.display()));
            }
            for written in group.targets {
                let expanded = expand(&written).map_err(|why| format!("{}: {why}", file.display()))?;
                let target = |text| Target { text, place: pattern.place.clone(), file: Some(file.clone()), labels: labels.clone() };
                targets.extend(expanded.into_iter().map(target));
                if targets.len() > MAX_TARGETS {
                    return Err(format!("{}: more than {MAX_TARGETS} targets; split them over several checks", file.display()));
                }
            }
        }
    }
    if targets.is_empty() {
        let named: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        return Err(format!("{} names no target, so nothing would be looked at; write one there, or take the check out", named.join(", ")));
    }
    Ok(targets)
}

/// The files that a path means: its last part may hold one `*` for any characters, as in Prometheus.
///
/// # Errors
/// Where there is none.
pub fn matching(path: &Path) -> Result<Vec<PathBuf>, String> {
    let last = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((begin, end)) = last.split_once('*') else { return Ok(vec![path.to_path_buf()]) };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).map_err(|e| format!("{} cannot be read ({e})", folder.display()))?;
    let fits = |name: &str| name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end);
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut files: Vec<PathBuf> = names.filter(|name| fits(name)).map(|name| folder.join(name)).collect();
    files.sort();
    if files.is_empty() { Err(format!("there is no file {}; write one", path.display())) } else { Ok(files) }
}

fn groups(file: &Path) -> Result<Vec<Group>, String> {
    let cannot = |e: std::io::Error| format!("{} cannot be read ({e})", file.display());
    if !fs::metadata(file).map_err(cannot)?.is_file() {
        // A pipe would be waited for, and with it every check.
        return Err(format!("{} is not a file; write the name of one", file.display()));
    }
    let mut text = String::new();
    fs::File::open(file).map_err(cannot)?.take(MAX_FILE + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("{} is longer than {MAX_FILE} bytes; split it", file.display()));
    }
    of_json(&text).map_err(|why| format!("{}: {why}", file.display()))
}

fn of_json(text: &str) -> Result<Vec<Group>, String> {
    serde_json::from_str(text).map_err(|e| format!("{e}; write [{{ \"targets\": [\"db.example.com:5432\"], \"labels\": {{}} }}]"))
}

/// A target as written, or one for every address of `NETWORK:port`.
///
/// # Errors
/// Where the network has more addresses than one check may have targets, or the text cannot be a target at all.
fn expand(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("{text:?} is no target"));
    }
    let network = text.rsplit_once(':').and_then(|(host, port)| {
        let net = host.trim_start_matches('[').trim_end_matches(']');
        let net: IpNet = if net.contains('/') { net.parse().ok()? } else { return None };
        Some((net, port))
    });
    let Some((net, port)) = network else { return Ok(vec![text.to_string()]) };
    if net != net.trunc() {
        let meant = if net.addr().is_ipv4() { net.trunc().to_string() } else { format!("[{}]", net.trunc()) };
        return Err(format!("\"{text}\" has bits set behind its prefix; write \"{meant}:{port}\""));
    }
    let bits = net.max_prefix_len() - net.prefix_len();
    if bits > MAX_TARGETS.ilog2() as u8 {
        return Err(format!("\"{text}\" is 2^{bits} targets; write at most {MAX_TARGETS}, a network of /{} or smaller", {
            net.max_prefix_len() - MAX_TARGETS.ilog2() as u8
        }));
    }
    let subnets = net.subnets(net.max_prefix_len()).map_err(|e| e.to_string())?;
    let one = |single: IpNet| match single.addr() {
        std::net::IpAddr::V4(ip) => format!("{ip}:{port}"),
        std::net::IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    };
    Ok(subnets.map(one).collect())
}

impl Target {
    /// The check's table with this one target in the place of all.
    pub(super) fn alone<'i>(&self, table: &DeTable<'i>) -> DeTable<'i> {
        let mut alone = table.clone();
        for key in ["targets", "targets_from", "target_labels"] {
            alone.remove(key);
        }
        let span = self.place.offset..self.place.offset;
        // Our environment has been heard already, and what another wrote is not for it to fill in.
        let text = self.text.replace("${", "$${");
        let key = Spanned::new(span.clone(), DeString::from("target"));
        alone.insert(key, Spanned::new(span, DeValue::String(text.into())));
        alone
    }

    /// The file that names it, for messages.
    pub(super) fn said_by(&self) -> Option<String> {
        self.file.as_ref().map(|file| file.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_network_is_every_address_of_it() {
        assert_eq!(expand("db.example.com:5432").unwrap(), ["db.example.com:5432"]);
        assert_eq!(expand("203.0.113.0/30:22").unwrap(), ["203.0.113.0:22", "203.0.113.1:22", "203.0.113.2:22", "203.0.113.3:22"]);
        assert_eq!(expand("[2001:db8::/127]:22").unwrap(), ["[2001:db8::]:22", "[2001:db8::1]:22"]);
        assert_eq!(expand("https://admin.example.com/a/24:x").unwrap(), ["https://admin.example.com/a/24:x"]);
        assert_eq!(expand("10.0.0.0/22:1").map(|all| all.len()), Ok(1024));
        assert!(expand("10.0.0.0/21:1").unwrap_err().contains("/22 or smaller"));
        assert_eq!(expand("10.0.0.5/24:22"), Err("\"10.0.0.5/24:22\" has bits set behind its prefix; write \"10.0.0.0/24:22\"".into()));
        assert_eq!(expand("[2001:db8::5]:22").unwrap(), ["[2001:db8::5]:22"]);
        assert!(expand("[2001:db8::5/126]:22").unwrap_err().ends_with("write \"[2001:db8::4/126]:22\""));
        assert!(expand("").is_err() && expand("a\nb:1").is_err());
    }

    #[test]
    fn a_file_is_groups_of_targets_and_nothing_else() {
        let good = of_json(r#"[{"targets": ["a:1", "b:2"], "labels": {"team": "x"}}, {"targets": []}]"#).unwrap();
        assert_eq!(good.iter().map(|group| group.targets.len()).collect::<Vec<_>>(), [2, 0]);
        for bad in ["", "{}", "[1]", r#"[{"targets": "a:1"}]"#, r#"[{"targets": ["a:1"], "label": {}}]"#, r#"[{"targets": [1]}]"#] {
            assert!(of_json(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_waits_for_what_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("targets.json");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn({
            let pipe = pipe.clone();
            move || told.send(groups(&pipe).map(|_| ()).unwrap_err())
        });
        let why = heard.recv_timeout(std::time::Duration::from_secs(30)).expect("it waits for whoever writes into the pipe");
        assert!(why.ends_with("targets.json is not a file; write the name of one"), "{why}");
        assert!(groups(folder.path()).unwrap_err().contains("is not a file"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "\\PC{0,60}") {
            let _ = of_json(&text);
            if let Ok(targets) = expand(&text) {
                prop_assert!((1..=MAX_TARGETS).contains(&targets.len()));
            }
        }

        #[test]
        fn no_network_is_too_much(a in any::<[u8; 4]>(), bits in 0u8..40, port in any::<u16>()) {
            if let Ok(targets) = expand(&format!("{}/{bits}:{port}", std::net::Ipv4Addr::from(a))) {
                prop_assert!((1..=MAX_TARGETS).contains(&targets.len()));
            }
        }
    }
}
