"""Ask an ONNX file for its answers before it is a package: for parity, and for what stands beside the package."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from exporters.measuring import measure


class Answer(NamedTuple):
    """What a file answers to one row."""

    ids: list[int]
    output: npt.NDArray[np.float32]  # (values,)


def asker(
    path: Path, tokenizer: Tokenizer, max_length: int, inputs: Sequence[str], output: str
) -> Callable[[str, str | None], Answer]:
    """Return a function from a text (and its pair) to one output of an ONNX file, on one thread as a device runs it."""
    cutter = Tokenizer.from_str(tokenizer.to_str())
    cutter.no_padding()
    cutter.enable_truncation(max_length, strategy="longest_first")
    session = measure.session(path, "cpu", 1)

    def ask(text: str, pair: str | None) -> Answer:
        encoding = cutter.encode(text, pair)
        columns = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feeds = {name: np.asarray([columns[name]], dtype=np.int64) for name in inputs}  # (1, tokens)
        return Answer(list(encoding.ids), session.run([output], feeds)[0][0])  # (1, values) -> (values,)

    return ask


def graph_predictor(
    path: Path, tokenizer: Tokenizer, max_length: int, inputs: Sequence[str], output: str
) -> Callable[[Sequence[str], Sequence[str] | None], npt.NDArray[np.float32]]:
    """Return a function from texts (and pairs) to one output of an ONNX file (rows, values), one row at a time."""
    ask = asker(path, tokenizer, max_length, inputs, output)

    def predict(texts: Sequence[str], pairs: Sequence[str] | None) -> npt.NDArray[np.float32]:
        return np.stack([ask(text, pairs[row] if pairs else None).output for row, text in enumerate(texts)])

    return predict
