"""A stand-in for vLLM on the loopback: a real model with real adapters behind the endpoints that the trainer uses."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from distill.models import load_causal_lm

BASE = "base"
READS = 400


class Vllm:
    """The endpoints of vLLM 0.32 that the trainer uses, over a real model with real adapters."""

    def __init__(self, path):
        self.path = path
        self.models = {BASE: load_causal_lm(path)[0].eval()}
        self.asked: list[tuple[str, dict]] = []
        self.loads, self.room, self.tilt = True, READS, 0
        self.spoil = lambda choice: choice
        self.wear = lambda model: model
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.say(200, {"data": [{"id": name, "max_model_len": outer.room} for name in outer.models]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path.removeprefix("/v1/"), body))
                self.say(*outer.answer(self.path.removeprefix("/v1/"), body))

            def say(self, status, body):
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.lock = threading.Lock()

    def answer(self, path: str, body: dict) -> tuple[int, dict]:
        with self.lock:
            if path == "completions":
                if body["model"] not in self.models:
                    return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
                return 200, {"choices": [self.spoil(self.complete(body))]}
            if not self.loads:
                return 404, {"detail": "Not Found"}
            if path == "unload_lora_adapter":
                known = self.models.pop(body["lora_name"], None)
                return (200, {}) if known else (404, {"error": {"message": "cannot be found"}})
            return self.load(body)

    def load(self, body: dict) -> tuple[int, dict]:
        from peft import PeftModel

        if body["lora_name"] in self.models:
            return 400, {"error": {"message": "The lora adapter has already been loaded."}}
        if not Path(body["lora_path"]).is_dir():
            return 404, {"error": {"message": "Loading lora failed: No adapter found for path"}}
        model = PeftModel.from_pretrained(load_causal_lm(self.path)[0], body["lora_path"]).eval()
        self.models[body["lora_name"]] = self.wear(model)
        return 200, {}

    def complete(self, body: dict) -> dict:
        model, ids = self.models[body["model"]], list(body["prompt"])
        assert [body[name] for name in ("top_p", "top_k", "min_p", "repetition_penalty")] == [1, 0, 0, 1]
        generator, said, values = torch.Generator().manual_seed(body["seed"] % 2**63 + self.tilt), [], []
        while len(said) < body["max_tokens"] and (not said or said[-1] not in body["stop_token_ids"]):
            with torch.no_grad():
                logits_V = model(input_ids=torch.tensor([ids + said])).logits[0, -1].float()
            said.append(int((logits_V / body["temperature"]).softmax(-1).multinomial(1, generator=generator)))
            values.append(float(logits_V.log_softmax(-1)[said[-1]]))
        named = {"tokens": [f"token_id:{i}" for i in said], "token_logprobs": values}
        return {"token_ids": said, "prompt_token_ids": ids, "logprobs": named}

    def drawn(self) -> list[dict]:
        return [body for path, body in self.asked if path == "completions" and body["model"] != BASE]

    def config(self, **values) -> dict:
        url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        return {"kind": "openai", "base_url": url, "model": BASE, "concurrency": 4} | values
