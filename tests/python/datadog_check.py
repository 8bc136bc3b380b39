"""Runs Datadog's own OpenMetrics check, as the Agent does, with each configuration that is named, and says what it submits."""

import json
import sys

import yaml
from datadog_checks.base import OpenMetricsBaseCheckV2
from datadog_checks.base.stubs import aggregator


def submitted(path):
    with open(path) as file:
        config = yaml.safe_load(file)
    (instance,) = config["instances"]
    aggregator.reset()
    check = OpenMetricsBaseCheckV2("openmetrics", config["init_config"] or {}, [instance])
    error = check.run()
    if error:
        sys.exit(f"{path}: {error}")
    kinds = {number: name for name, number in aggregator.METRIC_ENUM_MAP.items()}
    metrics = [
        {"name": one.name, "type": kinds[one.type], "value": one.value, "tags": sorted(one.tags), "hostname": one.hostname}
        for name in aggregator.metric_names
        for one in aggregator.metrics(name)
    ]
    services = [
        {"name": one.name, "status": one.status, "tags": sorted(one.tags)}
        for name in aggregator.service_check_names
        for one in aggregator.service_checks(name)
    ]
    return {"instance": instance, "metrics": metrics, "services": services, "buckets": len(aggregator._histogram_buckets)}


print(json.dumps([submitted(path) for path in sys.argv[1:]]))
