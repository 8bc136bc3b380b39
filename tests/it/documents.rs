//! The documents: what they show is what the program takes and gives.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mustnot::history::Board;
use mustnot::metrics::Metrics;
use mustnot::observation::Outcome;
use mustnot::plan::{Keys, Loaded, from_text};
use mustnot::probe::{LEFT_OUT, Technique};
use mustnot::proxy::Stats;
use mustnot::squid::finding::Id;
use mustnot::token::Key;
use mustnot::verdict::Cause;

use crate::fixture::about;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Reads a configuration beside the files that the documents say are there.
fn read(name: &str, text: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    Key::load_or_create(&folder.path().join("beacon.key")).unwrap();
    fs::write(folder.path().join("office-monitor.password"), "correct horse battery staple\n").unwrap();
    fs::write(folder.path().join("pagerduty.key"), "key\n").unwrap();
    fs::write(folder.path().join("slack.url"), "https://hooks.example.com/services/T0/B0/x\n").unwrap();
    from_text(name, text, folder.path(), &|_| None, Keys::Read).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

/// The fenced blocks of that language.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    markdown.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_string()).collect()
}

/// The first column of every table, one entry a backquoted word.
fn named_in_tables(markdown: &str) -> BTreeSet<String> {
    let rows = markdown.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.map(|row| row.split(" | ").next().unwrap_or_default().to_string());
    cells.flat_map(|cell| quoted(&cell)).collect()
}

fn quoted(line: &str) -> Vec<String> {
    line.split('`').skip(1).step_by(2).map(str::to_string).collect()
}

#[test]
fn every_configuration_in_the_documents_is_right() {
    let mut documents = vec![root().join("README.md")];
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    documents.extend(docs.filter(|path| path.extension().is_some_and(|e| e == "md")));
    let mut vantages = Vec::new();
    for document in documents {
        let name = document.file_name().unwrap().to_string_lossy().into_owned();
        for block in blocks(&fs::read_to_string(&document).unwrap(), "toml") {
            vantages.push(read(&name, &block).plan.vantage);
        }
    }
    vantages.sort();
    assert_eq!(vantages, ["internet", "internet", "office"]);
}

#[test]
fn the_two_files_of_the_readme_fit_together() {
    let files: Vec<Loaded> = blocks(&text("README.md"), "toml").iter().map(|block| read("README.md", block)).collect();
    let [office, internet] = files.as_slice() else { panic!("{} files", files.len()) };
    for check in &internet.plan.checks {
        if let mustnot::probe::Probe::Peer(peer) = &check.probe {
            assert!(office.plan.checks.iter().any(|c| c.name == peer.check), "office has no check {}", peer.check);
        }
    }
    assert_eq!(office.hints, [] as [String; 0]);
    let [hint] = internet.hints.as_slice() else { panic!("{:?}", internet.hints) };
    assert!(hint.contains("no witness goes to port 3128"), "{hint}");
}

/// In `probes.toml` a `#` without a space after it is a line to take the `#` away from.
#[test]
fn probes_toml_is_right_with_its_examples_too() {
    let written = text("probes.toml");
    let plain = read("probes.toml", &written);
    assert!(plain.plan.checks.iter().any(|c| c.expectation.is_inverted()));
    let mut taken_in = 0;
    let all: Vec<String> = written
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(example) if example.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                taken_in += 1;
                example.to_string()
            }
            _ => line.to_string(),
        })
        .collect();
    assert!(taken_in > 20, "{taken_in} lines of examples");
    let with_examples = read("probes.toml with its examples", &all.join("\n"));
    assert!(with_examples.plan.checks.len() >= plain.plan.checks.len() + 4);
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let board = Arc::new(Board::new(vec![Arc::new(about("admin-closed"))]));
    let metrics = Metrics::new("internet", board).unwrap();
    Stats::new(&["10.0.0.0/8".parse().unwrap()]).unwrap().register(metrics.registry()).unwrap();
    let exposed: BTreeSet<String> = metrics.gather().iter().map(|family| family.name().to_string()).collect();
    // What is absent until it happened is not exposed here; the sources name it all the same.
    let sources = text("src/metrics.rs") + &text("src/proxy/stats.rs");
    let mut known: BTreeSet<String> =
        sources.split("\"mustnot_").skip(1).map(|rest| format!("mustnot_{}", rest.split('"').next().unwrap())).collect();
    known.retain(|name| !name.contains('{') && !name.contains(' '));
    known.extend(exposed.iter().filter(|name| name.starts_with("process_")).cloned());
    assert!(exposed.is_subset(&known), "{:?}", exposed.difference(&known));
    assert_eq!(named_in_tables(&text("docs/metrics.md")), known);
}

#[test]
fn every_outcome_is_documented_and_no_other() {
    let documented = named_in_tables(&text("docs/outcomes.md"));
    let statuses = ["status:200", "status:399", "status:400", "status:599"].map(String::from);
    let known: BTreeSet<String> = Outcome::all().map(|o| o.to_string()).chain(statuses).collect();
    assert_eq!(documented, known);
}

