"""What is fast, and by how much: `python -m src.benchmark TARGET`.

Each target is a module here with one function, `run(options)`; it is imported only when it is asked for. `measure.py`
holds what they share: versions that compete in one process, and the table of what was found.
"""
