"""Chroma as a library, and the functions that turn texts into vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from everturn import Invalid, Settings, Unavailable
from everturn.mirrors.chroma import ChromaMirror
from everturn.mirrors.embedding import Embedder, open_embedder
from everturn.testing import word_vectors
from mirrors.shelves import (
    FENCE,
    RUNS,
    TAP,
    WINDOW,
    checked,
    fold_all,
    mirror_at,
    rebuild,
    ref_of,
    run_of,
)

# --- Chroma itself --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nobody_else_loads_chroma() -> None:
    program = (
        "import sys, everturn, everturn.runtime, everturn.cli.app, everturn.mirrors.chroma, everturn.testing;"
        "sys.exit(any(name.split('.')[0] in ('chromadb', 'numpy', 'onnxruntime') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, env={}).returncode == 0


def test_without_chroma_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(Invalid, match="needs chromadb") as caught:
        rebuild(mirror_at(tmp_path / "mirror"), RUNS)
    assert "pip install 'everturn[chroma]'" in caught.value.hint


def test_what_stands_about_chroma_in_the_environment_and_a_file_is_of_no_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("chroma_api_impl=chromadb.api.fastapi.FastAPI\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHROMA_API_IMPL", "chromadb.api.fastapi.FastAPI")
    monkeypatch.setenv("ANONYMIZED_TELEMETRY", "true")
    monkeypatch.setenv("IS_PERSISTENT", "false")
    mirror = mirror_at(tmp_path / "mirror")
    rebuild(mirror, RUNS)
    assert mirror.search(FENCE, limit=1)[0].run_id == "run-fence"
    mirror.close()


# --- Embedding functions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "no list of vectors"),
        ([], "0 vectors for 2 texts"),
        ([[1.0], ["x"]], "no list of vectors"),
        ([[1.0], [10**400]], "no list of vectors"),
        ([[1.0], [1.0, 2.0]], "more than one length"),
        ([[], []], "empty"),
        ([[1.0], [float("nan")]], "finite"),
    ],
)
def test_a_function_that_returns_no_vectors_is_named(returned: object, message: str) -> None:
    with pytest.raises(Invalid, match=f"function mine returned .*{message}"):
        Embedder("mine", lambda texts: returned)(["a", "b"])  # type: ignore[arg-type,return-value]


def test_a_function_that_fails_is_named_and_nothing_is_written(mirror: ChromaMirror) -> None:
    def offline(texts: object) -> list[list[float]]:
        raise OSError("no route to host")

    mirror.close()
    broken = mirror_at(mirror._place.folder, embedder=Embedder("words", offline))
    with pytest.raises(Unavailable, match="function words failed: OSError: no route to host"):
        fold_all(broken, {"window": run_of("window", WINDOW)})
    assert checked(mirror) is None
    assert set(mirror.checkpoints()) == {ref_of("tap"), ref_of("fence")}


def test_many_texts_are_handed_over_in_several_calls() -> None:
    calls: list[int] = []

    def counted(texts: list[str]) -> list[list[float]]:
        calls.append(len(texts))
        return [[float(text)] for text in texts]

    assert Embedder("mine", counted)([str(number) for number in range(150)]) == [[number] for number in range(150)]  # type: ignore[arg-type]
    assert max(calls) <= 64


def test_settings_name_a_function(tmp_path: Path) -> None:
    embedder = open_embedder(Settings.load(embedder="everturn.testing:word_vectors"))
    assert (embedder.name, embedder(["tap"])) == ("everturn.testing:word_vectors", word_vectors(["tap"]))
    assert open_embedder(Settings.load()).name == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    "path",
    ["everturn.testing:nothing", "no.such.module:function", "everturn.testing", "", ":", "everturn:__version__"],
)
def test_a_setting_that_names_no_function_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match=r"cannot be loaded|is no function"):
        open_embedder(Settings.model_construct(embedder=path))


def test_texts_have_the_same_vectors_always_and_near_ones_if_they_share_words() -> None:
    tap, again, like, unlike = word_vectors([TAP, TAP, "a tap that drips in the kitchen", "attic"])
    assert tap == again
    assert (
        sum(a * b for a, b in zip(tap, like, strict=True))
        > 0.4
        > sum(a * b for a, b in zip(tap, unlike, strict=True))
    )
    assert word_vectors([""])[0] == [1.0, *[0.0] * 63]
