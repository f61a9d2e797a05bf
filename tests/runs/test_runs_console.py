import logging
import warnings

import pytest

from src.runs.console import log_to


def test_keeps_messages_warnings_and_the_traceback(tmp_path):
    with pytest.raises(ValueError), log_to(tmp_path):
        logging.getLogger("anybody").info("first step")
        warnings.warn("too many workers", stacklevel=1)
        raise ValueError("diverged")
    text = (tmp_path / "log.txt").read_text()
    assert "first step" in text and "too many workers" in text
    assert "Traceback" in text and "ValueError: diverged" in text


def test_attempts_follow_one_another(tmp_path):
    for number in (1, 2):
        with log_to(tmp_path):
            logging.getLogger("anybody").info("this is %d", number)
    text = (tmp_path / "log.txt").read_text()
    assert text.index("this is 1") < text.index("this is 2") and text.count("attempt started") == 2


def test_jobs_in_one_process_keep_their_logs_apart(tmp_path):
    for job in "ab":
        with log_to(tmp_path / job):
            logging.getLogger("anybody").info("job %s", job)
    logging.getLogger("anybody").warning("afterwards")
    assert "job a" in (tmp_path / "a" / "log.txt").read_text()
    text = (tmp_path / "b" / "log.txt").read_text()
    assert "job b" in text and "job a" not in text and "afterwards" not in text


def test_keeps_lightning_which_stays_apart_from_the_root_logger(tmp_path):
    logger = logging.getLogger("lightning.pytorch")
    propagate, logger.propagate = logger.propagate, False
    try:
        with log_to(tmp_path):
            logger.warning("GPU available: False")
        assert (tmp_path / "log.txt").read_text().count("GPU available") == 1
    finally:
        logger.propagate = propagate


def test_leaves_logging_as_it_was(tmp_path):
    root = logging.getLogger()
    before = (root.level, list(root.handlers), warnings.showwarning)
    with pytest.raises(KeyboardInterrupt), log_to(tmp_path):
        raise KeyboardInterrupt
    assert (root.level, list(root.handlers), warnings.showwarning) == before


def test_other_ranks_write_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with log_to(tmp_path):
        logging.getLogger("anybody").warning("x")
    assert [path.name for path in tmp_path.iterdir()] == ["log-rank2.txt"]
