"""The parts of a multipart answer, one after another, however large: nothing is kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message

from medvlm.batch.web import Interrupted

_BLANK_LINE = b"\r\n\r\n"
_LONGEST_HEAD = 64 << 10  # bytes before the first part, or of a part's own headers


def parts(pieces: Iterator[bytes], content_type: str, server: str) -> Iterator[Iterator[bytes]]:
    """The body of each part in pieces; each is to be read before the next is asked for.

    An answer that is not multipart is one part. Raises Interrupted if it ends before its end.
    """
    boundary = _boundary(content_type)
    if boundary is None:
        yield pieces
        return
    mark = b"--" + boundary
    stream = _Stream(pieces, server)
    stream.skip(mark)
    while not stream.starts_with(b"--"):
        stream.skip(_BLANK_LINE)
        body = stream.until(b"\r\n" + mark)
        yield body
        _exhaust(body)
    _exhaust(pieces)  # the connection can be used again only when it was read to its end


def joined(body: bytes, boundary: str) -> bytes:
    """One DICOM file as a multipart message. The boundary must not be in it."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
    return head.encode() + body + f"\r\n--{boundary}--\r\n".encode()


def _exhaust(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


def _boundary(content_type: str) -> bytes | None:
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    return boundary.encode() if message.get_content_maintype() == "multipart" and boundary else None


class _Stream:
    """Bytes that come in pieces, parted at marks that may lie across two pieces."""

    def __init__(self, pieces: Iterator[bytes], server: str) -> None:
        self._pieces, self._server = pieces, server
        self._held = bytearray()

    def until(self, mark: bytes) -> Iterator[bytes]:
        """What comes before the mark, which is passed over."""
        while (place := self._held.find(mark)) < 0:
            safe = len(self._held) - len(mark) + 1
            if safe > 0:
                yield bytes(self._held[:safe])
                del self._held[:safe]
            self._more()
        yield bytes(self._held[:place])
        del self._held[: place + len(mark)]

    def skip(self, mark: bytes) -> None:
        passed = 0
        for piece in self.until(mark):
            passed += len(piece)
            if passed > _LONGEST_HEAD:
                raise self._torn()

    def starts_with(self, start: bytes) -> bool:
        while len(self._held) < len(start):
            self._more()
        return self._held.startswith(start)

    def _more(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise self._torn()
        self._held += piece

    def _torn(self) -> Interrupted:
        return Interrupted(
            "The server's answer is not whole.",
            file=self._server,
            remedy="Start again; what is done stays done.",
        )
