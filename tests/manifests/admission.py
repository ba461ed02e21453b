"""The admission policies, judged by a CEL implementation as the API server would judge."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import celpy
from celpy import celtypes
from celpy.adapter import json_to_cel

from tests.support.manifests.documents import HOSTPATH_POLICY, Manifest, one, read

celpy.Environment()  # sets the recursion limit, which hypothesis does not let a test do

# What core/v1 has of the types that a mutation constructs, by their names in CEL (KEP-3962).
_FIELDS = {
    "Object": {"metadata", "spec"},
    "Object.spec": {"containers", "initContainers", "volumes"},
    "Object.spec.volumes": {"name", "csi", "hostPath", "emptyDir"},
    "Object.spec.volumes.csi": {
        *("driver", "readOnly", "fsType", "volumeAttributes", "nodePublishSecretRef"),
    },
}
_CONSTRUCTOR = re.compile(r"\bObject(?:\.\w+)*(?=\{)")


def policy(path: Path = HOSTPATH_POLICY) -> Manifest:
    return one(read(path), "ValidatingAdmissionPolicy")


def refusals(pod: Manifest, path: Path = HOSTPATH_POLICY) -> list[str]:
    """The messages of the validations that a pod fails; an expression that fails raises."""
    context: dict[str, Any] = {"object": json_to_cel(pod)}
    variables = celtypes.MapType()
    context["variables"] = variables
    spec = policy(path)["spec"]
    for variable in spec["variables"]:
        value = _program(variable["expression"]).evaluate(context)
        variables[celtypes.StringType(variable["name"])] = value
    found = []
    for validation in spec["validations"]:
        answer = _program(validation["expression"]).evaluate(context)
        assert isinstance(answer, celtypes.BoolType)
        if not answer:
            found.append(validation["message"])
    return found


def mutated(pod: Manifest, path: Path) -> Manifest:
    """The pod after a mutating policy; the same if its conditions do not hold."""
    spec = one(read(path), "MutatingAdmissionPolicy")["spec"]
    context: dict[str, Any] = {"object": json_to_cel(pod)}
    for condition in spec["matchConditions"]:
        answer = _program(condition["expression"]).evaluate(context)
        assert isinstance(answer, celtypes.BoolType)
        if not answer:
            return pod
    changed = copy.deepcopy(pod)
    for mutation in spec["mutations"]:
        assert mutation["patchType"] == "ApplyConfiguration"
        expression = mutation["applyConfiguration"]["expression"]
        changed = _applied(changed, _plain(_program(expression).evaluate(context)))
    return changed


def _applied(old: Any, new: Any) -> Any:
    """Merge as server-side apply does: maps by key, lists of volumes by name."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _applied(old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        changes = {item["name"]: item for item in new}
        assert changes.keys() <= {item["name"] for item in old}
        return [_applied(item, changes.get(item["name"], {})) for item in old]
    return new


def _plain(value: Any) -> Any:
    """A value of CEL as one of Python."""
    match value:
        case celtypes.MapType():
            return {str(key): _plain(one) for key, one in value.items()}
        case celtypes.ListType():
            return [_plain(one) for one in value]
        case celtypes.BoolType():
            return bool(value)
        case _:
            return str(value)


def _constructor(name: str) -> Callable[..., celtypes.MapType]:
    """Return the constructor of a type; an unknown field is an error, as in the API server."""

    def make(fields: celtypes.MapType) -> celtypes.MapType:
        unknown = {str(field) for field in fields} - _FIELDS[name]
        assert not unknown, f"{name} has no {unknown}"
        return fields

    return make


@cache
def _program(expression: str) -> Any:
    """A program. celpy has no nested names of types: Object.spec is Object_spec for it."""
    spelled = _CONSTRUCTOR.sub(lambda found: found[0].replace(".", "_"), expression)
    types: Any = {name.replace(".", "_"): _constructor(name) for name in _FIELDS}
    environment = celpy.Environment(annotations=types)
    return environment.program(environment.compile(spelled))
