//! Peers that mean harm: relays that hide what they do, and listeners that would deceive, exhaust or hold up the monitor.

use super::{Entry, NOBODY, Part, UNSEEN, open, quiet};

/// A relay that lies about it. Every way in shows it.
const fn liar(name: &'static str, parts: &'static [(Part, &'static str)]) -> Entry {
    open(name, UNSEEN, &["OP-01", "OP-02", "OP-09"], parts)
}

/// No relay, whatever it says.
const fn bluff(name: &'static str, parts: &'static [(Part, &'static str)]) -> Entry {
    quiet(name, NOBODY, parts)
}

/// What the others of this hall replay is signed through this one: an honest open relay.
pub const RECORDER: &[Entry] = &[liar("relays-and-records", &[(Part::Peer, "relays_and_records {at}")])];

pub const HARM: &[Entry] = &[
    liar("relays-and-denies", &[(Part::Peer, "relays_and_denies {at}")]),
    liar("relays-and-is-silent", &[(Part::Peer, "relays_and_is_silent {at}")]),
    liar("relays-and-resets", &[(Part::Peer, "relays_and_resets {at}")]),
    liar("relays-and-answers-late", &[(Part::Peer, "relays_and_answers_late {at}")]),
    liar("relays-byte-by-byte", &[(Part::Peer, "relays_byte_by_byte {at}")]),
    liar("relays-behind-interim-answers", &[(Part::Peer, "relays_behind_interim_answers {at}")]),
    bluff("endless-line", &[(Part::Peer, "endless_line {at}")]),
    bluff("endless-header", &[(Part::Peer, "endless_header {at}")]),
    bluff("endless-headers", &[(Part::Peer, "endless_headers {at}")]),
    bluff("endless-interim", &[(Part::Peer, "endless_interim {at}")]),
    bluff("endless-body", &[(Part::Peer, "endless_body {at}")]),
    bluff("endless-zeros", &[(Part::Peer, "endless_zeros {at}")]),
    bluff("endless-pages", &[(Part::Peer, "endless_pages {at}")]),
    bluff("pours-before-it-is-asked", &[(Part::Peer, "pours_before_it_is_asked {at}")]),
    bluff("drips-what-looks-signed", &[(Part::Peer, "drips_what_looks_signed {at}")]),
    bluff("drips-a-head", &[(Part::Peer, "drips_a_head {at}")]),
    bluff("tarpit", &[(Part::Peer, "tarpit {at}")]),
    bluff("half-an-answer", &[(Part::Peer, "half_an_answer {at}")]),
    bluff("half-an-answer-and-silence", &[(Part::Peer, "half_an_answer_and_silence {at}")]),
    bluff("half-an-answer-and-reset", &[(Part::Peer, "half_an_answer_and_reset {at}")]),
    bluff("grants-and-echoes", &[(Part::Peer, "grants_and_echoes {at}")]),
    bluff("grants-and-pours", &[(Part::Peer, "grants_and_pours {at}")]),
    bluff("grants-and-is-silent", &[(Part::Peer, "grants_and_is_silent {at}")]),
    bluff("grants-socks-4-and-echoes", &[(Part::Peer, "grants_socks_4_and_echoes {at}")]),
    bluff("replays-what-the-beacon-signed", &[(Part::Peer, "replays {at}")]),
    bluff("forges-what-the-beacon-signs", &[(Part::Peer, "forges {at}")]),
    bluff("says-nonsense", &[(Part::Peer, "says_nonsense {at}")]),
    bluff("says-other-nonsense", &[(Part::Peer, "says_nonsense {at}")]),
    bluff("says-more-nonsense", &[(Part::Peer, "says_nonsense {at}")]),
];

/// These say yes to SOCKS BIND and UDP ASSOCIATE, and to everything else. That word alone shows nothing.
pub const BOASTERS: &[Entry] = &[
    bluff("grants-socks-and-echoes", &[(Part::Peer, "grants_socks_and_echoes {at}")]),
    bluff("grants-socks-by-endless-name", &[(Part::Peer, "grants_socks_by_endless_name {at}")]),
];
