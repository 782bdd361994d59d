"""Virtual environments for what tests need from Python's package index, made once in the cache directory."""

import os
import pathlib
import subprocess
import sys


def python_with(requirement, folder):
    """(interpreter that has `requirement`, "name==version"; "") or (None, why it cannot be had)."""
    cache = os.environ.get("SHOAL_CACHE_DIR") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "shoal"
    home = pathlib.Path(cache) / folder / requirement.replace("==", "-")
    python = str(home / "bin" / "python")
    if not (home / "ready").exists():
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], capture_output=True, text=True)
        if made.returncode == 0:
            made = subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], capture_output=True, text=True)
        if made.returncode != 0:
            return None, (made.stderr or made.stdout).strip()[-300:]
        (home / "ready").touch()
    return python, ""
