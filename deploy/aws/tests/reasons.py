"""What each refusal says: the runs of edges.tftest.hcl that expect a failure, one by one and without expecting it.

    python3 tests/reasons.py TERRAFORM > tests/reasons.txt

`expect_failures` shows that a variable or a precondition refuses, and not which of its sentences does.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

terraform = sys.argv[1]
text = pathlib.Path("tests/edges.tftest.hcl").read_text()
head, *runs = re.split(r"^(?=run \")", text, flags=re.M)
expecting = re.compile(r"^  expect_failures = \[.*\]\n", re.M)

# Terraform takes a directory of tests only within the module; and what follows an error in a file it leaves out, so each has a file of its own.
with tempfile.TemporaryDirectory(prefix=".reasons-", dir=".") as folder:
    names = []
    for run in runs:
        if expecting.search(run):
            names.append(re.match(r'run "(\w+)"', run).group(1))
            pathlib.Path(folder, f"{len(names):03}.tftest.hcl").write_text(head + expecting.sub("", run))
    said = subprocess.run([terraform, "test", "-json", f"-test-directory={folder}"], capture_output=True, text=True)

reasons = {name: set() for name in names}
for line in said.stdout.splitlines():
    event = json.loads(line) if line.startswith("{") else {}
    if event.get("type") == "diagnostic" and event.get("@testrun") in reasons:
        # The sentence; after the empty line Terraform tells where it stands.
        reasons[event["@testrun"]].add(event["diagnostic"]["detail"].split("\n\n")[0].replace("\n", " "))
silent = [name for name in names if not reasons[name]]
if not names or silent:
    sys.exit(f"refused without a reason, or not at all: {silent}\n{said.stdout[-2000:]}{said.stderr[-2000:]}")
for name in names:
    print(name)
    for reason in sorted(reasons[name]):
        print("   ", reason)
