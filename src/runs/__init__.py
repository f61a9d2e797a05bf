"""What happened to each run: one folder, one record, one log, one W&B run per configuration and seed.

identity.py      which configurations are the same experiment, and where a run lives
session.py       `claim`: take a run, resume it, and leave a true status behind whatever happens
record.py        `record.json`, written whole or not at all, and how others read it
claims.py        exactly one process owns a run, and a dead owner is replaced
process.py       is the process that owned it still alive?
provenance.py    code, versions and hardware behind a number
console.py       `log.txt`: messages, warnings and tracebacks
wandb_logger.py  one W&B run per run, with its true exit code
progress.py      a bar on a terminal, plain lines in a file
"""
