"""DICOM files and pictures from disk: reading, studies, inspection. Imports no torch."""

from __future__ import annotations

import logging

# pydicom's log messages quote header values, which may name a patient; what is wrong with a file
# reaches people through our own errors. (A filter, because pydicom sets its level when imported.)
logging.getLogger("pydicom").addFilter(lambda record: False)
logging.getLogger("pydicom.pixels").setLevel(logging.CRITICAL)
