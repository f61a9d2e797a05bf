"""Where the jobs of a study run. An engine supervises each of them (`src/studies/supervise.py`) on some machine.

    run(table, jobs, report, stop)   returns when all jobs have ended, or `stop` is set and all are asked to end

The run folders are all that engines and jobs share, so each engine goes on where another one stopped.
"""
