//! The Grafana dashboard: its form by Grafana's own SDK, its names by docs/metrics.md, and its data by a real Prometheus that scrapes a real run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::rules::{promtool, unknown_names};
use crate::scene::{PATIENCE, Prometheus, Scene, python, script, until};

const DASHBOARD: &str = "dashboards/grafana/mustnot.json";
/// What Grafana 11 draws by itself; nothing of Angular.
const TYPES: [&str; 5] = ["row", "stat", "state-timeline", "table", "timeseries"];
/// Verdicts and what is like them: violated, unproven, holds. Told apart by who sees no red or no green (Okabe and Ito).
const VERDICTS: [(&str, &str); 3] = [("violated", "#D55E00"), ("unproven", "#F0E442"), ("holds", "#0072B2")];

fn text(of: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(of)).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&text(DASHBOARD)).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn panels() -> Vec<Value> {
    list(&dashboard(), "panels").iter().filter(|panel| panel["type"] != "row").cloned().collect()
}

/// Title and letter of every query, and the query with what Grafana puts in; for these checks and severities.
fn queries(check: &str, severity: &str) -> Vec<(String, String)> {
    let filled = |expr: &str| {
        let all = [("$vantage", ".*"), ("$check", check), ("$severity", severity), ("$__rate_interval", "1m"), ("$__range", "1h")];
        let filled = all.into_iter().fold(expr.to_string(), |expr, (variable, value)| expr.replace(variable, value));
        assert!(!filled.contains('$'), "{filled}");
        filled
    };
    let of = |panel: &Value| {
        let title = word(panel, "title").to_string();
        list(panel, "targets").iter().map(|t| (format!("{title}, {}", word(t, "refId")), filled(word(t, "expr")))).collect::<Vec<_>>()
    };
    let mut all: Vec<(String, String)> = panels().iter().flat_map(of).collect();
    let dashboard = dashboard();
    all.extend(
        list(&dashboard["annotations"], "list").iter().map(|a| (format!("annotation {}", word(a, "name")), filled(word(a, "expr")))),
    );
    all
}

#[test]
fn it_is_as_grafana_has_it_today() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "mustnot");
    assert!(dashboard.get("id").is_none() && dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 39));
    let runbook = text("docs/runbook.md");
    let anchors: BTreeSet<String> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase).collect();
    let (mut ids, mut linked) = (BTreeSet::new(), BTreeSet::new());
    let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    for panel in list(&dashboard, "panels") {
        let (title, kind) = (word(panel, "title"), word(panel, "type"));
        assert!(TYPES.contains(&kind) && ids.insert(panel["id"].as_u64()), "{title}: {kind}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_default();
        for place in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(place.0 < 24 && taken.insert(place), "{title} lies on another, or beyond the edge: {place:?}");
        }
        if kind == "row" {
            continue;
        }
        let description = word(panel, "description");
        assert!(description.len() > 80 && description.ends_with('.'), "{title}: {description}");
        assert_eq!(panel["datasource"], source, "{title}");
        let links = list(panel, "links");
        assert!(!links.is_empty(), "{title}: where is told what to do?");
        for url in links.iter().map(|link| word(link, "url")) {
            let anchor = url.strip_prefix("${runbook}").unwrap_or_else(|| panic!("{title}: {url}"));
            assert!(anchor.is_empty() || anchors.contains(anchor.trim_start_matches('#')), "{title}: {url}");
            linked.insert(anchor.trim_start_matches('#').to_string());
        }
        let mut letters = BTreeSet::new();
        for target in list(panel, "targets") {
            assert!(target["datasource"] == source && letters.insert(word(target, "refId")), "{title}");
            let table = kind == "table";
            assert_eq!(target["format"] == "table", table, "{title}");
            assert_eq!(target["instant"], json!(table || kind == "stat"), "{title}");
        }
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(!word(defaults, "noValue").is_empty(), "{title}: what does it say where there is nothing?");
        assert!(kind == "table" || kind == "state-timeline" || defaults["unit"].is_string(), "{title} has no unit");
        let overrides = list(&panel["fieldConfig"], "overrides").iter().flat_map(|o| list(o, "properties"));
        let overridden = overrides.filter(|property| property["id"] == "mappings").flat_map(|property| list(property, "value"));
        for mapping in list(defaults, "mappings").iter().chain(overridden) {
            for (value, shown) in mapping["options"].as_object().unwrap() {
                let (shown_as, colour) = (word(shown, "text"), word(shown, "color"));
                assert!(!shown_as.is_empty() && colour.starts_with('#'), "{title}: {value}: a colour never stands without a word");
                let verdict = VERDICTS.iter().find(|(verdict, _)| *verdict == shown_as);
                assert!(verdict.is_none_or(|(_, is)| *is == colour), "{title}: {shown_as} is {colour}");
            }
        }
        // By hand: whatever red-green Grafana offers by name.
        assert!(!panel.to_string().contains("\"green\"") && !panel.to_string().contains("\"red\""), "{title}");
        // What is not shown must be hidden or named: `Value #A` says nothing.
        let organized = list(panel, "transformations").iter().find(|t| t["id"] == "organize").map(|t| &t["options"]);
        for target in list(panel, "targets").iter().filter(|_| kind == "table") {
            let column = if letters.len() > 1 { format!("Value #{}", word(target, "refId")) } else { "Value".into() };
            let named = organized.is_some_and(|o| o["renameByName"].get(&column).is_some() || o["excludeByName"][&column] == true);
            assert!(named, "{title}: {column}");
        }
    }
    assert_eq!(anchors.difference(&linked).collect::<Vec<_>>(), [] as [&String; 0], "parts of the runbook to which nothing leads");

    let variables: Vec<&str> = list(&dashboard["templating"], "list").iter().map(|variable| word(variable, "name")).collect();
    assert_eq!(variables, ["datasource", "vantage", "severity", "check", "runbook"]);
    for variable in list(&dashboard["templating"], "list") {
        assert!(variable["type"] != "query" || variable["datasource"] == source, "{variable}");
    }
    assert!(list(&dashboard["annotations"], "list").iter().all(|annotation| annotation["datasource"] == source));
}

