"""Progress: a bar on a terminal, plain lines elsewhere."""

import os
import pty
import subprocess
import sys
import termios

from mira_jax.progress import Progress, track

LOOP = """
import sys, time
from mira_jax.progress import Progress
with Progress("train", "updates", 40, done=10, seconds=0.2) as progress:
    for _ in range(30):
        time.sleep(0.02)
        progress.note("loss 0.5")
        progress.update()
"""


def test_in_a_log_it_is_a_plain_line_now_and_then():
    done = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stderr.splitlines()
    assert "\r" not in done.stderr and 2 <= len(lines) <= 10
    assert all(line.startswith("train: ") and " of 40 updates, " in line and line.endswith(", loss 0.5") for line in lines)
    assert " s left" in lines[0] and lines[-1].startswith("train: 40 of 40 updates, ") and " left" not in lines[-1]


def test_on_a_terminal_it_is_a_bar():
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    process = subprocess.Popen([sys.executable, "-c", LOOP], stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
    assert process.wait(60) == 0
    assert b"\r" in shown and b"train" in shown and b"updates" in shown


def test_a_short_loop_says_one_line_and_a_hidden_one_none(capsys):
    assert list(track("abc", "label", "episodes", 3)) == ["a", "b", "c"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("label: 3 of 3 episodes, ")
    taken = iter(track("abc", "label", "episodes", 3))
    assert [next(taken) for _ in range(3)] == ["a", "b", "c"]
    taken.close()
    assert capsys.readouterr().err.startswith("label: 3 of 3 episodes, ")
    with Progress("train", "updates", 3, shown=False) as progress:
        progress.update(3)
    with Progress("train", "updates", 3, done=3):
        pass
    assert capsys.readouterr().err == ""
