"""Where the files that are not code live: the page, the data cards, the configurations, the checkpoints.

In the source tree they are folders at the top, where people look for them. In the wheel they travel
below `medvlm/`, so that site-packages gets no folder called `app`. This is the one place that knows.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

# Each resource, and a file that tells it from a folder which merely has the same name.
_MARKS = {
    "app": "main.py",
    "data_cards": "*.md",
    "configs": "*.yaml",
    "checkpoints": "*",
}


def resource_dir(name: str) -> Path:
    """The folder of the resource `name` ("app", "data_cards", "configs", "checkpoints").

    Raises KeyError for any other name, FileNotFoundError when this installation lacks the folder.
    """
    mark = _MARKS[name]
    for folder in (PACKAGE / name, PACKAGE.parent / name):
        if any(folder.glob(mark)):
            return folder
    raise FileNotFoundError(f"medvlm was installed without its folder {name!r}")
