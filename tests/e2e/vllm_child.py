"""Run by test_vllm.py inside the environment that has vLLM: asks the real engine and prints what it said as JSON."""

import asyncio
import json
import sys

from distill.providers import vllm
from distill.providers._base import Context
from distill.records import Message, Request, Sampling


def main() -> None:
    config = vllm.Config(
        model="smollm2-135m-instruct", dtype="float32", max_model_len=512, eager=True, memory_share=0.3
    )
    provider = vllm.build(config, Context())
    questions = [(Message("user", text),) for text in json.loads(sys.argv[1])]
    choices = tuple(json.loads(sys.argv[2]))
    free = [Request(messages, Sampling(12), top_logprobs=3) for messages in questions]
    held = [Request(messages, choices=choices) for messages in questions]
    answers = [provider.parse(answer.raw) for answer in asyncio.run(provider.ask(free))]
    scored = provider.score_tokens([(messages, choices[0]) for messages in questions], 4)
    said = {
        "texts": [answer.text for answer in answers],
        "usage": [[answer.usage.prompt, answer.usage.completion] for answer in answers],
        "logprobs": [list(answer.logprobs.logprobs) for answer in answers],
        "held": [provider.parse(answer.raw).text for answer in asyncio.run(provider.ask(held))],
        "ids": [row.token_ids_T.tolist() for row in scored],
        "top": [row.top_logprobs_TK.tolist() for row in scored],
    }
    provider.close()
    print("SAID " + json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
