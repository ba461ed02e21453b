"""The admission policy, judged by a CEL implementation as the API server would judge."""

from __future__ import annotations

from functools import cache
from typing import Any

import celpy
from celpy import celtypes
from celpy.adapter import json_to_cel

from tests.manifests.documents import ADMISSION, Manifest, one, read

_ENVIRONMENT = celpy.Environment()


def policy() -> Manifest:
    return one(read(ADMISSION), "ValidatingAdmissionPolicy")


def refusals(pod: Manifest) -> list[str]:
    """The messages of the validations that a pod fails; an expression that fails raises."""
    context: dict[str, Any] = {"object": json_to_cel(pod)}
    variables = celtypes.MapType()
    context["variables"] = variables
    for variable in policy()["spec"]["variables"]:
        value = _program(variable["expression"]).evaluate(context)
        variables[celtypes.StringType(variable["name"])] = value
    found = []
    for validation in policy()["spec"]["validations"]:
        answer = _program(validation["expression"]).evaluate(context)
        assert isinstance(answer, celtypes.BoolType)
        if not answer:
            found.append(validation["message"])
    return found


@cache
def _program(expression: str) -> Any:
    return _ENVIRONMENT.program(_ENVIRONMENT.compile(expression))
