"""High-throughput JPEG 2000, for which no encoder is at hand: made once with OpenJPH 0.26.3.

Deflated and in base 64. `wedge` is the image that two of them hold.
"""

from __future__ import annotations

import base64
import zlib

import numpy as np


def wedge(rows: int = 16, columns: int = 24) -> np.ndarray:
    """12-bit values that grow downwards and to the right, as uint16."""
    return (40 * np.arange(rows)[:, None] + 25 * np.arange(columns)).astype(np.uint16)


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


LOSSLESS = _unpacked(
    "eNr77/8/kEHTgQEIJIBYgAEBUPmM/IyM/wMYOBiYgBzO/0EMPEAWIwMjC4sD4/8YBnaFDiD4n8IgzsDoX5Ca5xXg"
    "oRCWWqRgoGdkpmes938CAxfYFFEGxv+TDzDob3X4Xx//X/p/+e/8f9P/Zf7nAbKL/zXVr62/Zf+C/6v7z/t/5P/J"
    "1VfXH9x/e/47/m/7//H/1/23++/vf6H1m+zP17+0/zT9p/Yf438f6xrst/2P+R9+/2b+q/VfzX8Z/y38t/6/b/3i"
    "+v760/sf+H9M//7+9/K/j+pigRqv8L92/xL/6/6fujrt+pn7j89/wv/R/s/Rv2//Tv57ty7CfuP/oPqr759P/zL9"
    "5+c/PnUGQHcJ7m+7f1T+wfoPi79//n3mL3/c/rj9kfVIZIkCsyQHwzEnBsN9jAcYtBMYxE4IOHEotnz+VVVVwFTB"
    "4He8UAaM/v0XYOSQ+9uiUP1NoPHNfob/NwGlPa+K"
)
LOSSY = _unpacked(
    "eNr77/8/kEHTgQEIJIBYgAEBUPmM/IyM/wMYOBiYgByV/0EMPEAWIwMjC4sDw/8YBm6liLAIqQip9P3/UxjEGRj9"
    "C1LzvAI8FMJSixQM9IzM9Iz1/k9g4AIbtYqB8f/kA9wvC1ZP//dl8XS5qhdz6/f9fDY9Pa7y6UT/fz8ed5vPq3jU"
    "2n7v5/n0fT+fzgyPq3wy2f7fj0e96vMqHrbz2/243/i+9ucTbfmfT3rt91U8bleP+/Gwkf9f+YPq73O/3yu9b/v9"
    "cWf8n4ed/HEVD5q///1+r/b+3PK75cdtv98uXH+37BZ/3P64/ZH1SGRhD7NEMsMxiQOG+xgZ/t8EACYjdIs="
)
# 1024 x 1024 zeros of 16 bits.
ZEROS = _unpacked(
    "eNr77/8/kEHTgYGBgQWKYQCNz8jPyPg/gIGDgQnI4fofxMADZDEysLKwODD+j2EQVuiYgAQ6Ojr+pzCIMzD6F6Tm"
    "eQV4KISlFikY6BmZ6Rnr/Z/AwAUykVOLgfH/5AMM+r9cHP7Xj8JROApH4SgchaNwJEIG26q/yDD17zDnX2jgSVFg"
    "luRgOObEYDgBmbNXANzm+n8TAGeGzyg="
)
