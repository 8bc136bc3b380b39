//! Squid, as it is met in the field. Where `deny all` is missing at the end, that is the mistake.

use super::{Entry, GET, NOBODY, ORIGIN, Part, TUNNEL, UNSEEN, closed, hidden, open, quiet, unprovable};

/// What every Squid here has; the setups follow it.
pub const HEAD: &str = "visible_hostname proxy.lab.test
pid_filename none
pinger_enable off
cache deny all
cache_mem 1 MB
memory_pools off
max_filedescriptors 1024
shutdown_lifetime 0 seconds
connect_timeout 3 seconds
dns_nameservers 198.51.100.20
hosts_file none
cache_log {dir}/{name}-cache.log
access_log stdio:{dir}/{name}-access.log
netdb_filename none
coredump_dir none
acl office src 198.51.100.10 198.51.100.67
acl tunnel_ports port 443 9891
acl CONNECT method CONNECT
";

/// The textbook: only the office, only tunnels, only to two ports.
pub const TEXTBOOK: &str = "http_port {at}
http_access deny !office
http_access deny CONNECT !tunnel_ports
http_access deny !CONNECT
http_access allow office
http_access deny all";

/// As it stands behind a balancer: whoever comes from a private address is one of us.
const PRIVATE: &str = "http_port {back}
acl localnet src 10.0.0.0/8
http_access allow localnet
http_access deny all";

