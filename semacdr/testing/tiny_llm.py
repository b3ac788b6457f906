"""A tiny language model with random weights, so that tests run a real vLLM server in seconds.

Two layers, a byte-level vocabulary with some whole words, a chat template. Its output layer leans towards the whole
words, so that what it writes under a JSON schema is words in a random order: most of it is accepted, some of it is not.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = """
    quiet evening people enjoy simple comfort sharing warm moments friends careful hands learning patient skill bright
    colour gentle flavour weekend gathering thrifty choice lasting value small luxury daily ritual fresh start playful
    mood generous host relaxed morning steady habit curious taste festive table practical gift honest craft lively
    rhythm tidy corner deep focus long journey easy clean fast result soft light rich aroma bold style natural calm
    classic charm modern edge rare find sturdy build smooth finish crisp bite sweet treat savoury blend light snack
""".split()  # noqa: SIM905 (a list of words is read more easily as text)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
WORD_SCALE = 8.0
"""How far the output layer leans towards whole words."""


def make_tiny_llm(folder: Path, *, seed: int = 0, context: int = 2_048) -> Path:
    """Write the model into ``folder`` (config, tokenizer, safetensors) and return it; takes a second or two."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1_024,
        special_tokens=["<|pad|>", "<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f" {word}" for word in WORDS], trainer)
    special = {"pad_token": "<|pad|>", "eos_token": "<|end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=context, **special)
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)

    with torch.random.fork_rng(devices=[]):  # transformers draws from the global generator
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=tokenizer.get_vocab_size(),
                hidden_size=96,
                intermediate_size=192,
                num_hidden_layers=2,
                num_attention_heads=3,
                num_key_value_heads=3,
                max_position_embeddings=context,
                tie_word_embeddings=False,
                eos_token_id=fast.eos_token_id,
                pad_token_id=fast.pad_token_id,
                bos_token_id=None,
            )
        )
    whole = [tokenizer.token_to_id(f"\u0120{word}") for word in dict.fromkeys(WORDS)]
    with torch.no_grad():
        model.lm_head.weight[[index for index in whole if index is not None]] *= WORD_SCALE
    model.save_pretrained(folder)
    return folder
