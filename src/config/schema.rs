//! The configuration as a JSON Schema (draft 2020-12), for editors and for whoever writes the file by a program.
//!
//! It says what each value may be and which keys belong together. What takes two values to compare, a name to find or a file to
//! look at it cannot say: `mustnot config check` does. It never refuses what the reader takes; tests hold the two side by side.

mod types;

use serde_json::{Map, Value, json};

use super::keys;
use crate::alert::sink::SinkKind;
use crate::observation::{Class, Outcome};
use crate::probe::Kind;
use types::{Row, from_environment, with};

/// The page that has a sentence for every key.
const PAGE: &str = include_str!("../../docs/configuration.md");
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// A timeout too short for three SYNs (SPEC 2.5).
const UNDER_THREE_SECONDS: &str = "^0*(?:[0-2]s|[0-2]?[0-9]{1,3}ms)$";

/// What `expect` knows for one kind.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// `"open"` and `"blocked"`, as far as the kind knows them.
    pub words: Vec<&'static str>,
    /// Single outcomes without a number.
    pub outcomes: Vec<Outcome>,
    /// More of them where the check goes through a proxy.
    pub through_a_proxy: Vec<Outcome>,
    /// More of them where it goes through none.
    pub direct: Vec<Outcome>,
    /// `status:NNN`
    pub statuses: bool,
    /// `{ ip = [...] }`
    pub addresses: bool,
}

/// The schema; `vocabulary` is what the plan takes for `expect`.
pub fn document(vocabulary: impl Fn(Kind) -> Vocabulary) -> Value {
    let mut properties = rows(types::TOP, "Top level");
    for section in keys::SECTIONS {
        properties.insert((*section).into(), section_of(section));
    }
    json!({
        "$schema": DRAFT,
        "title": format!("probes.toml of mustnot {}", env!("CARGO_PKG_VERSION")),
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required(""),
        "allOf": [serves_or_checks(), beacon_has_a_key(), inverted_has_a_witness(), proofs_have_a_witness()],
        "$defs": {
            "check": check(&vocabulary),
            "inverted": inverted(),
        },
    })
}

fn section_of(section: &str) -> Value {
    let (rows_of, heading) = match section {
        "check" => return json!({ "description": "The claims.", "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/check" } }),
        "alert" => return json!({ "description": "Where alerts go.", "type": "array", "minItems": 1, "items": alert() }),
        "exception" => {
            let exception =
                json!({ "type": "object", "additionalProperties": false, "properties": rows(types::EXCEPTION, "`[[exception]]`") });
            let exceptions = json!({ "type": "array", "minItems": 1, "items": with(exception, "required", json!(required(section))) });
            return with(exceptions, "description", json!(said_of(section, "Top level")));
        }
        "web" => (types::WEB, "`[web]`"),
        "beacon" => (types::BEACON, "`[beacon]`"),
        "proxy" => (types::PROXY, "`[proxy]`"),
        "admin_page" => (types::ADMIN_PAGE, "`[admin_page]`"),
        "drill" => (types::DRILL, "`[drill]`"),
        "evidence" => (types::EVIDENCE, "`[evidence]`"),
        _ => (types::COMMON, CHECK),
    };
    let table = json!({ "type": "object", "additionalProperties": false, "properties": rows(rows_of, heading) });
    let table = with(table, "required", json!(required(section)));
    let table = match section {
        "web" => with(table, "allOf", types::TOGETHER_IN_WEB.iter().map(|(key, others)| needs(key, others)).collect()),
        _ => table,
    };
    match said_of(section, "Top level") {
        Some(said) => with(table, "description", json!(said)),
        None => table,
    }
}

/// The heading of everything about a check.
const CHECK: &str = "`[[check]]`";
/// The heading of everything about a sink.
const ALERT: &str = "`[[alert]]`";

