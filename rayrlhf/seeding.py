"""Random streams derived from one seed by name, so that no stream depends on how often another was used.

`generator(seed, "environment", 3, "episode", 7)` is the same stream in every process and after every resume.
"""

import hashlib

import numpy as np

Name = str | int


def _word(name: Name) -> int:
    """A 64-bit integer that stands for one part of a stream's name; text and integers never meet."""
    text = f"{type(name).__name__}:{name}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def sequence(seed: int, *names: Name) -> np.random.SeedSequence:
    """The seed sequence of the stream `names` under `seed`."""
    return np.random.SeedSequence(entropy=seed, spawn_key=tuple(_word(name) for name in names))


def generator(seed: int, *names: Name) -> np.random.Generator:
    """A NumPy generator for the stream `names` under `seed`."""
    return np.random.Generator(np.random.PCG64(sequence(seed, *names)))


def integer_seed(seed: int, *names: Name) -> int:
    """A 31-bit seed for libraries that take one integer (MuJoCo environments, `torch.Generator`)."""
    return int(sequence(seed, *names).generate_state(1, np.uint32)[0] >> 1)
