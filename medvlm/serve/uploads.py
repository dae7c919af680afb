"""Takes uploads in: files, archives of them, into the store. Names of files reach no log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from medvlm.dicom.files import printable
from medvlm.dicom.read import Refused, read_inputs
from medvlm.dicom.study import group_studies
from medvlm.errors import InputError
from medvlm.serve.disk import disk_errors
from medvlm.serve.form import Form, malformed
from medvlm.serve.problems import CLIENT_GONE, Refusal, RefusedFile
from medvlm.serve.store import Store

if TYPE_CHECKING:
    from fastapi import Request

_PIECE = 1 << 20  # bytes that are kept in memory before they are written


@asynccontextmanager
async def received(request: Request, store: Store, seconds: float) -> AsyncIterator[Form]:
    """The form of a request, its files in a folder that is gone afterwards.

    Raises Refusal (400 for a form that is malformed or has no file, 408 after `seconds`),
    StoreError if the disk will not have it.
    """
    place = store.incoming()
    folder = await run_in_threadpool(place.__enter__)
    try:
        form = Form(folder, request.headers.get("content-type", ""))
        try:
            async with asyncio.timeout(seconds):
                await _feed(form, request, time.monotonic() + seconds)
        except TimeoutError:
            raise Refusal(408, "too_slow", "The upload did not come in time.") from None
        except ClientDisconnect:
            raise Refusal(CLIENT_GONE, "client_gone", "Nobody waits for the answer.") from None
        finally:
            await run_in_threadpool(form.close)
        yield form
    finally:
        await run_in_threadpool(place.__exit__, None, None, None)


async def _feed(form: Form, request: Request, until: float) -> None:
    held = bytearray()
    async for piece in request.stream():
        # A piece that comes as the time ends makes `wait_for` below lose the cancellation.
        if time.monotonic() > until:
            raise TimeoutError
        held += piece
        if len(held) >= _PIECE:
            # Not given up half-way: the folder may go only when nothing writes into it.
            await run_in_threadpool(form.feed, bytes(held))
            held.clear()
    await run_in_threadpool(form.feed, bytes(held))
    if not form.whole:
        raise malformed()
    if not form.names:
        raise Refusal(400, "no_file", "The upload has no file in it.")


def take(store: Store, form: Form) -> tuple[list[str], list[RefusedFile]]:
    """Keeps what the files hold: names of studies, in order, and what could not be used.

    A file that is bad harms no other. Raises StoreError if the disk will not have them.
    """
    with disk_errors("the upload"):
        reading = read_inputs([form.path(number) for number in range(len(form.names))])
        failed = list(reading.failed)
        names: dict[str, None] = {}
        for study in group_studies(reading):
            try:
                name, errors = store.add(study)
            except InputError as error:
                failed.append(Refused.because(error, study.instances[0].file))
                continue
            names[name] = None
            failed += [Refused.because(error, error.file or "") for error in errors]
    return list(names), [_told(one, form.folder, form.names) for one in failed]


def _told(refused: Refused, folder: Path, names: Sequence[str]) -> RefusedFile:
    """The refusal by the name that the caller knows."""
    inside = refused.file.removeprefix(f"{printable(str(folder))}/")
    number, slash, rest = inside.partition("/")
    known = inside != refused.file and number.isdecimal() and int(number) < len(names)
    file = f"{printable(names[int(number)])}{slash}{rest}" if known else ""
    return RefusedFile(file=file, code=refused.code, message=refused.message, remedy=refused.remedy)
