"""A name server that answers as told: `liar.py ADDRESS PORT STEP...`, over UDP and TCP. Python's standard library only.

Each step is what one question is answered with, by type and in order; the last one stays. A question that is sent again is
the same question. A step is acts joined by `+`, each one message:

    answer      one record that fits the type       nx          NXDOMAIN with an SOA
    empty       no record, an SOA                   silent      nothing
    servfail, refused, formerr, notimp, notauth     that code
    old         FORMERR where EDNS is there, else the answer
    cut         TC and nothing else over UDP, the answer over TCP
    cut-only    the same, and silence over TCP
    wrong-id    the answer under another number     wrong-question  the answer to another name
    elsewhere   the answer from another port        referral    no record, an NS above the name
    bare        no record, nothing else, AA and RA unset
    alias       a CNAME                             alias-nx    a CNAME, and NXDOMAIN
    broken      a record that is longer than the message
    badvers     BADVERS, whose lower bits are those of NOERROR
"""
import socket
import struct
import sys
import threading

ADDRESS, PORT, STEPS = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
CODES = {"servfail": 2, "nx": 3, "alias-nx": 3, "refused": 5, "formerr": 1, "notimp": 4, "notauth": 9}
NAME = b"\xc0\x0c"
SOA = b"\x04root\0" + struct.pack("!HHIH", 6, 1, 60, 22) + b"\0\0" + struct.pack("!IIIII", 1, 2, 3, 4, 5)
NS = b"\x04else\0" + struct.pack("!HHIH", 2, 1, 60, 4) + b"\x02ns\0"
OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0x01000000, 0)
DATA = {1: bytes([203, 0, 113, 7]), 28: socket.inet_pton(socket.AF_INET6, "fd00:113::7"), 16: b"\x05hello"}
counts, known, lock = {}, {}, threading.Lock()


def reply(query, act, tcp):
    at = 12
    while query[at]:
        at += 1 + query[at]
    kind = struct.unpack("!H", query[at + 1:at + 3])[0]
    question, number = query[12:at + 5], query[:2]
    edns = struct.unpack("!H", query[10:12])[0] > 0
    flags, answers, authority, additional, records = 0x8580, b"", b"", b"", 0
    if act == "silent" or (act == "cut-only" and tcp):
        return None
    if act == "old":
        act = "formerr" if edns else "answer"
    flags |= CODES.get(act, 0)
    if act in ("cut", "cut-only") and not tcp:
        flags |= 0x0200
    elif act in ("answer", "wrong-id", "wrong-question", "elsewhere", "cut"):
        data = DATA.get(kind, b"\0")
        answers, records = NAME + struct.pack("!HHIH", kind, 1, 1, len(data)) + data, 1
    elif act == "broken":
        answers, records = NAME + struct.pack("!HHIH", kind, 1, 1, 400) + b"\1", 1
    elif act in ("alias", "alias-nx"):
        answers, records = NAME + struct.pack("!HHIH", 5, 1, 1, 6) + b"\x04gone\0", 1
    elif act in ("nx", "empty"):
        authority = SOA
    elif act == "referral":
        flags, authority = 0x8000, NS
    elif act == "bare":
        flags = 0x8000
    elif act == "badvers":
        additional = OPT
    if act == "wrong-id":
        number = bytes([number[0] ^ 0x55, number[1]])
    if act == "wrong-question":
        question = b"\x05other" + question
    counted = struct.pack("!HHHHH", flags, 1, records, 1 if authority else 0, 1 if additional else 0)
    return number + counted + question + answers + authority + additional


def step(query, peer):
    at = query.index(b"\0", 12)
    kind, key = query[at + 1:at + 3], (query[:2], peer)
    with lock:
        if key not in known:
            known[key] = counts.get(kind, 0)
            counts[kind] = known[key] + 1
        return STEPS[min(known[key], len(STEPS) - 1)].split("+")


def serve_tcp(listener):
    while True:
        conn, _ = listener.accept()
        with conn:
            conn.settimeout(2)
            try:
                query = conn.recv(4096)[2:]
                # Over TCP it is the question that was just cut over UDP.
                with lock:
                    at = counts.get(query[query.index(b"\0", 12) + 1:][:2], 1) - 1
                for act in STEPS[min(max(at, 0), len(STEPS) - 1)].split("+"):
                    message = reply(query, act, True)
                    if message:
                        conn.sendall(struct.pack("!H", len(message)) + message)
                    else:
                        conn.recv(1)
            except OSError:
                pass


udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
udp.bind((ADDRESS, PORT))
tcp.bind((ADDRESS, PORT))
other.bind((ADDRESS, 0))
tcp.listen(64)
threading.Thread(target=serve_tcp, args=(tcp,), daemon=True).start()
print("ready", flush=True)
while True:
    asked, who = udp.recvfrom(4096)
    for act in step(asked, who):
        message = reply(asked, act, False)
        if message:
            (other if act == "elsewhere" else udp).sendto(message, who)
