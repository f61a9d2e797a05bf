"""DAT and its parts: one file for each idea of the paper; `dat.py` assembles them."""
