//! HTTP proxies that are not Squid.

use super::{Entry, GET, NOBODY, ORIGIN, Part, SERVER_NAME, TUNNEL, closed, open, quiet, unprovable};

/// What every Apache here has; modules of Debian, and no file outside the test's directory.
pub const APACHE: &str = "ServerRoot {dir}
ServerName proxy.lab.test
PidFile {dir}/{name}.pid
DefaultRuntimeDir {dir}
Mutex posixsem
User nobody
Group nogroup
ErrorLog {dir}/{name}-error.log
Listen {at}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authn_core_module /usr/lib/apache2/modules/mod_authn_core.so
LoadModule authn_file_module /usr/lib/apache2/modules/mod_authn_file.so
LoadModule auth_basic_module /usr/lib/apache2/modules/mod_auth_basic.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_host_module /usr/lib/apache2/modules/mod_authz_host.so
LoadModule authz_user_module /usr/lib/apache2/modules/mod_authz_user.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule rewrite_module /usr/lib/apache2/modules/mod_rewrite.so
LoadModule remoteip_module /usr/lib/apache2/modules/mod_remoteip.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
StartServers 1
MinSpareThreads 8
ThreadsPerChild 32
MaxRequestWorkers 64
ProxyTimeout 3
";

/// What every nginx here has.
pub const NGINX: &str = "daemon off;
master_process off;
pid {dir}/{name}.pid;
error_log {dir}/{name}-error.log;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events { worker_connections 512; }
";

/// What every HAProxy here has.
pub const HAPROXY: &str = "global
 maxconn 512
 log stderr local0 err
defaults
 timeout connect 3s
 timeout client 20s
 timeout server 20s
";

/// What every tinyproxy here has.
pub const TINYPROXY: &str = "Listen {ip}
Port {port}
Timeout 20
MaxClients 200
LogLevel Error
";

pub const TINYPROXIES: &[Entry] = &[
    closed("tinyproxy-for-the-office", TUNNEL, &[(Part::Tinyproxy, "Allow 198.51.100.10\nAllow 198.51.100.67\nConnectPort 443")]),
    closed(
        "tinyproxy-password",
        "curl -sS -m 6 --interface {from} -x http://{at} -U known:word-{from} http://site.lab.test/",
        &[(Part::Tinyproxy, "BasicAuth known word-198.51.100.67")],
    ),
    quiet(
        "tinyproxy-reverse-only",
        NOBODY,
        &[(Part::Tinyproxy, "ReversePath \"/\" \"http://{back}/\"\nReverseOnly Yes"), (Part::Peer, "site {back}")],
    ),
    open("tinyproxy-without-allow", TUNNEL, &["OP-01", "OP-02", "OP-09"], &[(Part::Tinyproxy, "")]),
    open("tinyproxy-any-source-to-443", TUNNEL, &["OP-01", "OP-02"], &[(Part::Tinyproxy, "ConnectPort 443")]),
    open(
        "tinyproxy-any-source-to-a-list",
        TUNNEL,
        &["OP-07"],
        &[(Part::Tinyproxy, "Filter \"{dir}/listed\"\nFilterDefaultDeny Yes\nFilterExtended Yes")],
    ),
];

