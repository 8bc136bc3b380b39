//! What Datadog gets: its own check run with the configuration that is shipped, and dashboard and monitors held against what that submits and
//! against the models of Datadog's own client.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use mustnot::observation::Outcome;
use mustnot::proxy::Reason;
use mustnot::verdict::{Cause, Verdict};
use serde_json::{Value, json};

use crate::scene::{Scene, python, script};

const FOLDER: &str = "dashboards/datadog";
const ENDPOINT: &str = "http://127.0.0.1:9890/metrics";
/// Tags that mean something to Datadog itself, or that it adds.
const RESERVED: [&str; 10] = ["host", "device", "source", "service", "env", "version", "cluster", "cluster_name", "hostname", "host_name"];

fn path(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join(of)
}

fn text(of: &str) -> String {
    fs::read_to_string(path(of)).unwrap()
}

fn monitors() -> Vec<(String, PathBuf)> {
    let mut all: Vec<(String, PathBuf)> = fs::read_dir(path("monitors"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    all.sort();
    all
}

/// Name, type, tags: what makes a metric one.
type Metric = (String, String, Vec<String>);

/// What this text must become by the rules that conf.yaml states.
fn expected(text: &str, endpoint: &str) -> BTreeMap<Metric, f64> {
    let mut types = BTreeMap::new();
    let mut all = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(name, kind);
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.strip_suffix('}').and_then(|s| s.split_once('{')).unwrap_or((series, ""));
            let part_of = |end: &str| name.strip_suffix(end).filter(|family| types.get(family) == Some(&"histogram"));
            let (name, kind) = match (types.get(name), name.strip_suffix("_total")) {
                (Some(&"counter"), Some(name)) => (format!("{name}.count"), "monotonic_count"),
                (Some(&"gauge"), _) => (name.to_string(), "gauge"),
                _ => match (part_of("_count"), part_of("_sum"), part_of("_bucket")) {
                    (Some(family), ..) => (format!("{family}.count"), "monotonic_count"),
                    (_, Some(family), _) => (format!("{family}.sum"), "monotonic_count"),
                    (.., Some(_)) => continue,
                    _ => panic!("{line}"),
                },
            };
            // No value of this scene has a quote in it, and none but `expect` a comma.
            let mut tags: Vec<String> = labels
                .split_inclusive("\",")
                .map(|pair| {
                    let (key, value) = pair.trim_end_matches(',').split_once('=').unwrap();
                    let key = match key {
                        "version" => "mustnot_version",
                        "source" => "allow_from",
                        key => key,
                    };
                    format!("{key}:{}", value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap().replace("\\\"", "\""))
                })
                .collect();
            tags.push(format!("endpoint:{endpoint}"));
            tags.sort();
            let name = format!("mustnot.{}", name.strip_prefix("mustnot_").unwrap_or(&name));
            assert!(all.insert((name, kind.to_string(), tags), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    all
}

/// The shipped configuration for this endpoint, written to a file of its own.
fn configured(folder: &Path, endpoint: &str, latest: bool) -> String {
    let shipped = text("conf.yaml");
    assert_eq!((shipped.matches(ENDPOINT).count(), shipped.matches("use_latest_spec: false").count()), (1, 1));
    let file = folder.join(format!("conf-{latest}.yaml"));
    fs::write(&file, shipped.replace(ENDPOINT, endpoint).replace("use_latest_spec: false", &format!("use_latest_spec: {latest}"))).unwrap();
    file.display().to_string()
}

fn strings(of: &Value) -> Vec<String> {
    of.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_string()).collect()
}

/// The quotes of `expect = { ip = [...] }` are in a label too, so it is compared with them taken away.
fn plain(metric: Metric) -> Metric {
    let (name, kind, tags) = metric;
    (name, kind, tags.into_iter().map(|tag| tag.replace('"', "")).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_check_submits_what_is_there_and_dashboard_and_monitors_ask_for_nothing_else() {
    let Some(python) = python("its_own_check_submits_what_is_there_and_dashboard_and_monitors_ask_for_nothing_else") else { return };
    let scene = Scene::start("1h").await;
    let endpoint = format!("http://{}/metrics", scene.web());
    scene.use_the_proxy();
    scene
        .program
        .until("the proxy's clients are counted", async |p| {
            p.metric("mustnot_proxy_requests_total{ method=\"CONNECT\" reason=\"connect\"").await.is_some_and(|count| count > 0.0)
        })
        .await;
    let folder = tempfile::tempdir().unwrap();
    let files = [false, true].map(|latest| configured(folder.path(), &endpoint, latest));
    let shown = async || -> BTreeMap<Metric, f64> {
        expected(&scene.text().await, &endpoint).into_iter().map(|(metric, value)| (plain(metric), value)).collect()
    };
    let before = shown().await;
    let said = script(&python, "datadog_check.py", &[&files[0], &files[1]]);
    let expected = shown().await;
    assert!(expected.len() > 200);

    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (mode, one) in ["text", "OpenMetrics"].into_iter().zip(said.as_array().unwrap()) {
        assert_eq!(one["instance"]["use_latest_spec"], json!(mode == "OpenMetrics"));
        assert_eq!(
            one["services"],
            json!([{ "name": "mustnot.openmetrics.health", "status": 0, "tags": [format!("endpoint:{endpoint}")] }])
        );
        assert_eq!(one["buckets"], 0, "{mode}");
        let mut submitted: BTreeMap<Metric, f64> = BTreeMap::new();
        for metric in one["metrics"].as_array().unwrap() {
            let (name, tags) = (metric["name"].as_str().unwrap(), strings(&metric["tags"]));
            let value = metric["value"].as_f64().unwrap_or_else(|| panic!("{mode}: {name} is no number"));
            assert!(
                !name.contains("_created") && !name.contains("_total") && !name.contains("..") && value.is_finite(),
                "{mode}: {metric}"
            );
            assert_eq!(metric["hostname"], "", "{mode}: {metric}");
            for tag in &tags {
                let key = tag.split_once(':').unwrap().0;
                assert!(!RESERVED.contains(&key), "{mode}: {metric}");
                known.entry(name.into()).or_default().insert(key.into());
            }
            let metric = plain((name.into(), metric["type"].as_str().unwrap().into(), tags));
            assert!(submitted.insert(metric.clone(), value).is_none(), "{mode}: {metric:?} twice");
        }
        let names = |of: &BTreeMap<Metric, f64>| of.keys().cloned().collect::<BTreeSet<_>>();
        let (lacking, more) = (names(&expected), names(&submitted));
        assert_eq!(lacking.symmetric_difference(&more).collect::<Vec<_>>(), [] as [&Metric; 0], "{mode}");
        // Of what is never at rest, the value is that of another moment.
        let at_rest: Vec<&Metric> = submitted.keys().filter(|metric| before.get(*metric) == expected.get(*metric)).collect();
        assert!(at_rest.len() > 200, "{mode}");
        for metric in at_rest {
            assert_eq!(submitted[metric], expected[metric], "{mode}: {metric:?}");
        }
        let open = scene.program.get("/api/v1/checks/breached").await;
        let open: Value = serde_json::from_str(&open).unwrap();
        let mut tags: Vec<String> =
            ["check:breached", "kind:tcp", "severity:critical", "vantage:v", "verdict:violated"].map(String::from).into();
        tags.extend([format!("endpoint:{endpoint}"), format!("target:{}", open["checks"][0]["target"].as_str().unwrap())]);
        tags.sort();
        assert_eq!(submitted[&("mustnot.check_verdict".into(), "gauge".into(), tags)], 1.0, "{mode}");
        for (name, kind) in [
            ("mustnot.check_runs.count", "monotonic_count"),
            ("mustnot.probe_duration_seconds.sum", "monotonic_count"),
            ("mustnot.process_cpu_seconds.count", "monotonic_count"),
            ("mustnot.process_open_fds", "gauge"),
            ("mustnot.checks", "gauge"),
        ] {
            assert!(submitted.keys().any(|metric| metric.0 == name && metric.1 == kind), "{mode}: {name}");
        }
    }
    assert!(known["mustnot.build_info"].contains("mustnot_version") && known["mustnot.proxy_bytes.count"].contains("allow_from"));

    let mut asked = 0;
    for (place, query) in queries() {
        asked += 1;
        assert_eq!(problems(&query, &known), [] as [String; 0], "{place}: {query}");
    }
    assert!(asked > 35, "{asked}");
    for (bad, what) in [
        ("max:mustnot.check_verdicts{*} by {vantage}", "mustnot.check_verdicts is not submitted"),
        ("max:mustnot.check_verdict{verdict:violates} by {check}", "verdict is never violates"),
        ("max:mustnot.witness_up{check:a}", "mustnot.witness_up has no tag check"),
        ("max:mustnot.witness_up{*} by {host}", "mustnot.witness_up has no tag host"),
        ("sum:mustnot.proxy_requests.count{!decision:allowed}", "decision is never allowed"),
    ] {
        assert_eq!(problems(bad, &known), [what], "{bad}");
    }
}

fn file(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Every query of the dashboard and of the monitors, and where it stands. Not the service check, which names no metric.
fn queries() -> Vec<(String, String)> {
    fn within(value: &Value, place: &str, found: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    if key == "query" && value.as_str().is_some_and(|query| !query.starts_with('"')) {
                        found.push((place.into(), value.as_str().unwrap().into()));
                    }
                    within(value, &format!("{place}.{key}"), found);
                }
            }
            Value::Array(all) => all.iter().enumerate().for_each(|(at, one)| within(one, &format!("{place}[{at}]"), found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    within(&file(&path("dashboard.json")), "dashboard", &mut found);
    monitors().iter().for_each(|(name, path)| within(&file(path), name, &mut found));
    found
}

/// The tags between the braces behind `text`, without variables.
fn tags(text: &str) -> Vec<&str> {
    let inside = text.split_once('}').unwrap().0;
    inside.split(',').map(str::trim).filter(|tag| *tag != "*" && !tag.starts_with('$')).collect()
}

/// What is wrong with the names of a query. Datadog has all tags in small letters.
fn problems(query: &str, known: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for rest in query.split("mustnot.").skip(1) {
        let (name, rest) = rest.split_once('{').unwrap();
        let name = format!("mustnot.{name}");
        let Some(own) = known.get(&name) else {
            wrong.push(format!("{name} is not submitted"));
            continue;
        };
        let by = rest.split_once("} by {").map(|(_, by)| tags(by)).unwrap_or_default();
        for tag in tags(rest).into_iter().chain(by) {
            let (key, value) = tag.trim_start_matches('!').split_once(':').unwrap_or((tag, ""));
            if !own.contains(key) {
                wrong.push(format!("{name} has no tag {key}"));
            }
            let values: Option<Vec<String>> = match key {
                "verdict" => Some(Verdict::TOKENS.map(String::from).into()),
                "cause" => Some(Cause::TOKENS.iter().map(|(_, token)| token.to_string()).collect()),
                "decision" => Some(Reason::ALL.iter().map(|reason| reason.decision().to_string()).collect()),
                "outcome" => Some(Outcome::all().map(|outcome| outcome.to_string()).collect()),
                _ => None,
            };
            if !value.is_empty() && values.is_some_and(|values| !values.iter().any(|known| known == value)) {
                wrong.push(format!("{key} is never {value}"));
            }
        }
    }
    wrong
}

#[test]
fn the_models_of_its_own_client_take_dashboard_and_monitors_whole() {
    let Some(python) = python("the_models_of_its_own_client_take_dashboard_and_monitors_whole") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (dashboard, bad) = (path("dashboard.json"), folder.path().join("bad.json"));
    fs::write(&bad, fs::read_to_string(&dashboard).unwrap().replacen("\"autoscale\"", "\"autoscaled\"", 1)).unwrap();
    let files: Vec<PathBuf> = monitors().into_iter().map(|(_, path)| path).chain([dashboard, bad.clone()]).collect();
    let names: Vec<&str> = files.iter().map(|path| path.to_str().unwrap()).collect();
    let said = script(&python, "datadog_models.py", &names);
    for (path, name) in files.iter().zip(names) {
        let one = &said[name];
        if *path == bad {
            assert!(strings(&one["unknown"]).concat().contains("QueryValueWidgetDefinition has no field autoscaled"), "{one}");
        } else {
            assert_eq!(one["unknown"], json!([]), "{name}");
            assert_eq!(one["taken"], file(path), "{name}: not all of it was taken");
        }
    }
}

#[test]
fn every_monitor_says_what_where_and_what_to_do() {
    let runbook = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).unwrap();
    let names: Vec<String> = monitors().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["absent", "drill", "health", "reload", "stale", "unproven", "violated"]);
    for (name, path) in monitors() {
        let monitor = file(&path);
        let (query, message) = (monitor["query"].as_str().unwrap(), monitor["message"].as_str().unwrap());
        let options = &monitor["options"];
        match name.as_str() {
            // A service check has the older words for the same.
            "health" => assert_eq!((&options["notify_no_data"], &options["no_data_timeframe"]), (&json!(true), &json!(10))),
            // Nothing is stale while nothing is wrong, so that is no missing data.
            "stale" => assert_eq!(options["on_missing_data"], "resolve"),
            _ => assert_eq!(options["on_missing_data"], "show_and_notify_no_data", "{name}"),
        }
        let by: Vec<&str> = match query.strip_prefix('"') {
            Some(rest) => {
                rest.split_once(".by(").unwrap().1.split_once(')').unwrap().0.split(',').map(|tag| tag.trim_matches('"')).collect()
            }
            None => tags(query.split_once("} by {").unwrap().1),
        };
        let spoken = format!("{} {message}", monitor["name"].as_str().unwrap());
        for variable in spoken.split("{{").skip(1).filter_map(|rest| rest.split_once(".name}}")) {
            assert!(by.contains(&variable.0), "{name}: {{{{{}.name}}}} is not what it is grouped by", variable.0);
        }
        let words = ["{{#is_recovery}}", "Do: ", "@", "https://git.example.com/mustnot/blob/main/docs/runbook.md#"];
        assert!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
        assert_eq!(message.contains("{{#is_no_data}}"), name != "stale", "{name}");
        for anchor in message.split("runbook.md#").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap()) {
            assert!(
                runbook.lines().any(|line| line.strip_prefix("## ").is_some_and(|title| title.to_lowercase() == anchor)),
                "{name}: {anchor}"
            );
        }
        for opened in message.split("{{#").skip(1).map(|rest| rest.split([' ', '}']).next().unwrap()) {
            let count = |mark: &str| message.matches(&format!("{{{{{mark}{opened}")).count();
            assert_eq!(count("#") + count("^"), count("/"), "{name}: {opened}");
        }
    }
    let dashboard = file(&path("dashboard.json"));
    let variables: Vec<&str> = dashboard["template_variables"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    for (place, query) in queries() {
        for variable in query.split('$').skip(1).map(|rest| rest.split([',', '}']).next().unwrap()) {
            assert!(variables.contains(&variable), "{place}: ${variable}");
        }
    }
}

#[test]
fn autodiscovery_says_the_same_as_the_file() {
    let Some(python) = python("autodiscovery_says_the_same_as_the_file") else { return };
    let files = ["conf.yaml", "docker-labels.yaml", "kubernetes-annotations.yaml"].map(path);
    let names = files.each_ref().map(|path| path.to_str().unwrap());
    let said = script(&python, "yaml_as_json.py", &names);
    let mut of_the_file = said[names[0]][0]["instances"][0].clone();
    assert_eq!(of_the_file["openmetrics_endpoint"], ENDPOINT);
    of_the_file["openmetrics_endpoint"] = "http://%%host%%:9890/metrics".into();
    let label = &said[names[1]][0]["services"]["mustnot"]["labels"]["com.datadoghq.ad.checks"];
    let pod = &said[names[2]][0]["spec"]["template"];
    assert_eq!(pod["spec"]["containers"][0]["name"], "mustnot");
    let annotation = &pod["metadata"]["annotations"]["ad.datadoghq.com/mustnot.checks"];
    for written in [label, annotation] {
        let written: Value = serde_json::from_str(written.as_str().unwrap()).unwrap();
        assert_eq!(written, json!({ "openmetrics": { "init_config": {}, "instances": [of_the_file] } }));
    }
}
