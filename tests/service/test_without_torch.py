"""The service and the client run where torch, onnx, training and export do not exist."""

import subprocess
import sys
import textwrap

from tests.tiny import NAMES

BLOCKED = ("torch", "onnx", "onnxscript", "training", "export")


def test_service_starts_with_torch_blocked(tiny_models):
    """Any import of a blocked module would raise; the service loads, serves and answers."""
    script = f"""
        import sys
        for name in {BLOCKED!r}:
            sys.modules[name] = None
        import asyncio
        from pathlib import Path
        from unroll import AsyncClient
        from service.app import App
        from service.config import Config

        async def main():
            app = App(Config(models=Path({str(tiny_models)!r}), address="127.0.0.1:0",
                             http_address="127.0.0.1:0"))
            await app.start()
            async with AsyncClient(f"127.0.0.1:{{app.front_end.port}}", timeout=20) as client:
                (answer,) = await client.classify("mood", ["good food"])
                assert answer.best[0] in ("sad", "glad")
                pieces = [p async for p in client.generate("speller", source="abc")]
                assert pieces[-1].answer.input_tokens == 3
                (scored,) = await client.score("letters", ["abc"])
                assert len(scored.tokens) == 3
                assert len((await client.list_models()).models) == {len(NAMES)}
            assert await app.stop()

        asyncio.run(main())
        print("served")
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "served", done.stderr
