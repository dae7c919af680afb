"""The files of a multipart form, written to the disk as they come: none is open for longer."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from medvlm.serve.disk import disk_errors
from medvlm.serve.problems import Refusal

MOST_FILES = 100_000
MOST_FIELDS = 100  # other than files; what they hold is passed over


class Form:
    """Takes a form in, a piece at a time.

    `names`: what the caller calls the files; the first is at `folder / "000000"`, and so on.
    `whole`: whether the form came to its end.
    """

    def __init__(self, folder: Path, content_type: str) -> None:
        """Raises Refusal (400) without a boundary."""
        self.folder = folder
        self.names: list[str] = []
        self.whole = False
        self._fields = 0
        self._field, self._value = b"", b""  # of the part's header that is being read
        self._disposition = b""
        self._sink: BinaryIO | None = None
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise malformed()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._write,
                    "on_part_end": self.close,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise malformed() from None

    def feed(self, data: bytes) -> None:
        """The next piece. Raises Refusal (400), StoreError."""
        try:
            with disk_errors("the upload"):
                self._parser.write(data)
        except FormParserError:
            raise malformed() from None

    def close(self) -> None:
        """Closes the file that is being written, if there is one."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.close()

    def path(self, number: int) -> Path:
        """Where a file lies, counted from 0."""
        return self.folder / f"{number:06d}"

    def _begin(self) -> None:
        self._disposition = self._field = self._value = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise malformed()
        if b"filename" not in options:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise malformed(f"The form has more than {MOST_FIELDS} fields that are no files.")
            return
        if len(self.names) >= MOST_FILES:
            raise malformed(f"The form has more than {MOST_FILES} files.")
        self._sink = self.path(len(self.names)).open("xb")
        self.names.append(options[b"filename"].decode("utf-8", "replace"))

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._sink is not None:
            self._sink.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self.whole = True


def malformed(message: str = "The upload is no whole form with files in it.") -> Refusal:
    """The refusal of a form that cannot be read."""
    return Refusal(400, "bad_request", message)
