"""Judges manifests: each document by the schema of its kind, and says which it judged.

Kubernetes' own kinds by its OpenAPI schema (kubernetes-validate, which has it in itself), the Prometheus Operator's by the types that are made of its
definitions. A kind that neither knows is an error, and so is a key that the kind has not.
"""

import json
import sys

import kubernetes_validate
import yaml

VERSION = "1.34"


def unknown(given, taken, where):
    """The keys that the types passed over: they allow what they do not know."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(taken, dict) or key not in taken:
                yield f"{where}.{key}"
            else:
                yield from unknown(value, taken[key], f"{where}.{key}")
    elif isinstance(given, list):
        for i, (one, other) in enumerate(zip(given, taken, strict=True)):
            yield from unknown(one, other, f"{where}[{i}]")


judged = []
for path in sys.argv[1:]:
    for document in yaml.safe_load_all(open(path)):
        kind = document["kind"]
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            # Three seconds, which the other kinds need not wait.
            from cloudcoil.models.prometheus_operator import v1 as operator

            taken = getattr(operator, kind).model_validate(document, strict=False)
            known = json.loads(taken.model_dump_json(by_alias=True, exclude_unset=True))
            extra = list(unknown(document, known, kind)) + [f"{kind}: {extra}" for extra in (taken.model_extra or {})]
            if extra:
                sys.exit(f"{path}: not known to the Prometheus Operator: {extra}")
        else:
            kubernetes_validate.validate(document, VERSION, strict=True)
        judged.append(kind)
print(json.dumps(judged))
