"""A run whose disk is filled, freed and filled again, and that goes on once there is room: tests look at the copy.

python on_a_small_disk.py <a small disk> <folder for the copy> <words of node-train>...
"""

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

disk, copy = Path(sys.argv[1]), Path(sys.argv[2])
run, ballast = disk / "run", disk / "ballast"
command = [sys.executable, "-m", "node_cli.cli.train", *sys.argv[3:], f"run_dir={run}", "resume=auto"]


def fill():
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def saved():
    return sorted(path.name for path in (run / "checkpoints").glob("*.pt"))


def begun():
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


process, out = begun(), []
while "step-00000006.pt" not in saved():
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.005)
fill()
while True:  # until it has said so
    out.append(process.stdout.readline())
    assert out[-1], process.communicate()[1]
    if "could not be written" in out[-1]:
        break
while_full = saved()
ballast.unlink()
known = set(saved())
while set(saved()) == known:
    assert process.poll() is None, process.communicate()[1]
    time.sleep(0.005)
fill()
rest, err = process.communicate(timeout=600)
failed = {"status": process.returncode, "out": "".join(out) + rest, "err": err, "saved": saved()}
ballast.unlink()
process = begun()
out, err = process.communicate(timeout=600)
found = {"while_full": while_full, "failed": failed, "again": {"status": process.returncode, "out": out, "err": err}}
shutil.copytree(run, copy)
(copy / "found.json").write_text(json.dumps(found))
