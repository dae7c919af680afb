"""What every configuration object is: frozen, read from YAML, strict about its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from medvlm.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration object: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Reads a YAML file. Raises ConfigError naming the file and each wrong key."""
        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                "cannot be read", file=str(path), remedy="give the path of a YAML file"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError("is not valid YAML", file=str(path), remedy=str(error)) from error
        try:
            return cls.model_validate(content or {})
        except ValidationError as error:
            wrong = "; ".join(map(_told, error.errors()))
            raise ConfigError(
                f"is not a valid {cls.__name__}: {wrong}",
                file=str(path),
                remedy="correct the keys named",
            ) from error

    def to_yaml(self, path: Path) -> None:
        """Writes the configuration so that `from_yaml` reads it back."""
        path.write_text(
            yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8"
        )


def _told(wrong: ErrorDetails) -> str:
    """One thing that is wrong, by its place; own checks that span keys name them themselves."""
    place = ".".join(map(str, wrong["loc"]))
    said = wrong["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said
