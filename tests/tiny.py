"""A tiny random Qwen2 model and tokenizer made in memory: real classes, no files, in milliseconds."""

import os
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SEED = int(os.environ.get("TINY_SEED", "0"))
"""Seed of random weights. Tests pass with any, as TINY_SEED=1 shows."""
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "Nous ne désirons pas une chose parce qu’elle est bonne ; elle est bonne parce que nous la désirons.",
    "La durée n’est pas l’espace : elle s’écoule, et l’œil ne la voit pas. « Agis », dit-il.",
    "system user assistant Question Passages philosophie liberté conscience devoir raison nature",
    "Tu réponds à l’élève en quelques phrases ; il dit ce qu’il pense, et tu lui montres où il se contredit.",
]
"""The tokenizer's texts. The last is like the personas, so that these leave room for 2048 tokens of 4096."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE like Qwen2's: any text encodes, special tokens are added tokens outside the merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=391, initial_alphabet=alphabet, special_tokens=SPECIAL_TOKENS)
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_config(**changes: object) -> Qwen2Config:
    """Grouped heads and untied embeddings, as in Qwen2.5-14B, but 64 wide and 2 layers deep."""
    sizes: dict[str, object] = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
        "eos_token_id": [2, 0],
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    return Qwen2Config(**{**sizes, **changes})


def tiny_model(seed: int = SEED, **changes: object) -> Qwen2ForCausalLM:
    """Random weights, spread widely enough that greedy decoding has no ties, in fp32 on the CPU."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(tiny_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
    return model


def talkative(model: Qwen2ForCausalLM) -> Qwen2ForCausalLM:
    """Makes a random model say only letters, and words with accents more often than others.

    All other tokens, among them end tokens and parts of a character, always score 0, which is less than the
    likeliest twenty. So, greedy or with the default top_k, an answer has one piece of text for each of its
    max_tokens tokens, whatever the model, the prompt and the rounding. Only runaway repetition may end one of
    more than 64 tokens early, unless min_tokens forbids it.
    """
    tokenizer = tiny_tokenizer()
    with torch.no_grad():
        for token, row in enumerate(model.lm_head.weight):
            text = tokenizer.decode(token)
            row *= 0 if not text.strip().isalpha() else 1 if text.isascii() else 2
    return model


def save_tiny(folder: Path, seed: int = SEED, **changes: object) -> Path:
    """Writes a talkative base model as on a hub: config, safetensors shards, tokenizer; returns `folder`."""
    talkative(tiny_model(seed, **changes)).save_pretrained(folder, max_shard_size="100KB")
    tiny_tokenizer().save_pretrained(folder)
    return folder
