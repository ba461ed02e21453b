"""Legal input of any client, by the library `h2`, and frames with random content."""

from __future__ import annotations

import random
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hypothesis import given, settings
from hypothesis import strategies as st
from netutil.agent.grpcserver import HeaderLimits, ServerConfig
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.headers import encode_block

from tests.support.grpcserver.engine import Echoing, calls, kinds
from tests.support.grpcserver.raw import fields
from tests.support.http2 import message


def cut(data: bytes, choose: random.Random) -> list[bytes]:
    """Any pieces of the same bytes."""
    parts = []
    while data:
        size = choose.choice((1, 3, 9, 100, 5000, 70_000))
        parts.append(data[:size])
        data = data[size:]
    return parts


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 30))
def test_a_client_of_random_legal_acts_gets_each_answer_whole(  # noqa: C901, PLR0915 - steps
    seed: int, count: int
) -> None:
    choose = random.Random(seed)  # noqa: S311
    echo = Echoing()
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    client.initiate_connection()
    wanted: dict[int, bytes] = {}
    left: dict[int, bytes] = {}
    got: dict[int, bytearray] = {}
    ended: set[int] = set()
    reset: set[int] = set()
    unacknowledged = [1]
    """h2 applies what it sent last with the first acknowledgement that comes, whosever that is."""

    def update(settings: dict[int, int]) -> None:
        if not unacknowledged:
            client.update_settings(settings)
            unacknowledged.append(1)

    def exchange() -> None:
        for part in cut(client.data_to_send(), choose):
            echo.http2.receive(part)
        for event in client.receive_data(echo.take()):
            if isinstance(event, h2.events.DataReceived):
                got.setdefault(event.stream_id, bytearray()).extend(event.data)
                if event.flow_controlled_length:
                    client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                ended.add(event.stream_id)
            elif isinstance(event, h2.events.SettingsAcknowledged):
                unacknowledged.pop()
            elif isinstance(event, h2.events.StreamReset):
                reset.add(event.stream_id)
            else:
                assert not isinstance(event, h2.events.ConnectionTerminated), event

    def begin() -> None:
        if len(wanted) - len(ended) - len(reset) >= 60 or len(wanted) >= count:
            return
        stream = client.get_next_available_stream_id()
        head = [*fields(), (f"x-{choose.randrange(9)}".encode(), b"v" * choose.randrange(200))]
        wanted[stream] = left[stream] = choose.randbytes(
            choose.choice((0, 1, 1000, 40_000, 150_000))
        )
        client.send_headers(stream, head, end_stream=not wanted[stream])
        if not wanted[stream]:
            del left[stream]

    def send() -> None:
        if not left:
            return
        stream = choose.choice(list(left))
        window = min(client.local_flow_control_window(stream), client.max_outbound_frame_size)
        padding = choose.choice((0, 0, 100))
        part = left[stream][: max(0, min(window - padding - 1, choose.randrange(1, 20_000)))]
        if not part:
            return
        left[stream] = left[stream][len(part) :]
        last = not left[stream]
        client.send_data(stream, part, end_stream=last, pad_length=padding or None)
        if last:
            del left[stream]

    def drop() -> None:
        if left and not choose.randrange(4):
            stream = choose.choice(list(left))
            del left[stream]
            client.reset_stream(stream, 8)
            reset.add(stream)

    def other() -> None:
        if not choose.randrange(5):
            window = choose.choice((0, 1, 100, 65_535, 2**20))
            update({4: window, 1: choose.choice((0, 4096, 65_536))})
        elif not choose.randrange(5):
            client.prioritize(2 * choose.randrange(50) + 1, weight=5, depends_on=0)

    steps: list[Callable[[], None]] = [begin, send, send, send, drop, other, exchange]
    for _ in range(count * 10):
        choose.choice(steps)()
    for number in range(3000):
        if number % 10 == 0:
            update({4: 2**20})
        begin()
        send()
        exchange()
        if not left and len(ended | reset) == len(wanted) == count:
            break
    for stream, body in wanted.items():
        if stream not in reset:
            assert stream in ended
            assert bytes(got.get(stream, b"")) == body
    assert not echo.http2.streams and not echo.bodies


frames_of_anything = st.lists(
    st.tuples(
        st.integers(0, 10),
        st.integers(0, 255),
        st.sampled_from([0, 1, 1, 3, 5, 2, 2**31 - 1]),
        st.one_of(
            st.binary(max_size=40),
            st.just(encode_block(fields())),
            st.just(message(b"x")),
            st.just(bytes(8)),
            st.just(bytes(4)),
        ),
    ),
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(frames_of_anything)
def test_any_frames_end_in_an_answer_or_goaway_and_no_exception(
    sent: list[tuple[int, int, int, bytes]],
) -> None:
    echo = Echoing()
    echo.http2.receive(f.PREFACE + f.settings_frame({}))
    for kind, flags, stream, payload in sent:
        echo.http2.receive(f.frame(kind, flags, stream, payload))
    out = echo.take()
    assert (
        not echo.http2.closing
        or f.GOAWAY in kinds(out)
        or f.goaway(0, 0)[3] in kinds(out)
        or (any(kind == f.GOAWAY for kind, *_ in sent))
    )
    assert len(echo.http2.streams) <= 64


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_taken_without_an_exception(data: bytes) -> None:
    echo = Echoing()
    echo.http2.receive(data)
    other = Echoing()
    other.http2.receive(f.PREFACE + f.settings_frame({}) + data)


def test_decoding_takes_steps_in_proportion_to_the_bytes() -> None:
    """Literals one after another, of which each copied the rest of the block in the library."""

    def steps(count: int) -> int:
        # Small fields, below the size at which decoding is given up.
        block = encode_block(fields()) + b"\0\1a\1b" * count
        echo = Echoing(
            ServerConfig(headers=HeaderLimits(max_block_bytes=10**9, max_list_bytes=10**9))
        )
        parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        data = f.frame(f.HEADERS, 0, 1, parts[0])
        data += b"".join(f.frame(f.CONTINUATION, 0, 1, part) for part in parts[1:-1])
        data += f.frame(f.CONTINUATION, 4, 1, parts[-1])
        echo.http2.receive(f.PREFACE + f.settings_frame({}))
        return calls(lambda: echo.http2.receive(data))

    assert steps(80_000) < 11 * steps(8_000)
