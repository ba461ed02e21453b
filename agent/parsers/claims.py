"""The devices of ResourceClaims, one set of values for both sources of them. Opens nothing.

Drivers' files on the node (`netutil.agent.parsers.device_metadata`) and claims and slices of the
API server (`netutil.agent.pods.sources.claims_model`) are decoded to these values. None is what the
source does not say. Types are those of resource.k8s.io v1 (`k8s.io/api/resource/v1`, types.go).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated

import msgspec
from netutil.agent.errors import AgentError
from netutil.agent.parsers.addresses import normalise_pci_address
from netutil.agent.parsers.pci import PciInfo

PCI_BUS_ID = "resource.kubernetes.io/pciBusID"
"""StandardDeviceAttributePCIBusID of k8s.io/dynamic-resource-allocation/deviceattribute."""
MAX_ATTRIBUTES = 64
"""Of one device. The API has at most 32 with capacities."""
MAX_VALUES = 64
"""Of one list: values of an attribute, addresses, conditions."""
MAX_TEXT = 32 * 1024
"""Characters of one text. What the agent reads of the API has at most some hundred."""

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""An int64, as in Go."""
_Values = msgspec.Meta(max_length=MAX_VALUES)


class ClaimSource(Enum):
    """Which source names a request's devices; see enum ClaimSource of the proto."""

    NONE = "none"
    NODE = "node"
    API_SERVER = "apiserver"


class Attribute(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """DeviceAttribute: one of the fields is set, by the type of the value.

    None is set where the type is one that a later version of the API has.
    """

    int_value: Integer | None = msgspec.field(name="int", default=None)
    bool_value: bool | None = msgspec.field(name="bool", default=None)
    string_value: Text | None = msgspec.field(name="string", default=None)
    version_value: Text | None = msgspec.field(name="version", default=None)
    int_values: Annotated[tuple[Integer, ...], _Values] | None = msgspec.field(
        name="ints", default=None
    )
    bool_values: Annotated[tuple[bool, ...], _Values] | None = msgspec.field(
        name="bools", default=None
    )
    string_values: Annotated[tuple[Text, ...], _Values] | None = msgspec.field(
        name="strings", default=None
    )
    version_values: Annotated[tuple[Text, ...], _Values] | None = msgspec.field(
        name="versions", default=None
    )


class NetworkData(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """NetworkDeviceData."""

    interface_name: Text | None = None
    ips: Annotated[tuple[Text, ...], _Values] | None = None
    hardware_address: Text | None = None


class DeviceCondition(msgspec.Struct, frozen=True, rename="camel"):
    """Condition of meta/v1: "Ready", "NetworkReady", …; `status` is "True", "False", "Unknown"."""

    type: Text
    status: Text
    reason: Text = ""
    message: Text = ""
    last_transition_time: datetime | None = None


Conditions = Annotated[tuple[DeviceCondition, ...], _Values]


@dataclass(frozen=True, slots=True)
class ClaimDevice:
    """A device of a request.

    `attributes` are by name, sorted: None where no source describes the device. `share_id` and
    `conditions` are what the API server says, `health` and `health_message` what the kubelet says.
    `pci` is None if the device has no PCI address, or the host no such function.
    """

    pool: str
    name: str
    attributes: tuple[tuple[str, Attribute], ...] | None = None
    network_data: NetworkData | None = None
    share_id: str | None = None
    conditions: tuple[DeviceCondition, ...] | None = None
    pci: PciInfo | None = None
    health: str | None = None
    health_message: str | None = None

    @property
    def pci_address(self) -> str:
        """Return the PCI address that the driver reports, as sysfs spells it, "" for none.

        Only the attribute counts: drivers may name devices after addresses as well.
        """
        for name, attribute in self.attributes or ():
            if name == PCI_BUS_ID:
                return normalise_pci_address(attribute.string_value or "") or ""
        return ""

    @property
    def interface_name(self) -> str:
        """Return the interface name that the driver reports, "" for none."""
        return (self.network_data and self.network_data.interface_name) or ""

    @property
    def may_be_interface(self) -> bool:
        """Return whether the device is one of the network, as far as a source says it."""
        return self.network_data is not None or (self.pci is not None and bool(self.pci.is_network))


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A request of a claim, and the devices that one driver allocated for it.

    `pod_claim` is "" for a claim that backs `extended_resource`, `claim_name` while the claim of a
    template is not made; `request` and `driver` are "" where no source has the devices. `error` is
    why `devices` are not known, or not by the node where `source` is the API server.
    """

    pod_claim: str
    claim_name: str
    claim_namespace: str
    extended_resource: str = ""
    claim_uid: str | None = None
    request: str = ""
    driver: str = ""
    source: ClaimSource = ClaimSource.NONE
    generation: int | None = None
    devices: tuple[ClaimDevice, ...] = ()
    error: AgentError | None = None
