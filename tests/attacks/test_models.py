"""Bundles that change, lie or come too often: what runs is what was verified."""

from __future__ import annotations

import asyncio
import math
import shutil
import time

import pytest

from bundle.store import read_bundle
from tests.attacks import spoiling
from tests.attacks.harness import (
    BUNDLES,
    MEBIBYTE,
    MODELS,
    Service,
    Threat,
    Witness,
    copy_of,
    wait_until,
)
from tests.attacks.traffic import LOAD, UNLOAD, UNROLL, Raw, at_once, call, opened, statuses
from unroll.inference import grpc_service_pb2 as inference
from unroll.v1 import unroll_pb2 as pb


async def _load(channel, name, timeout=60.0):
    request = inference.RepositoryModelLoadRequest(model_name=name)
    return await call(channel, LOAD, request, timeout=timeout)


def load(service, name):
    """The outcome of one load."""
    return asyncio.run(at_once(service, 1, lambda channel, _: _load(channel, name)))[0]


class TestReplacedFiles:
    """Files of served bundles copied over, cut, overwritten and removed in place.

    Bound: what runs is the bytes that were verified, whatever becomes of their files. Setting:
    none; how bundles are replaced: docs/bundles.md.
    """

    threat = Threat(
        "files of a served bundle copied over, overwritten or removed in place",
        "answers keep their bits: what runs is what was verified; a load of such files is refused",
        ("models",),
    )

    def test_copied_over_and_overwritten(self, attacked, tmp_path, attacks):
        models = copy_of(MODELS, tmp_path / "models")
        with attacked(models) as (service, witness):
            for _ in range(attacks.amount(20, 200)):
                for name in MODELS:
                    spoiling.copy_over(BUNDLES / name / "1", models / name / "1")
            witness.report().check(10)
            assert all(load(service, name).status == "OK" for name in MODELS)
            for name in MODELS:
                spoiling.overwrite(models / name / "1")
            witness.report().check(10)
            for name in MODELS:
                refused = load(service, name)
                assert refused.status == "FAILED_PRECONDITION", refused
                assert "sha256" in refused.details

    @pytest.mark.attacks
    def test_all_removed(self, attacked, tmp_path):
        models = copy_of(MODELS, tmp_path / "models")
        with attacked(models) as (service, witness):
            for name in MODELS:
                shutil.rmtree(models / name)
            witness.report().check(10)
            assert load(service, "pos").status == "NOT_FOUND"


class TestWeightsThatAreNoNumbers:
    """Bundles that are whole and hold NaN or infinity among their weights.

    Bound: refused at load, whatever ran before still runs; what gives NaN later fails its own
    request with INTERNAL. Setting: none.
    """

    threat = Threat(
        "a bundle, whole by its hashes, with NaN or infinity among its weights",
        "refused at load, the version before it stays; a NaN that comes up later fails its request",
    )

    @pytest.mark.parametrize(
        "number",
        [
            math.nan,
            pytest.param(math.inf, marks=pytest.mark.attacks),
            pytest.param(-math.inf, marks=pytest.mark.attacks),
        ],
    )
    def test_are_refused(self, attacked, tmp_path, number):
        models = copy_of(MODELS, tmp_path / "models")
        with attacked(models) as (service, witness):
            for name in MODELS:
                spoiling.with_number(models / name / "1", number)
                refused = load(service, name)
                assert refused.status == "FAILED_PRECONDITION", refused
                assert "still is" in refused.details
            witness.report().check(10)

    @pytest.mark.attacks
    def test_of_a_word_that_no_probe_reads(self, attacked, tmp_path):
        """Refused, or else the requests that read it fail, and no others."""
        models = copy_of(("pos", "sentiment"), tmp_path / "models")
        bundle = models / "sentiment" / "1"
        symbols = read_bundle(bundle).tokenizers["input"].vocabulary.symbols
        word = next(word for word in symbols[5000:] if word.isalpha())
        row = symbols.index(word) + 1  # the first is padding
        spoiling.with_number(bundle, math.nan, tensor="embedding", row=row)
        with attacked(models) as (service, _):
            words = pb.ClassifyRequest(model="sentiment", texts=["a film", f"a {word} film"])

            async def one(channel, _):
                return await call(channel, f"{UNROLL}/Classify", words)

            (outcome,) = asyncio.run(at_once(service, 1, one))
            # Not loaded, or loaded and found out.
            assert outcome.status in ("FAILED_PRECONDITION", "INTERNAL"), outcome


