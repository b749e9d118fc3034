"""Seconds of each step of BrowserGym on MiniWoB++'s login-user, as JSON. `rollout.py` runs this with BrowserGym's own interpreter.

    .venv-browsergym/bin/python benchmarks/browsergym_steps.py http://127.0.0.1:8000/miniwob/ login-user 15 /usr/bin/chromium

All settings are BrowserGym's defaults, except for the path of the browser. The time of `reset` is not included.
"""

import functools
import json
import os
import re
import sys
import time

os.environ["MINIWOB_URL"], task, episodes, executable = sys.argv[1:]

import browsergym.miniwob  # noqa: E402, F401 (registers the environments, which use the address above)
import gymnasium  # noqa: E402
from playwright.sync_api import BrowserType  # noqa: E402

if executable:
    # BrowserGym launches one browser for the task and one for its chat window.
    BrowserType.launch = functools.partialmethod(BrowserType.launch, executable_path=executable)
env = gymnasium.make(f"browsergym/miniwob.{task}")
seconds = []
for seed in range(int(episodes)):
    seen, _ = env.reset(seed=seed)
    user, password = re.search(r'username "(.+)" and the password "(.+)" into', seen["goal"]).groups()
    handle = {name: env.unwrapped.page.locator(f"#{name}").get_attribute("bid") for name in ("username", "password", "subbtn")}
    for action in (
        f"fill({handle['username']!r}, {user!r})",
        f"fill({handle['password']!r}, {password!r})",
        f"click({handle['subbtn']!r})",
    ):
        began = time.perf_counter()
        seen, reward, *_ = env.step(action)
        seconds.append(time.perf_counter() - began)
        assert not seen["last_action_error"], seen["last_action_error"]
    assert reward == 1, f"{task} is not solved"
env.close()
json.dump(seconds, sys.stdout)
