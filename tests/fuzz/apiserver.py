"""Claims of the API server, and kubeconfigs."""

from __future__ import annotations

import json

from netutil.agent.pods.claims_api import requests_of
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.http.kubeconfig import Kubeconfig, selected
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.sources.claims_model import (
    Claim,
    Slice,
    decode_claim,
    decode_claims,
    decode_slice,
    newest,
)

from tests.fuzz.target import Target
from tests.support.fakes.claims_of_api import claim, resource_slice
from tests.support.fakes.kubeconfigs import document

_JSON = (b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"1e9", b'"', b"NaN", b"\\ud800")
_FIELDS = (b'"status"', b'"allocation"', b'"devices"', b'"conditions"', b'"networkData"', b'"uid"')


class _Unusable(Exception):
    """A kubeconfig that is refused."""


def _claim(data: bytes) -> Claim:
    return decode_claim(data, Flaws())


def _claim_holds(data: bytes, found: Claim) -> None:
    del data
    requests = requests_of(found, {})
    assert sum(len(one.devices) for one in requests) == len(found.results)
    assert not (found.problem and requests)


def _claims(data: bytes) -> tuple[Claim, ...]:
    return decode_claims(data, Flaws())


def _slice(data: bytes) -> Slice:
    return decode_slice(data, Flaws())


def _slice_holds(data: bytes, found: Slice) -> None:
    del data
    assert sum(len(pool.devices) for pool in newest([found]).values()) <= len(found.devices)


def _kubeconfig(data: bytes) -> Kubeconfig:
    return selected(data, _Unusable)


def targets() -> tuple[Target, ...]:
    one = json.dumps(claim()).encode()
    config = json.dumps(document()).encode()
    plugin = document({"exec": {"apiVersion": "v1", "command": "login", "args": ["a"]}})
    yaml = b"current-context: a\ncontexts: [{name: a, context: {cluster: a}}]\nclusters: []\n"
    return (
        Target("claim", _claim, (one,), (PodListMalformed,), _claim_holds, (*_JSON, *_FIELDS)),
        Target(
            "claim-list",
            _claims,
            (b'{"items": [%s, %s]}' % (one, one),),
            (PodListMalformed,),
            words=(*_JSON, *_FIELDS, b'"items"'),
        ),
        Target(
            "slice",
            _slice,
            (json.dumps(resource_slice()).encode(),),
            (PodListMalformed,),
            _slice_holds,
            (*_JSON, b'"attributes"', b'"basic"', b'"ints"', b'"pool"'),
        ),
        Target(
            "kubeconfig",
            _kubeconfig,
            (config, json.dumps(plugin).encode(), yaml),
            (_Unusable,),
            words=(*_JSON, b"&a ", b"*a", b"<<: ", b"- ", b"!!set ", b"\n  ", b'"exec"'),
            most_more=16384,
        ),
    )