pub const SQUIDS: &[Entry] = &[
    closed("squid-textbook", TUNNEL, &[(Part::Squid, TEXTBOOK)]),
    // Such a denial is no `denied`, so nothing excuses the silence about a SOCKS greeting.
    quiet(
        "squid-denial-is-a-302",
        TUNNEL,
        &[(
            Part::Squid,
            "http_port {at}\ndeny_info 302:http://help.lab.test/denied office\nhttp_access deny !office\nhttp_access allow office\nhttp_access deny all",
        )],
    ),
    quiet(
        "squid-denial-is-a-307",
        TUNNEL,
        &[(
            Part::Squid,
            "http_port {at}\ndeny_info 307:http://help.lab.test/%u office\nhttp_access deny !office\nhttp_access allow office\nhttp_access deny all",
        )],
    ),
    closed(
        "squid-denial-is-a-reset",
        TUNNEL,
        &[(
            Part::Squid,
            "http_port {at}\ndeny_info TCP_RESET office\nhttp_access deny !office\nhttp_access allow office\nhttp_access deny all",
        )],
    ),
    closed(
        "squid-password",
        "curl -sS -m 6 --interface {from} -x http://{at} -U known:word-{from} http://site.lab.test/",
        &[(
            Part::Squid,
            "http_port {at}\nauth_param basic program /usr/lib/squid/basic_ncsa_auth {dir}/passwords\nauth_param basic realm lab\n\
             acl known proxy_auth REQUIRED\nhttp_access deny !known\nhttp_access allow known\nhttp_access deny all",
        )],
    ),
    closed(
        "squid-forwarded-for-of-our-balancer",
        TUNNEL,
        &[(
            Part::Squid,
            "http_port {at}\nacl balancer src 10.0.0.0/8\nfollow_x_forwarded_for allow balancer\nfollow_x_forwarded_for deny all\n\
             http_access allow office\nhttp_access deny all",
        )],
    ),
    closed(
        "squid-proxy-header-from-our-balancer",
        NOBODY,
        &[(
            Part::Squid,
            "http_port {at} require-proxy-header\nacl balancer src 10.0.0.0/8\nproxy_protocol_access allow balancer\n\
             http_access allow office\nhttp_access deny all",
        )],
    ),
    closed(
        "squid-accelerator-of-one-site",
        NOBODY,
        &[
            (
                Part::Squid,
                "http_port {at} accel defaultsite=shop.lab.test no-vhost\ncache_peer 10.0.0.3 parent {backport} 0 no-query originserver\nhttp_access deny manager\nhttp_access allow all\nnever_direct allow all",
            ),
            (Part::Peer, "site {back}"),
        ],
    ),
    closed(
        "squid-behind-a-forwarder-that-tells-who-asks",
        TUNNEL,
        &[
            (
                Part::Squid,
                "http_port {back} require-proxy-header\nacl balancer src 10.0.0.3\nproxy_protocol_access allow balancer\nhttp_access allow office\nhttp_access deny all",
            ),
            (Part::Haproxy, "listen front\n bind {at}\n mode tcp\n server squid {back} source 10.0.0.3 send-proxy"),
        ],
    ),
    // ---- open ------------------------------------------------------------------------------------------------------
    open(
        "squid-broad-source",
        TUNNEL,
        &["OP-01", "OP-02"],
        &[(Part::Squid, "http_port {at}\nacl localnet src 0.0.0.0/0\nhttp_access allow localnet\nhttp_access deny all")],
    ),
    open(
        "squid-connect-for-everybody",
        TUNNEL,
        &["OP-01"],
        &[(
            Part::Squid,
            "http_port {at}\nhttp_access deny CONNECT !tunnel_ports\nhttp_access deny !CONNECT !office\nacl partners src 198.51.100.0/24\n\
             http_access allow partners\nhttp_access deny all",
        )],
    ),
    open("squid-get-for-everybody", GET, &["OP-02"], &[(Part::Squid, "http_port {at}\nhttp_access deny CONNECT\nhttp_access allow all")]),
    open(
        "squid-no-deny-at-the-end",
        GET,
        &["OP-02"],
        &[(Part::Squid, "http_port {at}\nhttp_access allow office\nhttp_access deny CONNECT !tunnel_ports")],
    ),
    open(
        "squid-any-source-to-a-list",
        TUNNEL,
        &["OP-07"],
        &[(
            Part::Squid,
            "http_port {at}\nacl listed dstdomain site.lab.test\nhttp_access allow listed\nhttp_access allow office\nhttp_access deny all",
        )],
    ),
    open(
        "squid-believes-forwarded-for",
        "curl -sS -m 6 --interface {from} -x http://{at} -H 'X-Forwarded-For: 198.51.100.10' http://site.lab.test/",
        &["OP-26"],
        &[(Part::Squid, "http_port {at}\nfollow_x_forwarded_for allow all\nhttp_access allow office\nhttp_access deny all")],
    ),
    open(
        "squid-believes-proxy-header",
        "printf 'PROXY TCP4 198.51.100.10 203.0.113.3 5555 3128\\r\\nGET http://site.lab.test/ HTTP/1.1\\r\\nHost: site.lab.test\\r\\nConnection: close\\r\\n\\r\\n' | nc -w 5 -s {from} {ip} {port}",
        &["OP-23"],
        &[(
            Part::Squid,
            "http_port {at} require-proxy-header\nproxy_protocol_access allow all\nhttp_access allow office\nhttp_access deny all",
        )],
    ),
    open(
        "squid-behind-a-forwarder",
        TUNNEL,
        &["OP-01", "OP-02"],
        &[(Part::Squid, PRIVATE), (Part::Socat, "TCP-LISTEN:{port},bind={ip},fork,reuseaddr TCP:{back},bind=10.0.0.3")],
    ),
    open(
        "squid-behind-nginx-stream",
        TUNNEL,
        &["OP-01", "OP-02"],
        &[(Part::Squid, PRIVATE), (Part::Nginx, "stream { server { listen {at}; proxy_bind 10.0.0.3; proxy_pass {back}; } }")],
    ),
    open(
        "squid-transparent",
        ORIGIN,
        &["OP-09"],
        &[(
            Part::Squid,
            "http_port {at} accel vhost allow-direct\nhttp_access deny CONNECT\nhttp_access allow all\nalways_direct allow all",
        )],
    ),
    open(
        "squid-forgets-the-way-back",
        UNSEEN,
        &["OP-02"],
        &[(
            Part::Squid,
            "http_port {at}\nhttp_access deny CONNECT\nhttp_access allow all\nhttp_reply_access allow office\nhttp_reply_access deny all",
        )],
    ),
    open(
        "squid-lets-in-but-cannot-dial",
        "curl -sS -m 6 --interface {from} -D - -x http://{at} http://site.lab.test/ | grep ERR_CONNECT_FAIL | sed 's/.*/the admin page of lab.test/'",
        &["OP-01", "OP-02"],
        &[
            (Part::Squid, "http_port {at}\ntcp_outgoing_address 10.0.0.4\nhttp_access allow all"),
            (Part::Own, "ip saddr 10.0.0.4 tcp flags syn reject with tcp reset"),
        ],
    ),
    open(
        "squid-other-methods",
        "curl -sS -m 6 --interface {from} -X OPTIONS -x http://{at} http://site.lab.test/",
        &["OP-03"],
        &[(Part::Squid, "http_port {at}\nacl usual method GET POST CONNECT\nhttp_access deny usual !office\nhttp_access allow all")],
    ),
    open(
        "squid-high-ports",
        "curl -sS -m 6 --interface {from} -x http://{at} http://site.lab.test:8080/",
        &["OP-02"],
        &[(Part::Squid, "http_port {at}\nacl high port 1025-65535\nhttp_access allow office\nhttp_access deny CONNECT\nhttp_access allow high\nhttp_access deny all")],
    ),
    open(
        "squid-tunnels-to-mail",
        "curl -sS -m 6 --interface {from} -p -x http://{at} http://site.lab.test:25/",
        &["OP-06"],
        &[(Part::Squid, "http_port {at}\nacl mail port 25\nhttp_access allow office\nhttp_access allow CONNECT mail\nhttp_access deny all")],
    ),
    open(
        "squid-names-alone",
        TUNNEL,
        &["OP-01", "OP-02"],
        &[(Part::Squid, "http_port {at}\nacl literal dstdom_regex -n ^[0-9.]+$\nhttp_access deny literal !office\nhttp_access allow all")],
    ),
    open(
        "squid-literals-past-the-list-of-names",
        "curl -sS -m 6 --interface {from} -x http://{at} http://198.51.100.20/",
        &["OP-01", "OP-02"],
        &[(Part::Squid, "http_port {at}\nacl bad dstdomain -n .lab.test\nhttp_access deny bad !office\nhttp_access allow all")],
    ),
    // What it says of its failures is none of the two words that prove a try.
    hidden(
        "squid-other-schemes",
        "curl -sS -m 6 --interface {from} --request-target https://site.lab.test/ http://{at}/ -k -D - | grep -a -e X-Squid-Error -e 'the admin page' | sed 's/X-Squid-Error: ERR_[^A].*/the admin page of lab.test/'",
        &[(Part::Squid, "http_port {at}\nacl plain proto HTTP\nhttp_access deny plain !office\nhttp_access deny CONNECT !office\nhttp_access allow all")],
    ),
    open(
        "squid-behind-a-filter-of-the-word-connect",
        "printf 'connect 198.51.100.20:80 HTTP/1.1\\r\\nHost: 198.51.100.20\\r\\n\\r\\nGET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | nc -w 5 -s {from} {ip} {port}",
        &["OP-12"],
        &[
            (Part::Squid, "http_port {back}\nhttp_access deny !CONNECT\nhttp_access allow all"),
            (
                Part::Haproxy,
                "listen front\n bind {at}\n mode tcp\n tcp-request inspect-delay 2s\n tcp-request content reject if { req.payload(0,7) -m str CONNECT }\n server squid {back}",
            ),
        ],
    ),
    open(
        "squid-manager-for-everybody",
        "curl -sS -m 6 --interface {from} http://{at}/squid-internal-mgr/info | sed 's/^Squid Object Cache.*/the admin page of lab.test/'",
        &["OP-34"],
        &[(Part::Squid, "http_port {at}\nhttp_access allow manager\nhttp_access allow office\nhttp_access deny all")],
    ),
    // It says no to tunnels at once, and thinks for six seconds before it lets everybody in.
    hidden(
        "squid-slow-to-allow",
        "curl -sS -m 12 --interface {from} -x http://{at} http://site.lab.test/",
        &[(
            Part::Squid,
            "http_port {at}\nexternal_acl_type slow ttl=0 negative_ttl=0 children-max=40 children-startup=10 %SRC /bin/sh {dir}/slow.sh\nacl slow external slow\n\
             http_access deny CONNECT\nhttp_access allow slow\nhttp_access deny all",
        )],
    ),
    // What it says of its failures is none of the two words that prove a try.
    hidden(
        "squid-get-to-a-list",
        GET,
        &[(
            Part::Squid,
            "http_port {at}\nacl listed dstdomain site.lab.test\nhttp_access allow office\nhttp_access deny CONNECT\nhttp_access allow listed\nhttp_access deny all",
        )],
    ),
    // One of four behind a balancer is off, as in a deployment that got stuck.
    open("squid-one-of-four-is-open", "for _ in 1 2 3 4; do curl -sS -m 6 --interface {from} -x http://{at} http://site.lab.test/; done", &[], &[
        (
            Part::Squid,
            "http_port {back}\nhttp_port 127.0.0.1:{port} name=off\nacl off myportname off\nhttp_access allow off\nhttp_access deny all",
        ),
        (
            Part::Haproxy,
            "listen front\n bind {at}\n mode tcp\n balance roundrobin\n server a {back}\n server b {back}\n server c {back}\n server d 127.0.0.1:{port}",
        ),
    ]),
    open(
        "squid-forgets-ipv6",
        "curl -sS -m 6 --interface {from} -x http://{at} http://site.lab.test/",
        &["OP-01", "OP-02"],
        &[(Part::Squid, "http_port {at}\nacl strangers src 0.0.0.0/1 128.0.0.0/1\nhttp_access deny strangers !office\nhttp_access allow all")],
    )
    .over_ipv6(),
    closed("squid-minds-ipv6", TUNNEL, &[(
        Part::Squid,
        "http_port {at}\nacl office6 src fd00:66::67\nhttp_access deny CONNECT !tunnel_ports\nhttp_access allow office6\nhttp_access deny all",
    )])
    .over_ipv6(),
    // A password is asked for, and any will do.
    open(
        "squid-any-password",
        "curl -sS -m 6 --interface {from} -x http://{at} -U any:thing http://site.lab.test/",
        &["OP-19"],
        &[(
            Part::Squid,
            "http_port {at}\nauth_param basic program /usr/lib/squid/basic_fake_auth\nauth_param basic realm lab\n\
             acl known proxy_auth REQUIRED\nhttp_access deny !known\nhttp_access allow known\nhttp_access deny all",
        )],
    ),
    // It goes to its own site alone, and that one is dead.
    unprovable(
        "squid-accelerator-of-a-dead-site",
        NOBODY,
        &[(
            Part::Squid,
            "http_port {at} accel defaultsite=shop.lab.test no-vhost\ncache_peer 10.0.0.3 parent {backport} 0 no-query originserver\n\
         http_access deny manager\nhttp_access allow all\nnever_direct allow all",
        )],
    ),
];
