"""DAT and its parts: one file for each idea of the paper; `dat.py` assembles them.

Importing it makes the published networks known to `timm.create_model`.
"""

from src.models import registry

__all__ = ["registry"]
