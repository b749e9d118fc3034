"""Chromium's sandbox, as the kernel shows it, in a browser that another user than root starts."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def place():
    """A folder that another user can write to: those of pytest are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield folder


@pytest.fixture
def look(place):
    """What `look_at_sandbox.py` prints, run as nobody; `prefix` is put before the command."""
    user = [] if os.geteuid() else ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if user and not shutil.which("setpriv"):
        pytest.skip("root needs setpriv to be another user")
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"HOME": place, "TMPDIR": place, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(sandbox: bool, prefix=()):
        python = [*prefix, *user, sys.executable]
        tried = subprocess.run([*python, "-c", "import rollouts.web.browser"], env=environment, capture_output=True, text=True)
        if tried.returncode:
            pytest.skip(f"another user can't run this Python: {tried.stderr.strip()[-200:]}")
        command = [*python, "-m", "tests.rollouts.look_at_sandbox", str(sandbox).lower()]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return run


def test_renderers_run_under_seccomp_for_all_users_but_root(look):
    seen = look(sandbox=True)
    if isinstance(seen, str):
        assert "browser.sandbox=false" in seen
        pytest.skip(f"the sandbox does not work on this machine: {seen}")
    renderers = [process for process in seen if process["kind"] == "renderer"]
    assert renderers and {process["user"] for process in renderers} == {str(NOBODY if os.geteuid() == 0 else os.geteuid())}
    assert {process["seccomp"] for process in renderers} == {"2"}, "2 is SECCOMP_MODE_FILTER (proc_pid_status(5))"


def test_a_sandbox_that_cannot_start_is_refused_and_its_switch_works(look, tmp_path):
    """In a chroot the kernel refuses user namespaces (clone(2), EPERM), as it does where they are turned off."""
    script = 'mount --make-rprivate / && mount --rbind / "$0" && exec chroot "$0" "$@"'
    prefix = ["unshare", "-m", "sh", "-c", script, str(tmp_path)]
    if os.geteuid() or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("making a chroot takes root and a mount")
    refusal = look(True, prefix)
    assert isinstance(refusal, str) and "does not let this user start Chromium's sandbox" in refusal
    assert "browser.sandbox=false" in refusal
    seen = look(False, prefix)
    assert {process["seccomp"] for process in seen if process["kind"] == "renderer"} == {"0"}
