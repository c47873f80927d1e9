"""What the launcher says when the cascade is ready."""

import json
import shlex

from hybridserve_llm.config.cascade import CascadeConfig

DEMO_QUESTIONS = ("What is 47 * 6?", "What is 347 * 58?")


def ready_text(config: CascadeConfig, url: str, promise: str, *, is_demo: bool) -> str:
    """One line that begins with `ready:`; for the demo, commands to try after it."""
    model = config.server.served_model_name
    lines = [f"ready: {url}/v1 ({promise})"]
    for question in DEMO_QUESTIONS if is_demo else ():
        lines += ["", _curl(url, model, question)]
    return "\n".join(lines)


def _curl(url: str, model: str, question: str) -> str:
    # Greedy, as the demo's certificate was made: other settings are answered uncertified.
    message = {"role": "user", "content": question}
    body = {"model": model, "messages": [message], "temperature": 0}
    return (
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body))}"
    )
