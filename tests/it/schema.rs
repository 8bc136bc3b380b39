//! The configuration's schema, held against a validator that is not ours, and against the reader.

use std::fs;
use std::path::PathBuf;

use jsonschema::Validator;
use mustnot::alert::sink::SinkKind;
use mustnot::config::{self, schema::Vocabulary};
use mustnot::observation::Outcome;
use mustnot::plan::{Keys, from_text, schema};
use mustnot::probe::Kind;
use mustnot::token::Key;
use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

/// Bad files whose fault no JSON Schema can see, and why. All others it must refuse.
const UNSEEN: &[(&str, &str)] = &[
    ("alert-body", "what a template gives"),
    ("alert-name-twice", "a name that stands there twice"),
    ("alert-only", "a name that leads nowhere"),
    ("beacon-key-missing", "a file that is not there"),
    ("certificate-sha256", "two values do not go together"),
    ("decoy-is-looked-at", "two values are the same"),
    ("dns-proofs", "what other checks do"),
    ("door-clash", "two values clash"),
    ("env-masked", "what the environment gives"),
    ("env-missing", "what the environment does not give"),
    ("exception-twice", "what other exceptions are about"),
    ("exception-unknown-check", "a name that leads nowhere"),
    ("expect-nxdomain-of-an-address", "two values, one of which is an address"),
    ("families-leave-out-the-target", "two values do not go together"),
    ("icmp-decoy-inside", "two values are the same"),
    ("icmp-port-by-tcp", "what other checks do"),
    ("icmp-targets", "how large a network is"),
    ("listen-clash", "two values clash"),
    ("listeners-of-both-families", "two values clash"),
    ("name-twice", "a name that stands there twice"),
    ("ports-decoy", "two values are the same"),
    ("ports-empty", "what is left of two values"),
    ("ports-network-too-large", "how large a network is"),
    ("ports-range-backwards", "which of two addresses is the first"),
    ("ports-require-port", "what other checks do"),
    ("ports-target-multicast", "which addresses a network has"),
    ("ports-target-with-port", "a port, or the end of an address"),
    ("ports-too-many", "two values, multiplied"),
    ("promql-target", "what other checks do"),
    ("proxy-lead-beyond-drain", "two values do not go together"),
    ("ranges-everybody", "a whole family, in halves too"),
    ("ranges-expected-nowhere", "a file that is not there, or has no list"),
    ("ranges-nothing-left", "what is left of two values"),
    ("ranges-witness", "a name that leads to another check"),
    ("require-port", "what other checks do"),
    ("require-target", "what other checks do"),
    ("require-vantage-other-source", "what other checks do"),
    ("source-of-another-family", "two values do not go together"),
    ("source-that-families-leave-out", "two values do not go together"),
    ("syntax-key-twice", "not TOML"),
    ("syntax-open-bracket", "not TOML"),
    ("syntax-open-string", "not TOML"),
    ("syntax-unquoted", "not TOML"),
    ("targets-are-one-witness", "a name that leads to another check"),
    ("targets-from-nowhere", "a file that is not there"),
    ("targets-too-many", "how large a network is"),
    ("template-recipe", "two values do not go together"),
    ("udp-no-payload", "what a port is known for"),
    ("udp-payloads", "what payloads there are, and which bytes they may have"),
    ("udp-silence-alone", "what other checks do"),
    ("udp-target-by-another-payload", "what other checks do"),
    ("variants-alone", "a set besides others"),
    ("variants-marker-in-the-request", "what is in another value"),
    ("variants-of-an-open-page", "two values do not go together"),
    ("variants-of-post-through-a-proxy", "two values do not go together"),
    ("variants-spoof-for-nothing", "two values do not go together"),
    ("variants-that-do-not-apply", "two values do not go together"),
    ("variants-too-many", "two values, multiplied"),
    ("variants-witness-of-another-text", "what other checks do"),
    ("variants-with-client-certs", "two values do not go together"),
    ("web-no-certificate", "what a file holds"),
    ("witness-inverted", "a name that leads to another check"),
    ("witness-itself", "a name that leads to another check"),
    ("witness-unknown", "a name that leads nowhere"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn validator() -> Validator {
    let schema = schema();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::draft202012::new(&schema).unwrap()
}

/// The TOML as JSON, as editors do it; none where it is not TOML.
fn as_json(text: &str) -> Option<Value> {
    let (table, errors) = DeTable::parse_recoverable(text);
    errors.is_empty().then(|| of_table(table.get_ref()))
}

fn of_table(table: &DeTable<'_>) -> Value {
    Value::Object(table.iter().map(|(key, value)| (key.get_ref().to_string(), of_value(value.get_ref()))).collect::<Map<_, _>>())
}

fn of_value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(number) => json!(i64::from_str_radix(number.as_str(), number.radix()).unwrap()),
        DeValue::Float(number) => json!(number.as_str().parse::<f64>().unwrap()),
        DeValue::Boolean(yes) => json!(yes),
        DeValue::Datetime(date) => json!(date.to_string()),
        DeValue::Array(items) => items.iter().map(|item| of_value(item.get_ref())).collect(),
        DeValue::Table(table) => of_table(table),
    }
}

