"""One process a namespace: listeners that can be turned while they run, and a client that sees the wire.

Reads one JSON command a line from stdin, answers each with one JSON line on stdout. Python's standard library only.
"""
import errno
import http.client
import json
import queue
import select
import socket
import ssl
import struct
import sys
import threading
import time

IP_RECVERR, IPV6_RECVERR, MSG_ERRQUEUE = 11, 25, 0x2000
SO_ORIGINAL_DST = 80
SYN_SENT = 2
LISTENERS = {}


def family_of(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def bound(kind, host, port):
    sock = socket.socket(family_of(host), kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family_of(host) == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((host, port))
    return sock


def server_context(pem, client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


class Listener:
    """Accepts always; what happens next is `mode`: hold, reset, close, http, peer, intercept or far."""

    def __init__(self, spec):
        self.accepted = 0
        self.peers = []
        self.open = True
        self.turn(spec)
        self.sock = bound(socket.SOCK_STREAM, spec["host"], spec["port"])
        self.sock.listen(512)
        threading.Thread(target=self.accept, daemon=True).start()

    def turn(self, spec):
        self.mode = spec.get("mode", getattr(self, "mode", "hold"))
        self.page = spec.get("page", getattr(self, "page", 200))
        self.allowed = spec.get("allowed", getattr(self, "allowed", []))
        self.location = spec.get("location", getattr(self, "location", "https://login.lab.test/?next=admin"))
        self.behind, self.delay = spec.get("behind"), spec.get("delay", 0)
        self.answers = spec.get("answers", getattr(self, "answers", []))
        self.asked = []
        pem = spec.get("pem")
        self.context = server_context(pem, spec.get("client_ca")) if pem else getattr(self, "context", None)

    def accept(self):
        while self.open:
            ready, _, _ = select.select([self.sock], [], [], 0.2)
            if not ready or not self.open:
                continue
            try:
                conn, peer = self.sock.accept()
            except OSError:
                return
            self.accepted += 1
            self.peers = (self.peers + [peer[0]])[-64:]
            threading.Thread(target=self.serve, args=(conn, peer[0]), daemon=True).start()

    def serve(self, conn, peer):
        try:
            getattr(self, "serve_" + self.mode)(conn, peer)
        except (OSError, ValueError):
            pass
        finally:
            conn.close()

    def serve_hold(self, conn, _peer):
        conn.settimeout(60)
        while conn.recv(4096):
            pass

    def serve_reset(self, conn, _peer):
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def serve_close(self, conn, _peer):
        pass

    def read_head(self, conn):
        """The connection, in TLS where this listener speaks it, and the request's head; empty where it was cut."""
        conn.settimeout(10)
        if self.context:
            conn = self.context.wrap_socket(conn, server_side=True)
        head = b""
        while b"\r\n\r\n" not in head:
            more = conn.recv(4096)
            if not more:
                return conn, b""
            head += more
        return conn, head

    def serve_http(self, conn, peer):
        conn, head = self.read_head(conn)
        if not head:
            return
        asked = head.split()[1].decode()
        if isinstance(self.page, dict):
            status = self.page.get(asked, 404)
        else:
            status = (200 if peer in self.allowed else 403) if self.page == "acl" else self.page
        body = b"the admin page of lab.test\n" if status == 200 else b"no\n"
        where = b"Location: %s\r\n" % self.location.encode() if 300 <= status < 400 else b""
        conn.sendall(b"HTTP/1.1 %d X\r\nServer: lab\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, where, len(body), body))
        if self.context:
            conn.settimeout(0.3)
            conn = conn.unwrap()
        conn.shutdown(socket.SHUT_WR)
        conn.close()

    def serve_peer(self, conn, _peer):
        """Another monitor as it might answer: the next of `answers` to each request, the last one to all that follow.

        An answer is `runs` (verdict, age in seconds, and what was seen: verdict, outcome and address of each observation), with
        `skew` for its clock, `name`, `schema`; or `raw`, sent as it is. `auth` is what Authorization must be.
        """
        conn, head = self.read_head(conn)
        if not head:
            return
        answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(head.split()[1].decode())
        status, body = answer.get("status", 200), answer.get("raw", "")
        if answer.get("auth") and f"Authorization: Basic {answer['auth']}\r\n" not in head.decode():
            status, body = 401, "who are you?"
        elif "runs" in answer:
            now = time.time() + answer.get("skew", 0)
            stamp = lambda at: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + ".%03dZ" % (at % 1 * 1000)
            seen = lambda kept: [dict(zip(("verdict", "outcome", "address"), one), stage="tcp") for one in kept]
            runs = [{"name": answer.get("name", "there"), "verdict": verdict, "started_at": stamp(now - age), "observations": seen(kept)}
                    for verdict, age, kept in answer["runs"]]
            body = json.dumps({"schema": answer.get("schema", 1), "vantage": "far", "now": stamp(now), "checks": runs[:1],
                               "recent": answer.get("recent", runs)})
        body = (body * answer.get("times", 1)).encode()
        conn.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body)) + body)
        if self.context:
            conn.settimeout(0.3)
            conn = conn.unwrap()
        conn.shutdown(socket.SHUT_WR)
        conn.recv(1)

    def serve_intercept(self, conn, _peer):
        """As a SASE client does: the handshake is ours, whoever was meant; then splice if the real one answers."""
        if conn.family == socket.AF_INET:
            _, port, packed = struct.unpack("!HH4s8x", conn.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
            host = socket.inet_ntop(socket.AF_INET, packed)
        else:
            _, port, _, packed = struct.unpack("!HHI16s4x", conn.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28))
            host = socket.inet_ntop(socket.AF_INET6, packed)
        try:
            far = socket.create_connection((host, port), timeout=2)
        except OSError:
            return self.serve_hold(conn, _peer)
        while True:
            for side in select.select([conn, far], [], [], 60)[0]:
                data = side.recv(65536)
                if not data:
                    far.close()
                    return
                (far if side is conn else conn).sendall(data)

    def serve_far(self, conn, _peer):
        """A host far away: every byte takes `delay` seconds each way to what listens at `behind`."""
        near = socket.create_connection(tuple(self.behind), timeout=5)

        def late(source, sink):
            line = queue.Queue()

            def deliver():
                while True:
                    due, data = line.get()
                    time.sleep(max(0, due - time.monotonic()))
                    try:
                        sink.sendall(data) if data else sink.shutdown(socket.SHUT_WR)
                    except OSError:
                        return
                    if not data:
                        return

            threading.Thread(target=deliver, daemon=True).start()
            data = b"more"
            while data:
                try:
                    data = source.recv(65536)
                except OSError:
                    data = b""
                line.put((time.monotonic() + self.delay, data))

        back = threading.Thread(target=late, args=(near, conn), daemon=True)
        back.start()
        late(conn, near)
        back.join(20)
        time.sleep(self.delay * 2)
        near.close()

    def close(self):
        self.open = False
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class Dns:
    """A name server that fails as told: `rules` maps a record type to answer, servfail, refused, nxdomain or silent."""

    TYPES = {1: "A", 28: "AAAA"}
    RCODES = {"servfail": 2, "nxdomain": 3, "refused": 5}

    def __init__(self, spec):
        self.accepted = 0
        self.peers = []
        self.zone, self.rules = {}, {}
        self.turn(spec)
        self.udp = bound(socket.SOCK_DGRAM, spec["host"], spec["port"])
        self.tcp = bound(socket.SOCK_STREAM, spec["host"], spec["port"])
        self.tcp.listen(64)
        threading.Thread(target=self.serve_udp, daemon=True).start()
        threading.Thread(target=self.serve_tcp, daemon=True).start()

    def turn(self, spec):
        self.zone = spec.get("zone", self.zone)
        self.rules = spec.get("rules", self.rules)

    def serve_udp(self):
        while True:
            query, peer = self.udp.recvfrom(4096)
            self.accepted += 1
            reply = self.reply(query)
            if reply:
                self.udp.sendto(reply, peer)

    def serve_tcp(self):
        while True:
            conn, _ = self.tcp.accept()
            with conn:
                conn.settimeout(2)
                try:
                    query = conn.recv(4096)[2:]
                    reply = self.reply(query)
                    if reply:
                        conn.sendall(struct.pack("!H", len(reply)) + reply)
                except OSError:
                    pass

    def reply(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        name, kind = ".".join(labels), self.TYPES.get(struct.unpack("!H", query[at + 1:at + 3])[0])
        question = query[12:at + 5]
        rule = self.rules.get(kind, "answer")
        if rule == "silent":
            return None
        rcode, records = self.RCODES.get(rule, 0), []
        if rule == "answer":
            if name not in self.zone:
                rcode = 3
            records = self.zone.get(name, {}).get(kind, [])
        answers = b""
        for record in records:
            packed = socket.inet_pton(family_of(record), record)
            answers += struct.pack("!HHHIH", 0xC00C, 1 if kind == "A" else 28, 1, 1, len(packed)) + packed
        return query[:2] + struct.pack("!HHHHH", 0x8580 | rcode, 1, len(records), 0, 0) + question + answers

    def close(self):
        pass


def icmp_of(sock):
    """Type, code and sender of the newest ICMP error in the error queue."""
    found = None
    while True:
        try:
            _, control, _, _ = sock.recvmsg(512, 512, MSG_ERRQUEUE)
        except OSError:
            return found
        for level, kind, data in control:
            if (level, kind) not in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                continue
            _, origin, etype, code = struct.unpack("=IBBB", data[:7])
            sender = data[16:]
            where = ""
            if origin == 2 and len(sender) >= 8:
                where = socket.inet_ntop(socket.AF_INET, sender[4:8])
            elif origin == 3 and len(sender) >= 24:
                where = socket.inet_ntop(socket.AF_INET6, sender[8:24])
            found = [etype, code, where]


def connect(spec):
    """One TCP connection attempt; the outcome is `connected`, `timeout` or the name of the errno."""
    started = time.monotonic()
    sock = socket.socket(family_of(spec["host"]), socket.SOCK_STREAM)
    icmp, outcome = None, None
    try:
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        if spec.get("source"):
            sock.bind((spec["source"], 0))
        sock.setblocking(False)
        code = sock.connect_ex((spec["host"], spec["port"]))
        synchronous = code not in (0, errno.EINPROGRESS)
        if synchronous:
            outcome = errno.errorcode[code]
            icmp = icmp_of(sock)
        poll = select.poll()
        poll.register(sock, select.POLLOUT | select.POLLERR | select.POLLHUP)
        deadline = started + spec.get("timeout", 3)
        soft = None
        while outcome is None:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                outcome = soft or "timeout"
                break
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            icmp = icmp_of(sock) or icmp
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0]
            if state == SYN_SENT:
                soft = errno.errorcode.get(code, soft)
                continue
            outcome = errno.errorcode[code] if code else "connected"
    except OSError as problem:
        outcome, synchronous = errno.errorcode.get(problem.errno, str(problem)), True
    finally:
        sock.close()
    return {"outcome": outcome, "icmp": icmp, "ms": round((time.monotonic() - started) * 1000), "synchronous": synchronous}


def connects(spec):
    answers = [None] * len(spec["probes"])

    def one(at, probe):
        answers[at] = connect(probe)

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(spec["probes"])]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return {"answers": answers}


