"""The package: what its metadata promise, and what its wheel holds once installed elsewhere."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from medvlm import __version__
from medvlm.resources import resource_dir, sample_film
from tests.browser import browser, page_at, served

RESOURCES = {"app": "main.py", "data_cards": "nih_cxr.md", "configs": "*.yaml"}


@pytest.mark.parametrize(("name", "holds"), RESOURCES.items())
def test_the_source_tree_has_its_resources_at_the_top(root: Path, name: str, holds: str) -> None:
    assert resource_dir(name) == root / name
    assert list(resource_dir(name).glob(holds))


def test_only_known_resources_are_found() -> None:
    with pytest.raises(KeyError):
        resource_dir("secrets")


def test_every_requirement_is_pinned_within_its_bounds(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {}
    for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[canonicalize_name(name)] = version
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        wanted = Requirement(text)
        assert str(wanted.specifier), f"{text} has no bound"
        if any(bound.operator == "==" for bound in wanted.specifier):
            continue
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    _run([*command, "--no-build-isolation", "--wheel-dir", str(folder), str(root)], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed; all other packages are those of this environment."""
    folder = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    _run([*command, "--target", str(folder), str(wheel)], folder)
    return folder


def _run(command: list[str], cwd: Path, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_resources_and_nothing_at_the_top(wheel: Path, root: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"medvlm", f"medvlm-{__version__}.dist-info"}
    for name in RESOURCES:
        here = [file for file in (root / name).rglob("*") if file.is_file()]
        kept = [file for file in here if "__pycache__" not in file.parts]
        packed = {one for one in names if one.startswith(f"medvlm/{name}/")}
        assert packed == {f"medvlm/{file.relative_to(root).as_posix()}" for file in kept}
    assert "medvlm/schemas/draft.schema.json" in names
    checkpoint = {n.rpartition("medvlm-cxr-lite/")[2] for n in names if "medvlm-cxr-lite/" in n}
    adapter = {f"adapter/adapter_{part}" for part in ("config.json", "model.safetensors")}
    own = {"README.md", "config.yaml", "model.safetensors", "extras.safetensors"}
    assert checkpoint == own | adapter
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.slow
def test_an_installed_wheel_finds_its_resources(elsewhere: Path, tmp_path: Path) -> None:
    code = (
        "import medvlm.resources as r\n"
        "from medvlm.data.cards import load_cards\n"
        "for name in ('app', 'data_cards', 'configs', 'checkpoints'): print(r.resource_dir(name))\n"
        "print(*load_cards())\n"
    )
    lines = _run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(elsewhere)).splitlines()
    names = ["app", "data_cards", "configs", "checkpoints"]
    assert lines[:4] == [str(elsewhere / "medvlm" / name) for name in names]
    assert lines[4] == "kermany_cxr nih_cxr vqa_rad"


@pytest.mark.slow
def test_an_installed_wheel_has_the_command(elsewhere: Path, tmp_path: Path) -> None:
    command = str(elsewhere / "bin" / "medvlm")
    said = _run([command, "--help"], tmp_path, PYTHONPATH=str(elsewhere))
    for name in ("inspect", "draft", "ask", "evaluate", "pretrain", "train"):
        assert name in said


@pytest.mark.slow
def test_an_installed_wheel_drafts(elsewhere: Path, tmp_path: Path) -> None:
    """The embedded checkpoint, from the wheel alone, twice the same."""
    command = str(elsewhere / "bin" / "medvlm")
    drafts = []
    for out in ("one", "two"):
        _run(
            [command, "draft", str(sample_film()), "--out", str(tmp_path / out), "--json"],
            tmp_path,
            PYTHONPATH=str(elsewhere),
        )
        (path,) = (tmp_path / out).glob("*/draft.json")
        draft = json.loads(path.read_text(encoding="utf-8"))
        draft.pop("timings_s")
        drafts.append(draft)
    assert drafts[0] == drafts[1]
    assert drafts[0]["model"]["name"] == "medvlm-cxr-lite"


def test_the_embedded_checkpoint_is_small_and_has_a_card() -> None:
    folder = resource_dir("checkpoints") / "medvlm-cxr-lite"
    assert sum(file.stat().st_size for file in folder.rglob("*")) <= 24_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    names = ("adapter/adapter_model.safetensors", "model.safetensors")
    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]
    lines = sorted(f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True))
    weights = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert weights in card
    assert f"weights_sha256: {weights}\n" in (folder / "config.yaml").read_text(encoding="utf-8")
    for part in ("Intended use", "Training data", "Measured quality", "Known failures", "Licence"):
        assert part in card


@pytest.mark.slow
def test_an_installed_wheel_serves_the_page(elsewhere: Path, tmp_path: Path) -> None:
    """In a real browser: the pages, their catalogue and the viewer lie inside the package."""
    env = {"PYTHONPATH": str(elsewhere), "MEDVLM_DESK": str(tmp_path / "desk")}
    command = [str(elsewhere / "bin" / "medvlm"), "app", "--port", "{port}", "--no-drafting"]
    with browser() as opened, served(command, env=env, cwd=tmp_path) as address:
        local = address.replace("127.0.0.1", "localhost")
        with page_at(opened, local) as page:
            page.locator(".st-key-sample button").click(timeout=90_000)
            page.locator('[class*="st-key-open-"] button').first.click(timeout=90_000)
            page.wait_for_selector('.medvlm-viewer[data-ready="true"]', timeout=90_000)