/// One `[[alert]]`: by its kind, which keys it may have, and which it must.
fn alert() -> Value {
    let mut properties = rows(types::ALERT, ALERT);
    properties.extend(rows(types::ALERT_OWN, ALERT));
    let of_kind = |kind: &SinkKind| {
        let of = json!({ "properties": { "kind": { "const": kind.token() } }, "required": ["kind"] });
        let own = keys::ALERT_OWN.iter().filter(|(_, kinds)| kinds.contains(kind)).map(|(key, _)| *key);
        let known: Vec<&str> = keys::ALERT.iter().copied().chain(own).collect();
        let either = |one: &'static str, other: &'static str| json!({ "oneOf": [has(&one), has(&other)] });
        let needed = match kind {
            SinkKind::Alertmanager => has(&"url"),
            SinkKind::PagerDuty => either("routing_key", "routing_key_file"),
            SinkKind::Datadog => either("api_key", "api_key_file"),
            SinkKind::Slack | SinkKind::Webhook | SinkKind::Heartbeat => either("url", "url_file"),
        };
        let one = json!({ "properties": { "url": { "maxItems": 1 } } });
        let rules = if *kind == SinkKind::Alertmanager { vec![needed] } else { vec![needed, one] };
        json!({ "if": of, "then": { "propertyNames": { "enum": known }, "allOf": rules } })
    };
    let mut rules: Vec<Value> = SinkKind::ALL.iter().map(of_kind).collect();
    rules.extend([needs("user", &["password_file"]), needs("password_file", &["user"])]);
    json!({ "type": "object", "additionalProperties": false, "properties": properties, "required": ["kind"], "allOf": rules })
}

fn required(section: &str) -> &'static [&'static str] {
    types::REQUIRED.iter().find(|(of, _)| *of == section).map_or(&[], |(_, keys)| keys)
}

fn rows(table: &[Row], heading: &str) -> Map<String, Value> {
    let described = |(key, of): &Row| {
        let schema = of.schema();
        let schema = match said_of(key, heading) {
            Some(said) => with(schema, "description", json!(said)),
            None => schema,
        };
        ((*key).to_string(), schema)
    };
    table.iter().map(described).collect()
}

/// What the page says of a key, below a heading: its meaning, and its default where it has one.
fn said_of(key: &str, heading: &str) -> Option<String> {
    let mut here = false;
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            here = title.starts_with(heading);
        }
        let row = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")).filter(|_| here);
        let cells: Vec<&str> = row.map_or(Vec::new(), |row| row.split(" | ").collect());
        let (Some(names), Some(meaning)) = (cells.first(), cells.last()) else { continue };
        if names.split('`').skip(1).step_by(2).any(|name| name == key) {
            let default = cells.iter().rev().nth(1).filter(|default| default.starts_with('`'));
            return Some(default.map_or((*meaning).to_string(), |default| format!("{meaning} (default {default})")));
        }
    }
    None
}

/// One `[[check]]`: what every check may have, and by its kind, which of it.
fn check(vocabulary: &impl Fn(Kind) -> Vocabulary) -> Value {
    let mut properties = rows(types::COMMON, CHECK);
    properties.extend(rows(types::OWN, CHECK));
    properties.extend(rows(types::IDENTITY, CHECK));
    properties.insert("expect".into(), json!({ "description": said_of("expect", CHECK) }));
    let of_kind = |kind: &Kind| {
        let of = json!({ "properties": { "kind": { "const": kind.token() } }, "required": ["kind"] });
        json!({ "if": of, "then": of_one_kind(*kind, &vocabulary(*kind)) })
    };
    let mut rules: Vec<Value> = Kind::ALL.iter().map(of_kind).collect();
    rules.extend(types::TOGETHER.iter().map(|(key, others)| needs(key, others)));
    rules.extend([no_proof_without_a_witness(), silence_takes_time()]);
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": ["name", "kind", "expect"],
        "allOf": rules,
    })
}

