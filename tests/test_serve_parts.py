"""Tokens, references to images, questions as they are sent, and the store."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from medvlm.desk.files import copy_whole
from medvlm.dicom.read import read_inputs
from medvlm.dicom.study import Study, group_studies
from medvlm.errors import ConfigError, InputNotFound, StoreError, UsageError
from medvlm.serve.chat import ChatRequest
from medvlm.serve.form import Form
from medvlm.serve.images import Sent, Uploaded, source_of
from medvlm.serve.problems import Refusal
from medvlm.serve.store import Store
from medvlm.serve.tokens import VARIABLE, add_token, read_tokens
from tests.dicoms import ramp, save, synthetic
from tests.serving import data_uri, png, question

PNG = png(np.zeros((4, 4), dtype=np.uint8))


def test_tokens_are_kept_as_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own" / "tokens"
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not read_tokens(None)
    ward, lab = add_token(path, "ward-3"), add_token(path, "lab")
    assert ward not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    monkeypatch.setenv(VARIABLE, f"{'e' * 30}, {'f' * 30}")
    tokens = read_tokens(path)
    assert tokens.whose(f"Bearer {ward}") == "ward-3"
    assert tokens.whose(f"bearer  {lab}") == "lab"
    assert tokens.whose(f"Bearer {'f' * 30}") == "environment-2"
    for wrong in (None, "", "Bearer", f"Basic {lab}", f"Bearer {lab}x", f"Bearer {'x' * 9999}"):
        assert tokens.whose(wrong) is None
    with pytest.raises(UsageError, match="has a token"):
        add_token(path, "lab")
    path.write_text(path.read_text().rstrip("\n"))  # as an editor may leave it
    add_token(path, "desk")
    assert read_tokens(path).whose(f"Bearer {lab}") == "lab"
    for name in ("", "a b", "a\nb", "ä"):
        with pytest.raises(UsageError, match="will not do"):
            add_token(path, name)
    path.write_text(path.read_text() + "lab short\n")
    with pytest.raises(ConfigError, match="line 4"):
        read_tokens(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tokens(tmp_path / "missing")
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(ConfigError, match="token 1"):
        read_tokens(None)


def test_no_token_is_not_everybodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokens"
    monkeypatch.delenv(VARIABLE, raising=False)
    path.write_text("# the last one was removed\n\n")
    with pytest.raises(ConfigError, match="no token"):
        read_tokens(path)
    for blank in ("", " , "):
        monkeypatch.setenv(VARIABLE, blank)
        with pytest.raises(ConfigError, match="no token"):
            read_tokens(None)


def test_references_to_images(tmp_path: Path) -> None:
    dicom = save(synthetic(ramp(8, 8)), tmp_path / "a.dcm").read_bytes()
    assert source_of(data_uri(PNG)) == Sent(PNG)
    assert source_of(data_uri(dicom, "application/dicom")) == Sent(dicom)
    assert source_of("medvlm://study/1.2.3") == Uploaded("1.2.3", None, 0)
    asked = source_of("medvlm://study/1.2.3?instance=1.2.3.4&frame=7")
    assert asked == Uploaded("1.2.3", "1.2.3.4", 7)


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example/film.png",
        "http://127.0.0.1/metrics",
        "file:///etc/passwd",
        "",
        "data:",
        "data:,",
        "data:image/png;base64,",
        "data:image/png;base64,!!!!",
        "data:image/png;base64,AAAA",
        data_uri(PNG, "image/jpeg"),
        data_uri(PNG, "application/dicom"),
        data_uri(b"PK\x03\x04" + bytes(200), "application/dicom"),
        data_uri(b"<svg/>", "image/svg+xml"),
        f"data:image/png,{'%41' * 9}",
        "data:image/png;charset=x;base64,AAAA",
        "data:" + "a" * 100_000,
        "medvlm://study/",
        "medvlm://other/1.2",
        "medvlm:study/1.2",
        "medvlm://study/1.2?frame=-1",
        "medvlm://study/1.2?frame=1&frame=2",
        "medvlm://study/1.2?frame=99999999",
        "medvlm://study/1.2?what=1",
        "medvlm://study/1.2#a",
        "medvlm://[study/1.2",
        "medvlm://study/" + "1" * 600,
    ],
)
def test_other_references_are_refused(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        source_of(url)
    assert refused.value.status == 400


def body(**more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": question("Why?", "data:x"), **more}).encode()


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0},
        {"temperature": 1.0, "top_p": 1, "n": 1},
        {"temperature": None, "stop": None, "tools": None},
        {"max_tokens": 300, "seed": 7, "user": "ward"},
        {"frequency_penalty": 0.0, "logprobs": False, "response_format": {"type": "text"}},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_what_greedy_decoding_honours_is_accepted(more: dict[str, Any]) -> None:
    asked = ChatRequest.parse(body(**more))
    assert (asked.question, asked.image) == ("Why?", "data:x")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"temperature": 0.7}, "temperature"),
        ({"top_p": 0.5}, "top_p"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"stop": ["."]}, "stop"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"max_completion_tokens": 1}, "max_completion_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"what": 1}, "what"),
        ({"medvlm": {"region": {"x": 1, "y": 1, "width": 0, "height": 5}}}, None),
        ({"medvlm": {"region": {"x": 1e99, "y": 1, "width": 1, "height": 5}}}, None),
        ({"medvlm": {"regions": []}}, "medvlm.regions"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
        ({"stream_options": {"x": 1}}, "stream_options.x"),
    ],
)
def test_what_would_be_ignored_is_refused(more: dict[str, Any], param: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        ChatRequest.parse(body(**more))
    assert refused.value.status == 400
    if param is not None:
        assert refused.value.param == param


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"model": "m"}', body() + b"x"]
)
def test_a_body_that_is_no_question(raw: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        ChatRequest.parse(raw)
    assert refused.value.status == 400


def test_what_is_read_of_a_conversation() -> None:
    turns = [
        {"role": "system", "content": "You are a pirate."},
        *question("First?", "data:old"),
        {"role": "assistant", "content": "Yes.", "refusal": None, "annotations": []},
        {"role": "user", "content": "And what else?"},
    ]
    asked = ChatRequest.parse(body(messages=turns))
    assert (asked.question, asked.image, asked.unread) == ("And what else?", "data:old", [0, 2])
    two = question("Which?", "data:a")
    two[0]["content"].append(two[0]["content"][1])
    for messages in (
        turns[:3],
        [turns[0]],
        two,
        question("  ", "data:a"),
        question("x" * 3000, "d"),
    ):
        wrong = ChatRequest.parse(body(messages=messages))
        with pytest.raises(Refusal):
            _ = wrong.question, wrong.image


def studies(folder: Path, *made: tuple[str, Any]) -> list[Study]:
    folder.mkdir(parents=True)
    for name, ds in made:
        save(ds, folder / name)
    return group_studies(read_inputs([folder]))


def film(value: int, **elements: Any) -> Any:
    return synthetic(np.full((20, 20), value, dtype=np.uint16), **elements)


def test_images_of_a_study_join_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    one, two = film(1, StudyInstanceUID="1.2.3"), film(2, StudyInstanceUID="1.2.3")
    (first,) = studies(tmp_path / "a", ("a", one))
    (second,) = studies(tmp_path / "b", ("a", one), ("b", two))
    assert store.add(first) == ("1.2.3", [])
    key = store.draft_key("1.2.3", "f")
    assert store.add(second) == ("1.2.3", [])
    assert store.add(second) == ("1.2.3", [])
    assert len(store.study("1.2.3").instances) == 2
    assert len(list((tmp_path / "store" / "1.2.3").glob("*.dcm"))) == 2
    assert store.draft_key("1.2.3", "f") != key
    # Another image that claims the UID of one that is there.
    false = film(3, StudyInstanceUID="1.2.3", SOPInstanceUID=one.SOPInstanceUID)
    (third,) = studies(tmp_path / "c", ("a", false))
    name, refused = store.add(third)
    assert (name, [error.code for error in refused]) == ("1.2.3", ["same_uid"])
    assert len(store.study("1.2.3").instances) == 2


def test_two_patients_with_one_uid_are_told_apart(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    jane = film(1, StudyInstanceUID="1.2.3", PatientID="ID-1")
    john = film(2, StudyInstanceUID="1.2.3", PatientID="ID-2")
    (of_jane,) = studies(tmp_path / "a", ("a", jane))
    (of_john,) = studies(tmp_path / "b", ("b", john))
    first, second = store.add(of_jane)[0], store.add(of_john)[0]
    assert first == "1.2.3"
    assert second == f"1.2.3-{of_john.patient}"
    assert store.study(first).patient != store.study(second).patient
    both = studies(tmp_path / "c", ("a", jane), ("b", john))
    assert {store.add(one)[0] for one in both} == {first, second}
    # In one upload, neither of them has the plain name.
    other = Store(tmp_path / "other")
    names = {other.add(one)[0] for one in both}
    assert names == {f"1.2.3-{one.patient}" for one in both}
    assert other.add(of_jane)[0] in names


def test_a_store_outlives_what_is_cut_short(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = Store(folder)
    (study,) = studies(tmp_path / "a", ("Doe_Jane.dcm", film(1, StudyInstanceUID="1.2.3")))
    store.add(study)
    with pytest.raises(UsageError, match="another service"):
        Store(folder)
    store.want_draft("1.2.3")
    store.close()
    # Killed while an upload was read, and while a study was written.
    (folder / ".incoming-x").mkdir()
    (folder / "1.2.9").mkdir()
    (folder / "1.2.9" / f"{'0' * 64}.dcm").write_bytes(b"half")
    (folder / "1.2.9" / "drafts").mkdir()
    (folder / "1.2.9" / "drafts" / "wanted").touch()
    (folder / "letters").mkdir()
    (folder / "letters" / "of somebody else.txt").touch()
    (folder / "thesis" / "drafts").mkdir(parents=True)
    again = Store(folder)
    assert not (folder / ".incoming-x").exists()
    assert not (folder / "1.2.9").exists()
    assert (folder / "letters" / "of somebody else.txt").exists()
    assert (folder / "thesis" / "drafts").exists()
    assert again.study("1.2.3").instances[0].sha256 == study.instances[0].sha256
    assert again.wanted() == ["1.2.3"]
    assert again.is_wanted("1.2.3")
    for name in ("1.2.9", "1.2.4", "..", "", ".lock", "a/b", "1.2.3/drafts"):
        with pytest.raises(InputNotFound):
            again.study(name)
        with pytest.raises(InputNotFound):
            again.draft_key(name, "f")
        with pytest.raises(InputNotFound):
            again.remove(name)
    key = again.draft_key("1.2.3", "f")
    again.put_draft("1.2.3", key, b"no", failed=True)
    assert (again.draft("1.2.3", key), again.failure("1.2.3", key)) == (None, b"no")
    again.put_draft("1.2.3", key, b"yes")
    assert (again.draft("1.2.3", key), again.failure("1.2.3", key)) == (b"yes", None)
    assert again.wanted() == []
    again.remove("1.2.3")
    again.put_draft("1.2.3", key, b"late")
    assert not (folder / "1.2.3").exists()
    assert "Doe" not in " ".join(path.name for path in folder.rglob("*"))


def test_a_picture_is_named_by_its_content(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Doe_Jane.png").write_bytes(PNG)
    (study,) = group_studies(read_inputs([tmp_path / "a"]))
    name, _ = store.add(study)
    assert name.startswith("image-")
    assert len(base64.b16decode(name.removeprefix("image-"), casefold=True)) == 8
    assert store.add(study)[0] == name


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    (study,) = studies(tmp_path / "a", ("a", film(1, StudyInstanceUID="1.2.3")))
    store.add(study)
    for place in ("write_whole", "copy_whole"):
        with monkeypatch.context() as context:
            context.setattr(f"medvlm.serve.store.{place}", full)
            with pytest.raises(StoreError, match="No space left"):
                store.add(study)
    monkeypatch.setattr("medvlm.serve.store.write_whole", full)
    key = store.draft_key("1.2.3", "f")
    with pytest.raises(StoreError):
        store.want_draft("1.2.3")
    with pytest.raises(StoreError):
        store.put_draft("1.2.3", key, b"{}")
    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(StoreError), store.incoming():
        pass


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    (study,) = studies(tmp_path / "a", ("a", film(1, StudyInstanceUID="1.2.3")))
    store.add(study)
    with monkeypatch.context() as context:
        context.setattr("shutil.rmtree", full)
        with pytest.raises(StoreError, match="cannot be removed"):
            store.remove("1.2.3")
    assert not store.has("1.2.3")
    store.close()
    Store(tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".lock"]


def test_others_write_while_images_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    (first,) = studies(tmp_path / "a", ("a", film(1, StudyInstanceUID="1.2.3")))
    (second,) = studies(tmp_path / "b", ("b", film(2, StudyInstanceUID="1.2.4")))
    store.add(first)
    copying, go = Event(), Event()

    def slow(source: Path, target: Path) -> None:
        copying.set()
        assert go.wait(10)
        copy_whole(source, target)

    monkeypatch.setattr("medvlm.serve.store.copy_whole", slow)
    adding = Thread(target=store.add, args=(second,))
    adding.start()
    assert copying.wait(10)
    wanting = Thread(target=store.want_draft, args=("1.2.3",))
    wanting.start()
    wanting.join(5)
    free = not wanting.is_alive()
    go.set()
    adding.join(10)
    assert free
    assert store.has("1.2.4")


def test_a_key_is_of_the_images_that_were_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (first,) = studies(tmp_path / "a", ("a", film(1, StudyInstanceUID="1.2.3")))
    (second,) = studies(tmp_path / "b", ("b", film(2, StudyInstanceUID="1.2.3")))
    store.add(first)
    key, read = store.draft_key("1.2.3", "f"), store.study("1.2.3")
    store.add(second)
    assert store.key_of(read, "f") == key != store.draft_key("1.2.3", "f")
    assert store.key_of(store.study("1.2.3"), "f") == store.draft_key("1.2.3", "f")


def form_of(*files: tuple[str, bytes]) -> bytes:
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n%b\r\n'
        % (name.encode(), content)
        for name, content in files
    ]
    return b"".join(parts) + b"--x--\r\n"


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_form_in_pieces(tmp_path: Path, size: int) -> None:
    contents = [b"", b"\r\n--", b"a\r\n--y\r\n", bytes(range(256)) * 3]
    body = form_of(*((f"name-{n}", content) for n, content in enumerate(contents)))
    form = Form(tmp_path, "multipart/form-data; boundary=x")
    for at in range(0, len(body), size):
        form.feed(body[at : at + size])
    assert form.whole
    assert form.names == ["name-0", "name-1", "name-2", "name-3"]
    assert [form.path(n).read_bytes() for n in range(4)] == contents


def test_a_form_of_many_files_has_one_open(tmp_path: Path) -> None:
    form = Form(tmp_path, "multipart/form-data; boundary=x")
    form.feed(form_of(*(("a", b"x" * 10) for _ in range(500)))[:-8])
    open_now = [path for path in Path("/proc/self/fd").iterdir() if str(tmp_path) in linked(path)]
    assert len(open_now) <= 1
    assert len(form.names) == 500
    assert not form.whole
    form.close()


def linked(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
