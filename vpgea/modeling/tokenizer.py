"""A model's tokenizer: read as its tokenizer.json says, and seen to keep words and line breaks.

transformers builds some classes anew from parts of tokenizer.json, with another splitting into words (a byte-level
file that declares a SentencePiece class loses its spaces so). The file is what the model was trained with.
"""

from __future__ import annotations

import copy
import filecmp
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea.errors import UsageError
from vpgea.storage.files import read_json

STORED = "tokenizer.json"
_VOCABULARIES = (STORED, "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
_TEMPLATE = "chat_template.jinja"
_PROBES = (
    "Add 3 to 4 .",
    "What is 1234567 plus 56?\n\nSo  it is  \t12.5,\n and\n\n\n-7.\n",
    "naïve café, √2 ≤ π/12; 数学 が 😀, \\boxed{\\frac{1}{2}} 1{,}000",
    " leading and trailing ",
)
_WORDS = ("Add 3 to 4", "so it is 12", "one\ntwo", "1 2\n\n3 4")  # none that a tokenizer may rightly spell otherwise
_MOST_ADDED = 256  # added tokens that are tried: some models reserve thousands
_MORE_TEMPLATES = "additional_chat_templates"
_MOST_READ = 2  # tokenizers that are kept: they are large
_State = tuple[tuple[str, int, int, int], ...]  # of each file its path, inode, bytes and time of change


@dataclass(frozen=True, kw_only=True)
class LoadedTokenizer:
    """A transformers tokenizer, and how it was found.

    Attributes:
        remarks: What people should be told of it.
        differs: What makes other ids of texts than the base's tokenizer in its declared class, which is what version
            0.1.0 took; empty where nothing does.
    """

    tokenizer: Any
    remarks: list[str]
    differs: str


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A tokenizer as `_read` has made it of files in some state."""

    state: _State
    tokenizer: Any
    wrong: str | None


_READ: dict[tuple[Path, bool], _Read] = {}


def _why(folder: Path, error: Exception) -> str:
    """Why a tokenizer was not loaded; the loader itself speaks of its converters where a file is not there."""
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        return f"{STORED} is not there, nor is any other file with a vocabulary"
    if (folder / STORED).is_file():
        try:
            json.loads((folder / STORED).read_bytes())
        except ValueError as damaged:
            return f"{STORED} is damaged: {damaged}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def load_tokenizer(folder: Path, adapter: Path | None, *, trust_remote_code: bool) -> LoadedTokenizer:
    """The tokenizer of a model with its adapter, if any.

    An adapter's own tokenizer and chat template go before the base's: it was trained with them.

    Raises:
        UsageError: It cannot be loaded, or gives other ids than its tokenizer.json, or loses spaces.
    """
    source = adapter if adapter is not None and brings_another(adapter, folder) else folder
    try:
        tokenizer, wrong = _read_once(source, trust_remote_code)
    except Exception as error:  # every tokenizer class fails in its own way
        raise UsageError(
            f"the tokenizer in {source} cannot be loaded",
            why=_why(source, error),
            mend="copy tokenizer.json and tokenizer_config.json of the model into the folder",
        ) from error
    remarks, differs = [], []
    if wrong is not None:
        differs.append("stored")
    if source == adapter:
        remarks.append(f"texts are read with the tokenizer beside the adapter {adapter}, which is not the base's")
        differs.append("adapter")
    if adapter is not None:
        remarks += _take_template(tokenizer, folder, adapter, source)
    return LoadedTokenizer(tokenizer=tokenizer, remarks=remarks, differs=" ".join(differs))


def declared_tokenizer(folder: Path, *, trust_remote_code: bool) -> LoadedTokenizer | None:
    """The base's tokenizer in its declared class; None where that one cannot be had, or loses spaces."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if _lost_words(tokenizer) is not None:
            return None
    except Exception:  # every tokenizer class fails in its own way; `load_tokenizer` has taken another
        return None
    remark = f"texts are read in the tokenizer's declared class, as this was begun, though {STORED} says otherwise"
    return LoadedTokenizer(tokenizer=tokenizer, remarks=[remark], differs="")


def stored_tokenizer(folder: Path, tokenizer: Any) -> Any | None:
    """tokenizer.json as it stands, with the tokens that its configuration adds; None where there is no such file."""
    from tokenizers import Tokenizer

    if not (folder / STORED).is_file():
        return None
    stored = Tokenizer.from_file(str(folder / STORED))
    for _, token in sorted(tokenizer.added_tokens_decoder.items()):
        if stored.token_to_id(token.content) is None:
            (stored.add_special_tokens if token.special else stored.add_tokens)([token])
    return stored


def disagreement(tokenizer: Any, stored: Any, texts: Sequence[str]) -> str | None:
    """How a tokenizer differs from a stored one on the first text on which it does; None where it never does."""
    for text in texts:
        ours, theirs = encode(tokenizer, text), stored.encode(text, add_special_tokens=False).ids
        if ours != theirs:
            return f"{_short(text)} is {ours[:6]}... and {theirs[:6]}... by {STORED}"
        back, expected = decode(tokenizer, theirs), stored.decode(theirs, skip_special_tokens=False)
        if back != expected:
            return f"{_short(text)} comes back as {_short(back)}, and as {_short(expected)} by {STORED}"
    return None


def encode(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text as it stands."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def decode(tokenizer: Any, ids: Sequence[int], *, special: bool = True) -> str:
    """Text of ids as they stand, with or without special tokens."""
    text: str = tokenizer.decode(
        [int(token) for token in ids], skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )
    return text


def _read_once(folder: Path, trust_remote_code: bool) -> tuple[Any, str | None]:
    """`_read`, once in a process as long as no file of the folder has changed: phases and rounds ask again and again.

    Each call gets a shallow copy, since an adapter's chat template may be put on it.
    """
    key = (folder, trust_remote_code)
    state = _state(folder)
    if key not in _READ or _READ[key].state != state:
        tokenizer, wrong = _read(folder, trust_remote_code)
        if not tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys():
            raise ValueError("it has no vocabulary")  # what the loader makes of a folder without tokenizer files
        if (lost := _lost_words(tokenizer)) is not None:
            raise ValueError(lost)
        _READ.pop(key, None)
        if len(_READ) == _MOST_READ:
            del _READ[next(iter(_READ))]
        _READ[key] = _Read(state=state, tokenizer=tokenizer, wrong=wrong)
    return copy.copy(_READ[key].tokenizer), _READ[key].wrong


def _state(folder: Path) -> _State:
    files = [path for path in (*folder.iterdir(), *(folder / _MORE_TEMPLATES).glob("*")) if path.is_file()]
    found = [(str(path), path.stat()) for path in sorted(files)]
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def _read(folder: Path, trust_remote_code: bool) -> tuple[Any, str | None]:
    """(tokenizer, None) in the class that transformers takes; where that one reads the file otherwise, the plain one,
    and how they differ."""
    from transformers import AutoTokenizer, TokenizersBackend
    from transformers.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

    verbosity = get_verbosity()
    set_verbosity_error()  # it would warn of classes, to stderr; what matters is compared here
    try:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
            wrong = _differs(folder, tokenizer)
        except Exception as error:  # a declared class that cannot take the file; the plain one may
            if not (folder / STORED).is_file():
                raise
            wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if wrong is None:
            return tokenizer, None
        plain = TokenizersBackend.from_pretrained(folder)
        if (still := _differs(folder, plain)) is not None:
            raise ValueError(still)
        return plain, wrong
    finally:
        set_verbosity(verbosity)


def brings_another(adapter: Path, folder: Path) -> bool:
    """Whether a tokenizer lies beside an adapter that is not the base's, byte for byte."""
    if not any((adapter / name).is_file() for name in _VOCABULARIES):
        return False
    pairs = [(adapter / name, folder / name) for name in (*_VOCABULARIES, *_SETTINGS)]
    return any(own.is_file() and not (base.is_file() and filecmp.cmp(own, base, shallow=False)) for own, base in pairs)


def _differs(folder: Path, tokenizer: Any) -> str | None:
    stored = stored_tokenizer(folder, tokenizer)
    if stored is None:
        return None
    added = sorted(tokenizer.added_tokens_decoder.items())[:_MOST_ADDED]
    probes = [*_PROBES, *(f"so {token.content} it\n{token.content}\nis{token.content}" for _, token in added)]
    if tokenizer.chat_template:
        probes.append(_chat(tokenizer))
    return disagreement(tokenizer, stored, probes)


def _chat(tokenizer: Any) -> str:
    """The chat template rendered, or its own text where it needs more than a user's turn: the views will say what."""
    try:
        text = tokenizer.apply_chat_template([{"role": "user", "content": _PROBES[1]}], tokenize=False)
    except Exception:  # templates raise what they like
        return str(tokenizer.chat_template)
    return str(text)


def _lost_words(tokenizer: Any) -> str | None:
    """Words that do not come back as words of their own. Those that the vocabulary cannot spell say nothing."""
    for text in _WORDS:
        ids = encode(tokenizer, text)
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            continue
        if (back := decode(tokenizer, ids)).casefold().split() != text.casefold().split():
            return f"{_short(text)} comes back as {_short(back)}: its spaces or line breaks are lost"
    return None


def _take_template(tokenizer: Any, folder: Path, adapter: Path, source: Path) -> list[str]:
    """Give the tokenizer the adapter's chat template, or the base's where it has none; say where the two differ."""
    own, base = template_of(adapter), template_of(folder)
    if own is None:
        if source == adapter and base is not None:
            tokenizer.chat_template = base
        return []
    tokenizer.chat_template = own
    return [] if own == base else [f"prompts are rendered with the chat template beside the adapter {adapter}"]


def template_of(folder: Path) -> Any | None:
    """The chat template of a folder: text, or several by name; None without one."""
    if (file := folder / _TEMPLATE).is_file():
        return file.read_text(encoding="utf-8")
    if not (file := folder / "tokenizer_config.json").is_file():
        return None
    found = read_json(file).get("chat_template")
    return {one["name"]: one["template"] for one in found} if isinstance(found, list) else found or None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