def get(spec):
    """One GET; `via` tunnels with CONNECT, `absolute` asks the proxy by absolute-form."""
    secure, host, port, path = spec.get("tls", False), spec["host"], spec["port"], spec.get("path", "/")
    context = ssl.create_default_context(cafile=spec.get("ca")) if secure else None
    source = (spec["source"], 0) if spec.get("source") else None
    timeout = spec.get("timeout", 5)
    first = (spec["via"]["host"], spec["via"]["port"]) if spec.get("via") else (host, port)
    try:
        if secure:
            conn = http.client.HTTPSConnection(*first, timeout=timeout, source_address=source, context=context)
        else:
            conn = http.client.HTTPConnection(*first, timeout=timeout, source_address=source)
        if spec.get("via") and not spec.get("absolute"):
            conn.set_tunnel(host, port)
        if secure and not spec.get("via") and spec.get("name"):
            sock = socket.create_connection(first, timeout, source)
            conn.sock = context.wrap_socket(sock, server_hostname=spec["name"])
        conn.request("GET", f"http://{host}:{port}{path}" if spec.get("absolute") else path)
        answer = conn.getresponse()
        body = answer.read().decode(errors="replace")
        return {"status": answer.status, "headers": {k.lower(): v for k, v in answer.getheaders()}, "body": body}
    except (OSError, http.client.HTTPException) as problem:
        return {"status": 0, "problem": f"{type(problem).__name__}: {problem}"}


