"""A model that stays in memory between those who need it: what has sampled is trained next, and not read once more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpgea.modeling.load import load_model
from vpgea.modeling.local_model import LocalModel

_Files = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True)
class _Held:
    """A module as `load_model` gave it, of which files, how they lay on the disk then, and how it attended."""

    module: Any
    key: tuple[object, ...]
    files: _Files
    attention: str


class HeldModel:
    """At most one model, every weight of it as its files have it.

    Whoever changes weights takes them out: what fails half-way leaves nothing here, and the next one reads the files.
    They are read too where one of them was written, replaced or touched since.
    """

    def __init__(self) -> None:
        self._held: _Held | None = None

    def put(self, local: LocalModel, module: Any) -> None:
        """Hold what was just loaded from these files, as `load_model` gives it, instead of anything else."""
        self._held = _Held(module, _key(local), _files(local), module.config._attn_implementation)

    def get(self, local: LocalModel) -> Any:
        """The model, which stays here, for one who changes no weight of it; read where another one is held, or none.

        Raises:
            UsageError: It cannot be loaded.
        """
        if self._held is None or self._held.key != _key(local) or self._held.files != _files(local):
            self.drop()  # before a second model takes the first one's memory
            self.put(local, load_model(local))
        assert self._held is not None
        return self._held.module

    def take(self, local: LocalModel) -> Any:
        """The model, for one who may change it; nothing is held afterwards.

        Raises:
            UsageError: It cannot be loaded.
        """
        module = self.get(local)
        assert self._held is not None
        if module.config._attn_implementation != self._held.attention:  # an engine attends in a way of its own
            module.set_attn_implementation(self._held.attention)
        self.drop()
        return module.eval()

    def drop(self) -> None:
        """Let go of what is held."""
        self._held = None


def _key(local: LocalModel) -> tuple[object, ...]:
    """What makes one loaded model another: its files, their content, and how they were read."""
    trusted = local.config.trust_remote_code
    return local.folder, local.adapter, local.fingerprint, local.dtype, local.device, trusted


def _files(local: LocalModel) -> _Files:
    """What the file system says of them: any writing changes it, whatever the bytes are."""
    folders = [folder for folder in (local.folder, local.adapter) if folder is not None]
    return tuple(_stamp(path) for folder in folders for path in sorted(folder.iterdir()) if path.is_file())


def _stamp(path: Path) -> tuple[str, int, int, int, int]:
    found = path.stat()
    return path.name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
