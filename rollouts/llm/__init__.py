"""The client for models behind an OpenAI-compatible endpoint."""