pub const APACHES: &[Entry] = &[
    closed(
        "apache-for-the-office",
        TUNNEL,
        &[(
            Part::Apache,
            "{connects}ProxyRequests On\nAllowCONNECT 443 9891\n<Proxy \"*\">\nRequire ip 198.51.100.10 198.51.100.67\n</Proxy>",
        )],
    ),
    closed(
        "apache-password",
        "curl -sS -m 6 --interface {from} -x http://{at} -U known:word-{from} http://site.lab.test/",
        &[(
            Part::Apache,
            "{connects}ProxyRequests On\nAllowCONNECT 443 9891\n<Proxy \"*\">\nAuthType Basic\nAuthName lab\nAuthUserFile {dir}/passwords\nRequire valid-user\n</Proxy>",
        )],
    ),
    quiet(
        "apache-reverse",
        NOBODY,
        &[(Part::Apache, "ProxyPass \"/\" \"http://{back}/\"\nProxyPreserveHost On"), (Part::Peer, "site {back}")],
    ),
    quiet("apache-pages", NOBODY, &[(Part::Apache, "DocumentRoot {dir}\n<Directory {dir}>\nRequire all granted\n</Directory>")]),
    closed(
        "apache-forwarded-for-of-our-balancer",
        TUNNEL,
        &[(
            Part::Apache,
            "{connects}ProxyRequests On\nAllowCONNECT 443 9891\nRemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 10.0.0.0/8\n\
             <Proxy \"*\">\nRequire ip 198.51.100.10 198.51.100.67\n</Proxy>",
        )],
    ),
    open("apache-for-everybody", TUNNEL, &["OP-01", "OP-02"], &[(Part::Apache, "{connects}ProxyRequests On\nAllowCONNECT 443 9891")]),
    open("apache-for-everybody-without-connect", GET, &["OP-02"], &[(Part::Apache, "ProxyRequests On")]),
    open(
        "apache-rewrites-to-any-host",
        ORIGIN,
        &["OP-09"],
        &[(Part::Apache, "RewriteEngine On\nRewriteRule ^/(.*)$ http://%{HTTP_HOST}/$1 [P,L]")],
    ),
    open(
        "apache-believes-forwarded-for",
        "curl -sS -m 6 --interface {from} -x http://{at} -H 'X-Forwarded-For: 198.51.100.10' http://site.lab.test/",
        &["OP-26"],
        &[(
            Part::Apache,
            "{connects}ProxyRequests On\nAllowCONNECT 443 9891\nRemoteIPHeader X-Forwarded-For\n<Proxy \"*\">\nRequire ip 198.51.100.10 198.51.100.67\n</Proxy>",
        )],
    ),
    open(
        "apache-believes-proxy-header",
        "printf 'PROXY TCP4 198.51.100.10 203.0.113.3 5555 3128\\r\\nGET http://site.lab.test/ HTTP/1.1\\r\\nHost: site.lab.test\\r\\nConnection: close\\r\\n\\r\\n' | nc -w 5 -s {from} {ip} {port}",
        &["OP-23"],
        &[(
            Part::Apache,
            "{connects}ProxyRequests On\nAllowCONNECT 443 9891\nRemoteIPProxyProtocol On\n<Proxy \"*\">\nRequire ip 198.51.100.10 198.51.100.67\n</Proxy>",
        )],
    ),
];

