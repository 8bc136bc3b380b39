"""Reads Grafana dashboards with the types of Grafana's own SDK, and gives what comes back when they are written again."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

register_default_plugins()


def written_again(path):
    with open(path) as file:
        return json.loads(JSONEncoder().encode(Dashboard.from_json(json.load(file))))


print(json.dumps({path: written_again(path) for path in sys.argv[1:]}))
