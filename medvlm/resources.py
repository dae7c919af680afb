"""Where the files that are not code live: page, data cards, configurations, checkpoints, sample.

In the source tree they are folders at the top, where people look for them. In the wheel they
travel below `medvlm/`, so that site-packages gets no folder called `app`. Only this file knows.
"""

import importlib.metadata
from pathlib import Path

from medvlm.errors import InputNotFound

PACKAGE = Path(__file__).resolve().parent

RESOURCES = ("app", "data_cards", "configs", "checkpoints")

_SAMPLE = ("pydicom-data", "data_store/data/RG1_J2KR.dcm")


def resource_dir(name: str) -> Path:
    """The folder of the resource `name`, one of RESOURCES.

    Raises KeyError for any other name, FileNotFoundError when this installation lacks the folder.
    """
    if name not in RESOURCES:
        raise KeyError(name)
    folders = [PACKAGE / name]
    # Only a source tree has a pyproject.toml: what lies beside an installed package is not ours.
    if (PACKAGE.parent / "pyproject.toml").is_file():
        folders.append(PACKAGE.parent / name)
    for folder in folders:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"medvlm was installed without its folder {name!r}")


def sample_film() -> Path:
    """The real chest radiograph that the demo and the page show: a DICOM file of `pydicom-data`.

    Raises InputNotFound when that package is not installed. It is found without being imported.
    """
    package, file = _SAMPLE
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError:
        path = Path(file)
    if not path.is_file():
        raise InputNotFound(
            f"the sample film comes with the package {package}, which is not installed",
            file=path.name,
            remedy="Install `medvlm[demo]`, or give a film of your own.",
        )
    return path
