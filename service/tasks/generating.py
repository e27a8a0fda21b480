"""Parts shared by the tasks that generate tokens."""

from __future__ import annotations

import time
from dataclasses import replace

from service.engine.decode import GenerateEngine
from service.engine.first_tokens import MOST_ROWS, FirstTokens
from service.engine.prefill import PrefillBudget
from service.engine.slots import Slots
from service.runtime.runners import GenerateRunner, ScoreRunner
from service.serving.generator import GeneratorModel, OutputSpec
from service.serving.generator_input import GeneratorInput, TextInput, VectorInput
from service.serving.model_factory import WARM_ROWS, ModelBuilder
from service.serving.model_metadata import generation_model
from service.serving.state_access import watchable

# Prompts that are read once, so many together and of so many tokens: that takes longer, and
# teaches what prefill costs.
_WARM_PROMPTS = (1, 4, 16)
_WARM_TOKENS = 16


def build_generator(
    builder: ModelBuilder, input: GeneratorInput, length: int, is_conditioned: bool
) -> GeneratorModel:
    """Two engines: scores run on a thread of their own, so no stream waits for one.

    length: of the longest input, in tokens or values. is_conditioned: as generation_model().
    """
    config, context = builder.config, builder.context
    card = builder.probed_card()
    card = replace(card, embeds=isinstance(input, TextInput) and bool(watchable(card)))
    model = generation_model(builder.bundle, is_conditioned)
    runner, rows = builder.step_runner()
    # A row's bits are its own only where it was found so, and its state only in host memory.
    first_tokens = None
    if card.batch_invariant and isinstance(runner, GenerateRunner):
        beside = GenerateRunner(runner.prefiller, runner.sessions)
        first_tokens = FirstTokens(beside, Slots(model.state, MOST_ROWS, model.vocabulary))
        first_tokens.warm(time.monotonic)
    engine = GenerateEngine(
        model,
        runner,
        config.max_streams,
        time.monotonic,
        builder.stream_observer(),
        PrefillBudget(config.prime_share),
        rows,
        None if isinstance(input, VectorInput) else builder.prefixes_of(card),
        first_tokens,
    )
    engine.warm(WARM_ROWS)
    score = ScoreRunner(
        builder.sessions["score"],
        builder.manifest.state,
        runner.prefiller if is_conditioned else None,
    )
    writer = OutputSpec(
        builder.tokenizers["output"],
        model.begin_id,
        model.end_id,
        model.never_sampled_ids,
        model.vocabulary,
        config.max_streams,
    )
    thread = builder.stream_thread("generate", engine)
    builder.warm_later(thread, engine.warm_prefill, [(rows, length) for rows in _WARM_PROMPTS])
    return GeneratorModel(
        card,
        input,
        writer,
        thread,
        builder.batch_thread("score", score),
        context.resume_tokens,
        config.tokens_per_message,
        embedder=builder.embedder(card, whole=is_conditioned),
    )


def warm_tokens(builder: ModelBuilder) -> int:
    """Of a text that is read once before the model is served."""
    return min(_WARM_TOKENS, builder.manifest.limits["input_tokens"])
