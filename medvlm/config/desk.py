"""How the desk of `medvlm app` is set up: where it keeps things, who may do what, what it watches.

Read from a YAML file (`configs/desk.yaml` shows every key), then overridden by the environment
variables that `medvlm app` sets for its options.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from medvlm.config.base import Config
from medvlm.errors import ConfigError
from medvlm.findings import FINDINGS

CONFIG = "MEDVLM_DESK_CONFIG"
CLIENT_SECRET = "MEDVLM_OIDC_CLIENT_SECRET"
COOKIE_SECRET = "MEDVLM_OIDC_COOKIE_SECRET"
# One key of the settings each; `medvlm app` writes them, the processes of the desk read them.
DATABASE, FILES = "MEDVLM_DATABASE", "MEDVLM_DESK_FILES"
WATCH, DRAFTING = "MEDVLM_DESK_WATCH", "MEDVLM_DESK_DRAFTING"

Role = Literal["reader", "reviewer", "admin"]
_RANK: dict[Role, int] = {"reader": 0, "reviewer": 1, "admin": 2}
_Minutes = Annotated[float, Field(gt=0, le=24 * 60)]


class WatchedFolder(Config):
    """A folder that studies arrive in.

    `stable_seconds`: a file is taken when neither it nor its neighbours changed for so long.
    """

    folder: Path
    stable_seconds: Annotated[float, Field(ge=0, le=3600)] = 10


class Roles(Config):
    """Who may do what, for those who log in.

    The highest that fits: by e-mail address, or by what the log-in's `claim` holds (a text or a
    list of texts, such as the names of groups). Nobody else gets in, unless `default` names a role.
    """

    by_email: dict[str, Role] = Field(default_factory=dict)
    claim: str | None = None
    by_claim: dict[str, Role] = Field(default_factory=dict)
    default: Role | None = None

    @field_validator("by_email")
    @classmethod
    def _any_case(cls, by_email: dict[str, Role]) -> dict[str, Role]:
        return {address.strip().casefold(): role for address, role in by_email.items()}

    @model_validator(mode="after")
    def _claim_is_named(self) -> Self:
        if self.by_claim and not self.claim:
            raise ValueError("by_claim: name the claim, too")
        return self

    def role(self, claims: Mapping[str, object]) -> Role | None:
        """The role of one who logged in with these claims; None for no entry.

        An address that the log-in calls unverified counts as none.
        """
        found: list[Role] = [] if self.default is None else [self.default]
        email = claims.get("email")
        if isinstance(email, str) and claims.get("email_verified") is not False:
            found += [
                role for role in [self.by_email.get(email.strip().casefold())] if role is not None
            ]
        held = claims.get(self.claim) if self.claim else None
        texts = held if isinstance(held, list | tuple) else [held]
        found += [
            self.by_claim[one] for one in texts if isinstance(one, str) and one in self.by_claim
        ]
        return max(found, key=_RANK.__getitem__, default=None)


class Oidc(Config):
    """Log-in by OpenID Connect, for `st.login`.

    Secrets may stand in the environment instead: MEDVLM_OIDC_CLIENT_SECRET and
    MEDVLM_OIDC_COOKIE_SECRET. `redirect_uri`: the page's address with `/oauth2callback`.
    """

    client_id: str
    client_secret: SecretStr | None = None
    server_metadata_url: str
    redirect_uri: str
    cookie_secret: SecretStr | None = None
    roles: Roles = Roles()

    @field_validator("server_metadata_url", "redirect_uri")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        if not url.startswith(("https://", "http://localhost", "http://127.0.0.1")):
            raise ValueError("give an https address (http only for this machine itself)")
        return url

    @model_validator(mode="after")
    def _comes_back(self) -> Self:
        if not self.redirect_uri.endswith("/oauth2callback"):
            raise ValueError("redirect_uri: it ends in /oauth2callback")
        return self

    def secret(self, name: Literal["client_secret", "cookie_secret"]) -> str | None:
        """The secret from the file, else from the environment."""
        given: SecretStr | None = getattr(self, name)
        if given is not None:
            return given.get_secret_value()
        variable = {"client_secret": CLIENT_SECRET, "cookie_secret": COOKIE_SECRET}[name]
        return os.environ.get(variable) or None


class DeskConfig(Config):
    """Contents of a desk's file; each key may be left out.

    Attributes:
        database: SQLAlchemy's URL of a SQLite or PostgreSQL database; left out, a SQLite file in
            the user's data folder.
        files: the folder of the studies' files; left out, beside that SQLite file.
        watch: folders that studies arrive in.
        drafting: whether drafts are made here.
        lease_seconds: after how long without a sign of life a draft is given to another process.
        oidc: log-in; left out, the one local reviewer, which only suits the machine itself.
        hosts: names under which browsers reach the page, where it stands behind a proxy.
        idle_minutes: without an action, the page locks itself and the viewer's pixels end.
        lock_minutes: for so long a study stays with the one who last acted on it.
        institution: printed on reports.
        urgent: findings that put a study on top of the worklist until acknowledged.
        upload_mb: the largest upload.
        language: of the page; `auto` follows the browser. Each user may choose another.
    """

    database: SecretStr | None = None
    files: Path | None = None
    watch: tuple[WatchedFolder, ...] = ()
    drafting: bool = True
    lease_seconds: Annotated[float, Field(ge=10, le=3600)] = 120
    oidc: Oidc | None = None
    hosts: tuple[str, ...] = ()
    idle_minutes: _Minutes = 15
    lock_minutes: _Minutes = 15
    institution: Annotated[str, Field(max_length=200)] = ""
    urgent: tuple[str, ...] = ("Pneumothorax",)
    upload_mb: Annotated[int, Field(gt=0, le=16384)] = 2048
    language: Literal["auto", "en", "ja"] = "auto"

    @field_validator("urgent")
    @classmethod
    def _known_findings(cls, urgent: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(urgent) - set(FINDINGS)):
            raise ValueError(
                f"no finding is called {', '.join(unknown)}; there are {', '.join(FINDINGS)}"
            )
        return urgent

    @property
    def database_url(self) -> str | None:
        """The URL with its password: not for words or logs."""
        return None if self.database is None else self.database.get_secret_value()


def desk_config(path: Path | None = None) -> DeskConfig:
    """The settings in `path`, else in the file that MEDVLM_DESK_CONFIG names, else the defaults;
    over them those of the environment.

    Raises ConfigError naming the file, or the variable, and each wrong key.
    """
    wanted = path or os.environ.get(CONFIG)
    config = DeskConfig.from_yaml(wanted) if wanted else DeskConfig()
    given: dict[str, object] = {}
    if database := os.environ.get(DATABASE):
        given["database"] = SecretStr(database)
    if files := os.environ.get(FILES):
        given["files"] = files
    if watch := os.environ.get(WATCH):
        given["watch"] = [*config.watch, *({"folder": one} for one in watch.split(os.pathsep))]
    if drafting := os.environ.get(DRAFTING):
        given["drafting"] = drafting
    if not given:
        return config
    try:
        return DeskConfig.model_validate({**dict(config), **given})
    except ValidationError as error:
        names = ", ".join(f"MEDVLM_DESK_{str(one['loc'][0]).upper()}" for one in error.errors())
        raise ConfigError(f"{names}: not a setting", remedy="correct or unset it") from error