pub const NGINXES: &[Entry] = &[
    closed(
        "nginx-reverse",
        NOBODY,
        &[
            (Part::Nginx, "http { access_log off; server { listen {at}; location / { proxy_pass http://{back}; } } }"),
            (Part::Peer, "site {back}"),
        ],
    ),
    closed("nginx-hangs-up", NOBODY, &[(Part::Nginx, "http { access_log off; server { listen {at}; return 444; } }")]),
    closed("nginx-answers-200-to-all", NOBODY, &[(Part::Nginx, "http { access_log off; server { listen {at}; return 200 'welcome'; } }")]),
    closed(
        "nginx-any-host-for-the-office",
        ORIGIN,
        &[(
            Part::Nginx,
            "http { access_log off; resolver 198.51.100.20 ipv6=off; server { listen {at}; allow 198.51.100.10; allow 198.51.100.67; deny all; \
             location / { proxy_pass http://$http_host; } } }",
        )],
    ),
    closed(
        "nginx-in-front-of-a-textbook-squid",
        NOBODY,
        &[
            (Part::Squid, "http_port {back}\nhttp_access deny !office\nhttp_access allow office\nhttp_access deny all"),
            (Part::Nginx, "stream { server { listen {at}; proxy_bind 10.0.0.3; proxy_pass {back}; } }"),
        ],
    ),
    open(
        "nginx-any-host",
        ORIGIN,
        &["OP-02", "OP-09"],
        &[(
            Part::Nginx,
            "http { access_log off; resolver 198.51.100.20 ipv6=off; server { listen {at}; location / { proxy_pass http://$http_host; } } }",
        )],
    ),
    open(
        "nginx-believes-forwarded-for",
        "curl -sS -m 6 --interface {from} -H 'Host: site.lab.test' -H 'X-Forwarded-For: 198.51.100.10' http://{at}/",
        &["OP-26"],
        &[(
            Part::Nginx,
            "http { access_log off; resolver 198.51.100.20 ipv6=off; set_real_ip_from 0.0.0.0/0; real_ip_header X-Forwarded-For; \
             server { listen {at}; allow 198.51.100.10; deny all; location / { proxy_pass http://$http_host; } } }",
        )],
    ),
    open(
        "nginx-believes-x-real-ip",
        "curl -sS -m 6 --interface {from} -H 'Host: site.lab.test' -H 'X-Real-IP: 198.51.100.10' http://{at}/",
        &["OP-27"],
        &[(
            Part::Nginx,
            "http { access_log off; resolver 198.51.100.20 ipv6=off; set_real_ip_from 0.0.0.0/0; real_ip_header X-Real-IP; \
             server { listen {at}; allow 198.51.100.10; deny all; location / { proxy_pass http://$http_host; } } }",
        )],
    ),
    open(
        "nginx-believes-true-client-ip",
        "curl -sS -m 6 --interface {from} -H 'Host: site.lab.test' -H 'True-Client-IP: 198.51.100.10' http://{at}/",
        &["OP-27"],
        &[(
            Part::Nginx,
            "http { access_log off; resolver 198.51.100.20 ipv6=off; set_real_ip_from 0.0.0.0/0; real_ip_header True-Client-IP; \
             server { listen {at}; allow 198.51.100.10; deny all; location / { proxy_pass http://$http_host; } } }",
        )],
    ),
    open(
        "nginx-believes-proxy-header",
        "printf 'PROXY TCP4 198.51.100.10 203.0.113.3 5555 3128\\r\\nGET / HTTP/1.1\\r\\nHost: site.lab.test\\r\\nConnection: close\\r\\n\\r\\n' | nc -w 5 -s {from} {ip} {port}",
        &["OP-23"],
        &[(
            Part::Nginx,
            "http { access_log off; resolver 198.51.100.20 ipv6=off; set_real_ip_from 0.0.0.0/0; real_ip_header proxy_protocol; \
             server { listen {at} proxy_protocol; allow 198.51.100.10; deny all; location / { proxy_pass http://$http_host; } } }",
        )],
    ),
    open(
        "nginx-minds-the-host-and-goes-where-the-uri-says",
        "printf 'GET http://198.51.100.20/ HTTP/1.1\\r\\nHost: site.lab.test\\r\\nConnection: close\\r\\n\\r\\n' | nc -w 5 -s {from} {ip} {port}",
        &["OP-10"],
        &[(
            Part::Nginx,
            "http { access_log off; resolver 198.51.100.20 ipv6=off; server { listen {at}; if ($http_host !~ ^site[.]lab[.]test) { return 403; } \
             location / { proxy_pass http://$host; } } }",
        )],
    ),
    // Whoever names a host in his ClientHello is taken there.
    open(
        "nginx-goes-where-the-server-name-says",
        SERVER_NAME,
        &["OP-07"],
        &[(
            Part::Nginx,
            "stream { resolver 198.51.100.20 ipv6=off; server { listen {at}; ssl_preread on; proxy_pass $ssl_preread_server_name:443; } }",
        )],
    ),
    // A filter that only lets browsers in.
    open(
        "nginx-for-browsers",
        "curl -sS -m 6 --interface {from} -A 'Mozilla/5.0 (X11; Linux x86_64)' -x http://{at} http://site.lab.test/",
        &["OP-02"],
        &[(
            Part::Nginx,
            "http { access_log off; resolver 198.51.100.20 ipv6=off; server { listen {at}; if ($http_user_agent !~ ^Mozilla) { return 403; } \
             location / { proxy_pass http://$http_host; } } }",
        )],
    ),
    open(
        "nginx-goes-where-x-forwarded-host-says",
        "curl -sS -m 6 --interface {from} -H 'X-Forwarded-Host: site.lab.test' http://{at}/",
        &["OP-10"],
        &[(
            Part::Nginx,
            "http { access_log off; resolver 198.51.100.20 ipv6=off; server { listen {at}; location / { proxy_pass http://$http_x_forwarded_host; } } }",
        )],
    ),
    // No relay, but its only backend is our beacon.
    closed(
        "nginx-whose-backend-is-the-beacon",
        NOBODY,
        &[(Part::Nginx, "http { access_log off; server { listen {at}; location / { proxy_pass http://198.51.100.21:443; } } }")],
    ),
];

