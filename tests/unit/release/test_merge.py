"""Merging gives peft's own bits, at one tensor's memory, and the shape of file that the library writes."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distill.errors import DataError, IntegrityError
from distill.release import tensors
from distill.release.merge import Adapter
from distill.release.targets import merged
from distill.release.targets._base import Job
from tests.unit.release.made import adapter_folder, base_folder

KINDS = {
    "lora": {},
    "dora": {"use_dora": True},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"alpha_pattern": {"q_proj": 3}, "rank_pattern": {"layers.1.mlp.up_proj": 2}},
    "some modules": {"target_modules": ["q_proj", "down_proj"]},
}


def ours(base, adapter, out, limit=2_000_000_000):
    """Merged weights by our own writer."""
    job = Job(base=base, student=base, adapter=adapter, bundle=out.parent, name="x-1", base_name="x")
    merged.write_weights(job, out, limit)
    return {name: tensors.load(tensor) for name, tensor in tensors.read_index(out).items()}


def pefts(base, adapter, out):
    """Merged weights by peft."""
    from distill.models import load_causal_lm

    model, _ = load_causal_lm(base, dtype="auto" if out.name == "f32" else "bfloat16", adapter=adapter)
    model.merge_and_unload().save_pretrained(out)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_float32_weights_have_the_bits_of_pefts_merge(kind, tmp_path):
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(base, tmp_path / "adapter", **KINDS[kind])
    theirs = pefts(base, adapter, tmp_path / "f32")
    mine = ours(base, adapter, tmp_path / "weights")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    plain = load_file(base / "model.safetensors")
    assert any(not torch.equal(mine[name], plain[name]) for name in mine)  # the adapter did change something


def test_the_float32_file_is_pefts_file_byte_for_byte(tmp_path):
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(base, tmp_path / "adapter")
    pefts(base, adapter, tmp_path / "f32")
    ours(base, adapter, tmp_path / "weights")
    assert (tmp_path / "weights/model.safetensors").read_bytes() == (tmp_path / "f32/model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_bfloat16_weights_are_at_most_one_unit_in_the_last_place_from_pefts(kind, tmp_path):
    base = base_folder(tmp_path / "base", torch.bfloat16)
    adapter = adapter_folder(base, tmp_path / "adapter", **KINDS[kind])
    theirs, mine = pefts(base, adapter, tmp_path / "bf16"), ours(base, adapter, tmp_path / "weights")
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].dtype == torch.bfloat16
        steps = (mine[name].view(torch.int16).int() - theirs[name].view(torch.int16).int()).abs()
        assert int(steps.max()) <= 1, name


def test_a_large_model_is_split_into_files_that_the_library_loads(tmp_path):
    from distill.models import load_causal_lm

    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(base, tmp_path / "adapter")
    whole = ours(base, adapter, tmp_path / "whole")
    split = ours(base, adapter, tmp_path / "split", limit=100_000)
    files = sorted(f.name for f in (tmp_path / "split").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((tmp_path / "split" / name).stat().st_size < 110_000 for name in files)
    assert all(torch.equal(whole[name], split[name]) for name in whole)
    model, _ = load_causal_lm(tmp_path / "split", dtype="float32")
    assert torch.equal(model.get_input_embeddings().weight, whole["model.embed_tokens.weight"])


def test_all_weights_of_a_student_without_adapter_are_copied_bit_for_bit(tmp_path):
    base = base_folder(tmp_path / "base")
    ours(base, None, tmp_path / "weights")
    assert (tmp_path / "weights/model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_an_adapter_for_another_model_is_refused(tmp_path):
    base = base_folder(tmp_path / "base")
    from tests.tiny import tiny_model

    adapter = adapter_folder(tiny_model(tmp_path / "wide", hidden=96), tmp_path / "adapter")
    with pytest.raises(IntegrityError, match="the adapter wants"):
        Adapter(adapter).check_against(tensors.read_index(base))


def test_an_adapter_with_parts_that_cannot_be_merged_is_refused(tmp_path):
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(base, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {**weights, "base_model.model.lm_head.modules_to_save.weight": torch.zeros(2)},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(DataError, match="modules_to_save"):
        Adapter(adapter)


@pytest.mark.parametrize("damage", ["cut", "longer", "header", "length"])
def test_a_damaged_safetensors_file_is_one_line(damage, tmp_path):
    base = base_folder(tmp_path / "base")
    path = base / "model.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-100]
    elif damage == "longer":
        data += b"\0" * 8
    elif damage == "header":
        data[9] = 0
    else:
        data[:8] = (1 << 62).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        tensors.read_index(base)


def test_what_is_written_is_what_the_library_reads(tmp_path):
    values = {
        "b.bf16": torch.randn(3, 5).to(torch.bfloat16),
        "a.f32": torch.randn(7),
        "c.f16": torch.randn(2, 2).half(),
        "d.i64": torch.arange(4),
        "e.none": torch.zeros(0, 3),
        "f.scalar": torch.tensor(2.5),
    }
    save_file(values, tmp_path / "in.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    out.mkdir()
    tensors.write_model(out, list(tensors.read_index(tmp_path).values()), 1 << 30, lambda _: None, lambda _: None)
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "in.safetensors").read_bytes()
    with safe_open(out / "model.safetensors", "pt") as read:
        assert all(torch.equal(read.get_tensor(name), value) for name, value in values.items())


MEMORY = """
import resource, sys
from pathlib import Path
import torch
from distill.release.targets import merged
from distill.release.targets._base import Job
folder = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
base = folder / "base"
job = Job(base=base, student=base, adapter=folder / "adapter", bundle=folder, name="x", base_name="x")
merged.write_weights(job, folder / "weights", 10**12)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_stays_at_two_tensors_whatever_the_models_size(tmp_path):
    size, count = 1024, 48  # 48 tensors of 4 MB
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    save_file({f"layers.{n}.weight": torch.zeros(size, size) for n in range(count)}, base / "model.safetensors")
    halves = {f"base_model.model.layers.{n}.lora_A.weight": torch.ones(4, size) for n in range(count)}
    halves |= {f"base_model.model.layers.{n}.lora_B.weight": torch.ones(size, 4) for n in range(count)}
    save_file(halves, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 8}))
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    model_mb, tensor_mb, grown_mb = 4 * size * size * count / 1e6, 4 * size * size / 1e6, int(done.stdout) * 1024 / 1e6
    assert grown_mb <= 2 * tensor_mb + 60
    assert grown_mb < model_mb / 2  # 200 MB would show