pub fn faults(validator: &Validator, text: &str) -> Vec<String> {
    let Some(document) = as_json(text) else { return vec!["not TOML".into()] };
    validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

fn files(folder: &str) -> Vec<(String, String)> {
    let paths = fs::read_dir(root().join("tests/data").join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files.iter().map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())).collect()
}

/// The same with every example taken in: in `probes.toml` a `#` without a space after it is one to take away.
pub fn with_examples(text: &str) -> String {
    let example =
        |line: &str| line.strip_prefix('#').filter(|l| l.starts_with(|c: char| c.is_ascii_lowercase() || c == '[')).map(str::to_string);
    text.lines().map(|line| example(line).unwrap_or_else(|| line.to_string()) + "\n").collect()
}

#[test]
fn every_valid_configuration_is_accepted() {
    let validator = validator();
    let shipped = fs::read_to_string(root().join("probes.toml")).unwrap();
    let mut good = vec![("probes.toml with its examples".to_string(), with_examples(&shipped)), ("probes.toml".to_string(), shipped)];
    good.extend(files("good"));
    let documents = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).chain([root().join("README.md")]);
    for document in documents.filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(&document).unwrap();
        for block in text.split("```toml\n").skip(1) {
            good.push((document.display().to_string(), block.split("```").next().unwrap().to_string()));
        }
    }
    assert!(good.len() >= 6, "{}", good.len());
    for (name, text) in good {
        let faults = faults(&validator, &text);
        assert!(faults.is_empty(), "{name}\n{}", faults.join("\n"));
    }
}