fn of_one_kind(kind: Kind, vocabulary: &Vocabulary) -> Value {
    let own = keys::OWN.iter().filter(|(_, kinds)| kinds.contains(&kind)).map(|(key, _)| *key);
    let known: Vec<&str> = keys::IDENTITY.iter().chain(keys::COMMON).copied().chain(own).collect();
    // Several targets, where this version knows them, stand in the place of one.
    let mut targets: Vec<Value> = ["target", "targets", "targets_from"].iter().filter(|key| known.contains(key)).map(has).collect();
    if known.contains(&"template") {
        // A template may wait for others to name one.
        targets.push(json!({ "properties": { "template": { "const": true } }, "required": ["template"] }));
    }
    let mut rules = rules(kind);
    rules.push(json!({ "anyOf": targets }));
    rules.push(json!({ "not": { "allOf": [has(&"target"), { "anyOf": [has(&"targets"), has(&"targets_from")] }] } }));
    if !vocabulary.through_a_proxy.is_empty() {
        let direct = Vocabulary { through_a_proxy: Vec::new(), ..vocabulary.clone() };
        let through = Vocabulary { direct: Vec::new(), ..vocabulary.clone() };
        rules.push(json!({
            "if": has(&"via"),
            "then": { "properties": { "expect": expect(&through) } },
            "else": { "properties": { "expect": expect(&direct) } },
        }));
    }
    json!({
        "propertyNames": { "enum": known },
        "properties": { "target": types::target(kind).schema(), "expect": expect(vocabulary) },
        "required": types::required(kind),
        "allOf": rules,
    })
}

fn has(key: &&str) -> Value {
    json!({ "required": [key] })
}

/// Where this key stands, the others must. (`dependentRequired` says the same; editors that know older drafts pass over it.)
fn needs(key: &str, others: &[&str]) -> Value {
    json!({ "if": { "required": [key] }, "then": { "required": others } })
}

/// What one kind wants besides.
fn rules(kind: Kind) -> Vec<Value> {
    let plain = json!({ "properties": { "target": { "pattern": "^[Hh][Tt][Tt][Pp]://" } }, "required": ["target"] });
    let tls = ["server_name", "ca_file", "client_cert_file", "client_key_file", "alpn", "min_version", "max_version"];
    let no_tls = json!({ "if": plain, "then": { "not": { "anyOf": tls.iter().map(has).collect::<Vec<_>>() } } });
    let destination = "allowed_destination";
    let goes_there =
        json!({ "required": ["techniques"], "properties": { "techniques": { "type": "array", "contains": { "const": "OP-07" } } } });
    let may_go_there =
        json!({ "properties": { "techniques": { "if": { "type": "array" }, "then": { "contains": { "const": "OP-07" } } } } });
    match kind {
        Kind::Http => vec![
            needs("spoof", &["variants"]),
            no_tls,
            json!({
                "if": { "properties": { "method": { "const": "HEAD" } }, "required": ["method"] },
                "then": { "properties": { "body_contains": false } },
            }),
            json!({ "if": { "$ref": "#/$defs/inverted" }, "then": { "properties": { "follow_redirects": { "const": false } } } }),
        ],
        Kind::Peer | Kind::PromQl => vec![no_tls],
        Kind::Ranges => {
            let of_a_file = json!({ "properties": { "target": { "pattern": "^file:" } }, "required": ["target"] });
            let web = tls.iter().chain(&["headers", "source", "families", "resolver"]).map(has).collect::<Vec<_>>();
            let given = json!({ "properties": { "expected": { "type": "array" } }, "required": ["expected"] });
            vec![
                no_tls,
                json!({ "if": of_a_file, "then": { "not": { "anyOf": web } } }),
                needs("where", &["pointer"]),
                json!({ "if": given, "then": { "not": has(&"expected_pointer") } }),
            ]
        }
        Kind::OpenProxy => vec![
            json!({ "if": goes_there, "then": has(&destination) }),
            json!({ "if": { "required": [destination] }, "then": may_go_there }),
            needs("server_name", &[destination]),
            needs("ca_file", &[destination]),
        ],
        _ => Vec::new(),
    }
}