pub const HAPROXIES: &[Entry] = &[
    closed(
        "haproxy-reverse",
        NOBODY,
        &[(Part::Haproxy, "listen front\n bind {at}\n mode http\n server shop {back}"), (Part::Peer, "site {back}")],
    ),
    closed(
        "haproxy-403",
        NOBODY,
        &[(
            Part::Haproxy,
            "listen front\n bind {at}\n mode http\n http-request deny unless { src 198.51.100.10 198.51.100.67 }\n http-request return status 200 content-type text/plain string office",
        )],
    ),
    quiet(
        "haproxy-rejects-before-squid",
        TUNNEL,
        &[
            (Part::Squid, "http_port {back}\nhttp_access allow all"),
            (
                Part::Haproxy,
                "listen front\n bind {at}\n mode tcp\n tcp-request connection reject unless { src 198.51.100.10 198.51.100.67 }\n server squid {back}",
            ),
        ],
    ),
    quiet(
        "haproxy-silent-drop-before-squid",
        TUNNEL,
        &[
            (Part::Squid, "http_port {back}\nhttp_access allow all"),
            (
                Part::Haproxy,
                "listen front\n bind {at}\n mode tcp\n tcp-request content silent-drop unless { src 198.51.100.10 198.51.100.67 }\n server squid {back}",
            ),
        ],
    ),
    closed(
        "haproxy-answers-200-to-all",
        NOBODY,
        &[(Part::Haproxy, "listen front\n bind {at}\n mode http\n http-request return status 200 content-type text/plain string welcome")],
    ),
    unprovable(
        "haproxy-without-a-server",
        NOBODY,
        &[(Part::Haproxy, "listen front\n bind {at}\n mode http\n server gone 10.0.0.3:9 disabled")],
    ),
    closed(
        "haproxy-proxy-header-from-our-balancer",
        TUNNEL,
        &[
            (
                Part::Squid,
                "http_port {back} require-proxy-header\nacl front src 10.0.0.3\nproxy_protocol_access allow front\nhttp_access allow office\nhttp_access deny all",
            ),
            (
                Part::Haproxy,
                "listen front\n bind {at}\n mode tcp\n tcp-request connection expect-proxy layer4 if { src 10.0.0.0/8 }\n server squid {back} source 10.0.0.3 send-proxy-v2",
            ),
        ],
    ),
    open(
        "haproxy-goes-where-the-host-says",
        "curl -sS -m 6 --interface {from} -H 'Host: 198.51.100.20:80' http://{at}/",
        &["OP-09"],
        &[(
            Part::Haproxy,
            "listen front\n bind {at}\n mode http\n http-request set-dst req.hdr_ip(host)\n http-request set-dst-port hdr(host),word(2,:)\n server any 0.0.0.0:0",
        )],
    ),
    open(
        "haproxy-believes-forwarded-for",
        "curl -sS -m 6 --interface {from} -H 'Host: 198.51.100.20:80' -H 'X-Forwarded-For: 198.51.100.10' http://{at}/",
        &["OP-26"],
        &[(
            Part::Haproxy,
            "listen front\n bind {at}\n mode http\n http-request deny unless { hdr_ip(x-forwarded-for,1) 198.51.100.10 }\n \
             http-request set-dst req.hdr_ip(host)\n http-request set-dst-port hdr(host),word(2,:)\n server any 0.0.0.0:0",
        )],
    ),
    open(
        "haproxy-believes-proxy-header",
        "printf 'PROXY TCP4 198.51.100.10 203.0.113.3 5555 3128\\r\\nGET http://site.lab.test/ HTTP/1.1\\r\\nHost: site.lab.test\\r\\nConnection: close\\r\\n\\r\\n' | nc -w 5 -s {from} {ip} {port}",
        &["OP-23"],
        &[
            (Part::Squid, "http_port {back}\nacl localnet src 10.0.0.0/8\nhttp_access allow localnet\nhttp_access deny all"),
            (
                Part::Haproxy,
                "listen front\n bind {at} accept-proxy\n mode tcp\n tcp-request session reject unless { src 198.51.100.10 }\n server squid {back} source 10.0.0.3",
            ),
        ],
    ),
    quiet(
        "haproxy-proxy-header-and-source-first",
        NOBODY,
        &[
            (Part::Squid, "http_port {back}\nacl localnet src 10.0.0.0/8\nhttp_access allow localnet\nhttp_access deny all"),
            (
                Part::Haproxy,
                "listen front\n bind {at} accept-proxy\n mode tcp\n tcp-request connection reject unless { src 10.0.0.0/8 }\n server squid {back} source 10.0.0.3",
            ),
        ],
    ),
    open(
        "haproxy-tls-before-squid",
        "curl -sS -m 6 --interface {from} --proxy-insecure -x https://{at} http://site.lab.test/",
        &["OP-17"],
        &[
            (Part::Squid, "http_port {back}\nacl localnet src 10.0.0.0/8\nhttp_access allow localnet\nhttp_access deny all"),
            (Part::Haproxy, "listen front\n bind {at} ssl crt {dir}/valid.pem\n mode tcp\n server squid {back} source 10.0.0.3"),
        ],
    ),
    open(
        "haproxy-believes-the-last-forwarded-for",
        "curl -sS -m 6 --interface {from} -H 'Host: 198.51.100.20:80' -H 'X-Forwarded-For: 1.2.3.4, 198.51.100.10' http://{at}/",
        &["OP-26"],
        &[(
            Part::Haproxy,
            "listen front\n bind {at}\n mode http\n http-request deny unless { hdr_ip(x-forwarded-for,-1) 198.51.100.10 }\n \
             http-request set-dst req.hdr_ip(host)\n http-request set-dst-port hdr(host),word(2,:)\n server any 0.0.0.0:0",
        )],
    ),
    open(
        "haproxy-minds-http-1-alone",
        "curl -sS -m 6 --interface {from} --http2-prior-knowledge -H 'Host: 198.51.100.20:8080' http://{at}/",
        &["OP-15"],
        &[(
            Part::Haproxy,
            "listen front\n bind {at}\n mode http\n http-request deny if HTTP_1.0 or HTTP_1.1\n \
             http-request set-dst req.hdr_ip(host)\n http-request set-dst-port hdr(host),word(2,:)\n server any 0.0.0.0:0",
        )],
    ),
    open(
        "haproxy-minds-http-1-1-alone",
        "curl -sS -m 6 --interface {from} --http1.0 -x http://{at} http://198.51.100.20/",
        &["OP-04"],
        &[
            (Part::Squid, "http_port {back}\nacl localnet src 10.0.0.0/8\nhttp_access allow localnet\nhttp_access deny all"),
            (
                Part::Haproxy,
                "listen front\n bind {at} proto h1\n mode http\n http-request deny if HTTP_1.1\n server squid {back} source 10.0.0.3",
            ),
        ],
    ),
];

