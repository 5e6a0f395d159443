"""A target whose merge went wrong in one tensor: the release must notice."""

from distill.release import tensors
from distill.release.targets import merged

NEEDS = ()


class Config(merged.Config):
    """The setting says which tensor is spoiled."""

    tensor: str = "model.layers.1.self_attn.v_proj.weight"


def export(job, config):
    """merged, then one tensor turned round."""
    made = merged.export(job, config)
    path = job.bundle / "weights" / "model.safetensors"
    tensor = tensors.read_index(path.parent)[config.tensor]
    data = bytearray(path.read_bytes())
    values = tensors.load(tensor).flip(0).contiguous()
    data[tensor.start : tensor.start + tensor.size] = values.numpy().tobytes()
    path.write_bytes(data)
    return made
