"""A stream's random numbers, which training draws its held-out forecasts from too."""

from __future__ import annotations

from bundle.rng import BLOCK, UniformBlocks, Uniforms, digest_of, key_of, uniform_block

__all__ = ["BLOCK", "UniformBlocks", "Uniforms", "digest_of", "key_of", "uniform_block"]
