"""A run whose disk is filled, freed and filled again, and that goes on once there is room: tests look at the copy.

A module for `forked.Command`, with these words: a folder that becomes a small disk for its process alone, a folder for
the copy, and those of node-train.
"""

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from forked import Command

from node_cli.files import TEMPORARY

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000  # of unshare(2)


def mount_for_this_process(disk):
    identities = {"uid_map": f"0 {os.getuid()} 1", "setgroups": "deny", "gid_map": f"0 {os.getgid()} 1"}
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_USER | NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "no namespaces of its own")
    for name, content in identities.items():
        Path("/proc/self", name).write_text(content)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=True)


def fill(ballast):
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def main():
    disk, copy = Path(sys.argv[1]), Path(sys.argv[2])
    run, ballast = disk / "run", disk / "ballast"
    words = ["node-train", *sys.argv[3:], f"run_dir={run}", "resume=auto"]
    mount_for_this_process(disk)

    def begun():
        return Command(copy.parent, *words, context=multiprocessing.get_context("fork"))

    def saved():
        return sorted(path.name for path in (run / "checkpoints").glob("*.pt"))

    def wait_until(is_so):
        while not is_so():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)

    def fill_between_files():
        """What is half written would make room again when it is given up."""
        is_between = False
        while not is_between:
            os.kill(process.pid, signal.SIGSTOP)
            wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] == "T")
            files = [path.name for path in run.rglob("*") if path.is_file()]
            is_between = not any(TEMPORARY in name for name in files)
            if is_between:
                fill(ballast)
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.001)

    process = begun()
    wait_until(lambda: "step-00000006.pt" in saved())
    fill_between_files()
    wait_until(lambda: "could not be written" in process.said()[0])
    while_full = saved()
    ballast.unlink()
    known = set(saved())
    wait_until(lambda: set(saved()) != known)
    fill_between_files()
    out, err = process.communicate()
    failed = {"status": process.returncode, "out": out, "err": err, "saved": saved()}
    ballast.unlink()
    process = begun()
    out, err = process.communicate()
    again = {"status": process.returncode, "out": out, "err": err}
    shutil.copytree(run, copy)
    (copy / "found.json").write_text(json.dumps({"while_full": while_full, "failed": failed, "again": again}))