@pytest.mark.attacks
class TestReloads:
    """A model replaced again and again while a stream holds each version.

    Bound: a few live versions a model; further loads are refused until one has ended. Setting:
    max_live_versions.
    """

    threat = Threat(
        "15 reloads of a model, each version held by a stream that nobody reads",
        "a few versions live at once; a further load is refused until one has ended",
        ("max_live_versions",),
    )

    def test_each_held_by_a_stream(self, attacked, tmp_path, attacks):
        models = copy_of(MODELS, tmp_path / "models")
        request = pb.GenerateRequest(model="prose", prompt="In the", max_tokens=8000)
        with attacked(models) as (service, _):
            outcomes = []
            with Raw(service, window=1000) as caller:
                for number in range(15):
                    caller.call(f"{UNROLL}/Generate", request)
                    caller.pump(0.3)
                    spoiling.describe(models / "prose" / "1", f"the {number}th")
                    outcomes.append(load(service, "prose"))
            attacks.report(
                f"15 reloads, each held: {statuses(outcomes)}, "
                f"{service.usage.grown() / 1e6:+.0f} MB at the peak"
            )
            assert {o.status for o in outcomes} <= {"OK", "RESOURCE_EXHAUSTED"}
            assert outcomes[0].status == "OK"
            assert service.usage.grown() < 600 * MEBIBYTE
            # Once the streams have ended, loads are accepted again.
            assert wait_until(lambda: load(service, "prose").status == "OK", 10)


@pytest.mark.attacks
class TestDepartedLoads:
    """Loads whose callers leave before their turn.

    Bound: those that have not begun are dropped; a stop waits for none of them. Setting:
    max_waiting_loads.
    """

    threat = Threat(
        "1,500 loads whose callers leave at once",
        "what has not begun is dropped with its caller; a stop takes the grace, not the queue",
        ("max_waiting_loads", "grace_seconds"),
    )

    def test_are_dropped_and_hold_up_no_stop(self, tmp_path, attacks):
        models = copy_of(MODELS, tmp_path / "models")
        with Service(tmp_path / "run", models, grace_seconds=2) as service:
            with Witness(service) as witness:
                refused = asyncio.run(self._leave(service))
                assert set(refused) <= {"RESOURCE_EXHAUSTED"}
                # What had begun may end, and what had not never begins.
                time.sleep(1.0)
                done = self._done(service)
                time.sleep(1.0)
                assert self._done(service) - done <= 2, "loads go on whose callers have left"
                assert load(service, "nationality").status == "OK"
                witness.report().check(10)
            asyncio.run(self._leave(service))
            began = time.monotonic()
            assert service.terminate(30) == 0
            took = time.monotonic() - began
            attacks.report(f"a stop behind 1,500 departed loads: {took:.1f} s at a grace of 2 s")
            assert took < 6

    @staticmethod
    async def _leave(service):
        """The statuses of those of 1,500 loads that were refused before their callers left."""
        channels = [opened(service) for _ in range(15)]
        calls = []
        for number in range(1500):
            name = MODELS[number % len(MODELS)]
            request = inference.RepositoryModelLoadRequest(model_name=name)
            call = channels[number % len(channels)].unary_unary(LOAD)(request.SerializeToString())
            calls.append(call)
        await asyncio.sleep(0.5)
        ended = [call for call in calls if call.done()]
        codes = [(await call.code()).name for call in ended]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in channels))
        return [code for code in codes if code != "OK"]

    @staticmethod
    def _done(service):
        page = service.metrics()
        return page.sum("unroll_model_loads_total")


@pytest.mark.attacks
class TestRacingLoads:
    """Loads and unloads of one model against each other, calls in between.

    Bound: each call is answered by a version or NOT_FOUND. Setting: model_control.
    """

    threat = Threat(
        "loads and unloads against each other, and calls in between",
        "a call is answered by a whole version or NOT_FOUND; other models' answers keep their bits",
        ("model_control", "max_waiting_loads"),
    )

    def test_leave_whole_versions(self, attacked, tmp_path):
        models = copy_of((*MODELS, "sentiment"), tmp_path / "models")
        texts = pb.ClassifyRequest(model="sentiment", texts=["a good film"])
        kinds = [
            (LOAD, inference.RepositoryModelLoadRequest(model_name="sentiment")),
            (f"{UNROLL}/Classify", texts),
            (UNLOAD, inference.RepositoryModelUnloadRequest(model_name="sentiment")),
            (f"{UNROLL}/Classify", texts),
        ]

        async def each(channel, number):
            return await call(channel, *kinds[number % len(kinds)])

        with attacked(copy_of(MODELS, tmp_path / "others")) as (service, _):
            shutil.copytree(models / "sentiment", tmp_path / "others" / "sentiment")
            calls = 2_000
            outcomes = asyncio.run(at_once(service, calls, each, channels=2, side_by_side=16))
            assert {o.status for o in outcomes} <= {"OK", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
            answers = {
                outcome.answer
                for number, outcome in enumerate(outcomes)
                if number % 2 and outcome.status == "OK"
            }
            assert len(answers) <= 1, "the same text, the same bits"
