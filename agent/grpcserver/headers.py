"""Header blocks of HTTP/2: HPACK (RFC 7541) by the library's parts, and what a request must be.

The library's `Decoder` copies the rest of the block for each literal and gives up in the middle of
a block that is too large, after which the connection is lost. This decoder takes time linear in
the block, keeps the table right past a limit, and says whether the table changed, so that a block
that was decoded before can be looked up by its bytes.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable, table_entry_size

Field = tuple[bytes, bytes]

_MAX_INTEGER_BYTES = 5
_MEMO_BLOCKS = 16
_MEMO_BLOCK_BYTES = 1024
_MEMO_FIELDS = 32
"""What clients send stays below both, and a connection's memo below 100 KiB."""
_FIRST_BLOCKS = 64
"""Kept of a server: below 640 KiB with what is made of them."""
_REPLACE_SECONDS = 1.0
"""With all places taken, a block that begins some connection once a minute keeps its place,
whatever others send."""
_HUFFMAN_BYTES_PER_WORK = 2
_SIZE_UPDATE = 0x20
_SEVEN_BITS = 0x7F
_NAME = re.compile(rb"[!#-'*+\-.0-9^_`a-z|~]+")
_BAD_VALUE = re.compile(rb"[\0\r\n]")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_PSEUDO = (b":method", b":scheme", b":path", b":authority")
_OF_CONNECTIONS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)


class BlockError(Exception):
    """A header block that cannot be decoded: the connection's compression state is lost."""


class BlockTooCostlyError(Exception):
    """A header block with more fields or bytes than a well-behaved peer sends."""


@dataclass(frozen=True, slots=True)
class Request:
    """The fields of a request. `malformed` says why it is none (RFC 9113, 8.1.1), "" if it is.

    `oversized` is set where the fields are larger than the limit; then `fields` lacks some.
    """

    method: bytes = b""
    scheme: bytes = b""
    path: bytes = b""
    authority: bytes | None = None
    fields: tuple[Field, ...] = ()
    content_length: int | None = None
    malformed: str = ""
    oversized: bool = False
    notes: dict[str, object] = field(default_factory=dict)
    """For those above: what they made of this request, which may come again."""


class _Table(HeaderTable):
    """The peer's dynamic table, which counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.version += 1
        super().add(name, value)

    def resize(self, size: int) -> None:
        self.version += 1
        self.maxsize = size

    def state(self) -> _TableState | None:
        """Return the state, None of a table of another size than the default."""
        if self.maxsize != HeaderTable.DEFAULT_SIZE:
            return None
        return _TableState(tuple(self.dynamic_entries), self._current_size, self.version)

    def enter(self, state: _TableState) -> None:
        """Come from the first state of all to another, as by the same block."""
        self.dynamic_entries.extend(state.entries)
        self._current_size = state.size
        self.version = state.version


@dataclass(frozen=True, slots=True)
class _TableState:
    """A dynamic table of the default size: its entries, the newest first, and their size."""

    entries: tuple[Field, ...]
    size: int
    version: int


class FirstBlocks:
    """What the first header blocks of connections are, by their bytes.

    The same bytes decoded with an empty dynamic table give the same request and the same table:
    a client begins each of its connections alike. Bounded: blocks are small, and once it is full a
    new one takes the place of the one that was not used for the longest time, one in
    `_REPLACE_SECONDS`. So no peer can drive out what others use.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._known: OrderedDict[bytes, tuple[Request, _TableState]] = OrderedDict()
        self._replace_at = 0.0

    def __len__(self) -> int:
        return len(self._known)

    def find(self, block: bytes) -> tuple[Request, _TableState] | None:
        """Return the request of a block and the table after it, None if it is not known."""
        found = self._known.get(block)
        if found is not None:
            self._known.move_to_end(block)
        return found

    def remember(self, block: bytes, request: Request, state: _TableState) -> None:
        """Note what a block is, if there is a place for it."""
        if len(self._known) >= _FIRST_BLOCKS:
            now = self._now()
            if now < self._replace_at:
                return
            self._replace_at = now + _REPLACE_SECONDS
            self._known.popitem(last=False)
        self._known[block] = request, state


_MAX_HUFFMAN_BITS = 30
"""Of one byte (RFC 7541, appendix B)."""