/// `expect`: a word, one outcome, a list of outcomes that are all open or all closed, or addresses.
fn expect(vocabulary: &Vocabulary) -> Value {
    if vocabulary.addresses {
        let addresses = json!({ "ip": types::EGRESS.schema() });
        return json!({ "type": "object", "additionalProperties": false, "required": ["ip"], "properties": addresses });
    }
    let outcomes = || vocabulary.outcomes.iter().chain(&vocabulary.through_a_proxy).chain(&vocabulary.direct);
    let of = |class| {
        let tokens: Vec<String> = outcomes().filter(|o| o.class() == class).map(Outcome::to_string).collect();
        let statuses = if class == Class::Open { "^status:[23][0-9]{2}$" } else { "^status:[45][0-9]{2}$" };
        let statuses = vocabulary.statuses.then(|| json!({ "pattern": statuses }));
        let forms: Vec<Value> = std::iter::once(json!({ "enum": tokens })).chain(statuses).chain([from_environment()]).collect();
        json!({ "type": "string", "anyOf": forms })
    };
    let mut forms = vec![json!({ "enum": vocabulary.words }), from_environment()];
    if outcomes().next().is_some() || vocabulary.statuses {
        for class in [Class::Open, Class::Closed] {
            forms.push(of(class));
            forms.push(json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": of(class) }));
        }
    }
    json!({ "anyOf": forms })
}

/// A check of which the file alone says that all it accepts is closed.
fn inverted() -> Value {
    let closed: Vec<String> = Outcome::all().filter(|o| o.class() == Class::Closed).map(|o| o.to_string()).collect();
    let closed = json!({ "type": "string", "anyOf": [{ "enum": closed }, { "pattern": "^status:[45][0-9]{2}$" }] });
    let list = json!({ "type": "array", "minItems": 1, "items": closed });
    json!({ "required": ["expect"], "properties": { "expect": { "anyOf": [{ "const": "blocked" }, closed, list] } } })
}

/// Silence counts as a block only where three SYNs can leave within one attempt.
fn silence_takes_time() -> Value {
    let silence = json!([{ "enum": ["blocked", "timeout"] }, { "type": "array", "contains": { "const": "timeout" } }]);
    json!({
        "if": { "required": ["expect", "kind"], "properties": { "expect": { "anyOf": silence } } },
        "then": { "properties": { "timeout": { "not": { "type": "string", "pattern": UNDER_THREE_SECONDS } } } },
    })
}

/// An inverted check without any witness can have no proof.
fn no_proof_without_a_witness() -> Value {
    json!({
        "if": {
            "allOf": [{ "$ref": "#/$defs/inverted" }],
            "required": ["witness", "require"],
            "properties": { "witness": { "maxItems": 0 } },
        },
        "then": { "properties": { "require": { "maxItems": 0 } } },
    })
}

/// What holds for every check, unless `[defaults]` has this key.
fn without_default(key: &str, rule: Value) -> Value {
    let default = json!({ "required": ["defaults"], "properties": { "defaults": { "required": [key] } } });
    json!({ "if": { "not": default }, "then": { "properties": { "check": { "items": rule } } } })
}

fn inverted_has_a_witness() -> Value {
    without_default("witness", json!({ "if": { "$ref": "#/$defs/inverted" }, "then": has(&"witness") }))
}

fn proofs_have_a_witness() -> Value {
    let unwitnessed = json!({
        "allOf": [{ "$ref": "#/$defs/inverted" }],
        "required": ["witness"],
        "properties": { "witness": { "maxItems": 0 } },
    });
    without_default("require", json!({ "if": unwitnessed, "then": has(&"require") }))
}

/// A file must do something.
fn serves_or_checks() -> Value {
    let beacon = json!({ "required": ["listen"], "properties": { "listen": { "not": { "type": "array", "maxItems": 0 } } } });
    json!({ "anyOf": [
        has(&"check"), has(&"proxy"), has(&"admin_page"), { "required": ["beacon"], "properties": { "beacon": beacon } },
    ] })
}

/// Kinds that ask a beacon share its key.
fn beacon_has_a_key() -> Value {
    let asks: Vec<&str> = [Kind::EgressIp, Kind::OpenProxy].iter().map(|kind| kind.token()).collect();
    let asking = json!({ "required": ["kind"], "properties": { "kind": { "enum": asks } } });
    json!({ "if": { "required": ["check"], "properties": { "check": { "contains": asking } } }, "then": has(&"beacon") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of `keys.rs` and the lines of `types.rs`, both ways.
    #[test]
    fn every_key_has_a_line_and_every_line_a_key() {
        let own: Vec<&str> = keys::OWN.iter().map(|(key, _)| *key).collect();
        let identity: Vec<&str> = keys::IDENTITY.iter().copied().filter(|key| *key != "expect").collect();
        let alert_own: Vec<&str> = keys::ALERT_OWN.iter().map(|(key, _)| *key).collect();
        let tables: [(&str, &[&str], &[Row]); 12] = [
            ("ALERT", keys::ALERT, types::ALERT),
            ("ALERT_OWN", &alert_own, types::ALERT_OWN),
            ("EXCEPTION", keys::EXCEPTION, types::EXCEPTION),
            ("IDENTITY", &identity, types::IDENTITY),
            ("DRILL", keys::DRILL, types::DRILL),
            ("TOP", keys::TOP, types::TOP),
            ("WEB", keys::WEB, types::WEB),
            ("BEACON", keys::BEACON, types::BEACON),
            ("ADMIN_PAGE", keys::ADMIN_PAGE, types::ADMIN_PAGE),
            ("PROXY", keys::PROXY, types::PROXY),
            ("COMMON", keys::COMMON, types::COMMON),
            ("OWN", &own, types::OWN),
        ];
        let mut missing = Vec::new();
        for (table, known, typed) in tables {
            for key in known.iter().filter(|key| !typed.iter().any(|(typed, _)| typed == *key)) {
                missing.push(format!("\"{key}\" has no type: add (\"{key}\", Type::…) to {table} in src/config/schema/types.rs"));
            }
            for (key, _) in typed.iter().filter(|(typed, _)| !known.contains(typed)) {
                missing.push(format!(
                    "\"{key}\" is no key: add it to {table} of src/config/keys.rs, or take its line out of src/config/schema/types.rs"
                ));
            }
        }
        for section in keys::SECTIONS.iter().filter(|section| section_of(section)["properties"] == section_of("defaults")["properties"]) {
            if *section != "defaults" {
                missing.push(format!("[{section}] has no table: add it to section_of in src/config/schema.rs"));
            }
        }
        assert!(missing.is_empty(), "\n{}", missing.join("\n"));
    }

    #[test]
    fn every_key_is_described_by_the_page() {
        let schema = document(|_| Vocabulary::default());
        let mut bare: Vec<String> = Vec::new();
        let mut look = |at: &str, table: &Value| {
            for (key, schema) in table["properties"].as_object().unwrap() {
                if schema["description"].as_str().is_none_or(str::is_empty) {
                    bare.push(format!("{at}.{key}"));
                }
            }
        };
        look("", &schema);
        look("check", &schema["$defs"]["check"]);
        look("alert", &schema["properties"]["alert"]["items"]);
        look("exception", &schema["properties"]["exception"]["items"]);
        for section in keys::SECTIONS.iter().filter(|s| !["alert", "check", "exception"].contains(s)) {
            look(section, &schema["properties"][section]);
        }
        assert!(bare.is_empty(), "docs/configuration.md has no row for {bare:?}");
        assert_eq!(
            schema["properties"]["linger"]["description"],
            "how long an address that was violated stays probed after DNS last gave it (default `\"1h\"`)"
        );
    }

    #[test]
    fn what_is_too_short_for_three_syns() {
        let pattern = json!({ "pattern": UNDER_THREE_SECONDS });
        let short = |text: &str| jsonschema::is_valid(&pattern, &json!(text));
        for text in ["0s", "2s", "02s", "999ms", "2999ms", "0002999ms", "1ms"] {
            assert!(short(text), "{text}");
        }
        for text in ["3s", "3000ms", "10s", "20s", "12999ms", "1m", "1h", "29999ms"] {
            assert!(!short(text), "{text}");
        }
    }
}
