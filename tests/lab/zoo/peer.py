"""Peers that are no proxies, and some that mean harm. `peer.py MODE ADDRESS [PORT]`; Python's standard library only."""
import os
import random
import socket
import struct
import sys
import threading
import time

RECORD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorded")


def head(conn):
    read = b""
    while b"\r\n\r\n" not in read and len(read) < 65536:
        more = conn.recv(4096)
        if not more:
            break
        read += more
    return read


def answer(body, status=b"200 OK"):
    return b"HTTP/1.1 %s\r\nServer: shop\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


def site(conn):
    """A web application that answers 200 to everything, CONNECT too."""
    if head(conn):
        conn.sendall(answer(b"welcome to the shop\n"))


def echo(conn):
    """What the stranger says comes back as it is."""
    while True:
        read = conn.recv(65536)
        if not read:
            return
        conn.sendall(read)


def mirror(conn):
    """The whole request in a 200, as debugging pages do."""
    conn.sendall(answer(head(conn)))


def close(conn):
    pass


def reset(conn):
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hold(conn):
    while conn.recv(65536):
        pass


def banner(conn):
    """Speaks first, and no HTTP."""
    conn.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    conn.settimeout(5)
    conn.recv(4096)
    conn.sendall(b"Invalid SSH identification string.\r\n")


# ---- relays that lie: each carries the word to the beacon, and hides it ---------------------------------------------


def far(read):
    """A connection to whom the request names, and what to say there."""
    line = read.split(b"\r\n")[0].split()
    tunnel = line[0] == b"CONNECT"
    place = line[1] if tunnel else line[1].split(b"/")[2] if line[1].startswith(b"http://") else None
    if place is None:
        place = next(h.split()[1] for h in read.split(b"\r\n") if h.lower().startswith(b"host:"))
    name, _, port = place.decode().partition(":")
    return socket.create_connection((name, int(port or 80)), timeout=5), tunnel


def carried(conn):
    """Carries one request to its end and back; what came."""
    read = head(conn)
    there, tunnel = far(read)
    with there:
        if tunnel:
            conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            read = conn.recv(4096)
        there.sendall(read)
        came = b""
        while b"\n" not in came if tunnel else True:
            more = there.recv(4096)
            if not more:
                break
            came += more
        return came


def relays_and_records(conn):
    """An honest open relay that keeps what the beacon signed."""
    came = carried(conn)
    with open(RECORD, "ab") as record:
        record.write(came.split(b"\r\n\r\n")[-1].strip() + b"\n")
    conn.sendall(came)


def relays_and_denies(conn):
    carried(conn)
    conn.sendall(answer(b"denied\n", b"403 Forbidden"))


def relays_and_is_silent(conn):
    carried(conn)
    hold(conn)


def relays_and_resets(conn):
    carried(conn)
    reset(conn)


def relays_and_answers_late(conn):
    came = carried(conn)
    time.sleep(8)
    conn.sendall(came)


def relays_byte_by_byte(conn):
    for byte in carried(conn):
        conn.sendall(bytes([byte]))


def relays_behind_interim_answers(conn):
    conn.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 3)
    conn.sendall(carried(conn))


# ---- no relays, and they mean harm: none may look like one, hang, panic or cost much ----------------------------------


