//! What the value of each key may be, as far as a JSON Schema can say. One line a key; `keys.rs` has the same keys, and a test
//! says which line is missing here.

use serde_json::{Value, json};

use crate::alert::sink::SinkKind;
use crate::exception::{MAX_OWNER, MAX_REASON};
use crate::probe::{Kind, Technique, Variant};
use crate::severity::Severity;
use crate::witness::Proof;

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    /// Any string.
    AnyText,
    /// Any string but the empty one.
    Text,
    /// A string of this form (ECMA-262, which JSON Schema has its patterns from).
    Like(&'static str),
    /// Letters, digits and these signs.
    Name(&'static str),
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// A duration: any, none but zero, or at least a second.
    Duration(Least),
    /// A whole number from the first to the last.
    Number(usize, Option<usize>),
    /// True or false.
    Switch,
    /// A list in which nothing stands twice.
    Set(&'static Type),
    /// The same, and not empty.
    FilledSet(&'static Type),
    /// A line of at most so many characters, and not blank.
    Line(usize),
    /// One, or a list of them.
    OneOrList(&'static Type),
    /// One, or a list of at least one.
    OneOrFilledList(&'static Type),
    /// A string, or a list of at least one of these.
    TextOrFilledList(&'static Type),
    /// An address, or a list of at most one a family.
    OneAFamily(&'static Type),
    /// A port, a string of ports and ranges, or a list of both.
    Ports,
    /// A table of strings whose names are like the first and none of the second; at most so many.
    Strings(&'static str, &'static [&'static str], Option<usize>),
    /// A table that is not empty, of names like this and values of one type.
    Table(&'static str, &'static Type),
}

/// The least that a duration may be.
#[derive(Debug, Clone, Copy)]
pub enum Least {
    /// Nothing at all.
    Zero,
    /// A millisecond.
    Some,
    /// A second.
    Second,
}

/// A key and what its value may be.
pub type Row = (&'static str, Type);

/// Something from the environment stands in the string, so that nothing else can be said of it.
const FROM_ENVIRONMENT: &str = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}";

macro_rules! v4 {
    () => {
        r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    };
}
macro_rules! v6 {
    () => {
        r"(?=[^\]/]*:)[0-9A-Fa-f:.]{2,}"
    };
}
macro_rules! port {
    () => {
        r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    };
}
macro_rules! name_or_literal {
    () => {
        concat!(r"(?:\[", v6!(), r"\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)")
    };
}
/// Neither multicast, nor the broadcast address, nor link-local: those are not one host.
macro_rules! host {
    () => {
        concat!(
            r"(?!(?:(?:22[4-9]|23[0-9])\.[0-9]+\.[0-9]+\.[0-9]+|255\.255\.255\.255)(?![A-Za-z0-9_.-])|\[[Ff][Ff][0-9A-Fa-f]{2}:|\[[Ff][Ee][89ABab])",
            name_or_literal!()
        )
    };
}
macro_rules! url {
    ($scheme:expr, $rest:expr) => {
        concat!($scheme, "://", host!(), "(?::", port!(), ")?", $rest)
    };
}
/// Visible ASCII behind the authority, without a fragment.
macro_rules! path_and_query {
    () => {
        r#"(?:[/?][!"$-~]*)?"#
    };
}
macro_rules! path {
    () => {
        r#"(?:/[!"$->@-~]*)?"#
    };
}

const ADDRESS: Type = Type::Like(concat!(r"(?!0\.0\.0\.0$|(?:22[4-9]|23[0-9])\.|::$|[Ff][Ff][0-9A-Fa-f]{2}:)(?:", v4!(), "|", v6!(), ")"));
const DECOY: Type =
    Type::Like(concat!(r"(?!127\.|::1$|0\.0\.0\.0$|(?:22[4-9]|23[0-9])\.|::$|[Ff][Ff][0-9A-Fa-f]{2}:)(?:", v4!(), "|", v6!(), ")"));
const NETWORK: Type = Type::Like(concat!("(?:", v4!(), "(?:/(?:3[0-2]|[12]?[0-9]))?|", v6!(), "(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)"));
const LISTEN: Type = Type::Like(concat!("(?:", v4!(), r"|\[", v6!(), r"(?:%[0-9]+)?\]):(?:0|", port!(), ")"));
const DOOR: Type = Type::Like(concat!(r"(?!0\.0\.0\.0:)", v4!(), ":", port!()));
const HOST: Type = Type::Like(concat!("(?:", v6!(), "|", name_or_literal!(), ")"));
const HOST_PORT: Type = Type::Like(concat!(host!(), ":", port!()));
const RESOLVER: Type =
    Type::Like(concat!(r"(?:system|", v4!(), "(?::", port!(), ")?|", v6!(), r"|\[", v6!(), r"(?:%[0-9]+)?\]:", port!(), ")"));
const URL: Type = Type::Like(url!("[Hh][Tt][Tt][Pp][Ss]?", path_and_query!()));
const BASE_URL: Type = Type::Like(url!("[Hh][Tt][Tt][Pp][Ss]?", path!()));
const BEACON_URL: Type = Type::Like(url!("[Hh][Tt][Tt][Pp]", path!()));
const VIA: Type = Type::Like(concat!("http://", host!(), ":", port!(), "/?"));
const USER: Type = Type::Like(r"[^:\x00-\x1f\x7f]+");
const METHOD: Type = Type::Like("(?!CONNECT$)[A-Z_-]+");
const LIST_AT: Type = Type::Like(concat!("(?:", url!("[Hh][Tt][Tt][Pp][Ss]?", path_and_query!()), "|file:(?:///.*|(?!//).+))"));
/// RFC 6901.
const POINTER: Type = Type::Like("(?:/(?:[^~/]|~[01])*)*");
const FILE: Type = Type::Text;
/// A form that no text has, so that only what comes from the environment will do.
const FROM_ENVIRONMENT_ALONE: Type = Type::Like(r"[^\s\S]");
const BCRYPT: Type = Type::Like(r"\$2[abxy]\$(?:0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}");
const BUDGET: Type = Type::Like(r"[0-9]{1,12}(?:\.[0-9]{1,12})?(?:B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)/[mhd]");

/// The top level's own keys.
pub const TOP: &[Row] = &[
    ("vantage", Type::Name("_.-")),
    ("witness_window", Type::Duration(Least::Second)),
    ("linger", Type::Duration(Least::Zero)),
    ("decoy", Type::OneAFamily(&DECOY)),
    ("state_dir", FILE),
    ("shutdown_grace", Type::Duration(Least::Zero)),
];
/// Keys of `[web]`.
pub const WEB: &[Row] = &[
    ("listen", LISTEN),
    ("cert_file", FILE),
    ("key_file", FILE),
    ("client_ca_file", FILE),
    ("basic_auth", Type::Table(r"[^:\x00-\x1f\x7f]+", &BCRYPT)),
];
/// Keys of `[beacon]`.
pub const BEACON: &[Row] = &[("listen", Type::OneOrList(&LISTEN)), ("key_file", FILE)];
/// Keys of `[admin_page]`.
pub const ADMIN_PAGE: &[Row] = &[("listen", LISTEN), ("allow_from", Type::OneOrList(&NETWORK)), ("door", DOOR)];
/// Keys of `[[exception]]`.
pub const EXCEPTION: &[Row] = &[
    ("check", Type::Name("_-")),
    ("target", Type::AnyText),
    ("reason", Type::Line(MAX_REASON)),
    ("owner", Type::Line(MAX_OWNER)),
    // A date of TOML's own comes to an editor as a string, with a space for the T where it is written so.
    ("until", Type::Like(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ].+)?")),
];
/// Keys of `[drill]`.
pub const DRILL: &[Row] = &[("interval", Type::Duration(Least::Second))];
/// Keys of `[evidence]`.
pub const EVIDENCE: &[Row] = &[
    ("follow", Type::OneOrFilledList(&FILE)),
    ("flow_format", Type::Like(r"\s*[a-z0-9${}-]+(?:\s+[a-z0-9${}-]+)*\s*")),
    ("clock_skew", Type::Duration(Least::Zero)),
    ("keep", Type::Duration(Least::Second)),
    ("translated", Type::Table(r"[0-9A-Fa-f:.]+", &Type::OneOrFilledList(&ADDRESS))),
    ("own_interfaces", Type::OneOrList(&Type::Like("eni-[0-9a-f]+"))),
];
/// Keys of every `[[alert]]`.
pub const ALERT: &[Row] = &[
    ("name", Type::Name("_-")),
    ("kind", Type::Word(|| SinkKind::ALL.map(SinkKind::token).to_vec())),
    ("timeout", Type::Duration(Least::Some)),
    ("ca_file", FILE),
];
/// Keys of some kinds of sink only.
pub const ALERT_OWN: &[Row] = &[
    ("min_severity", Type::Word(|| Severity::ALL.map(Severity::token).to_vec())),
    ("only", Type::OneOrFilledList(&Type::Like("(?:tag:[A-Za-z0-9_.-]+|[A-Za-z0-9_-]+)"))),
    ("unproven_for", Type::Duration(Least::Zero)),
    ("stale_for", Type::Duration(Least::Zero)),
    ("keep_firing_for", Type::Duration(Least::Zero)),
    ("repeat_interval", Type::Duration(Least::Second)),
    ("labels", Type::Strings("(?!__)[a-z_][a-z0-9_]*", &super::super::value::RESERVED_LABELS, Some(super::super::written::MAX_LABELS))),
    ("url", Type::OneOrFilledList(&URL)),
    ("url_file", FILE),
    ("routing_key", FROM_ENVIRONMENT_ALONE),
    ("routing_key_file", FILE),
    ("api_key", FROM_ENVIRONMENT_ALONE),
    ("api_key_file", FILE),
    ("body", Type::Text),
    ("content_type", Type::Like("[^;/]+/[^;/]+(?:;.*)?")),
    ("headers", Type::Strings("[A-Za-z0-9!#$%&'*+.^_`|~-]+", &super::super::sections::OWN_HEADERS, None)),
    ("user", USER),
    ("password_file", FILE),
    ("bearer_token_file", FILE),
    ("interval", Type::Duration(Least::Second)),
];
/// Keys of a check that may not stand in `[defaults]`, besides `expect`.
pub const IDENTITY: &[Row] = &[
    ("name", Type::Name("_-")),
    ("kind", Type::Word(|| Kind::ALL.iter().map(|kind| kind.token()).collect())),
    ("target", Type::Text),
    ("targets", Type::FilledSet(&Type::Text)),
    ("targets_from", Type::OneOrFilledList(&FILE)),
    ("target_labels", Type::Set(&Type::Like("(?!__)[a-z_][a-z0-9_]*"))),
];
/// Keys of `[proxy]`.
pub const PROXY: &[Row] = &[
    ("listen", Type::OneOrFilledList(&LISTEN)),
    ("egress", Type::OneAFamily(&ADDRESS)),
    ("allow_from", Type::OneOrList(&NETWORK)),
    ("proxy_protocol_from", Type::OneOrList(&NETWORK)),
    ("connect_ports", Type::Ports),
    ("http_ports", Type::Ports),
    ("allow_private", Type::OneOrList(&NETWORK)),
    ("deny_to", Type::OneOrList(&Type::Text)),
    ("allow_to", Type::OneOrList(&Type::Text)),
    ("header_timeout", Type::Duration(Least::Some)),
    ("connect_timeout", Type::Duration(Least::Some)),
    ("idle_timeout", Type::Duration(Least::Some)),
    ("half_open_timeout", Type::Duration(Least::Some)),
    ("lifetime", Type::Duration(Least::Some)),
    ("max_connections", Type::Number(1, None)),
    ("max_per_client", Type::Number(1, None)),
    ("max_head", Type::Number(1024, Some(1_048_576))),
    ("access_log", FILE),
    ("access_log_format", Type::Word(|| vec!["squid", "combined", "json"])),
    ("egress_budget", BUDGET),
    ("drain", Type::Duration(Least::Zero)),
    ("drain_lead", Type::Duration(Least::Zero)),
    ("health_listen", Type::OneOrList(&LISTEN)),
];
/// Keys of every check that may stand in `[defaults]`.
pub const COMMON: &[Row] = &[
    ("witness", Type::Set(&Type::AnyText)),
    ("require", Type::Set(&Type::Word(|| Proof::ALL.map(Proof::token).to_vec()))),
    ("interval", Type::Duration(Least::Second)),
    ("timeout", Type::Duration(Least::Some)),
    ("attempts", Type::Number(1, Some(10))),
    ("families", Type::FilledSet(&Type::Word(|| vec!["ipv4", "ipv6"]))),
    ("source", ADDRESS),
    ("resolver", RESOLVER),
    ("severity", Type::Word(|| Severity::ALL.map(Severity::token).to_vec())),
    ("runbook", Type::Text),
    ("description", Type::AnyText),
    ("labels", Type::Strings("(?!__)[a-z_][a-z0-9_]*", &super::super::value::RESERVED_LABELS, Some(super::super::written::MAX_LABELS))),
    ("tags", Type::Set(&Type::Name("_.-"))),
];
/// Keys of some kinds of check only.
pub const OWN: &[Row] = &[
    ("via", VIA),
    ("via_method", Type::Word(|| vec!["connect", "absolute"])),
    ("via_user", USER),
    ("via_password_file", FILE),
    ("method", METHOD),
    ("headers", Type::Strings("[A-Za-z0-9!#$%&'*+.^_`|~-]+", &super::super::sections::OWN_HEADERS, None)),
    ("body_contains", Type::Text),
    ("follow_redirects", Type::Switch),
    ("server_name", HOST),
    ("ca_file", FILE),
    ("client_cert_file", FILE),
    ("client_key_file", FILE),
    ("alpn", Type::FilledSet(&Type::Text)),
    ("min_version", Type::Word(|| vec!["1.2", "1.3"])),
    ("max_version", Type::Word(|| vec!["1.0", "1.1", "1.2", "1.3"])),
    ("check", Type::Name("_-")),
    ("max_age", Type::Duration(Least::Second)),
    ("user", USER),
    ("password_file", FILE),
    ("beacon", Type::OneOrFilledList(&BEACON_URL)),
    (
        "techniques",
        Type::OneOrFilledList(&Type::Word(|| ["standard", "quick"].into_iter().chain(Technique::ALL.iter().map(|t| t.id())).collect())),
    ),
    ("spoof", Type::OneOrList(&NETWORK)),
    ("allowed_destination", HOST_PORT),
    ("ports", Type::Ports),
    ("except", Type::Ports),
    ("open", Type::Ports),
    ("rate", Type::Number(1, Some(1_000_000))),
    ("deny_location", Type::OneOrFilledList(&URL)),
    ("http_version", Type::Word(|| vec!["1.1", "2"])),
    (
        "variants",
        Type::OneOrFilledList(&Type::Word(|| ["standard"].into_iter().chain(Variant::numbers()).chain(Variant::names()).collect())),
    ),
    ("query", Type::Text),
    ("client_certs", Type::FilledSet(&Type::Word(|| vec!["none", "self-signed"]))),
    ("certificate_sha256", Type::OneOrFilledList(&Type::Text)),
    ("payload", Type::Text),
    ("record", Type::OneOrFilledList(&Type::Text)),
    (
        "server",
        Type::OneOrFilledList(&Type::Like(concat!(
            "(?:",
            v4!(),
            "(?::",
            port!(),
            ")?|",
            v6!(),
            r"|\[",
            v6!(),
            r"(?:%[0-9]+)?\](?::",
            port!(),
            ")?)"
        ))),
    ),
    ("answers", Type::OneOrFilledList(&Type::Text)),
    ("expected", Type::TextOrFilledList(&NETWORK)),
    ("expected_pointer", Type::OneOrFilledList(&POINTER)),
    ("pointer", Type::OneOrFilledList(&POINTER)),
    ("where", Type::Strings(r"[\s\S]+", &[], Some(super::super::sections::WHERES))),
    ("only", Type::Word(|| vec!["ipv4", "ipv6"])),
    ("besides", Type::OneOrFilledList(&NETWORK)),
    ("template", Type::Switch),
    ("allow_targets", Type::OneOrFilledList(&NETWORK)),
];
/// Keys that cannot be left out, by table; `""` is the top level.
pub const REQUIRED: &[(&str, &[&str])] = &[
    ("", &["vantage"]),
    ("web", &["listen"]),
    ("beacon", &["key_file"]),
    ("proxy", &["listen"]),
    ("admin_page", &["listen"]),
    ("drill", &["interval"]),
    ("exception", &["check", "reason", "owner", "until"]),
];
/// What makes no sense without the others, in a check.
pub const TOGETHER: &[(&str, &[&str])] = &[
    ("via_method", &["via"]),
    ("via_user", &["via", "via_password_file"]),
    ("via_password_file", &["via", "via_user"]),
    ("client_cert_file", &["client_key_file"]),
    ("client_key_file", &["client_cert_file"]),
    ("target_labels", &["targets_from"]),
    ("allow_targets", &["template"]),
    ("user", &["password_file"]),
    ("password_file", &["user"]),
];

/// The same in `[web]`.
pub const TOGETHER_IN_WEB: &[(&str, &[&str])] =
    &[("cert_file", &["key_file"]), ("key_file", &["cert_file"]), ("client_ca_file", &["cert_file", "key_file"])];

/// What a kind's `target` may be.
pub fn target(kind: Kind) -> Type {
    match kind {
        Kind::Tcp | Kind::Tls | Kind::Udp | Kind::OpenProxy => HOST_PORT,
        // A host, a network, a name: forms that say little.
        Kind::Ports => Type::Like("[^/@ ]+(?:/[0-9]+)?"),
        Kind::Icmp | Kind::Dns => Type::Text,
        Kind::Http => URL,
        Kind::EgressIp => BEACON_URL,
        Kind::Peer | Kind::PromQl => BASE_URL,
        Kind::Ranges => LIST_AT,
    }
}

/// A kind's own keys that cannot be left out.
pub fn required(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Peer => &["check"],
        Kind::PromQl => &["query"],
        Kind::Ports => &["ports"],
        Kind::OpenProxy => &["beacon"],
        Kind::Ranges => &["expected"],
        _ => &[],
    }
}

/// What `{ ip = … }` of `expect` may be.
pub const EGRESS: Type = Type::OneOrFilledList(&NETWORK);

impl Type {
    /// The type as a schema.
    pub fn schema(self) -> Value {
        match self {
            Type::AnyText => json!({ "type": "string" }),
            Type::Text => json!({ "type": "string", "minLength": 1 }),
            Type::Like(form) => like(form),
            Type::Line(most) => {
                json!({ "type": "string", "pattern": r"^[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f \t][^\x00-\x1f\x7f]*$", "maxLength": most })
            }
            Type::Name(signs) => like(&format!("[A-Za-z0-9{signs}]+")),
            Type::Word(words) => json!({ "anyOf": [{ "enum": words() }, from_environment()] }),
            Type::Duration(Least::Zero) => like("[0-9]+(?:ms|s|m|h)"),
            Type::Duration(Least::Some) => like("0*[1-9][0-9]*(?:ms|s|m|h)"),
            Type::Duration(Least::Second) => like("0*[1-9][0-9]*(?:s|m|h|[0-9]{3}ms)"),
            Type::Number(least, None) => json!({ "type": "integer", "minimum": least }),
            Type::Number(least, Some(most)) => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Type::Switch => json!({ "type": "boolean" }),
            Type::Set(item) => json!({ "type": "array", "items": item.schema(), "uniqueItems": true }),
            Type::FilledSet(item) => json!({ "type": "array", "items": item.schema(), "uniqueItems": true, "minItems": 1 }),
            Type::OneOrList(item) => one_or(item, json!({ "type": "array", "items": item.schema() })),
            Type::OneOrFilledList(item) => one_or(item, json!({ "type": "array", "items": item.schema(), "minItems": 1 })),
            Type::TextOrFilledList(item) => {
                json!({ "anyOf": [Type::Text.schema(), { "type": "array", "items": item.schema(), "minItems": 1 }] })
            }
            Type::OneAFamily(item) => one_or(item, one_a_family(item)),
            Type::Table(name, of) => json!({
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": format!("^{name}$") },
                "additionalProperties": of.schema(),
            }),
            Type::Ports => {
                let entry = json!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65535 }, like(PORTS)] });
                json!({ "anyOf": [entry, { "type": "array", "items": entry }] })
            }
            Type::Strings(name, reserved, most) => {
                let reserved: Vec<String> = reserved.iter().map(|word| case_blind(word)).collect();
                let names = format!("^(?!(?:{})$){name}$", reserved.join("|"));
                let table =
                    json!({ "type": "object", "propertyNames": { "pattern": names }, "additionalProperties": { "type": "string" } });
                match most {
                    Some(most) => with(table, "maxProperties", json!(most)),
                    None => table,
                }
            }
        }
    }
}

/// Ports and ranges, with commas between.
const PORTS: &str = concat!(r" *", port!(), "(?:-", port!(), ")?(?: *, *", port!(), "(?:-", port!(), ")?)* *");

/// A string of this form, or one in which something from the environment stands.
fn like(form: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{form}$|{FROM_ENVIRONMENT}") })
}

/// A string in which something from the environment stands.
pub fn from_environment() -> Value {
    json!({ "type": "string", "pattern": FROM_ENVIRONMENT })
}

fn one_or(item: &Type, list: Value) -> Value {
    json!({ "anyOf": [item.schema(), list] })
}

/// At most two, and not two of one family. (`maxContains` would say it shorter, and editors that know older drafts get it wrong.)
fn one_a_family(item: &Type) -> Value {
    let two_of = |form: &str| json!({ "minItems": 2, "items": { "type": "string", "pattern": form } });
    json!({ "type": "array", "items": item.schema(), "maxItems": 2, "not": { "anyOf": [two_of("^[0-9.]+$"), two_of("^[^$]*:")] } })
}

/// A pattern for the word whatever its case.
fn case_blind(word: &str) -> String {
    word.chars().map(|c| if c.is_ascii_alphabetic() { format!("[{}{c}]", c.to_ascii_uppercase()) } else { c.to_string() }).collect()
}

/// The object with one more member.
pub fn with(mut object: Value, key: &str, value: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.insert(key.into(), value);
    }
    object
}
