//! SOCKS; what is no proxy at all; what is kept out below TCP; what cannot be told.

use super::{Entry, NOBODY, Part, SOCKS4, SOCKS5, TUNNEL, closed, open, quiet, silent, unprovable};

/// What every dante here has.
pub const DANTE: &str = "logoutput: {dir}/{name}-socks.log
internal: {ip} port = {port}
external: 10.0.0.3
clientmethod: none
user.privileged: root
user.unprivileged: nobody
";

pub const SOCKS: &[Entry] = &[
    closed(
        "dante-clients-of-the-office",
        SOCKS5,
        &[(
            Part::Dante,
            "socksmethod: none\nclient pass { from: 198.51.100.10/32 to: 0.0.0.0/0 }\nclient pass { from: 198.51.100.67/32 to: 0.0.0.0/0 }\n\
             client block { from: 0.0.0.0/0 to: 0.0.0.0/0 }\nsocks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }",
        )],
    ),
    closed(
        "dante-rules-for-the-office",
        SOCKS5,
        &[(
            Part::Dante,
            "socksmethod: none\nclient pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\nsocks pass { from: 198.51.100.10/32 to: 0.0.0.0/0 }\n\
             socks pass { from: 198.51.100.67/32 to: 0.0.0.0/0 }\nsocks block { from: 0.0.0.0/0 to: 0.0.0.0/0 }",
        )],
    ),
    closed(
        "microsocks-password",
        "curl -sS -m 6 --interface {from} --socks5-hostname {at} -U known:word-{from} http://site.lab.test/",
        &[(Part::Microsocks, "-i {ip} -p {port} -u known -P word-198.51.100.67")],
    ),
    closed(
        "dante-version-4-for-the-office",
        SOCKS4,
        &[(
            Part::Dante,
            "socksmethod: none\nclient pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n\
             socks pass { from: 198.51.100.67/32 to: 0.0.0.0/0 proxyprotocol: socks_v4 }\nsocks block { from: 0.0.0.0/0 to: 0.0.0.0/0 }",
        )],
    ),
    open("microsocks-for-everybody", SOCKS5, &["OP-18"], &[(Part::Microsocks, "-i {ip} -p {port}")]),
    open(
        "dante-for-everybody",
        SOCKS5,
        &["OP-18", "OP-20"],
        &[(Part::Dante, "socksmethod: none\nclient pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\nsocks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }")],
    ),
    open(
        "dante-version-4-for-everybody",
        SOCKS4,
        &["OP-20"],
        &[(
            Part::Dante,
            "socksmethod: none\nclient pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\nsocks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 proxyprotocol: socks_v4 }",
        )],
    ),
    open("ssh-dynamic-forward", SOCKS5, &["OP-18", "OP-20"], &[(Part::Ssh, "")]),
    closed("ssh-dynamic-forward-that-may-not", NOBODY, &[(Part::Ssh, "AllowTcpForwarding no")]),
];

pub const NO_PROXIES: &[Entry] = &[
    quiet("web-app-that-says-200-to-connect", NOBODY, &[(Part::Peer, "site {at}")]),
    quiet("echo", NOBODY, &[(Part::Peer, "echo {at}")]),
    quiet("mirror-in-a-200", NOBODY, &[(Part::Peer, "mirror {at}")]),
    closed("accepts-and-hangs-up", NOBODY, &[(Part::Peer, "close {at}")]),
    closed("accepts-and-resets", NOBODY, &[(Part::Peer, "reset {at}")]),
    closed("ssh-server", NOBODY, &[(Part::Peer, "banner {at}")]),
    unprovable("accepts-and-is-silent", NOBODY, &[(Part::Peer, "hold {at}")]),
    // ---- below TCP: whatever stands behind, nobody of the strangers gets there ---------------------------------------
    closed(
        "open-squid-behind-a-firewall-that-drops",
        TUNNEL,
        &[
            (Part::Squid, "http_port {at}\nhttp_access allow all"),
            (Part::Edge, "ip daddr {ip} tcp dport {port} ip saddr != 198.51.100.67 drop"),
        ],
    ),
    closed(
        "open-squid-behind-a-firewall-that-prohibits",
        TUNNEL,
        &[
            (Part::Squid, "http_port {at}\nhttp_access allow all"),
            (Part::Edge, "ip daddr {ip} tcp dport {port} ip saddr != 198.51.100.67 reject with icmp type admin-prohibited"),
        ],
    ),
    closed(
        "open-squid-behind-a-firewall-that-resets",
        TUNNEL,
        &[
            (Part::Squid, "http_port {at}\nhttp_access allow all"),
            (Part::Edge, "ip daddr {ip} tcp dport {port} ip saddr != 198.51.100.67 reject with tcp reset"),
        ],
    ),
    silent("nobody-listens", &[]),
    silent("dead-host", &[(Part::Edge, "ip daddr {ip} tcp dport {port} drop")]),
];
