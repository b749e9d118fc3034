"""Run as another user by test_sandbox.py: prints, as JSON, the sandbox of each of the browser's processes, or the refusal."""

import asyncio
import json
import sys
from pathlib import Path

from mira_jax.errors import UserError
from rollouts.web.browser import BrowserConfig, BrowserPool
from tests.rollouts.sites import descendants


async def look() -> list[dict[str, str]]:
    async with BrowserPool(BrowserConfig(contexts=1, draw=False, sandbox=sys.argv[1] == "true")) as browsers:
        page = await (await browsers.context()).new_page()
        await page.goto("data:text/html,<p>text")
        found = []
        for process, _ in descendants(int(Path("/proc/self").readlink().name)):
            command = Path(f"/proc/{process}/cmdline").read_bytes().decode().replace("\0", " ").split()
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":\t" in line)
            kind = next((part.removeprefix("--type=") for part in command if part.startswith("--type=")), "browser")
            found.append({"kind": kind, "user": status["Uid"].split()[0], "seccomp": status["Seccomp"]})
        return found


if __name__ == "__main__":
    try:
        print(json.dumps(asyncio.run(look())))
    except UserError as problem:
        print(json.dumps(str(problem)))
