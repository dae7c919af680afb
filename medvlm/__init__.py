"""medvlm: located, checkable draft reports from medical images. Research use only."""

__version__ = "0.1.0"
