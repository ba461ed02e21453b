"""The annotations of the Userspace CNI plugin."""

from __future__ import annotations

import json

import pytest
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.parsers.network_status import Device, DeviceInfo
from netutil.agent.parsers.userspace_cni import UserspaceInterface, parse_userspace

from tests.support.annotations import USERSPACE, USERSPACE_DIRECTORY

VHOST_USER = UserspaceInterface(
    "net1",
    "userspace-ovs-net-1",
    DeviceInfo(
        "vhost-user",
        "",
        {
            "vhost-user": Device(
                {"mode": "client", "path": "/var/lib/cni/usrspcni/87042916ab4d-net1"}
            )
        },
    ),
)
MEMIF = UserspaceInterface(
    "net2",
    "userspace-vpp-net",
    DeviceInfo(
        "memif",
        "",
        {
            "memif": Device(
                {
                    "role": "slave",
                    "mode": "ethernet",
                    "path": "/var/lib/cni/usrspcni/memif-87042916ab4d-net2.sock",
                }
            )
        },
    ),
)


@pytest.mark.parametrize("directory", [USERSPACE_DIRECTORY, USERSPACE_DIRECTORY.rstrip("/")])
def test_both_kinds_are_read_as_the_plugin_writes_them(directory: str) -> None:
    assert parse_userspace(USERSPACE, directory, read="x") == (VHOST_USER, MEMIF)


def test_no_path_is_known_without_the_directory() -> None:
    first, _ = parse_userspace(USERSPACE, "", read="x")
    assert first.device_info.devices["vhost-user"].fields["path"] == ""


def test_an_interfaces_last_entry_counts_and_other_types_do_not() -> None:
    def entry(iftype: str, mode: str) -> dict[str, object]:
        return {"ifName": "net1", "config": {"iftype": iftype, "vhost": {"mode": mode}}}

    entries = [entry("vhostuser", "client"), entry("vhostuser", "server"), entry("tap", "x")]
    (found,) = parse_userspace(json.dumps(entries), "", read="x")
    assert found.device_info.devices["vhost-user"].fields["mode"] == "server"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{}", "the annotation must be a list"),
        ("[1]", "[0] must be an object"),
        ('[{"config": []}]', "[0].config must be an object"),
        ('[{"config": {"iftype": 1}}]', "[0].config.iftype must be a string"),
        (
            '[{"config": {"iftype": "memif", "memif": {"socketfile": []}}}]',
            "[0].config.memif.socketfile must be a string",
        ),
        ("[", "not JSON"),
    ],
)
def test_text_that_the_plugin_does_not_write_is_refused(text: str, where: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        parse_userspace(text, "", read="annotation userspace/configuration-data of pod x")
    assert refused.value.reason is Reason.NETWORK_STATUS_MALFORMED
    assert where in refused.value.message
    whose = "The pod's annotation userspace/configuration-data cannot be used: "
    assert refused.value.message.startswith(whose)
    assert "configuration-data" in refused.value.read
