"""Ask an ONNX file for its answers before it is a package: for parity, and for what stands beside the package."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from exporters.measuring import measure


def asker(
    path: Path, tokenizer: Tokenizer, max_length: int, inputs: Sequence[str], output: str, side: str = "right"
) -> Callable[[str, str | None], tuple[list[int], npt.NDArray[np.float32]]]:
    """Return a function from a text (and its pair) to its ids and one output (values,) of an ONNX file: one thread.

    A text that is too long loses tokens on its ``side``, "right" or "left".
    """
    cutter = Tokenizer.from_str(tokenizer.to_str())
    cutter.no_padding()
    cutter.enable_truncation(max_length, strategy="longest_first", direction=side)
    session = measure.session(path, "cpu", 1)

    def ask(text: str, pair: str | None) -> tuple[list[int], npt.NDArray[np.float32]]:
        encoding = cutter.encode(text, pair)
        columns = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feeds = {name: np.asarray([columns[name]], dtype=np.int64) for name in inputs}  # (1, tokens)
        return list(encoding.ids), session.run([output], feeds)[0][0]  # (1, values) -> (values,)

    return ask


def graph_predictor(
    path: Path, tokenizer: Tokenizer, max_length: int, inputs: Sequence[str], output: str, side: str = "right"
) -> Callable[[Sequence[str], Sequence[str] | None], npt.NDArray[np.float32]]:
    """Return a function from texts (and pairs) to one output of an ONNX file (rows, values), one row at a time."""
    ask = asker(path, tokenizer, max_length, inputs, output, side)

    def predict(texts: Sequence[str], pairs: Sequence[str] | None) -> npt.NDArray[np.float32]:
        return np.stack([ask(text, pairs[row] if pairs else None)[1] for row, text in enumerate(texts)])

    return predict
