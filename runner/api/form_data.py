"""Forms: a multipart body as the object that a JSON body would have been. Strict, like those."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from runner.api.validation import invalid
from runner.errors import InvalidEncoding, InvalidRequest, Unsupported

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 256
_LONGEST_BOUNDARY = 70
_PLAIN = ("binary", "8bit", "7bit")


def boundary_of(content_type: str) -> bytes:
    """What stands between the parts. Raises InvalidRequest for any other type of body."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        raise InvalidRequest("This path takes a form: Content-Type: multipart/form-data with a boundary.")
    return boundary


def decode_form(body: bytes, boundary: bytes, files: Collection[str]) -> dict[str, object]:
    """The fields of a form by their names: texts, and bytes for those among `files`.

    `name[]` belongs to the array `name` and `name[key]` to the object `name`, as clients write them. Raises
    InvalidRequest for a body that is broken, ends too early, or has a field twice.
    """
    fields: dict[str, object] = {}
    for part in _parts_of(body, boundary):
        value: object = bytes(part.data) if part.name in files else _text(part)
        _put(fields, part.name, value)
    return fields


def read_number(value: object) -> object:
    """For a field's validator: the number that a text of a form stands for."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value, type=float)
    except msgspec.DecodeError:
        raise invalid("must be a number") from None


def read_flag(value: object) -> object:
    """As `read_number`, for true and false."""
    if not isinstance(value, str):
        return value
    if value not in ("true", "false"):
        raise invalid("must be true or false")
    return value == "true"


def read_list(value: object) -> object:
    """As `read_number`, for an array, of which a client may send the only item by the array's name."""
    return [value] if isinstance(value, str) else value


@dataclass(slots=True)
class _Part:
    name: str = ""
    data: bytearray = field(default_factory=bytearray)


class _Reader:
    """Takes what the parser finds."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.is_over = False
        self._header, self._value = bytearray(), bytearray()

    def begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} fields.")
        self.parts.append(_Part())

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        header, value = bytes(self._header).lower(), bytes(self._value)
        self._header.clear()
        self._value.clear()
        if header == b"content-disposition":
            kind, options = parse_options_header(value)
            if kind == b"form-data":
                self.parts[-1].name = _utf8(options.get(b"name", b""), "The name of a field")
        elif header == b"content-transfer-encoding" and value.strip().lower().decode("latin-1") not in _PLAIN:
            raise Unsupported("The fields of a form are read as they are; leave out Content-Transfer-Encoding.")

    def headers_end(self) -> None:
        if not self.parts[-1].name:
            raise InvalidRequest("A field of the form has no name.")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += memoryview(data)[start:end]

    def end(self) -> None:
        self.is_over = True


def _parts_of(body: bytes, boundary: bytes) -> list[_Part]:
    reader = _Reader()
    callbacks = {
        "on_part_begin": reader.begin,
        "on_header_field": reader.header_name,
        "on_header_value": reader.header_value,
        "on_header_end": reader.header_end,
        "on_headers_finished": reader.headers_end,
        "on_part_data": reader.part_data,
        "on_end": reader.end,
    }
    try:
        parser = MultipartParser(boundary, cast("MultipartCallbacks", callbacks))
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest(f"The form is broken: {str(error)[:200]}.") from None
    if not reader.is_over:
        raise InvalidRequest("The form ends before its last boundary.")
    return reader.parts


def _text(part: _Part) -> str:
    return _utf8(part.data, part.name[:100])


def _utf8(data: bytes | bytearray, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidEncoding(f"{what} is not UTF-8.") from None


def _put(fields: dict[str, object], name: str, value: object) -> None:
    stem, bracket, key = name.partition("[")
    if not bracket:
        if name in fields:
            raise _doubled(name)
        fields[name] = value
        return
    if not stem or not key.endswith("]"):
        raise InvalidRequest(f"The form has a field with the broken name {name[:100]!a}.")
    key = key[:-1]
    holder = fields.setdefault(stem, {} if key else [])
    if isinstance(holder, list) and not key:
        holder.append(value)
    elif isinstance(holder, dict) and key and key not in holder:
        holder[key] = value
    else:
        raise _doubled(name)


def _doubled(name: str) -> InvalidRequest:
    return InvalidRequest(f"The form has the field {name[:100]!a} twice.", name[:100])
