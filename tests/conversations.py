"""Conversations of all shapes, and what Gemma3's published chat template makes of them, stated without Jinja."""

HEAD = "<bos><start_of_turn>user\n"
ASK = "<end_of_turn>\n<start_of_turn>model\n"


def turn(role, content):
    return {"role": role, "content": content}


def text(*texts):
    return [{"type": "text", "text": text} for text in texts]


CONVERSATIONS = [
    ([turn("user", "hi")], HEAD + "hi" + ASK),
    ([turn("user", " \n hi  there\n\n")], HEAD + "hi  there" + ASK),
    ([turn("user", "")], HEAD + ASK),
    ([turn("system", "be brief"), turn("user", "hi")], HEAD + "be brief\n\nhi" + ASK),
    ([turn("system", " be brief \n"), turn("user", " hi")], HEAD + " be brief \n\n\nhi" + ASK),
    ([turn("system", text("one", "two")), turn("user", "hi")], HEAD + "one\n\nhi" + ASK),
    ([turn("system", ""), turn("user", "hi")], HEAD + "\n\nhi" + ASK),
    ([turn("user", text("a ", " b\n"))], HEAD + "ab" + ASK),
    ([turn("user", [*text("what is "), {"type": "image"}, *text("this?")])], HEAD + "what is<start_of_image>this?" + ASK),
    ([turn("user", [{"type": "audio"}, *text("x")])], HEAD + "x" + ASK),
    ([turn("user", [])], HEAD + ASK),
    (
        [turn("user", "a"), turn("assistant", " b\n"), turn("user", "c")],
        HEAD + "a<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n<start_of_turn>user\nc" + ASK,
    ),
    (
        [turn("system", "s"), turn("user", "a"), turn("assistant", text("b")), turn("user", "c"), turn("assistant", "d")],
        HEAD + "s\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n<start_of_turn>user\nc<end_of_turn>\n"
        "<start_of_turn>model\nd" + ASK,
    ),
    ([turn("user", "a"), turn("tool", "b")], HEAD + "a<end_of_turn>\n<start_of_turn>tool\nb" + ASK),
    ([turn("user", "a"), turn("system", "b")], HEAD + "a<end_of_turn>\n<start_of_turn>system\nb" + ASK),
    ([turn("system", "s")], "<bos><start_of_turn>model\n"),
    ([turn("user", "line\n\n\n  line")], HEAD + "line\n\n\n  line" + ASK),
]  # fmt: skip

REFUSED = [
    ([turn("assistant", "a")], "roles must alternate"),
    ([turn("user", "a"), turn("user", "b")], "roles must alternate"),
    ([turn("user", "a"), turn("assistant", "b"), turn("assistant", "c")], "roles must alternate"),
    ([turn("system", "a"), turn("system", "b"), turn("user", "c")], "roles must alternate"),
    ([turn("user", None)], "Invalid content type"),
    ([turn("user", "a"), turn("assistant", 5), turn("user", "a")], "Invalid content type"),
]


def published(messages):
    """The prompt of a conversation whose roles alternate: a system text stands, as it is, before the first user's text."""
    preface = ""
    if messages[0]["role"] == "system":
        content, messages = messages[0]["content"], messages[1:]
        preface = (content if isinstance(content, str) else content[0]["text"]) + "\n\n"
    prompt = "<bos>"
    for index, message in enumerate(messages):
        content = message["content"]
        parts = [content] if isinstance(content, str) else [part["text"] for part in content]
        prompt += "<start_of_turn>" + {"user": "user", "assistant": "model"}[message["role"]] + "\n" + (preface if index == 0 else "")
        prompt += "".join(part.strip() for part in parts) + "<end_of_turn>\n"
    return prompt + "<start_of_turn>model\n"
