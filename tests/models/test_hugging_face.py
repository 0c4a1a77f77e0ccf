"""Folders of transformers, sentence-transformers and PEFT, made here with these libraries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

import onnxtool
from onnxtool.errors import SourceError, UntrustedError
from onnxtool.models.torch.hugging_face import base_of, folder_kind, read_folder

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries that make the folders

_SMALL = {"vocab_size": 99, "d_model": 32, "pad_token_id": 0, "decoder_start_token_id": 1}
_BERT = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37,
    "max_position_embeddings": 64,
}  # fmt: skip
TOKENS = np.random.default_rng(0).integers(0, 99, (3, 9))
MASK = np.where(np.arange(9) < np.array([[9], [5], [7]]), 1, 0)
IMAGE = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)
SOUND = np.random.default_rng(2).normal(size=(3, 16, 64)).astype(np.float32)


def _make(name: str) -> torch.nn.Module:
    t = transformers
    torch.manual_seed(0)
    if name == "bert":
        return t.BertForSequenceClassification(t.BertConfig(**_BERT)).eval()
    if name == "gpt2":
        config = t.GPT2Config(vocab_size=99, n_positions=64, n_embd=32, n_layer=2, n_head=4, eos_token_id=98)
        return t.GPT2LMHeadModel(config).eval()
    if name == "t5":
        config = t.T5Config(**_SMALL, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
        return t.T5ForConditionalGeneration(config).eval()
    if name == "vit":
        sizes = {key: _BERT[key] for key in list(_BERT)[1:5]}
        return t.ViTForImageClassification(t.ViTConfig(image_size=32, patch_size=8, **sizes)).eval()
    config = t.WhisperConfig(
        **_SMALL, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=37, decoder_ffn_dim=37, num_mel_bins=16, max_source_positions=32, max_target_positions=64,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return t.WhisperForConditionalGeneration(config).eval()


def _converted(folder: Path, **options: object) -> ort.InferenceSession:
    out = folder.with_suffix(".onnx")
    assert onnxtool.convert(folder, out, **{"sandbox": None, **options})
    return ort.InferenceSession(out)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("bert", {"input_ids": TOKENS, "attention_mask": MASK}),
        ("t5", {"input_ids": TOKENS, "attention_mask": MASK, "decoder_input_ids": TOKENS[:, :4]}),
        ("vit", {"pixel_values": IMAGE}),
        ("whisper", {"input_features": SOUND, "decoder_input_ids": TOKENS[:, :4]}),
    ],
)
def test_a_folder_converts_by_itself(tmp_path: Path, name: str, rows: dict[str, np.ndarray]) -> None:
    model = _make(name)
    model.save_pretrained(tmp_path / name)
    if name == "bert":
        rows = {**rows, "token_type_ids": np.zeros_like(TOKENS)}
    # Made-up rows of two lengths take T5 a minute.
    session = _converted(tmp_path / name, **({"data": rows} if name == "t5" else {}))
    with torch.no_grad():
        want = model(**{key: torch.from_numpy(value) for key, value in rows.items()}).logits.numpy()
    np.testing.assert_allclose(session.run(["logits"], rows)[0], want, atol=1e-5)


def test_gpt2_generates_with_its_cache(tmp_path: Path) -> None:
    model = _make("gpt2")
    model.save_pretrained(tmp_path / "gpt2")
    session = _converted(tmp_path / "gpt2")
    past = {value.name: np.zeros((2, 4, 0, 8), np.float32) for value in session.get_inputs()[1:]}
    names = [value.name for value in session.get_outputs()]
    tokens, given = TOKENS[:2], TOKENS[:2]
    for _ in range(32):
        found = dict(zip(names, session.run(names, {"input_ids": given, **past}), strict=True))
        given = found.pop("logits")[:, -1].argmax(-1)[:, None]
        tokens = np.concatenate([tokens, given], 1)
        past = {name.replace("present", "past_key_values"): value for name, value in found.items()}
    settings = {"do_sample": False, "max_new_tokens": 32, "min_new_tokens": 32}
    prompt = torch.from_numpy(TOKENS[:2])
    want = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), pad_token_id=0, eos_token_id=None, **settings
    )
    assert np.array_equal(tokens, want.numpy()[:, : tokens.shape[1]])
    assert tokens.shape == (2, 41)


def test_an_adapter_finds_its_base(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    _make("bert").save_pretrained(tmp_path / "bert")
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=4, init_lora_weights=False)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "bert")
    adapted = peft.get_peft_model(base, config).eval()
    adapted.save_pretrained(tmp_path / "lora")
    description = tmp_path / "lora" / "adapter_config.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"base_model_name_or_path": "bert"}))
    assert base_of(tmp_path / "lora", None) == tmp_path / "bert"
    rows = {"input_ids": TOKENS, "attention_mask": MASK, "token_type_ids": np.zeros_like(TOKENS)}
    # The sandbox has to show the base to the process.
    session = _converted(tmp_path / "lora", data=rows, sandbox=onnxtool.Limits())
    with torch.no_grad():
        want = adapted(**{key: torch.from_numpy(value) for key, value in rows.items()}).logits.numpy()
    np.testing.assert_allclose(session.run(["logits"], rows)[0], want, atol=1e-5)
    description.write_text(json.dumps(json.loads(description.read_text()) | {"base_model_name_or_path": ".."}))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert base_of(tmp_path / "lora", None) is None
    description.write_text(json.dumps(json.loads(description.read_text()) | {"base_model_name_or_path": "bert"}))
    (tmp_path / "bert").rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="--base FOLDER"):
        read_folder(tmp_path / "lora")
    (tmp_path / "bert").symlink_to(tmp_path / "elsewhere")
    assert base_of(tmp_path / "lora", None) is None
    read_folder(tmp_path / "lora", tmp_path / "elsewhere")


def test_sentences_are_pooled_and_normalised(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers

    transformers.BertModel(transformers.BertConfig(**_BERT)).save_pretrained(tmp_path / "base")
    unknown = {"unk_token": "[UNK]"}
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3, "c": 4}, **unknown))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {**unknown, "pad_token": "[PAD]", "model_max_length": 64}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(tmp_path / "base")
    parts = [Transformer(str(tmp_path / "base")), Pooling(32), Normalize()]
    model = library.SentenceTransformer(modules=parts, device="cpu")
    model.save(str(tmp_path / "sentences"))
    session = _converted(tmp_path / "sentences")
    texts = ["a b c", "c", "b b a a c"]
    given = {
        key: value.numpy() for key, value in model.tokenizer(texts, padding=True, return_tensors="pt").items()
    }
    rows = {value.name: given[value.name] for value in session.get_inputs()}
    np.testing.assert_allclose(session.run(None, rows)[0], model.encode(texts), atol=1e-5)


def test_code_and_pickles_are_refused(tmp_path: Path) -> None:
    model = _make("bert")
    model.save_pretrained(tmp_path)
    assert folder_kind(tmp_path) == "model"
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(UntrustedError, match=r"package\.module:callable"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchModel"]}))
    with pytest.raises(SourceError, match="does not have"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "path": "", "type": "os.system"}]))
    with pytest.raises(UntrustedError, match=r"os\.system"):
        read_folder(tmp_path)
    (tmp_path / "modules.json").unlink()
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UntrustedError, match="pickle"):
        read_folder(tmp_path)