PENDING = {}


def ask_ahead(spec):
    """Send a request now and read the answer later: for a server that is stopped."""
    sock = socket.create_connection((spec["host"], spec["port"]), timeout=5)
    sock.sendall(b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (spec["path"].encode(), spec["host"].encode()))
    PENDING[spec["name"]] = sock
    return {}


def read_answer(spec):
    sock = PENDING.pop(spec["name"])
    sock.settimeout(spec.get("timeout", 20))
    data, at = b"", None
    while True:
        more = sock.recv(65536)
        at = at or time.time()
        if not more:
            break
        data += more
    sock.close()
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        plain = b""
        while body:
            size, _, rest = body.partition(b"\r\n")
            size = int(size, 16)
            plain, body = plain + rest[:size], rest[size + 2:]
            if size == 0:
                break
        body = plain
    return {"status": int(head.split()[1]), "body": body.decode(), "at": at}


def query(spec):
    """One DNS question over UDP: rcode and addresses; rcode -1 is silence."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in spec["name"].split("."))
    kind = {"A": 1, "AAAA": 28}[spec["type"]]
    sock = socket.socket(family_of(spec["host"]), socket.SOCK_DGRAM)
    sock.settimeout(spec.get("timeout", 2))
    try:
        sock.connect((spec["host"], spec.get("port", 53)))
        sock.send(struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1))
        reply = sock.recv(4096)
    except OSError as problem:
        return {"rcode": -1, "addresses": [], "problem": str(problem)}
    count, at, found = struct.unpack("!H", reply[6:8])[0], 12 + len(labels) + 5, []
    for _ in range(count):
        size = struct.unpack("!H", reply[at + 10:at + 12])[0]
        found.append(socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, reply[at + 12:at + 12 + size]))
        at += 12 + size
    return {"rcode": reply[3] & 15, "addresses": sorted(found)}


def listen(spec):
    made = Dns(spec) if spec.get("mode") == "dns" else Listener(spec)
    LISTENERS[spec["name"]] = made
    return {}


def turn(spec):
    LISTENERS[spec["name"]].turn(spec)
    return {}


def close(spec):
    LISTENERS.pop(spec["name"]).close()
    return {}


def seen(spec):
    listener = LISTENERS[spec["name"]]
    return {"accepted": listener.accepted, "peers": listener.peers}


COMMANDS = {
    "listen": listen, "turn": turn, "close": close, "seen": seen, "connect": connect, "connects": connects,
    "get": get, "query": query, "ask_ahead": ask_ahead, "read_answer": read_answer,
}

for line in sys.stdin:
    command = json.loads(line)
    try:
        answer = COMMANDS[command["do"]](command)
    except Exception as problem:  # the test wants to see it, whatever it is
        answer = {"failed": f"{type(problem).__name__}: {problem}"}
    print(json.dumps(answer), flush=True)
