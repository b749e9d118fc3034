from mira_jax import extras

extras.require("train")
