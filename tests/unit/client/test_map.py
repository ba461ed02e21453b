"""The map of a node, drawn of a big node, of a small one and of a hostile one."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import resvg_py
from netutil.client.models.node import DescribedPod
from netutil.client.nodemap.dot import dot
from netutil.client.nodemap.html import html
from netutil.client.nodemap.layout import lay_out
from netutil.client.nodemap.model import (
    AllottedDevice,
    NodePicture,
    PicturedContainer,
    PicturedInterface,
    PicturedPod,
    picture_pod,
)
from netutil.client.nodemap.relations import relate
from netutil.client.nodemap.scene import shown
from netutil.client.nodemap.svg import svg
from netutil.client.rpc.convert import result
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as device_answers
from tests.support.answers import node as node_answers
from tests.support.svg_reader import Drawn, drawn_share, faults, read
from tests.unit.client import big_node
from tests.unit.client.big_node import FAR, PFS, PODS, SPLIT, SPLIT_TOO, SPREAD, big_picture

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="needs dot (graphviz)")
HOSTILE = '"><script>alert(1)</script>&amp;\']]><!--\\"; pod1 -- pod2; \u202e\x00\n{|}\\N\ufdfd'


@pytest.fixture(scope="module")
def picture() -> NodePicture:
    return big_picture()


@pytest.fixture(scope="module")
def drawn(picture: NodePicture) -> Drawn:
    return read(svg(lay_out(picture)))


def name_of(picture: NodePicture, number: int) -> str:
    pod = picture.pods[number - 1]
    return f"{pod.namespace}/{pod.name}"


def hostile_picture() -> NodePicture:
    """Every text that a workload or its plugins choose is hostile, and there is too much of it."""
    shared = PicturedContainer(HOSTILE, HOSTILE, (0, 1, 2), False, ())
    device = AllottedDevice(HOSTILE, HOSTILE * 3, (1,), HOSTILE)
    own = PicturedContainer(HOSTILE * 9, "running", (3,), True, (device,) * 30)
    interface = PicturedInterface(HOSTILE, "sr-iov", HOSTILE, HOSTILE, 1)
    pod = PicturedPod(HOSTILE * 3, HOSTILE * 3, True, (shared, own), (interface,) * 99, (HOSTILE,))
    other = PicturedPod("default", "pod1", False, (shared,), ())
    return replace(
        big_picture(0), node_name=HOSTILE * 9, pods=(pod, other), problems=(HOSTILE * 9,)
    )


def few_cpus() -> NodePicture:
    """A virtual machine: no NUMA node is known, one CPU is offline, no network card."""
    online = replace(big_node.cpu(0), numa_node=None, siblings=(0,))
    offline = replace(online, id=1, core=None, socket=None, siblings=(), online=False)
    app = PicturedContainer("app", "running", (0,), None, ())
    done = PicturedContainer("job", "terminated", (), None, ())
    pods = (PicturedPod("default", "web", False, (app, done), ()),)
    return replace(big_picture(0), cpus=(online, offline), devices=(), pods=pods)


PICTURES = {
    "big": big_picture(),
    "hostile": hostile_picture(),
    "few": few_cpus(),
    "empty": replace(big_picture(0), cpus=(), devices=(), observed_at=None),
}


@pytest.mark.parametrize("name", PICTURES)
def test_everything_is_on_the_page_and_no_texts_overlap(name: str) -> None:
    assert list(faults(read(svg(lay_out(PICTURES[name]))))) == []


def test_every_pod_and_every_cpu_is_drawn_once(picture: NodePicture, drawn: Drawn) -> None:
    names = [thing.name for thing in drawn.things if thing.name is not None]
    assert sorted(names) == sorted(name_of(picture, number) for number in range(1, PODS + 1))
    cpus = [int(thing.lines[0].what.split()[0]) for thing in drawn.of("cpu")]
    assert sorted(cpus) == [cpu.id for cpu in picture.cpus]


def test_a_cpu_shows_its_user(drawn: Drawn) -> None:
    shown = {thing.lines[0].what: thing for thing in drawn.of("cpu")}
    assert shown["5"].lines[1].what == f"#{SPLIT}" and "own" in shown["5"].kinds
    assert shown["0"].lines[1].what == "A" and "shared" in shown["0"].kinds
    assert "sA" in shown["0"].keys and f"p{SPLIT}" in shown["5"].keys
    assert "24 iso" in shown


def test_cpus_on_two_numa_nodes_are_marked_as_crossing(picture: NodePicture, drawn: Drawn) -> None:
    card = drawn.pod(name_of(picture, SPREAD))
    assert "crosses" in card.kinds and "! user-plane: own CPUs on NUMA 0-1" in card.text
    far = {thing.lines[0].what for thing in drawn.of("cpu") if "far" in thing.kinds}
    assert far == {"2", "66", "40", "104"}


def test_a_device_on_another_numa_node_is_marked(picture: NodePicture, drawn: Drawn) -> None:
    card = drawn.pod(name_of(picture, FAR))
    assert "! net1 on NUMA 0, user-plane on NUMA 1" in card.text
    (far,) = (thing for thing in drawn.of("function") if "far" in thing.kinds)
    assert far.lines[1].what == f"#{FAR} !"
    assert {t.text.partition("\n")[0][:3].strip() for t in drawn.of("crossing")} == {"#1", "#4"}


def test_nothing_else_is_marked_as_crossing(drawn: Drawn) -> None:
    assert len(drawn.of("crosses")) == 2
    assert len(drawn.of("far")) == 4 + 1


def test_pods_on_the_siblings_of_one_core_are_marked(picture: NodePicture, drawn: Drawn) -> None:
    (core,) = drawn.of("split")
    assert core.title == "socket 0, core 5, shared by #2, #3"
    (listed,) = drawn.of("splitting")
    assert listed.text == "CPUs 5,69: #2, #3"
    for number in (SPLIT, SPLIT_TOO):
        assert core.keys & listed.keys & drawn.pod(name_of(picture, number)).keys >= {f"p{number}"}


def test_functions_of_one_physical_function_have_a_key_in_common(drawn: Drawn) -> None:
    functions = drawn.of("function")
    assert len(functions) == PODS // 4
    assert all(f"f{PFS[0]}" in thing.keys for thing in functions)
    (first, second) = (thing for thing in drawn.of("device") if "VFs" in thing.text)
    assert first.text == "0000:3b:00.0 ice ens0f0 VFs: 27 used, 37 free"
    assert second.text.endswith("VFs: 0 used, 64 free")


def test_a_pool_that_spans_numa_nodes_is_marked(drawn: Drawn) -> None:
    (pool,) = drawn.of("pool")
    assert "NUMA 0-1, spans NUMA nodes" in pool.text and "120 containers of 92 pods" in pool.text


def test_a_core_that_a_pool_shares_with_an_owner_is_split() -> None:
    picture = big_picture(2)
    side = PicturedContainer("side", "running", (69, 70), False, ())
    pods = (replace(picture.pods[0], containers=(side,)), picture.pods[1])
    (core,) = relate(replace(picture, pods=pods)).split_cores
    assert (core.cpus, core.owners) == ((5, 69), ("#2", "pool A"))


def test_a_cpu_set_beyond_the_exclusive_cpus_is_not_exclusive() -> None:
    """An NRI plugin, say, has moved the container: the kubelet gave it 2-3, it runs on 0-3."""
    described = node_answers.described_pod()
    container = described.containers[0]
    assert container.cpu.exclusive_cpus == "2-3"
    container.container.effective_cpus = "2-3"
    assert picture_pod(result(DescribedPod, described)).containers[0].exclusive is True
    container.container.effective_cpus = "0-3"
    assert picture_pod(result(DescribedPod, described)).containers[0].exclusive is False
    container.cpu.ClearField("exclusive_cpus")
    assert picture_pod(result(DescribedPod, described)).containers[0].exclusive is None


def test_a_pool_of_one_container_is_not_said_to_be_shared() -> None:
    picture = big_picture(1)
    container = picture.pods[0].containers[0]
    alone = replace(container, cpus=(7,), exclusive=False)
    pod = replace(picture.pods[0], containers=(alone,))
    drawn = read(svg(lay_out(replace(picture, pods=(pod,)))))
    (pool,) = drawn.of("pool")
    assert "1 container of 1 pod" in pool.text
    words = " ".join((*(one.what for one in drawn.loose), *(one.text for one in drawn.things)))
    assert "shared" not in words.lower()


def test_an_interface_far_from_the_pods_cpus_crosses() -> None:
    picture = big_picture(2)
    interface = PicturedInterface("net1", "sr-iov", PFS[1], "", 1)
    pods = (picture.pods[0], replace(picture.pods[1], interfaces=(interface,)))
    crossings = relate(replace(picture, pods=pods)).crossings_of(2)
    assert [one.sentence for one in crossings] == ["net1 on NUMA 1, CPUs on NUMA 0"]


def test_the_picture_is_not_blank_when_it_is_rendered(picture: NodePicture) -> None:
    text = svg(lay_out(picture))
    png = resvg_py.svg_to_bytes(svg_string=text)
    assert drawn_share(png) > 0.02
    without = re.sub(r"(?s)</style>.*</svg>", "</style></svg>", text)
    assert drawn_share(resvg_py.svg_to_bytes(svg_string=without)) < 0.002


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.policy = ""
        self.inline: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        if tag in ("script", "style"):
            self.inline.append((tag, ""))

    def handle_data(self, data: str) -> None:
        if self.inline and self.tags[-1][0] in ("script", "style") and not self.inline[-1][1]:
            self.inline[-1] = (self.inline[-1][0], data)


def page_of(picture: NodePicture) -> Page:
    page = Page()
    page.feed(html(lay_out(picture)))
    page.close()
    return page


@pytest.mark.parametrize("name", PICTURES)
def test_the_page_may_run_its_own_script_alone_and_loads_nothing(name: str) -> None:
    page = page_of(PICTURES[name])
    directives = dict(part.split(None, 1) for part in page.policy.split(";"))
    assert directives["default-src"] == "'none'"
    hashes = {"script": [], "style": []}  # type: dict[str, list[str]]
    for tag, text in page.inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[tag].append(f"'sha256-{digest}'")
    assert directives["script-src"].split() == hashes["script"] and len(hashes["script"]) == 1
    assert directives["style-src"].split() == hashes["style"]
    names = {name for _, attributes in page.tags for name in attributes}
    assert names.isdisjoint({"src", "href", "xlink:href", "style", "action"})
    assert not [name for name in names if name.startswith("on")]


@pytest.mark.parametrize("name", PICTURES)
def test_the_svg_loads_nothing_and_runs_nothing(name: str) -> None:
    text = svg(lay_out(PICTURES[name]))
    read(text)  # nothing but groups, rectangles and text
    assert not re.search(r"@import|url\(|<script|<image|<use|foreignObject", text)


def test_hostile_names_are_drawn_as_text() -> None:
    drawn = read(svg(lay_out(hostile_picture())))
    names = [thing.name for thing in drawn.things if thing.name is not None]
    assert len(names) == 2
    assert "<script>alert(1)</script>" in names[0] and "\\u202e" in names[0]
    assert {thing.name for thing in drawn.things if "p2" in thing.keys} >= {"default/pod1"}


def test_a_pod_with_very_many_interfaces_does_not_fill_the_page() -> None:
    things = read(svg(lay_out(hostile_picture()))).things
    (card,) = (thing for thing in things if thing.name is not None and "p1" in thing.keys)
    assert 20 < len(card.lines) < 40
    assert "more lines" in card.text
    (crossing,) = (thing for thing in things if "crossing" in thing.kinds and thing.keys)
    assert crossing.lines[-1].what == "! and 121 more"


def graph(text: str, output: str = "plain") -> str:
    done = subprocess.run(
        ["dot", f"-T{output}"], input=text, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout


@needs_dot
@pytest.mark.parametrize("name", PICTURES)
def test_graphviz_takes_the_graph(name: str) -> None:
    assert graph(dot(PICTURES[name])).startswith("graph ")


@needs_dot
def test_the_graph_has_every_pod_and_marks_what_crosses() -> None:
    text = dot(big_picture())
    plain = graph(text)
    assert len(re.findall(r"^node pod\d+ ", plain, re.MULTILINE)) == PODS
    far = re.findall(r"^(pod\d+) -- (\S+|\"[^\"]*\") \[color=\"#d55e00\"", text, re.MULTILINE)
    assert {pod for pod, _ in far} == {f"pod{SPREAD}", f"pod{FAR}"}
    assert len(far) == 2 + 1


@needs_dot
def test_a_hostile_name_adds_no_node_and_no_edge() -> None:
    plain = graph(dot(hostile_picture()))
    nodes = re.findall(r"^node (\S+)", plain, re.MULTILINE)
    assert sorted(nodes)[-4:] == ["core3", "pod1", "pod2", "poolA"]
    assert len(nodes) == 4 + 2  # the device of the plugin, and that of the interfaces
    ends = re.findall(r"^edge (\S+) (\S+)", plain, re.MULTILINE)
    assert ("pod1", "pod2") not in ends


@needs_dot
def test_a_device_that_is_called_as_a_pod_is_none_in_the_graph() -> None:
    picture = big_picture(2)
    app = replace(picture.pods[0].containers[0], devices=(AllottedDevice("res", "pod2", ()),))
    pods = (replace(picture.pods[0], containers=(app,)), picture.pods[1])
    plain = graph(dot(replace(picture, pods=pods)))
    assert re.search(r'^edge pod1 "device pod2" ', plain, re.MULTILINE)
    assert not re.search(r"^edge pod1 pod2 ", plain, re.MULTILINE)


@needs_dot
def test_graphviz_shows_the_same_text_as_the_svg() -> None:
    picture = hostile_picture()
    root = ET.fromstring(graph(dot(picture), "svg"))  # noqa: S314 - graphviz's own output
    texts = "".join(root.itertext())
    assert shown(HOSTILE) in texts and f"#1 {shown(picture.pods[0].namespace)}/" in texts


def test_a_field_that_is_not_understood_is_a_problem_of_the_card() -> None:
    described = node_answers.described_pod()
    del described.containers[:]
    described.not_understood[:] = ["status", *(f"spec.f{number}" for number in range(9))]
    problems = picture_pod(result(DescribedPod, described)).problems
    assert problems[0] == "status: not understood"
    assert "6 more fields: not understood" in problems


def test_an_unknown_request_of_a_pod_is_a_problem_of_its_card() -> None:
    described = node_answers.described_pod()
    for part in (described.containers[0].cpu, described.containers[0].hugepages):
        part.spec_error.reason = "QUANTITY_MALFORMED"
    described.containers[0].cpu.spec_error.part = "amounts"
    described.containers[0].hugepages.spec_error.part = "containers"
    problems = picture_pod(result(DescribedPod, described)).problems
    assert {"amounts: QUANTITY_MALFORMED", "containers: QUANTITY_MALFORMED"} <= set(problems)


def contested() -> NodePicture:
    """CPU 3 is given to pod 1 alone, and is of a pool; CPU 4 is given to two pods alone."""
    own = PicturedContainer("own", "running", (3, 4), True, ())
    rival = PicturedContainer("rival", "running", (4,), True, ())
    shared = PicturedContainer("app", "running", (2, 3), False, ())
    pods = tuple(
        PicturedPod("default", one.name, False, (one,), ()) for one in (own, rival, shared)
    )
    return replace(big_picture(0), pods=pods)


def test_an_exclusive_cpu_that_others_may_use_is_a_conflict() -> None:
    found = {one.cpus: one.users for one in relate(contested()).conflicts}
    assert found == {(3,): ("#1", "pool A"), (4,): ("#1", "#2")}


def test_two_containers_of_one_pod_on_one_cpu_are_a_conflict() -> None:
    one, two = (PicturedContainer(name, "running", (5,), True, ()) for name in ("a", "b"))
    pod = PicturedPod("default", "web", False, (one, two), ())
    (conflict,) = relate(replace(big_picture(0), pods=(pod,))).conflicts
    assert (conflict.cpus, conflict.users) == ((5,), ("#1",))


def test_a_node_without_conflicts_has_no_section_of_them(picture: NodePicture) -> None:
    assert relate(picture).conflicts == ()
    assert "and others may use" not in svg(lay_out(picture)).replace("others may use it too", "")


def test_a_conflict_is_marked_in_each_drawing() -> None:
    picture = contested()
    text = svg(lay_out(picture))
    assert "CPUs that the kubelet gave one container alone, and others may use (2)" in text
    assert "! CPUs 3: #1, pool A" in text and "! CPUs 4: #1, #2" in text
    assert text.count(">#1!<") == 2
    assert list(faults(read(text))) == []
    assert dot(picture).count("conflict: others may use it") == 3


def test_a_pod_with_a_broken_network_is_marked_in_each_drawing() -> None:
    container = PicturedContainer("app", "running", (0,), False, ())
    broken = ("network_status: NETWORK_STATUS_MALFORMED", "net1: down")
    pod = PicturedPod("default", "web", False, (container,), (), (), broken)
    picture = replace(big_picture(0), pods=(pod,))
    text = svg(lay_out(picture))
    assert "Pods with a broken network (1)" in text
    assert text.count("! net1: down") >= 2  # its own card and that of the section
    assert list(faults(read(text))) == []
    assert "network broken: net1: down" in dot(picture)


def test_faults_are_source_errors_down_links_and_drift() -> None:
    described = node_answers.described_pod()
    del described.interfaces.interfaces[1:]
    (interface,) = described.interfaces.interfaces
    interface.name, interface.link.up = "net1", False
    del interface.drift[:]
    interface.drift.add(field="mtu", reported="9000", found="1500")
    interface.drift.add(field="link", reported="net1")
    described.errors.add(
        part="network_status", code="FAILED_PRECONDITION", reason="NETWORK_STATUS_MALFORMED"
    )
    found = picture_pod(result(DescribedPod, described))
    assert found.faults == (
        "network_status: NETWORK_STATUS_MALFORMED",
        "net1: down",
        "net1: mtu reported 9000, found 1500",
        "net1: reported, but the pod has no such link",
    )
    assert "network_status: NETWORK_STATUS_MALFORMED" not in found.problems


@pytest.mark.parametrize("name", PICTURES)
def test_the_map_fits_1280_pixels(name: str) -> None:
    assert lay_out(PICTURES[name]).width == 1280


def of_a_claim() -> DescribedPod:
    """Two containers share a claim, and one function of the claim is an interface."""
    described = node_answers.described_pod()
    app, side, _ = described.containers
    other = api.ClaimDevice(pool="cpus", device="cpu-7")
    other.attributes["resource.kubernetes.io/numaNode"].int_value = 1
    requests = (
        device_answers.claim_request(device_answers.whole_claim_device()),
        device_answers.claim_request(other, pod_claim="", extended_resource="a.example/cpu"),
    )
    app.resources.Clear()
    for container in (app, side):
        container.resources.claims.extend(requests)
    claim = device_answers.interface_claim(device_answers.whole_claim_device())
    described.interfaces.interfaces.add(name="net5", claim=claim)
    return result(DescribedPod, described)


def test_the_devices_of_claims_are_those_of_the_container() -> None:
    pod = picture_pod(of_a_claim())
    assert [one.devices for one in pod.containers[:2]] == [
        (
            AllottedDevice("claim nic", "0000:3b:02.5", (0,), "Unhealthy"),
            AllottedDevice("a.example/cpu", f"{device_answers.SRIOV_DRIVER}/cpus/cpu-7", (1,)),
        )
    ] * 2
    net5 = pod.interfaces[-1]
    assert (net5.name, net5.pci_address) == ("net5", "0000:3b:02.5")
    assert "net5: NetworkReady is False (NoCarrier)" in pod.faults


def test_a_device_of_a_shared_claim_is_drawn_once() -> None:
    picture = replace(big_picture(0), pods=(picture_pod(of_a_claim()),))
    drawing = read(svg(lay_out(picture)))
    assert list(faults(drawing)) == []
    card = drawing.pod("default/web-0")
    assert card.text.count("0000:3b:02.5") == card.text.count("cpu-7 NUMA 1") == 1
    assert "net5 0000:3b:02.5 (Unhealthy)" in card.text
    text = dot(picture)
    assert text.count('label="net5 (Unhealthy)') == 1
    assert relate(picture).device_users["0000:3b:02.5"] == (1,)


def test_a_function_of_a_claim_is_in_use() -> None:
    pods = (picture_pod(of_a_claim()), replace(picture_pod(of_a_claim()), name="other"))
    assert relate(replace(big_picture(0), pods=pods)).device_users["0000:3b:02.5"] == (1, 2)


def test_devices_of_two_plugins_with_one_id_are_both_drawn() -> None:
    devices = (AllottedDevice("a.example/x", "0", ()), AllottedDevice("b.example/y", "0", ()))
    container = PicturedContainer("app", "running", (0,), False, devices)
    pod = PicturedPod("default", "web", False, (container, container), ())
    card = read(svg(lay_out(replace(big_picture(0), pods=(pod,))))).pod("default/web")
    assert card.text.count("a.example/x 0") == card.text.count("b.example/y 0") == 1


@pytest.mark.parametrize("where", ["interfaces", "container", "request"])
def test_claims_that_are_not_known_are_problems(where: str) -> None:
    described = node_answers.described_pod()
    error = device_answers.part_error("claims")
    resources = described.containers[0].resources
    match where:
        case "interfaces":
            described.interfaces.claims_error.CopyFrom(error)
        case "container":
            resources.claims_error.CopyFrom(error)
        case _:
            resources.claims.append(device_answers.claim_request(error=error))
    found = picture_pod(result(DescribedPod, described))
    assert "claims: POD_RESOURCES_UNAVAILABLE" in found.problems
