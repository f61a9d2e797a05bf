"""A run begun anew, what it was kept aside."""

from src.runs import claims
from src.runs.session import set_aside
from src.studies.states import State
from src.studies.table import Table


def begin_anew(table: Table, state: State) -> None:
    """Moves a run out of the way, as `rerun=true` does: its checkpoints would lead to the same end.

    Raises:
        ValueError: a process is at it.
    """
    folder = table.folder(state.job)
    if not folder.exists():
        return
    try:
        set_aside(folder, claims.take(folder)).release()
    except claims.Held as held:
        raise ValueError(f"{state.job} is being computed by {held}; wait for it") from None
