"""Serves a model over HTTP with OpenAI's API: /v1/completions, /v1/chat/completions, /v1/models, /health, /metrics.

    mira serve --model runs/demo/sft --port 8000

The model is a run folder of a training run, or a Hugging Face folder.
"""

import dataclasses
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import jax
from msgspec import Meta

from mira_jax import commands, host_memory
from mira_jax.config import Count, Natural, Port
from mira_jax.errors import ConfigError, UserError
from mira_jax.models.config import Gemma3Config
from mira_jax.models.decoding import SHORTEST
from mira_jax.models.gemma3 import Gemma3, use_kernels
from mira_jax.models.kernels.check import checked_kernels
from mira_jax.models.kernels.choose import Setting
from mira_jax.models.precision import Precision, use_precision
from mira_jax.models.sampler import Sampler
from mira_jax.models.sharding import MeshConfig, make_mesh
from mira_jax.needs import Needs
from mira_jax.serving.app import make_app
from mira_jax.serving.engine import Engine
from mira_jax.serving.protocol import Served
from mira_jax.serving.server import Server, allow_connections, bind, write_ready_file
from mira_jax.training.layout import Layout
from mira_jax.training.load import load_config, load_model, model_fingerprint
from mira_jax.training.optimizer import DType
from mira_jax.trajectories.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class ServeMesh:
    tensor: Count = 1
    """Number of devices that share heads, mlp and vocabulary of the parameters, and the KV cache by kv heads. A divisor of the model's
    number of kv heads."""


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    model: str = ""
    """The folder of a training run, or a Hugging Face folder."""
    name: str = ""
    """The model name that clients use. Default: the name of the folder."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Port = 8000
    """The port to listen on. 0: any free port."""
    ready_file: str = ""
    """A file that is written when the server is ready: JSON with url, model and pid. It is removed on shutdown."""
    rows: Count = 8
    """Number of completions that are decoded together."""
    queue_limit: Count = 256
    """Maximum number of prompts in the queue. Further requests get status 429."""
    max_length: Annotated[int, Meta(ge=SHORTEST)] = 4096
    """Maximum number of tokens of a prompt and its completion. Limited by the model's own maximum."""
    prefix_cache_mb: Natural = 0
    """Size of the prefix cache in MiB: keys and values of recent prompts, reused for new prompts with the same beginning. 0: no
    prefix cache."""
    prefill_tokens: Natural = 0
    """Maximum number of tokens, padding included, of waiting prompts that are prefilled in one batch. A completion may then differ in
    the last bits with the prompts that arrive together. 0: one prompt at a time. Not together with a prefix cache."""
    dtype: DType = "float32"
    """Dtype of activations and KV cache."""
    param_dtype: DType | None = None
    """Dtype of parameters, except adapters, which are float32. Default: `dtype`."""
    mesh: ServeMesh = dataclasses.field(default_factory=ServeMesh)
    """The devices that share one copy of the model. For several copies, start several servers."""
    precision: Precision = "highest"
    """Precision of float32 matrix products (`mira_jax.models.precision`)."""
    attention: Setting = "auto"
    """The implementation of attention over a prompt without cached tokens (`mira_jax.models.kernels.choose`), for all layers or for
    each kind. Decoding, and prompts that continue cached ones, use XLA."""
    warm_up: tuple[int, ...] = ()
    """Prompt lengths to compile for before the first request. Other lengths are compiled when first used."""
    compilation_cache: str = ""
    """A folder for JAX's persistent compilation cache."""
    reload: bool = False
    """Serves POST /reload, which reads the newest checkpoint of `model` and uses it, without a restart. Completions in progress end with
    the old weights. Who can send requests can also send this one."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model", "name a folder to serve, for example --model runs/demo/sft")
        if self.prefill_tokens and self.prefix_cache_mb:
            raise ConfigError("prefill_tokens", "prompts of a batch can't reuse prefixes; set this or prefix_cache_mb to 0")
        for length in self.warm_up:
            if not 1 <= length <= self.max_length - 2:
                raise ConfigError("warm_up", f"{length}: with max_length {self.max_length}, prompts have 1 to {self.max_length - 2} tokens")


def main(config: ServeConfig) -> int:
    host_memory.keep()
    allow_connections()
    bound = bind(config.host, config.port)
    if config.ready_file:
        Path(config.ready_file).unlink(missing_ok=True)
    keep_compiled(config.compilation_cache)
    fingerprint = model_fingerprint(config.model)
    engine = make_engine(config, fingerprint)
    _require_unchanged(config, fingerprint)
    name = config.name or Path(config.model).resolve().name
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    load = (lambda: load_newest(config)) if config.reload else None
    server = Server(make_app(engine, Served(name, fingerprint, config.dtype), load), bound)
    if config.ready_file:
        write_ready_file(config.ready_file, server.url, name)
    print(f"serving {name} at {server.url}/v1", file=sys.stderr, flush=True)
    stopped.wait()
    if config.ready_file:
        Path(config.ready_file).unlink(missing_ok=True)
    server.stop()
    engine.close()
    return 0


def make_engine(config: ServeConfig, fingerprint: str = "") -> Engine:
    """Loads the model and its tokenizer, and compiles for the lengths in `warm_up`. `fingerprint`: that of the weights."""
    use_precision(config.precision)
    model, layout = _load(config)
    tokenizer = Tokenizer(config.model)
    tokenizer.fit(model.config.vocabulary_size, config.model)
    max_length = min(config.max_length, model.config.max_positions)
    sampler = Sampler(
        model, tokenizer.end_ids, config.rows, max_length, tokenizer.vocabulary_size,
        prefix_bytes=config.prefix_cache_mb * 2**20, prefill_tokens=config.prefill_tokens, mesh=layout.mesh,
    )  # fmt: skip
    sampler.warm_up([length for length in config.warm_up if length + 2 <= max_length])
    return Engine(sampler, tokenizer, config.queue_limit, fingerprint)


def load_newest(config: ServeConfig) -> tuple[Gemma3, str]:
    """The model in the newest checkpoint, and its fingerprint. Raises UserError if another one appears meanwhile."""
    fingerprint = model_fingerprint(config.model)
    model, _ = _load(config)
    _require_unchanged(config, fingerprint)
    return model, fingerprint


def _load(config: ServeConfig) -> tuple[Gemma3, Layout]:
    """The model, each parameter read directly to its shards, and the devices that it is on."""
    sizes, heads = load_config(config.model)
    if heads:
        raise UserError(f"{config.model}: a critic, which generates no text; serve a policy")
    layout = _layout(config.mesh, sizes)
    model, _ = load_model(config.model, dtype=config.dtype, param_dtype=config.param_dtype or config.dtype, layout=layout)
    assert isinstance(model, Gemma3)
    use_kernels(model, checked_kernels(config.attention, sizes, config.dtype, key="attention"))
    return model, layout


def _layout(mesh: ServeMesh, sizes: Gemma3Config) -> Layout:
    """The first `tensor` devices of this process."""
    if mesh.tensor == 1:
        return Layout()
    if sizes.kv_heads % mesh.tensor:
        raise ConfigError(
            "mesh.tensor", f"{mesh.tensor} devices can't share {sizes.kv_heads} kv head(s) evenly; set a divisor of {sizes.kv_heads}"
        )
    if mesh.tensor > jax.local_device_count():
        raise ConfigError("mesh.tensor", f"{mesh.tensor} devices; there are {jax.local_device_count()}: set this many or fewer")
    return Layout(make_mesh(MeshConfig(fsdp=1, tensor=mesh.tensor), jax.local_devices()[: mesh.tensor]))


def _require_unchanged(config: ServeConfig, fingerprint: str) -> None:
    if model_fingerprint(config.model) != fingerprint:
        raise UserError(f"{config.model}: its weights changed while they were read; start again, or serve a folder that no run writes to")


def keep_compiled(folder: str) -> None:
    """Enables JAX's persistent compilation cache."""
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def needs(config: ServeConfig, found: Needs) -> None:
    if found.input("model", config.model):
        with found.attempt("model"):
            Tokenizer(config.model).fit(load_config(config.model)[0].vocabulary_size, config.model)
    found.port("port", config.host, config.port)


COMMAND = commands.Command("serve", main, ServeConfig, __doc__, flags=("model", "port", "host"), needs=needs)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
