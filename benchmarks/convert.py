"""Converts a full-size Gemma3 from the Hub's layout to a run and back: checks that it is bit-identical, measures memory, and compares
the time with `cp`.

    python benchmarks/convert.py --preset 12b --scratch /tmp --json convert.json

Creates a model folder (bfloat16, every 64 MiB of it different), copies it with `cp`, imports it with
`mira_jax.import_model`, deletes it, exports it with `mira_jax.export`, and compares every tensor's sha256. At most two copies
are on the disk at a time. Each time includes flushing the files to disk, and they are dropped from the page cache before the next.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint

from mira_jax.models.config import PRESETS, Gemma3Config
from mira_jax.models.huggingface.names import text_tensors
from mira_jax.models.huggingface.safetensors import Planned, Writer, open_folder, write_json

PIECE = 64 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="270m")
    parser.add_argument("--scratch", help="where to put the files; default: the system's folder for temporary files")
    parser.add_argument("--json", metavar="PATH", help="file for all figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        figures = measure(PRESETS[arguments.preset], Path(scratch))
    figures = {"preset": arguments.preset, **figures}
    show(figures)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if not figures["equal"]:
        raise SystemExit("the export differs from the imported weights")


def measure(config: Gemma3Config, scratch: Path) -> dict:
    source, copy, run, out = (scratch / name for name in ("source", "copy", "run", "out"))
    before = make(config, source)
    size = sum(path.stat().st_size for path in source.iterdir())
    steps = {}

    settle(source)
    steps["cp"] = timed(["cp", "-r", str(source), str(copy)], copy)
    shutil.rmtree(copy)
    settle(source)
    steps["import"] = timed([sys.executable, "-m", "mira_jax.import_model", "--model", str(source), "--out", str(run)], run)
    shutil.rmtree(source)
    settle(run)
    steps["export"] = timed([sys.executable, "-m", "mira_jax.export", "--checkpoint", str(run), "--out", str(out)], out)
    after = {name: digest(tensor.pieces()) for name, tensor in open_folder(out).items()}

    for step in steps.values():
        step["gb_per_second"] = size / 1e9 / step["seconds"]
    return {
        "date": str(datetime.date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "orbax": orbax.checkpoint.__version__},
        "parameters": config.parameters,
        "bytes": size,
        "tensors": len(before),
        "equal": before == after,
        "steps": steps,
        "ratios": {name: steps["cp"]["seconds"] / steps[name]["seconds"] for name in ("import", "export")},
    }


def make(config: Gemma3Config, folder: Path) -> dict[str, str]:
    """Writes a model folder. Returns each tensor's sha256."""
    folder.mkdir()
    names = {"model." + tensor.name: Planned.of(tensor.shape, jnp.bfloat16) for tensor in text_tensors(config)}
    writer = Writer(folder, names)
    block = np.random.default_rng(0).integers(0, 2**16, PIECE // 2, dtype=np.uint16)
    made, digests = 0, {}
    for name, tensor in names.items():
        count = -(-tensor.nbytes // PIECE)
        numbers = range(made, made + count)
        made += count
        ends = [min(PIECE, tensor.nbytes - start) for start in range(0, tensor.nbytes, PIECE)]
        hashed = hashlib.sha256()

        def pieces(numbers=numbers, ends=ends, hashed=hashed) -> Iterator[bytes]:
            for number, end in zip(numbers, ends, strict=True):
                piece = memoryview((block[: end // 2] ^ np.uint16(number)).view(np.uint8))
                hashed.update(piece)
                yield piece

        writer.write(name, pieces())
        digests[name] = hashed.hexdigest()
    write_json(folder / "config.json", {**config.to_huggingface(), "torch_dtype": "bfloat16"})
    return digests


def timed(command: list[str], folder: Path) -> dict[str, float]:
    """Runs a command that creates a folder, and flushes the folder to disk. Memory is the kernel's figure for the peak of the process,
    including mapped files."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    flush(folder)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_resident_gb": usage.ru_maxrss * 1024 / 1e9,
    }


def flush(folder: Path, forget: bool = False) -> None:
    for path in filter(Path.is_file, folder.rglob("*")):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            if forget:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def settle(folder: Path) -> None:
    """Drops the folder from the page cache, so that the next command reads it from the disk (Linux)."""
    flush(folder, forget=True)


def digest(pieces: Iterator[bytes]) -> str:
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(piece)
    return hashed.hexdigest()


def show(figures: dict) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    print(f"{figures['date']}, {figures['machine']}, {versions}")
    size, equal = f"{figures['bytes'] / 1e9:.2f} GB", "all equal" if figures["equal"] else "NOT equal"
    print(f"{figures['preset']}: {figures['parameters']:,} parameters, {size}, {figures['tensors']} tensors, {equal} after the round trip")
    print("| step | seconds | GB/s | time relative to cp | CPU s | peak resident GB |\n|---|---|---|---|---|---|")
    for name, step in figures["steps"].items():
        ours = name in figures["ratios"]
        ratio, peak = (f"{figures['ratios'][name]:.2f}", f"{step['peak_resident_gb']:.2f}") if ours else ("1", "")
        print(f"| {name} | {step['seconds']:.1f} | {step['gb_per_second']:.3f} | {ratio} | {step['cpu_seconds']:.1f} | {peak} |")


if __name__ == "__main__":
    main()
