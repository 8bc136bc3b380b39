"""Says things to a proxy, all at once, and tells what it answered to each: the status, and its own word for a refusal."""

import json
import socket
import sys
import threading

asks = json.loads(sys.argv[1])
answers = [None] * len(asks)


def ask(at, spec):
    answer = {"status": 0, "error": ""}
    try:
        sock = socket.create_connection((spec["host"], spec["port"]), 30, (spec["source"], 0))
        sock.settimeout(30)
        sock.sendall(spec["say"].encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = sock.recv(4096)
            if not more:
                break
            head += more
        words = head.split(b"\r\n")[0].split()
        answer["status"] = int(words[1]) if len(words) > 1 else 0
        errors = [line.split()[1].decode() for line in head.split(b"\r\n") if line.lower().startswith(b"x-squid-error:")]
        answer["error"] = errors[0] if errors else ""
        if spec.get("hold"):
            print("held", flush=True)
            sock.settimeout(None)
            while sock.recv(4096):
                pass
            print("ended", flush=True)
        sock.close()
    except OSError as problem:
        answer["error"] = type(problem).__name__
    answers[at] = answer


threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(asks)]
for thread in threads:
    thread.start()
[thread.join() for thread in threads]
print(json.dumps(answers))
