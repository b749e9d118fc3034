"""Compiled code runs for moments here: it need not be optimized, which takes a third of the time of the model's tests."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