def pour(conn, piece, size=100 << 20):
    """A hundred megabytes of it, or as much as is taken."""
    piece = piece * (65536 // len(piece))
    for _ in range(size // len(piece)):
        conn.sendall(piece)


def endless_line(conn):
    head(conn)
    pour(conn, b"A")


def endless_header(conn):
    head(conn)
    conn.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
    pour(conn, b"A")


def endless_headers(conn):
    head(conn)
    conn.sendall(b"HTTP/1.1 200 OK\r\n")
    pour(conn, b"X-A: b\r\n")


def endless_interim(conn):
    head(conn)
    pour(conn, b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_body(conn):
    head(conn)
    conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    pour(conn, b"word\n")


def endless_zeros(conn):
    head(conn)
    pour(conn, b"\0")


def endless_pages(conn):
    head(conn)
    pour(conn, answer(b"denied\n", b"403 Forbidden"))


def pours_before_it_is_asked(conn):
    pour(conn, b"\x05\x00")


def drips(conn, piece):
    """Many small pieces, each a segment of its own, and each to be looked at with all that came before."""
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(64):
        for at in range(0, len(piece), 8):
            conn.sendall(piece[at:at + 8])


def drips_what_looks_signed(conn):
    read = head(conn)
    conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    if read.startswith(b"CONNECT"):
        conn.recv(4096)
    drips(conn, recorded()[-1] + b"\n")


def drips_a_head(conn):
    head(conn)
    conn.sendall(b"HTTP/1.1 200 OK\r\n")
    drips(conn, b"X-A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n" * 4)


def tarpit(conn):
    """A byte every now and then, for ever."""
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Wait: a little more\r\n" * 100:
        conn.sendall(bytes([byte]))
        time.sleep(0.3)


def half_an_answer(conn):
    head(conn)
    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")


def half_an_answer_and_silence(conn):
    half_an_answer(conn)
    hold(conn)


def half_an_answer_and_reset(conn):
    half_an_answer(conn)
    reset(conn)


def grants_and_echoes(conn):
    head(conn)
    conn.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    echo(conn)


def grants_and_pours(conn):
    head(conn)
    conn.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    conn.recv(4096)
    pour(conn, b"A")


def grants_and_is_silent(conn):
    head(conn)
    conn.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    hold(conn)


def grants_socks_and_echoes(conn):
    conn.recv(4096)
    conn.sendall(b"\x05\x00")
    conn.recv(4096)
    conn.sendall(b"\x05\x00\x00\x01\x0a\x00\x00\x03\x00\x50")
    echo(conn)


def grants_socks_by_endless_name(conn):
    conn.recv(4096)
    conn.sendall(b"\x05\x00")
    conn.recv(4096)
    conn.sendall(b"\x05\x00\x00\x03\xff")
    pour(conn, b"a")


def grants_socks_4_and_echoes(conn):
    conn.recv(4096)
    conn.sendall(b"\x00\x5a" + b"\0" * 6)
    echo(conn)


def nonce(read):
    """What looks like the nonce in a request."""
    words = read.replace(b"/", b" ").split()
    return max((w for w in words if all(c in b"0123456789abcdef" for c in w)), key=len, default=b"")


def recorded():
    with open(RECORD, "rb") as record:
        return record.read().splitlines()


def replays(conn):
    """The beacon's own signed words, all of them good, none of them for this nonce."""
    read = head(conn)
    if read.startswith(b"CONNECT"):
        conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        conn.recv(4096)
    conn.sendall(answer(b"\n".join(recorded()) + b"\n"))


def forges(conn):
    """A recorded word with this nonce in the place of its own."""
    read = head(conn)
    if read.startswith(b"CONNECT"):
        conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        read = conn.recv(4096)
    old = recorded()[-1]
    conn.sendall(answer(old.replace(nonce(old), nonce(read)) + b"\n" + nonce(read) + b"\n"))


def says_nonsense(conn):
    """Pieces of everything, in any order."""
    dice = random.Random()
    head(conn)
    old = recorded()[-1]
    pieces = [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 No\r\n", b"HTTP/1.1 999 X\r\n", b"HTTP/1.1 -1\r\n", b"HTTP/9.9 200\r\n", b"\r\n\r\n", b"\r\n",
        b"Content-Length: 18446744073709551616\r\n", b"Content-Length: -5\r\n", b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n",
        b"X-Squid-Error: ERR_ACCESS_DENIED 0\r\n", b"\0" * 50, bytes(range(256)), old, old[: len(old) // 2], b"\x05\x00",
        b"\x00\x5a\x00\x00\x00\x00\x00\x00", b"\x16\x03\x03\xff\xff", b"\x15\x03\x03\x00\x02\x02\x28", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", b"\xff\xff\xff\x01\x05\x00\x00\x00\x01", b"Location: http://198.51.100.21:443/\r\n",
    ]
    for _ in range(dice.randrange(1, 40)):
        conn.sendall(dice.choice(pieces))
        time.sleep(dice.choice([0, 0, 0, 0.01, 0.2]))
    dice.choice([close, hold, reset])(conn)


def serve(mode, conn):
    try:
        conn.settimeout(30)
        mode(conn)
    except (OSError, IndexError, ValueError, StopIteration):
        pass
    finally:
        conn.close()


def main(mode, place):
    host, port = place.rsplit(":", 1)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, int(port)))
    sock.listen(512)
    while True:
        conn, _ = sock.accept()
        threading.Thread(target=serve, args=(globals()[mode], conn), daemon=True).start()


main(sys.argv[1], sys.argv[2])
