"""Build hook: what lies at the top of the source tree travels below `medvlm/` in the wheel."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RESOURCES = ("app", "data_cards", "configs")


class ResourceHook(BuildHookInterface):
    """Adds the resources to a real wheel; an editable install finds them in the tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"].update({name: f"medvlm/{name}" for name in RESOURCES})
