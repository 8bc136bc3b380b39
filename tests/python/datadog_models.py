"""Reads Datadog's dashboards and monitors with the models of Datadog's own client, and says what it does not know in them.

What comes back is what the models took: the caller compares it with what is written.
"""

import json
import sys

from datadog_api_client import ApiClient, Configuration
from datadog_api_client.model_utils import ModelComposed, ModelNormal, ModelSimple
from datadog_api_client.v1.model.dashboard import Dashboard
from datadog_api_client.v1.model.monitor import Monitor


def unknown(value, path, found):
    """Adds whatever no model has a field, a type or a word for."""
    if isinstance(value, list):
        for at, one in enumerate(value):
            unknown(one, f"{path}[{at}]", found)
    elif isinstance(value, dict):
        for key, one in value.items():
            unknown(one, f"{path}.{key}", found)
    elif isinstance(value, ModelComposed):
        for one in value._composed_instances:
            unknown(one, path, found)
        if value._unparsed and not value._composed_instances:
            found.append(f"{path}: none of the models takes it")
    elif isinstance(value, (ModelNormal, ModelSimple)):
        if isinstance(value, ModelNormal):
            for key, one in value._data_store.items():
                if key not in value.attribute_map:
                    found.append(f"{path}: {type(value).__name__} has no field {key}")
                unknown(one, f"{path}.{key}", found)
        elif value._unparsed:
            found.append(f"{path}: {value} is no {type(value).__name__}")
    elif type(value).__name__ == "UnparsedObject":
        found.append(f"{path}: cannot be read: {value}")


def read(path):
    with open(path) as file:
        text = file.read()
    model = Dashboard if "widgets" in json.loads(text) else Monitor
    with ApiClient(Configuration()) as client:
        value = client.deserialize(text, (model,), True)
        found = []
        unknown(value, "", found)
        return {"model": model.__name__, "unknown": found, "taken": value.to_dict()}


print(json.dumps({path: read(path) for path in sys.argv[1:]}))
