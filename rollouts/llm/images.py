"""Screenshots in the messages of chat APIs."""

import base64
from typing import Any


def image_part(jpeg: bytes) -> dict[str, Any]:
    """A part of a message's content."""
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}}
