"""The humble alternative: TF-IDF of words and characters with logistic regression, on the very same labels.

When this does as well as the student, no language model is needed, and the report says so.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from distill.errors import MissingDependency
from evals.economics import Speed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def training_rows(path: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """(last user message, teacher answer, the prompt's own row) of the data the student was trained on."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path, columns=["messages", "answer", "meta"]).to_pylist()
    return [(last_user(row["messages"]), row["answer"], json.loads(row["meta"] or "{}")) for row in rows]


def last_user(messages: Sequence[dict[str, str]]) -> str:
    """Content of the last user message."""
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")


def classify(texts: Sequence[str], labels: Sequence[str], asked: Sequence[str], seed: int) -> tuple[list[str], Speed]:
    """A label for each text of ``asked``, and how fast they were given (fitting not counted)."""
    if len(set(labels)) < 2:
        return [labels[0] if labels else ""] * len(asked), Speed(len(asked), 0, 0, 0.0)
    model = pipeline(seed)
    model.fit(list(texts), list(labels))
    model.predict(list(asked[:1]))  # the first call is slower than those that follow
    started = time.perf_counter()
    answers = [str(label) for label in model.predict(list(asked))]
    return answers, Speed(len(asked), 0, 0, time.perf_counter() - started, batch_size=len(asked))


def pipeline(seed: int) -> Any:
    """Word 1-2-grams and character 2-5-grams, sublinear TF-IDF, L2 logistic regression, classes weighted evenly."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union
    except ImportError:
        raise MissingDependency("scikit-learn", "the eval arm 'baseline'", "train") from None
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2, max_features=200_000
    )
    regression = LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced", random_state=seed)
    return make_pipeline(make_union(words, characters), regression)
