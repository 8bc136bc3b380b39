"""Gives YAML files as JSON."""

import json
import sys

import yaml


def read(path):
    with open(path) as file:
        return list(yaml.safe_load_all(file))


print(json.dumps({path: read(path) for path in sys.argv[1:]}))
