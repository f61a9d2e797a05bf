"""What commands load: nobody waits seconds for torch to read a table, or to be told of a typing error."""

import json
import subprocess
import sys

from src.config import CONF

HEAVY = {
    *("torch", "lightning", "torchmetrics", "timm", "torchvision", "wandb", "hydra"),
    *("numpy", "scipy", "sklearn", "pandas", "statsmodels", "matplotlib"),
}

# Each command with what it may have loaded once it has answered, the lightest first: one process asks them all.
COMMANDS = {
    "src.table --help": set(),
    "src.checkpoint --help": set(),
    "src.checkpoint import file.pth --model dat_tiny --classes none": set(),
    "src.export --help": set(),
    "src.export dat_tiny": set(),
    "src.visualize --help": set(),
    "src.where_it_looks --help": set(),
    "src.benchmark --help": set(),
    "src.study --help": set(),
    "src.study plan demo --help": set(),
    "src.study status demo --once runs=nowhere": set(),
    "src.demo": set(),
    "src.train --help": {"hydra"},
    "src.evaluate --help": {"hydra"},
    "src.evaluate modle=micro": {"hydra"},
    "src.studies.freeze": {"hydra"},
    "src.points --help": {"hydra", "numpy"},
    "src.points nowhere": {"hydra", "numpy"},
    "src.sync --help": {"hydra", "wandb", "numpy"},
    "src.report --help": {"hydra", "wandb", "numpy", "scipy"},
    # Lightning brings torchmetrics, which draws with matplotlib and knows images and sound; timm brings W&B.
    "src.training": HEAVY - {"sklearn", "pandas", "statsmodels"},
}

ASK = """
import contextlib, importlib, io, json, runpy, sys
for command in json.loads(sys.argv[1]):
    module, *arguments = command.split()
    if arguments:
        sys.argv = [module, *arguments]
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        importlib.import_module(module)
    print(json.dumps([command, sorted(name for name in sys.modules if "." not in name)]))
"""


def test_commands_load_no_more_than_they_need():
    command = [sys.executable, "-c", ASK, json.dumps(list(COMMANDS))]
    done = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True)
    loaded = dict(map(json.loads, done.stdout.splitlines()))
    assert list(loaded) == list(COMMANDS), done.stderr
    for command, allowed in COMMANDS.items():
        assert HEAVY.intersection(loaded[command]) - allowed == set(), command
