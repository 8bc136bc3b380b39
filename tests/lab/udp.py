"""Answers datagrams: `udp.py HOW ADDRESS PORT...` sends each datagram back, and says `ready`, then one line a datagram.

HOW is `all`, or `starts:HEX` to answer only what starts with these bytes. Python's standard library only.
"""
import select
import socket
import sys
import time

how, address, ports = sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]]
only = bytes.fromhex(how.partition(":")[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sockets = []
for port in ports:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, port))
    sockets.append(sock)
print("ready", flush=True)
while True:
    for sock in select.select(sockets, [], [])[0]:
        data, peer = sock.recvfrom(65535)
        print("%.3f %s %d %s" % (time.monotonic(), peer[0], sock.getsockname()[1], data[:8].hex()), flush=True)
        if data.startswith(only):
            sock.sendto(data, peer)
