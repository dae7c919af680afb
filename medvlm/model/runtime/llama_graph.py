"""A Llama-shaped decoder as an ONNX graph that reads embeddings, trees of them, and remembers.

Inputs: `embeddings` [B, L, D], `positions` [B, L], `mask` [B, 1, L, P + L] (added to the scores),
`wanted` [N] (row * L + column), and for each layer `past_key_i`, `past_value_i` [B, heads, P, d].
Outputs: `logits` [N, vocabulary] at `wanted`, and `key_i`, `value_i` [B, heads, P + L, d].
The LoRA is part of the weights. Linear layers are float32, or blocks of 8 bits
(`medvlm.model.runtime.blocks`); norms are float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from medvlm.model.runtime.blocks import BITS, BLOCK, in_blocks

Weights = Mapping[str, NDArray[np.float32]]

LONGEST = 8192  # positions, where the model knows as many
_MICROSOFT = "com.microsoft"
_OPSETS = (("", 23), (_MICROSOFT, 1))
# Of the graph's format, not of the opsets: what the oldest ONNX Runtime supported here reads.
_IR_VERSION = 10


def fits(config: Any) -> bool:
    """Whether a model's configuration is of the shape that is built here."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type == "llama"
        and getattr(config, "quantization_config", None) is None
        and rope.get("rope_type", "default") == "default"
        and config.hidden_act == "silu"
        and not getattr(config, "attention_bias", False)
        and not getattr(config, "mlp_bias", False)
        and all(size % BLOCK == 0 for size in (config.hidden_size, config.intermediate_size))
    )


def longest(config: Any) -> int:
    """How many positions a prompt and its answer may take."""
    return min(int(config.max_position_embeddings), LONGEST)


def llama_graph(weights: Weights, config: Any, *, eight_bits: bool = False) -> onnx.ModelProto:
    """The graph of weights by transformers' names, of a configuration that `fits`."""
    return _Builder(weights, config, eight_bits).model()