#[test]
fn grafanas_own_types_take_it_without_loss() {
    let Some(python) = python("grafanas_own_types_take_it_without_loss") else { return };
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.json");
    fs::write(&bad, text(DASHBOARD).replacen("\"spanNulls\"", "\"spanNull\"", 1)).unwrap();
    let [dashboard_path, bad] = [Path::new(env!("CARGO_MANIFEST_DIR")).join(DASHBOARD), bad].map(|path| path.display().to_string());
    let said = script(&python, "grafana_models.py", &[&dashboard_path, &bad]);
    assert_eq!(said[&dashboard_path], dashboard());
    assert_ne!(said[&bad], serde_json::from_str::<Value>(&text(DASHBOARD).replacen("\"spanNulls\"", "\"spanNull\"", 1)).unwrap());
}

#[test]
fn every_name_is_a_metric_or_its_label_and_promtool_reads_every_query() {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_string();
    let all = queries("a|b", "critical|info");
    assert!(all.len() > 50, "{}", all.len());
    for (at, (place, expr)) in all.iter().enumerate() {
        assert_eq!(unknown_names(expr), [] as [String; 0], "{place}: {expr}");
        rules += &format!("      - record: query:{at}\n        expr: '{expr}'\n");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yaml");
    fs::write(&file, rules).unwrap();
    promtool("every_name_is_a_metric_or_its_label_and_promtool_reads_every_query", &["check", "rules", file.to_str().unwrap()]);
}

#[test]
fn provisioning_names_what_is_there() {
    let Some(python) = python("provisioning_names_what_is_there") else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/grafana/provisioning");
    let [dashboards, sources] =
        ["dashboards/mustnot.yaml", "datasources/prometheus.yaml"].map(|file| folder.join(file).display().to_string());
    let said = script(&python, "yaml_as_json.py", &[&dashboards, &sources]);
    let (provider, source) = (&said[&dashboards][0]["providers"][0], &said[&sources][0]["datasources"][0]);
    assert_eq!((&said[&dashboards][0]["apiVersion"], &said[&sources][0]["apiVersion"]), (&json!(1), &json!(1)));
    assert_eq!((&provider["type"], &source["type"]), (&json!("file"), &json!("prometheus")));
    assert!(text("docs/dashboards.md").contains(provider["options"]["path"].as_str().unwrap()));
    // Grafana makes rates over four scrapes, so it must know how far apart they are.
    let every = format!("scrape_interval: {}\n", source["jsonData"]["timeInterval"].as_str().unwrap());
    assert!(text("dashboards/prometheus/prometheus.yaml").contains(&every));
}

/// One scene in which everything has happened: each panel shows something in it, and the numbers are right. Then the monitor dies.
#[tokio::test(flavor = "multi_thread")]
async fn every_panel_shows_data_of_a_real_run() {
    let test = "every_panel_shows_data_of_a_real_run";
    let scene = Scene::start("2s").await;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/prometheus/alerts.yaml");
    let Some(prometheus) = Prometheus::start(test, &[("mustnot", scene.web())], Some(&rules)) else { return };
    let all = queries(".*", ".*");
    let of = |place: &str| all.iter().find(|(known, _)| known == place).unwrap_or_else(|| panic!("no panel {place}")).1.as_str();
    let one = |place: &str| prometheus.query(of(place)).first().map(|(_, value)| *value);

    until("Prometheus has seen the scene", || one("Hold, A") == Some(10.0));
    // It has to have been otherwise before, and for a rate there must be two scrapes.
    scene.use_the_proxy();
    scene.change_the_denial();
    scene.go_bad();
    scene.break_the_file().await;
    until("it shows that the file is broken", || one("Monitors, C") == Some(0.0));
    scene.mend().await;

    let begun = Instant::now();
    let mut empty: Vec<&(String, String)> = all.iter().collect();
    while !empty.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "nothing in: {empty:#?}");
        scene.use_the_proxy();
        empty.retain(|(_, expr)| !prometheus.query(expr).iter().any(|(_, value)| value.is_finite()));
    }
    assert_eq!(["Violated, A", "Unproven, A", "Hold, A", "Places gone dark, A", "Stale, A"].map(one), [5.0, 2.0, 8.0, 0.0, 0.0].map(Some));
    let labelled = |place: &str, labels: &[&str]| -> BTreeSet<String> {
        let series = prometheus.query(of(place)).into_iter();
        series.map(|(has, _)| labels.iter().map(|label| has.get(*label).map_or("", String::as_str)).collect::<Vec<_>>().join(" ")).collect()
    };
    let set = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<BTreeSet<_>>();
    let why = ["check", "cause"];
    assert_eq!(
        labelled("Violated now, and since when, A", &why),
        set(&["breached open", "dead not-open", "egress-wrong not-open", "fails not-open", "relays open"])
    );
    let bad =
        ["breached tcp critical", "dead tcp warning", "egress-wrong egress-ip warning", "fails http warning", "relays open-proxy warning"];
    assert_eq!(labelled("Violated now, and since when, B", &["check", "kind", "severity"]), set(&bad));
    assert_eq!(labelled("Unproven now, and why, A", &why), set(&["falls-silent no-witness", "unknown witness-failed"]));
    for (place, check) in [("Violated now, and since when, C", "fails"), ("Unproven now, and why, C", "falls-silent")] {
        assert_eq!(labelled(place, &["check"]), set(&[check]), "only these have ever held");
    }
    assert_eq!(labelled("Exceptions, A", &["check", "owner", "reason"]), set(&["breached net OPS-123"]));
    assert_eq!(labelled("Denials that changed, A", &["check"]), set(&["flapping"]));
    let ways = prometheus.query(of("Open-proxy techniques, A"));
    let through = |check: &str| ways.iter().filter(|(labels, _)| labels["check"] == check).map(|(_, value)| *value).fold(0.0, f64::max);
    assert_eq!((through("relays"), through("relays-nothing")), (1.0, 0.0));
    assert!(labelled("Egress addresses, D", &["check"]).contains("egress-wrong"));
    assert!(labelled("Alerts that fire, A", &["alertname", "check", "excepted"]).contains("MustnotViolated breached true"));
    assert!(["address", "parse", "connect"].iter().all(|r| labelled("Refusals and errors, by reason, A", &["reason"]).contains(*r)));
    let verdicts = prometheus.query(of("Verdict of each check, A"));
    let shown = |check: &str| verdicts.iter().filter(|(labels, _)| labels["check"] == check).map(|(_, value)| *value).collect::<Vec<_>>();
    assert_eq!((verdicts.len(), ["closed", "unknown", "breached"].map(shown)), (15, [vec![0.0], vec![1.0], vec![2.0]]));

    // The variables, and what they do: only what is critical.
    let values = |query: &str| -> BTreeSet<String> {
        let (metric, label) = query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        serde_json::from_value(prometheus.api(&format!("label/{label}/values"), &[("match[]", metric)])).unwrap()
    };
    let dashboard = dashboard();
    let variable = |name: &str| {
        let one = list(&dashboard["templating"], "list").iter().find(|variable| variable["name"] == name).unwrap();
        word(&one["query"], "query").replace("$vantage", ".*").replace("$severity", "critical")
    };
    assert_eq!(values(&variable("vantage")), set(&["v"]));
    assert_eq!(values(&variable("check")), set(&["breached", "closed"]));
    let critical = queries("breached|closed", "critical");
    for (place, expected) in [("Violated, A", Some(1.0)), ("Unproven, A", Some(0.0)), ("Hold, A", Some(1.0)), ("Certificates, A", None)] {
        let expr = &critical.iter().find(|(known, _)| known == place).unwrap().1;
        assert_eq!(prometheus.query(expr).first().map(|(_, value)| *value), expected, "{place}");
    }

    drop(scene);
    until("its place is dark", || one("Places gone dark, A") == Some(1.0));
    until("nobody watches", || one("Violated, A").is_none());
    assert_eq!(["Unproven, A", "Hold, A", "Stale, A"].map(one), [None; 3], "what nobody looks at is neither shut nor none");
}
