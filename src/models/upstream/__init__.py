"""The published code's configurations and weights, in our parts (LeapLabTHU/DAT).

`build` reads a published `MODEL.DAT` mapping, `build_block` the arguments of one published module, `read_published`
a file of published tensors, and `load_published` takes them by their published names. Releases are "v1" (CVPR 2022) and
"v2" (DAT++).
"""

from src.models.upstream.configs import DEFAULTS, build, build_block
from src.models.upstream.files import PublishedFile, read_published
from src.models.upstream.weights import DERIVED, from_published, load_published, to_published
from src.models.weights import LoadReport

__all__ = [
    "DEFAULTS",
    "DERIVED",
    "LoadReport",
    "PublishedFile",
    "build",
    "build_block",
    "from_published",
    "load_published",
    "read_published",
    "to_published",
]