class _Builder:
    def __init__(self, weights: Weights, config: Any, eight_bits: bool) -> None:
        self.weights, self.config, self.eight_bits = weights, config, eight_bits
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.size: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs = [
            _float("embeddings", "b", "l", config.hidden_size),
            helper.make_tensor_value_info("positions", TensorProto.INT64, ["b", "l"]),
            _float("mask", "b", 1, "l", "t"),
            helper.make_tensor_value_info("wanted", TensorProto.INT64, ["n"]),
        ]
        self.outputs = [_float("logits", "n", config.vocab_size)]

    def model(self) -> onnx.ModelProto:
        self._rotations()
        stream = "embeddings"
        normed = self._norm(stream, self._layer(0, "input_layernorm"), "normed_0")
        for i in range(self.config.num_hidden_layers):
            attended = self._attention(i, normed)
            after = self._layer(i, "post_attention_layernorm")
            normed, stream = self._add_norm(stream, attended, after, f"middle_{i}")
            made = self._mlp(i, normed)
            last = i + 1 == self.config.num_hidden_layers
            name = "model.norm.weight" if last else self._layer(i + 1, "input_layernorm")
            normed, stream = self._add_norm(stream, made, name, f"normed_{i + 1}")
        flat = self._constant("flat", np.array([-1, self.config.hidden_size], np.int64))
        rows = self._node("Reshape", [normed, flat], "rows")
        picked = self._node("Gather", [rows, "wanted"], "picked", axis=0)
        tied = "lm_head.weight" not in self.weights
        head = "model.embed_tokens.weight" if tied else "lm_head.weight"
        self._linear(picked, "head", [head], "logits")
        graph = helper.make_graph(self.nodes, "llama", self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid(*opset) for opset in _OPSETS]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _layer(self, number: int, name: str) -> str:
        return f"model.layers.{number}.{name}.weight"

    def _rotations(self) -> None:
        """Cosines and sines of the rotary position embedding [positions, d / 2]."""
        config = self.config
        theta = (getattr(config, "rope_parameters", None) or {}).get("rope_theta")
        theta = theta or config.rope_theta
        speeds = theta ** -(np.arange(0, self.size, 2, dtype=np.float64) / self.size)
        angles = np.outer(np.arange(longest(config)), speeds)
        self._constant("cosines", np.cos(angles).astype(np.float32))
        self._constant("sines", np.sin(angles).astype(np.float32))
        widths = np.array([self.heads, self.groups, self.groups], np.int64) * self.size
        self._constant("widths", widths)

    def _attention(self, i: int, normed: str) -> str:
        names = [self._layer(i, f"self_attn.{name}_proj") for name in "qkv"]
        together = self._linear(normed, f"qkv_{i}", names, f"qkv_{i}")
        parts = [f"{name}_{i}" for name in "qkv"]
        self.nodes.append(helper.make_node("Split", [together, "widths"], parts, axis=-1))
        query, key = (
            self._node(
                "RotaryEmbedding",
                [part, "positions", "cosines", "sines"],
                f"turned_{part}",
                _MICROSOFT,
                num_heads=count,
            )
            for part, count in zip(parts[:2], (self.heads, self.groups), strict=True)
        )
        past, kept = [f"past_key_{i}", f"past_value_{i}"], [f"key_{i}", f"value_{i}"]
        self.inputs += [_float(name, "b", self.groups, "p", self.size) for name in past]
        self.outputs += [_float(name, "b", self.groups, "t", self.size) for name in kept]
        attended = f"attended_{i}"
        self.nodes.append(
            helper.make_node(
                "Attention",
                [query, key, parts[2], "mask", *past],
                [attended, *kept],
                q_num_heads=self.heads,
                kv_num_heads=self.groups,
            )
        )
        return self._linear(attended, f"o_{i}", [self._layer(i, "self_attn.o_proj")], f"o_{i}")

    def _mlp(self, i: int, normed: str) -> str:
        gate, up = (
            self._linear(normed, f"{name}_{i}", [self._layer(i, f"mlp.{name}_proj")], f"{name}_{i}")
            for name in ("gate", "up")
        )
        slope = self._node("Sigmoid", [gate], f"slope_{i}")
        silu = self._node("Mul", [gate, slope], f"silu_{i}")
        product = self._node("Mul", [silu, up], f"product_{i}")
        return self._linear(product, f"down_{i}", [self._layer(i, "mlp.down_proj")], f"down_{i}")

    def _linear(self, x: str, name: str, weights: Sequence[str], out: str) -> str:
        """A layer, or several that read the same, one after the other."""
        weight = np.concatenate([self.weights[own] for own in weights])
        if not self.eight_bits:
            return self._node("MatMul", [x, self._constant(f"{name}.weight", weight.T)], out)
        blocks = in_blocks(weight)
        return self._node(
            "MatMulNBits",
            [
                x,
                self._constant(f"{name}.values", blocks.values),
                self._constant(f"{name}.scales", blocks.scales),
            ],
            out,
            _MICROSOFT,
            N=weight.shape[0],
            K=weight.shape[1],
            bits=BITS,
            block_size=BLOCK,
            accuracy_level=4,  # activations as 8-bit integers, too
        )

    def _norm(self, x: str, name: str, out: str) -> str:
        weight = self._constant(name, self.weights[name])
        epsilon = self.config.rms_norm_eps
        return self._node(
            "SimplifiedLayerNormalization", [x, weight], out, axis=-1, epsilon=epsilon, stash_type=1
        )

    def _add_norm(self, stream: str, x: str, name: str, out: str) -> tuple[str, str]:
        """The sum of stream and x: normed, and as it is."""
        added = f"stream_{out}"
        weight = self._constant(name, self.weights[name])
        self.nodes.append(
            helper.make_node(
                "SkipSimplifiedLayerNormalization",
                [stream, x, weight],
                [out, "", "", added],
                domain=_MICROSOFT,
                epsilon=self.config.rms_norm_eps,
            )
        )
        return out, added

    def _node(
        self, kind: str, inputs: Sequence[str], out: str, domain: str = "", **given: Any
    ) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [out], domain=domain, **given))
        return out

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def _float(name: str, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