class BlockDecoder:
    """Decodes the blocks of one connection, in their order.

    `max_list_bytes` is the size past which a request is `oversized` (RFC 9113, 10.5.1: names,
    values and 32 for each field); `max_cost_bytes` is the size past which decoding is given up.
    `first_blocks` is shared by connections with the same limits.
    """

    def __init__(
        self, max_list_bytes: int, max_cost_bytes: int, first_blocks: FirstBlocks | None = None
    ) -> None:
        self._max_list = max_list_bytes
        self._max_cost = max_cost_bytes
        self._first_blocks = first_blocks
        self._table = _Table()
        self._memo: dict[bytes, Request] = {}
        self._memo_version = 0
        self.work = 0
        """What decoding has taken so far, in units of about one field that is not compressed."""

    def request(self, block: bytes) -> Request:
        """Return the request of a block. Raises `BlockError`, `BlockTooCostlyError`."""
        table = self._table
        version = table.version
        if version == self._memo_version:
            known = self._memo.get(block)
            if known is not None:
                return known
        # Version 0: nothing has changed the table since the connection began.
        first = None if version or self._first_blocks is None else self._first_blocks.find(block)
        if first is not None:
            request, state = first
            table.enter(state)
            return request
        fields, oversized = self._decode(block)
        found = _request(fields, oversized)
        is_small = len(block) <= _MEMO_BLOCK_BYTES and len(fields) <= _MEMO_FIELDS
        if not is_small or oversized:
            return found
        if not version and self._first_blocks is not None:
            after = table.state()
            if after is not None:
                self._first_blocks.remember(block, found, after)
        if table.version == version:
            if version != self._memo_version or len(self._memo) >= _MEMO_BLOCKS:
                self._memo.clear()
                self._memo_version = version
            self._memo[block] = found
        return found

    def trailers(self, block: bytes) -> bool:
        """Decode trailers, whose content is not used. Return whether they are well-formed."""
        fields, _ = self._decode(block)
        return not any(_field_error(name, value) or name[:1] == b":" for name, value in fields)

    def _decode(self, block: bytes) -> tuple[list[Field], bool]:
        try:
            return self._fields(block)
        except (HPACKError, IndexError, ValueError) as error:
            raise BlockError(f"{type(error).__name__}: {error}") from error

    def _fields(self, block: bytes) -> tuple[list[Field], bool]:
        table, end, at = self._table, len(block), 0
        fields: list[Field] = []
        size, begins = 0, True
        while at < end:
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 0x7F)
                name, value = table.get_by_index(index)
            elif first & 0xE0 == _SIZE_UPDATE:
                if not begins:
                    raise BlockError("a table size update after a field")
                new_size, at = _integer(block, at, 0x1F)
                if new_size > HeaderTable.DEFAULT_SIZE:
                    raise BlockError("a table larger than was announced")
                table.resize(new_size)
                continue
            else:
                indexed = first & 0x40
                index, at = _integer(block, at, 0x3F if indexed else 0x0F)
                if index:
                    name = table.get_by_index(index)[0]
                else:
                    name, at = self._string(block, at)
                value, at = self._string(block, at)
                if indexed:
                    table.add(name, value)
            begins = False
            self.work += 1
            size += table_entry_size(name, value)
            if size <= self._max_list:
                fields.append((name, value))
            elif size > self._max_cost:
                raise BlockTooCostlyError(f"more than {self._max_cost} bytes of header fields")
        return fields, size > self._max_list

    def _string(self, block: bytes, at: int) -> tuple[bytes, int]:
        """Return a string (RFC 7541, 5.2) and where it ends."""
        huffman = block[at] & 0x80
        size, at = _integer(block, at, 0x7F)
        end = at + size
        if end > len(block):
            raise BlockError("a string that is cut off")
        text = block[at:end]
        if not huffman:
            return text, end
        if size * 8 // _MAX_HUFFMAN_BITS > self._max_list:
            # Larger than the limit, whatever it says, and than the dynamic table may be: another
            # string of that kind replaces it, and is dropped with the field.
            return b"x" * (self._max_list + 1), end
        self.work += size // _HUFFMAN_BYTES_PER_WORK
        return decode_huffman(text), end


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Return an integer (RFC 7541, 5.1) and where it ends. IndexError for one that is cut off."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _MAX_INTEGER_BYTES, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise BlockError("an integer that is too long")


def _request(fields: list[Field], oversized: bool) -> Request:
    pseudo: dict[bytes, bytes] = {}
    regular: list[Field] = []
    lengths: set[bytes] = set()
    malformed = ""
    for name, value in fields:
        if name[:1] == b":":
            if name not in _PSEUDO or name in pseudo or regular:
                malformed = malformed or "a pseudo-header field that is unknown, twice, or late"
            malformed = malformed or _field_error(name, value)
            pseudo[name] = value
            continue
        malformed = malformed or _field_error(name, value)
        if name == b"content-length":
            lengths.add(value)
        regular.append((name, value.strip(b" \t")))
    if not oversized:
        missing = [name for name in _PSEUDO[:3] if name not in pseudo]
        if missing:
            malformed = malformed or f"no {missing[0].decode()}"
    if len(lengths) > 1 or any(not _DIGITS.fullmatch(each) for each in lengths):
        malformed = malformed or "a content-length that is no number"
    return Request(
        method=pseudo.get(b":method", b""),
        scheme=pseudo.get(b":scheme", b""),
        path=pseudo.get(b":path", b""),
        authority=pseudo.get(b":authority"),
        fields=tuple(regular),
        content_length=int(lengths.pop()) if lengths and not malformed else None,
        malformed=malformed,
        oversized=oversized,
    )


def _field_error(name: bytes, value: bytes) -> str:
    """Return why a field is malformed (RFC 9113, 8.2), "" if it is not."""
    if name[:1] != b":" and not _NAME.fullmatch(name):
        return "a field name with characters that HTTP/2 bars"
    if _BAD_VALUE.search(value):
        return "a field value with NUL, CR or LF"
    if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
        return "a field that is of a connection"
    return ""


def encode_block(fields: list[Field]) -> bytes:
    """Return a block of literals that uses no dynamic table, so that it is the same everywhere."""
    out = bytearray()
    for name, value in fields:
        if (name, value) == (b":status", b"200"):
            out.append(0x88)
            continue
        out.append(0)
        for text in (name, value):
            size = len(text)
            if size < _SEVEN_BITS:
                out.append(size)
            else:
                out.append(_SEVEN_BITS)
                size -= _SEVEN_BITS
                while size > _SEVEN_BITS:
                    out.append(size & _SEVEN_BITS | 0x80)
                    size >>= 7
                out.append(size)
            out += text
    return bytes(out)
