"""Which architectures of Hugging Face's transformers convert and agree, built small, without weights from outside.

`python -m benchmarks.coverage transformers` needs transformers. Each model has random weights, is exported
for any number of rows and of tokens, and compared with PyTorch itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.coverage.table import Result, examined, imported, installed, rows_of, versions_line
from benchmarks.coverage.torch_cases import randomised

IDS, MASK = "input_ids:int64[batch,sequence]", "attention_mask:int64[batch,sequence]"
TOKENS, TARGET = "input_ids:int64[batch,8]", "decoder_input_ids:int64[batch,target]"
IMAGE, LARGER = "pixel_values:float32[batch,3,32,32]", "pixel_values:float32[batch,3,64,64]"
SOUND, SERIES = "input_values:float32[batch,800]", "past_values:float32[batch,32,3]"

_WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_TEXT = _WIDTH | {"vocab_size": 99}
_CAUSAL = _TEXT | {"num_key_value_heads": 2, "use_cache": False, "pad_token_id": 0}
_VISION = _WIDTH | {"image_size": 32, "patch_size": 8}
_LAYERS = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
_BOTH = _LAYERS | {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
_WRITING = _BOTH | {"vocab_size": 99, "use_cache": False, "pad_token_id": 0, "decoder_start_token_id": 1}
_STAGES = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1]}
_SPEECH = _WIDTH | {
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
_T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "use_cache": False}
_GPT = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False}
_MAMBA = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4, "use_cache": False}
_PATCHES = {
    "num_input_channels": 3,
    "context_length": 32,
    "patch_length": 8,
    "patch_stride": 8,
    "d_model": 16,
    "prediction_length": 8,
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_NECK = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}

TEXT: dict[str, dict[str, Any]] = {
    "AlbertModel": _TEXT | {"embedding_size": 16},
    "BertForSequenceClassification": _TEXT,
    "BertModel": _TEXT,
    "BigBirdModel": _TEXT | {"attention_type": "original_full"},
    "BlipTextModel": _TEXT | {"is_decoder": False},
    "BloomForCausalLM": {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
    "DebertaV2Model": _TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "DistilBertForSequenceClassification": {
        "vocab_size": 99,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 64,
    },
    "ElectraModel": _TEXT | {"embedding_size": 16},
    "FalconForCausalLM": _TEXT | {"use_cache": False},
    "GPT2LMHeadModel": _GPT,
    "GPTJForCausalLM": _GPT | {"rotary_dim": 4},
    "GPTNeoXForCausalLM": _TEXT | {"use_cache": False},
    "Gemma2ForCausalLM": _CAUSAL | {"head_dim": 8},
    "Gemma3ForCausalLM": _CAUSAL | {"head_dim": 8, "sliding_window": 4},
    "GptOssForCausalLM": _CAUSAL | _EXPERTS | {"head_dim": 8},
    "LlamaForCausalLM": _CAUSAL,
    "MPNetModel": _TEXT,
    "MistralForCausalLM": _CAUSAL,
    "MixtralForCausalLM": _CAUSAL | _EXPERTS,
    "MobileBertModel": _TEXT | {"embedding_size": 16, "intra_bottleneck_size": 16},
    "ModernBertModel": _TEXT | {"pad_token_id": 0},
    "OPTForCausalLM": {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "ffn_dim": 64,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 32,
        "use_cache": False,
    },
    "Olmo2ForCausalLM": _CAUSAL,
    "Phi3ForCausalLM": _CAUSAL,
    "PhiForCausalLM": _TEXT | {"use_cache": False},
    "Qwen2ForCausalLM": _CAUSAL,
    "Qwen3ForCausalLM": _CAUSAL | {"head_dim": 8},
    "RobertaForTokenClassification": _TEXT,
    "SmolLM3ForCausalLM": _CAUSAL,
    "SqueezeBertModel": _TEXT | {"embedding_size": 32},
    "T5EncoderModel": _T5,
    "XLMRobertaModel": _TEXT,
    "XLNetModel": {"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
}
"""Models of text of any length, with a mask; by class, the arguments of their configuration."""

OTHERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "ASTModel": (
        _WIDTH | {"max_length": 64, "num_mel_bins": 32},
        ("input_values:float32[batch,64,32]",),
    ),
    "BartModel": (_WRITING, (IDS, MASK, TARGET)),
    "BeitModel": (_VISION, (IMAGE,)),
    "CLIPModel": (
        {
            "text_config": _TEXT | {"max_position_embeddings": 64, "eos_token_id": 2},
            "vision_config": _VISION,
            "projection_dim": 16,
        },
        (IDS, IMAGE, MASK),
    ),
    "ConvNextModel": (_STAGES, (IMAGE,)),
    "DPTForDepthEstimation": (
        _VISION | _NECK | {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "is_hybrid": False},
        (IMAGE,),
    ),
    "DeiTModel": (_VISION, (IMAGE,)),
    "Dinov2Model": (_VISION, (IMAGE,)),
    "FNetModel": (
        {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 99},
        (TOKENS,),
    ),
    "FunnelModel": (
        {
            "vocab_size": 99,
            "block_sizes": [1, 1],
            "num_decoder_layers": 1,
            "d_model": 32,
            "n_head": 4,
            "d_head": 8,
            "d_inner": 64,
        },
        (TOKENS, "attention_mask:int64[batch,8]"),
    ),
    "HubertModel": (_SPEECH, (SOUND,)),
    "LevitModel": (
        {
            "image_size": 64,
            "hidden_sizes": [16, 16, 16],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        (LARGER,),
    ),
    "LongformerModel": (_TEXT | {"attention_window": [4, 4]}, (TOKENS, "attention_mask:int64[batch,8]")),
    "Mamba2ForCausalLM": (
        _MAMBA | {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8},
        (TOKENS,),
    ),
    "MambaForCausalLM": (_MAMBA, (TOKENS,)),
    "MarianModel": (_WRITING, (IDS, MASK, TARGET)),
    "MobileViTModel": (
        {
            "image_size": 32,
            "hidden_sizes": [16, 16, 16],
            "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 16],
        },
        (LARGER,),
    ),
    "PatchTSMixerForPrediction": (_PATCHES | {"num_layers": 1}, (SERIES,)),
    "PatchTSTForPrediction": (
        _PATCHES | {"num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 32},
        (SERIES,),
    ),
    "PoolFormerModel": (_STAGES | {"hidden_sizes": [8, 8, 16, 16]}, (IMAGE,)),
    "ResNetModel": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, (IMAGE,)),
    "SamVisionModel": (
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "mlp_dim": 64,
            "image_size": 32,
            "patch_size": 8,
            "output_channels": 16,
            "window_size": 2,
            "global_attn_indexes": [1],
        },
        (IMAGE,),
    ),
    "SegformerForSemanticSegmentation": (
        {
            "hidden_sizes": [8, 16, 16, 16],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 16,
        },
        (LARGER,),
    ),
    "SiglipVisionModel": (_VISION, (IMAGE,)),
    "SwinModel": (
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 2],
            "window_size": 4,
        },
        (IMAGE,),
    ),
    "T5ForConditionalGeneration": (_T5, (IDS, MASK, TARGET)),
    "ViTForImageClassification": (_VISION, (IMAGE,)),
    "VitsModel": ({"vocab_size": 38}, (TOKENS,)),
    "Wav2Vec2ForCTC": (_SPEECH | {"vocab_size": 32}, (SOUND,)),
    "WhisperModel": (
        _WRITING | {"max_source_positions": 50, "num_mel_bins": 20, "bos_token_id": 1, "eos_token_id": 2},
        ("input_features:float32[batch,20,100]", TARGET),
    ),
    "YolosForObjectDetection": (
        _VISION | {"image_size": [32, 32], "num_detection_tokens": 5},
        (IMAGE,),
    ),
}
"""Models of other inputs."""

DETECTORS = ("DetrModel", "MaskFormerForInstanceSegmentation", "RTDetrForObjectDetection")
"""Whose configurations hold that of a backbone."""


def case_names() -> list[str]:
    """Every case: the class of a model."""
    return sorted([*TEXT, *OTHERS, *DETECTORS])


def examine(name: str) -> Result:
    """Build, convert and compare one case."""

    def build() -> tuple[object, dict[str, Any]]:
        model, inputs = network(name)
        return model, {"inputs": inputs}

    return examined(build)


def network(name: str) -> tuple[Any, tuple[str, ...]]:
    """A model, and its inputs as `--input` takes them."""
    import torch

    library = import_transformers()
    library.logging.set_verbosity_error()
    kind = getattr(library, name)
    torch.manual_seed(0)
    if name in DETECTORS:
        return randomised(kind(_detector(library, name)).eval()), (LARGER,)
    options, inputs = (TEXT[name], (IDS, MASK)) if name in TEXT else OTHERS[name]
    return randomised(kind(kind.config_class(**options)).eval()), inputs


def _detector(library: Any, name: str) -> Any:
    """The configuration of a detector around a small backbone."""
    if name == "DetrModel":
        backbone = library.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"]
        )
        settings = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
        return library.DetrConfig(**_BOTH, **settings, backbone_config=backbone)
    stages = [f"stage{number}" for number in range(1, 5)]
    if name == "MaskFormerForInstanceSegmentation":
        swin = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 2}
        return library.MaskFormerConfig(
            backbone_config=library.SwinConfig(image_size=64, patch_size=4, out_features=stages, **swin),
            decoder_config=library.DetrConfig(**_BOTH, num_queries=5),
            fpn_feature_size=32,
            mask_feature_size=32,
        )
    backbone = library.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, out_features=stages[1:]
    )
    return library.RTDetrConfig(
        **_BOTH,
        encoder_hidden_dim=32,
        initializer_range=0.3,  # or all scores are the same but for their rounding
        num_queries=5,
        decoder_in_channels=[32] * 3,
        encoder_in_channels=[8, 16, 16],
        feat_strides=[8, 16, 32],
        backbone_config=backbone,
    )


def import_transformers() -> Any:
    """Import transformers; see `table.imported`."""
    return imported("transformers", "transformers")


def versions() -> dict[str, str]:
    """The versions that decide what converts."""
    import_transformers()
    return installed("torch", "onnxscript", "onnx", "onnxruntime", "transformers")


def to_markdown(results: Mapping[str, Result], versions: Mapping[str, str]) -> str:
    """The table.

    Args:
        results: What `examine` returned, by case.
        versions: Those that the results were found with.
    """
    return "\n".join(
        [
            "# Architectures of Hugging Face's transformers",
            "",
            "Written by `python -m benchmarks.coverage transformers --limit 300 --record",
            "reports/coverage/transformers.json --markdown reports/coverage/transformers.md`; do not edit. Each is",
            "built small with random weights, and exported as the module that it is, with its own arguments, nested",
            "outputs and masks: for any number of rows, and of tokens where it takes any. It is compared with",
            "PyTorch by the tolerance of `verify`, on tokens of its whole vocabulary and masks with holes.",
            versions_line(versions),
            "",
            *rows_of(results),
            "",
        ]
    )
