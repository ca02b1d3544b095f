"""Ask an ONNX file for its answers before it is a package: for parity, and for what stands beside the package."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from exporters.measuring import measure


def graph_predictor(
    path: Path,
    tokenizer: Tokenizer,
    max_length: int,
    inputs: Sequence[str],
    output: str,
) -> Callable[[Sequence[str], Sequence[str] | None], npt.NDArray[np.float32]]:
    """Return a function from texts (and pairs) to one output of an ONNX file, one row at a time on one thread."""
    cutter = Tokenizer.from_str(tokenizer.to_str())
    cutter.no_padding()
    cutter.enable_truncation(max_length, strategy="longest_first")
    session = measure.session(path, "cpu", 1)

    def predict(texts: Sequence[str], pairs: Sequence[str] | None) -> npt.NDArray[np.float32]:
        found = []
        for index, text in enumerate(texts):
            encoding = cutter.encode(text, pairs[index]) if pairs else cutter.encode(text)
            columns = {
                "input_ids": encoding.ids,
                "attention_mask": encoding.attention_mask,
                "token_type_ids": encoding.type_ids,
            }
            feeds = {name: np.asarray([columns[name]], dtype=np.int64) for name in inputs}  # (1, tokens)
            found.append(session.run([output], feeds)[0][0])
        return np.stack(found)

    return predict