pub const OTHERS: &[Entry] = &[
    closed(
        "privoxy-for-the-office",
        TUNNEL,
        &[(Part::Privoxy, "listen-address {at}\npermit-access 198.51.100.10\npermit-access 198.51.100.67")],
    ),
    open("privoxy-for-everybody", TUNNEL, &["OP-01", "OP-02"], &[(Part::Privoxy, "listen-address {at}")]),
    open("privoxy-transparent", ORIGIN, &["OP-09"], &[(Part::Privoxy, "listen-address {at}\naccept-intercepted-requests 1")]),
    closed("ncat-for-the-office", TUNNEL, &[(Part::Ncat, "-l {ip} {port} --proxy-type http --allow 198.51.100.10,198.51.100.67")]),
    closed(
        "ncat-password",
        "curl -sS -m 6 --interface {from} -x http://{at} -U known:word-{from} http://site.lab.test/",
        &[(Part::Ncat, "-l {ip} {port} --proxy-type http --proxy-auth known:word-198.51.100.67")],
    ),
    open("ncat-for-everybody", TUNNEL, &["OP-01", "OP-02"], &[(Part::Ncat, "-l {ip} {port} --proxy-type http")]),
    open(
        "sniproxy-any-host",
        ORIGIN,
        &["OP-09"],
        &[(Part::Sniproxy, "listener {at} {\n proto http\n table any\n}\ntable any {\n .* *:80\n}")],
    ),
    unprovable(
        "sniproxy-listed-hosts",
        NOBODY,
        &[
            (Part::Sniproxy, "listener {at} {\n proto http\n table ours\n}\ntable ours {\n ^shop[.]lab[.]test$ {back}\n}"),
            (Part::Peer, "site {back}"),
        ],
    ),
    closed("lighttpd-pages", NOBODY, &[(Part::Lighttpd, "server.error-handler-404 = \"/listed\"")]),
    open(
        "nghttpx-in-front-of-squid",
        TUNNEL,
        &["OP-01", "OP-02"],
        &[
            (Part::Squid, "http_port {back}\nacl localnet src 10.0.0.0/8\nhttp_access allow localnet\nhttp_access deny all"),
            (Part::Nghttpx, "'--frontend={ip},{port};no-tls' --backend={backs} --http2-proxy --workers=1"),
        ],
    ),
    open(
        "stunnel-in-front-of-privoxy",
        "curl -sS -m 6 --interface {from} --proxy-insecure -x https://{at} http://site.lab.test/",
        &["OP-17"],
        &[
            (Part::Privoxy, "listen-address {back}\npermit-access 10.0.0.0/8"),
            (Part::Stunnel, "foreground = yes\npid =\n[front]\naccept = {at}\nconnect = {back}\nlocal = 10.0.0.3\ncert = {dir}/valid.pem"),
        ],
    ),
    open(
        "simpleproxy-in-front-of-squid",
        TUNNEL,
        &["OP-01", "OP-02"],
        &[
            (Part::Squid, "http_port {back}\nacl localnet src 10.0.0.0/8\nhttp_access allow localnet\nhttp_access deny all"),
            (Part::Simpleproxy, "-L {at} -R {back}"),
        ],
    ),
    open(
        "sniproxy-goes-where-the-server-name-says",
        SERVER_NAME,
        &["OP-07"],
        &[(Part::Sniproxy, "listener {at} {\n proto tls\n table any\n}\ntable any {\n .* *:443\n}")],
    ),
];