#[test]
fn every_technique_is_documented_in_its_order_and_no_other() {
    let document = text("docs/techniques.md");
    let (sent, left_out) = document.split_once("\nNot sent:").unwrap();
    let rows = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next().filter(|id| id.starts_with("OP-")))
            .map(String::from)
            .collect()
    };
    assert_eq!(rows(sent), Technique::ALL.iter().map(|t| t.id()).collect::<Vec<_>>());
    assert_eq!(rows(left_out), LEFT_OUT.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    let mut all: Vec<String> = rows(&document);
    all.sort();
    assert_eq!(all, (1..=40).map(|n| format!("OP-{n:02}")).collect::<Vec<_>>());
}

#[test]
fn every_variant_is_documented_and_no_other() {
    let documented = named_in_tables(&text("docs/variants.md"));
    let documented: BTreeSet<&str> = documented.iter().map(String::as_str).filter(|name| name.starts_with("AD-")).collect();
    assert_eq!(documented, mustnot::probe::Variant::names().collect());
}

#[test]
fn every_field_and_cause_of_the_report_is_documented_and_no_other() {
    let structs = [
        ("src/report/json.rs", ["struct Document", "struct OneCheck", "struct Check", "struct Excepted"].as_slice()),
        ("src/report.rs", &["struct Summary"]),
        ("src/report/drilled.rs", &["struct Drilled"]),
        ("src/defence.rs", &["struct Sighting"]),
        (
            "src/record.rs",
            &[
                "struct About",
                "struct Record",
                "struct Exposure",
                "struct DenialChanged",
                "struct Seen",
                "struct WitnessRecord",
                "struct Coverage",
            ],
        ),
        (
            "src/observation.rs",
            &[
                "struct Evidence",
                "struct Icmp",
                "struct PeerEvidence",
                "struct QueryEvidence",
                "struct DnsEvidence",
                "struct RangesEvidence",
                "struct Flow",
                "struct Reached",
                "struct Sweep",
            ],
        ),
    ];
    let fields = structs.iter().flat_map(|(file, names)| {
        let source = text(file);
        names.iter().flat_map(|name| fields(&source, name)).collect::<Vec<_>>()
    });
    let causes = Cause::TOKENS.map(|(_, token)| token.to_string());
    let known: BTreeSet<String> = fields.chain(causes).collect();
    assert_eq!(named_in_tables(&text("docs/report.md")), known);
}

/// The names under which serde writes the fields of a struct.
fn fields(source: &str, name: &str) -> Vec<String> {
    let from = source.find(&format!("{name} {{")).or_else(|| source.find(&format!("{name}<'a> {{"))).unwrap();
    let body = source[from..].split("\n}").next().unwrap();
    let (mut fields, mut skipped, mut renamed) = (Vec::new(), false, None);
    for line in body.lines().skip(1).map(str::trim).filter(|line| !line.starts_with("//")) {
        if let Some(attribute) = line.strip_prefix("#[serde(") {
            skipped |= attribute.starts_with("skip)") || attribute.starts_with("flatten)");
            renamed = attribute.split("rename = \"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_string);
        } else if let Some((field, _)) = line.trim_start_matches("pub ").split_once(": ") {
            let field = renamed.take().unwrap_or_else(|| field.to_string());
            fields.extend((!std::mem::take(&mut skipped)).then_some(field));
        }
    }
    assert!(!fields.is_empty(), "{name} moved");
    fields
}

#[test]
fn every_finding_of_proxy_lint_is_documented_and_no_other() {
    let document = text("docs/proxy-lint.md");
    let headings: Vec<(&str, &str)> =
        document.split("\n## ").skip(1).map(|part| (part.lines().next().unwrap(), part.split('`').nth(1).unwrap())).collect();
    let known: Vec<(&str, &str)> = Id::ALL.iter().map(|id| (id.token(), id.severity().token())).collect();
    assert_eq!(headings, known);
}

/// The directives of Squid are one a line, sorted, and those that the laboratory's Squid documents are all among them.
#[test]
fn the_directives_of_squid_are_a_sorted_list() {
    let listed = text("src/squid/directives.txt");
    assert!(listed.lines().is_sorted() && listed.lines().count() > 400);
    for known in ["http_access", "to_localhost", "cache_dir", "tls_key_log"] {
        assert_eq!(listed.lines().any(|line| line == known), known != "to_localhost", "{known}");
    }
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    for document in [
        "README.md",
        "CHANGELOG.md",
        "docs/PLAN.md",
        "docs/techniques.md",
        "docs/outcomes.md",
        "docs/alerts.md",
        "docs/configuration.md",
        "docs/metrics.md",
        "docs/report.md",
        "docs/variants.md",
        "docs/proxy-lint.md",
        "docs/runbook.md",
        "docs/dashboards.md",
        "docs/drills.md",
        "docs/web.md",
        "docs/ci.md",
        "docs/commands.md",
        "deploy/squid/README.md",
    ] {
        for target in text(document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            let there = Path::new(document).parent().unwrap().join(file);
            assert!(target.starts_with("https://") || root().join(there).exists(), "{document}: {target}");
        }
    }
}
