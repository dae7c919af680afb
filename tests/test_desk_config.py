"""The desk's settings: read strictly, overridden by the environment, silent about secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from medvlm.config.desk import CONFIG, DeskConfig, Roles, desk_config
from medvlm.errors import ConfigError

OIDC = {
    "client_id": "medvlm",
    "client_secret": "s3cret",
    "server_metadata_url": "https://login.example/.well-known/openid-configuration",
    "redirect_uri": "https://desk.example/oauth2callback",
}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "FILES", "WATCH", "DRAFTING"):
        monkeypatch.delenv(f"MEDVLM_DESK_{name}", raising=False)
    monkeypatch.delenv("MEDVLM_DATABASE", raising=False)


def written(folder: Path, content: object) -> Path:
    path = folder / "desk.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_without_a_file_there_is_one_local_reviewer(monkeypatch: pytest.MonkeyPatch) -> None:
    config = desk_config()
    assert config.oidc is None
    assert config.database_url is None
    assert config.drafting
    assert config.urgent == ("Pneumothorax",)


def test_the_file_is_named_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, {"institution": "Kita Hospital", "idle_minutes": 5})
    assert desk_config(path).institution == "Kita Hospital"
    monkeypatch.setenv(CONFIG, str(path))
    assert desk_config().idle_minutes == 5


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"instituton": "Kita"}, "instituton"),
        ({"idle_minutes": 0}, "idle_minutes"),
        ({"urgent": ["Pneumothorx"]}, "Pneumothorx"),
        ({"language": "de"}, "language"),
        ({"watch": [{"folder": "/in", "stable": 3}]}, "watch.0.stable"),
        ({"oidc": {**OIDC, "redirect_uri": "https://desk.example/"}}, "oauth2callback"),
        ({"oidc": {**OIDC, "server_metadata_url": "http://login.example/"}}, "https"),
        ({"oidc": {**OIDC, "roles": {"by_claim": {"x": "reader"}}}}, "claim"),
        ({"oidc": {**OIDC, "roles": {"by_email": {"a@b": "owner"}}}}, "by_email"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        desk_config(written(tmp_path, content))


def test_the_options_of_the_command_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, {"watch": [{"folder": "/in"}], "database": "sqlite:////a.sqlite3"})
    monkeypatch.setenv("MEDVLM_DATABASE", "sqlite:////b.sqlite3")
    monkeypatch.setenv("MEDVLM_DESK_WATCH", "/one:/two")
    monkeypatch.setenv("MEDVLM_DESK_DRAFTING", "false")
    monkeypatch.setenv("MEDVLM_DESK_FILES", "/files")
    config = desk_config(path)
    assert config.database_url == "sqlite:////b.sqlite3"
    assert [str(one.folder) for one in config.watch] == ["/in", "/one", "/two"]
    assert not config.drafting
    assert config.files == Path("/files")


def test_a_wrong_variable_is_named_and_not_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDVLM_DESK_DRAFTING", "perhaps")
    with pytest.raises(ConfigError, match="MEDVLM_DESK_DRAFTING") as caught:
        desk_config()
    assert "perhaps" not in str(caught.value)


def test_secrets_are_in_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"database": "postgresql://desk:hunter2@db/desk", "oidc": OIDC}
    config = desk_config(written(tmp_path, content))
    assert config.database_url == "postgresql://desk:hunter2@db/desk"
    assert config.oidc is not None
    assert config.oidc.secret("client_secret") == "s3cret"
    for secret in ("hunter2", "s3cret"):
        assert secret not in repr(config)
        assert secret not in config.model_dump_json()
    with pytest.raises(ConfigError) as caught:
        desk_config(written(tmp_path, {**content, "idle_minutes": -1, "database": ["hunter2"]}))
    assert "hunter2" not in str(caught.value)


def test_secrets_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DeskConfig.model_validate({"oidc": {**OIDC, "client_secret": None}})
    assert config.oidc is not None
    assert config.oidc.secret("client_secret") is None
    monkeypatch.setenv("MEDVLM_OIDC_CLIENT_SECRET", "from outside")
    assert config.oidc.secret("client_secret") == "from outside"


ROLES = Roles(
    by_email={"Sato@Example.org": "admin", "kato@example.org": "reader"},
    claim="groups",
    by_claim={"radiology": "reviewer", "it": "admin"},
)


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"email": "sato@example.ORG"}, "admin"),
        ({"email": "sato@example.org", "email_verified": False}, None),
        ({"email": "kato@example.org", "groups": ["radiology"]}, "reviewer"),
        ({"groups": "radiology"}, "reviewer"),
        ({"groups": ["radiology", "it"]}, "admin"),
        ({"groups": ["visitors"]}, None),
        ({"groups": {"radiology": 1}}, None),
        ({}, None),
    ],
)
def test_the_highest_role_that_fits(claims: dict[str, object], role: str | None) -> None:
    assert ROLES.role(claims) == role


def test_everybody_else_only_where_the_site_says_so() -> None:
    assert Roles(default="reader").role({"email": "x@y"}) == "reader"
    assert Roles().role({"email": "x@y"}) is None


def test_the_example_shows_every_key(root: Path) -> None:
    text = (root / "configs" / "desk.yaml").read_text(encoding="utf-8")
    assert DeskConfig.from_yaml(root / "configs" / "desk.yaml") == DeskConfig()
    # Its lines without the comment sign are settings, too.
    content = yaml.safe_load("\n".join(_uncommented(text)))
    assert set(content) == set(DeskConfig.model_fields)
    DeskConfig.model_validate(content)


def _uncommented(text: str) -> list[str]:
    return [line[1:] for line in text.splitlines() if re.match(r"#(\w|  )", line)]