#[test]
fn every_bad_file_is_refused_save_those_that_no_schema_can_see() {
    let validator = validator();
    let bad = files("bad");
    assert!(bad.len() > 100);
    let mut wrong = Vec::new();
    for (name, text) in &bad {
        let unseen = UNSEEN.iter().find(|(file, _)| file == name).map(|(_, why)| *why);
        let refused = as_json(text).is_some() && !faults(&validator, text).is_empty();
        match (refused, unseen) {
            (true, None) | (false, Some(_)) => {}
            (false, None) => wrong.push(format!("{name}: the schema accepts it; teach it, or add it to UNSEEN with the reason")),
            (true, Some(why)) => wrong.push(format!("{name}: the schema does see it ({why}); take it off UNSEEN")),
        }
    }
    wrong.extend(UNSEEN.iter().filter(|(name, _)| !bad.iter().any(|(file, _)| file == name)).map(|(name, _)| format!("{name} is gone")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A check of that kind that is right.
fn sound(kind: Kind) -> &'static str {
    match kind {
        Kind::Tcp => "target = \"b.example.com:443\"\nexpect = \"open\"\n",
        Kind::Tls => "target = \"b.example.com:443\"\nexpect = \"open\"\n",
        Kind::Http => "target = \"https://b.example.com/\"\nexpect = \"open\"\n",
        Kind::EgressIp => "target = \"http://b.example.com/\"\nexpect = { ip = \"192.0.2.1\" }\n",
        Kind::Peer => "target = \"https://b.example.com/\"\ncheck = \"x\"\nexpect = \"open\"\n",
        Kind::PromQl => "target = \"https://b.example.com/\"\nquery = \"up\"\nexpect = \"open\"\n",
        Kind::Ranges => "target = \"https://b.example.com/\"\nexpected = [\"192.0.2.0/24\"]\npointer = \"/a/*\"\nexpect = \"open\"\n",
        Kind::Ports => "target = \"b.example.com\"\nports = \"1-1024\"\nexpect = \"blocked\"\n",
        Kind::Udp => "target = \"b.example.com:53\"\nexpect = \"open\"\n",
        Kind::Icmp => "target = \"b.example.com\"\nexpect = \"open\"\n",
        Kind::Dns => "target = \"b.example.com\"\nexpect = \"open\"\n",
        Kind::OpenProxy => "target = \"b.example.com:3128\"\nbeacon = \"http://b.example.com/\"\nexpect = \"blocked\"\n",
    }
}

const HEAD: &str = "vantage = \"v\"\n[beacon]\nkey_file = \"beacon.key\"\n[[check]]\nname = \"w\"\nkind = \"tcp\"\ntarget = \"a.example.com:443\"\nexpect = \"open\"\n";

/// The file with one line more in a check of that kind, in the place of the line with the same key.
fn file(kind: Kind, key: &str, value: &str) -> String {
    let mut lines: Vec<String> = sound(kind).lines().map(str::to_string).collect();
    lines.extend(["witness = [\"w\"]".into(), "require = [\"vantage\"]".into()]);
    lines.retain(|line| line.split(" = ").next() != Some(key));
    format!("{HEAD}[[check]]\nname = \"c\"\nkind = \"{kind}\"\n{}\n{key} = {value}\n", lines.join("\n"))
}

struct Reader(tempfile::TempDir);

impl Reader {
    fn new() -> Reader {
        let folder = tempfile::tempdir().unwrap();
        Key::load_or_create(&folder.path().join("beacon.key")).unwrap();
        fs::write(folder.path().join("a file"), "secret\n").unwrap();
        Reader(folder)
    }

    fn told(&self, text: &str) -> Option<String> {
        from_text("f", text, self.0.path(), &|name| (name == "WORD").then(|| "word".into()), Keys::Read).err().map(|p| p.to_string())
    }
}

#[test]
fn schema_and_reader_agree_on_every_outcome_of_every_kind() {
    let (validator, reader) = (validator(), Reader::new());
    let mut outcomes: Vec<String> = Outcome::all().map(|o| o.to_string()).collect();
    outcomes.extend(
        ["open", "blocked", "status:200", "status:399", "status:403", "status:599", "status:600", "closed-ish", ""].map(String::from),
    );
    let mut wrong = Vec::new();
    let (mut taken, mut refused) = (0, 0);
    for kind in Kind::ALL {
        for outcome in &outcomes {
            for value in [
                format!("\"{outcome}\""),
                format!("[\"{outcome}\"]"),
                format!("[\"{outcome}\", \"timeout\"]"),
                format!("[\"{outcome}\", \"connected\"]"),
            ] {
                for via in ["", "via = \"http://p.example.com:3128\"\n"] {
                    if !via.is_empty() && !matches!(kind, Kind::Http | Kind::EgressIp) {
                        continue;
                    }
                    let text = file(*kind, "expect", &value) + via;
                    if *kind == Kind::Udp && !told_apart(&value) {
                        continue;
                    }
                    // A proof that the witness cannot give is not the outcome's fault.
                    let text = text.replace("witness = [\"w\"]\nrequire = [\"vantage\"]", "witness = []\nrequire = []");
                    let told = reader.told(&text);
                    let seen = faults(&validator, &text);
                    if told.is_none() {
                        taken += 1
                    } else {
                        refused += 1
                    }
                    if told.is_none() != seen.is_empty() {
                        wrong.push(format!("{kind} {via}expect = {value}\n  reader: {told:?}\n  schema: {seen:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken > 50 && refused > 500, "{taken} {refused}");
}

/// Whether something besides silence is accepted: of UDP that alone takes a proof which depends on the witnesses.
fn told_apart(expect: &str) -> bool {
    !matches!(expect, "\"timeout\"" | "[\"timeout\"]" | "[\"timeout\", \"timeout\"]")
}

/// Values of every form that a key might take.
const PALETTE: &[&str] = &[
    "\"\"",
    "\"word\"",
    "\"two words\"",
    "\"ümlaut\"",
    "\"a_b.c-d\"",
    "\"${WORD}\"",
    "\"a file\"",
    "\"beacon.key\"",
    "\"-\"",
    "\"system\"",
    "\"0s\"",
    "\"0ms\"",
    "\"1ms\"",
    "\"999ms\"",
    "\"1000ms\"",
    "\"01s\"",
    "\"1s\"",
    "\"3s\"",
    "\"5m\"",
    "\"1h\"",
    "\"8784h\"",
    "0",
    "1",
    "3",
    "10",
    "11",
    "1024",
    "65535",
    "65536",
    "1048576",
    "1048577",
    "-1",
    "1.5",
    "true",
    "false",
    "[]",
    "{}",
    "2026-01-02",
    "2026-01-02T03:04:05Z",
    "2026-01-02 03:04:05+02:00",
    "2026-01-02T03:04:05",
    "\"2026-01-02\"",
    "\"a.example.com:443\"",
    "\"  \"",
    "\"a\\tb\"",
    "\"192.0.2.7\"",
    "\"127.0.0.1\"",
    "\"0.0.0.0\"",
    "\"2001:db8::7\"",
    "\"::1\"",
    "\"::\"",
    "\"::ffff:192.0.2.7\"",
    "\"224.0.0.1\"",
    "\"256.0.0.1\"",
    "\"192.0.2.0/24\"",
    "\"192.0.2.7/32\"",
    "\"2001:db8::/32\"",
    "\"0.0.0.0/0\"",
    "\"::/0\"",
    "[\"192.0.2.0/24\", \"2001:db8::/32\"]",
    "\"192.0.2.7:53\"",
    "\"0.0.0.0:80\"",
    "\"[::]:80\"",
    "\"[2001:db8::7]:443\"",
    "\"[fe80::1%2]:80\"",
    "\"127.0.0.1:0\"",
    "\"b.example.com\"",
    "\"b.example.com.\"",
    "\"B_1.example.com:443\"",
    "\"b.example.com:65536\"",
    "\"b.example.com:0443\"",
    "\"localhost:80\"",
    "\"http://b.example.com\"",
    "\"http://b.example.com/\"",
    "\"HTTP://b.example.com:8080/a?b=c\"",
    "\"https://b.example.com:9890/x/y\"",
    "\"https://[2001:db8::7]/?q\"",
    "\"http://b.example.com:3128\"",
    "\"http://b.example.com:3128/\"",
    "\"http://u:p@b.example.com:3128\"",
    "\"http://b.example.com/a b\"",
    "\"http://b.example.com/#f\"",
    "\"ftp://b.example.com/\"",
    "[\"http://b.example.com/\", \"http://c.example.com:9891/\"]",
    "\".example.com\"",
    "[\"example.com\", \".example.com\", \"192.0.2.0/24\"]",
    "\"GET\"",
    "\"HEAD\"",
    "\"CONNECT\"",
    "\"M-SEARCH\"",
    "\"get\"",
    "\"1.2\"",
    "\"1.3\"",
    "\"1.1\"",
    "\"http/1.1\"",
    "[\"http/1.1\"]",
    "[\"h2\"]",
    "\"critical\"",
    "\"warning\"",
    "\"info\"",
    "[\"ipv4\"]",
    "[\"ipv4\", \"ipv6\"]",
    "[\"ipv6\", \"ipv6\"]",
    "[\"vantage\"]",
    "[\"w\"]",
    "[\"w\", \"w\"]",
    "[\"word\", \"a_b.c-d\"]",
    "[\"OP-01\"]",
    "[\"OP-01\", \"OP-02\", \"OP-09\"]",
    "\"squid\"",
    "\"combined\"",
    "\"json\"",
    "[\"127.0.0.1:3128\", \"[::1]:3128\"]",
    "443",
    "\"443\"",
    "\"22, 8000-8010\"",
    "[443, \"8000-8010\", \"22,80\"]",
    "[0]",
    "[\"192.0.2.1\", \"2001:db8::1\"]",
    "[\"192.0.2.1\", \"192.0.2.2\"]",
    "{ team = \"platform\" }",
    "{ team = \"\", _x1 = \"${WORD}\" }",
    "{ Team = \"a\" }",
    "{ host = \"a\" }",
    "{ __a = \"b\" }",
    "{ a = 1 }",
    "{ X-A = \"1\", \"x!y\" = \"2\" }",
    "{ HOST = \"a\" }",
    "{ \"a b\" = \"c\" }",
    "{ ip = \"192.0.2.1\" }",
    "\"hex:00ff\"",
    "\"monitor\"",
    "\"a:b\"",
    "[\"192.0.2.7\", 5]",
    "\"127.0.0.1:9893\"",
    "\"100ms\"",
    "\"2s\"",
];

/// The file with this line in a section, with what else must stand there.
fn file_of_section(section: &str, key: &str, value: &str) -> String {
    let line = format!("{key} = {value}\n");
    if section.is_empty() {
        return line + if key == "vantage" { HEAD.trim_start_matches("vantage = \"v\"\n") } else { HEAD };
    }
    if section == "exception" {
        let needed = ["check = \"w\"", "reason = \"r\"", "owner = \"o\"", "until = 2026-12-31"];
        let needed: Vec<&str> = needed.into_iter().filter(|line| line.split(" = ").next() != Some(key)).collect();
        return format!("{HEAD}[[exception]]\n{}\n{line}", needed.join("\n"));
    }
    let head = if section == "beacon" { HEAD.replace("[beacon]\nkey_file = \"beacon.key\"\n", "") } else { HEAD.into() };
    let needed = match section {
        "beacon" if key != "key_file" => "key_file = \"beacon.key\"\n",
        "web" | "proxy" | "admin_page" if key != "listen" => "listen = \"127.0.0.1:9\"\n",
        _ => "",
    };
    format!("{head}[{section}]\n{needed}{line}")
}

/// The file with this line in a sink of that kind.
fn file_of_sink(kind: SinkKind, key: &str, value: &str) -> String {
    let sound = match kind {
        SinkKind::PagerDuty => "routing_key_file = \"a file\"\n",
        SinkKind::Datadog => "api_key_file = \"a file\"\n",
        _ => "url = \"https://b.example.com/\"\n",
    };
    let lines: Vec<&str> = sound.lines().filter(|line| line.split(" = ").next() != Some(key)).collect();
    format!("{HEAD}[[alert]]\nkind = \"{}\"\n{}\n{key} = {value}\n", kind.token(), lines.join("\n"))
}

/// The schema may be laxer than the reader, never stricter: an editor must not mark what is right. And a key that the reader
/// does not know in a place, the schema does not know there either.
#[test]
fn what_the_reader_takes_the_schema_takes() {
    let (validator, reader) = (validator(), Reader::new());
    let (mut taken, mut refused_by_both, mut misplaced) = (0, 0, 0);
    let mut wrong = Vec::new();
    for key in config::every_key() {
        let misplacements = ["unknown key", "has no default", "is for"];
        let is_misplaced = |told: &str| {
            misplacements.iter().any(|word| told.contains(&format!("\"{key}\" {word}")) || told.contains(&format!("{word} \"{key}\"")))
        };
        let mut hold = |file: &dyn Fn(&str) -> String| {
            for value in PALETTE {
                let text = file(value);
                let seen = faults(&validator, &text);
                match reader.told(&text) {
                    None if seen.is_empty() => taken += 1,
                    None => wrong.push(format!("the schema refuses it: {}\n{text}", seen.join("\n"))),
                    Some(told) if is_misplaced(&told) => {
                        misplaced += 1;
                        if seen.is_empty() {
                            wrong.push(format!("the schema does not: {told}\n{text}"));
                        }
                        // Whatever its value.
                        return;
                    }
                    Some(_) if !seen.is_empty() => refused_by_both += 1,
                    Some(_) => {}
                }
            }
        };
        for section in ["", "web", "beacon", "proxy", "admin_page", "defaults", "exception"] {
            hold(&|value| file_of_section(section, key, value));
        }
        for kind in Kind::ALL {
            hold(&|value| file(*kind, key, value));
        }
        // What says which kind it is cannot be said twice.
        for kind in SinkKind::ALL.into_iter().filter(|_| key != "kind") {
            hold(&|value| file_of_sink(kind, key, value));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong[..wrong.len().min(12)].join("\n\n"));
    assert!(taken > 500 && refused_by_both > 10_000 && misplaced > 300, "{taken} {refused_by_both} {misplaced}");
}

/// A rule that is empty would make every editor happy.
#[test]
fn a_schema_without_its_vocabulary_refuses_every_expectation() {
    let schema = config::schema::document(|_| Vocabulary::default());
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    assert!(!faults(&validator, HEAD).is_empty());
}
