"""What config.json and a length may say; and a folder's name that was meant."""

from pathlib import Path

import numpy as np
import pytest

from compressor.batches.outputs import _halves, check_outputs
from compressor.models.configuration import check_counts, check_room, named_labels
from compressor.models.teacher import find_folder
from compressor.refused import Refused
from tests.support.tiny import tiny_tokenizer


def test_labels_come_in_the_order_of_their_ids():
    assert named_labels({"1": "b", "0": "a", "2": "très bien 🎬"}) == ("a", "b", "très bien 🎬")
    assert named_labels({str(index): f"LABEL_{index}" for index in range(12)})[10:] == ("LABEL_10", "LABEL_11")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"0": "a", "1": "a"}, "'a' of 1 is the name of 0 as well"),
        ({"0": "", "1": "a"}, "'' of 0 is empty"),
        ({"0": "a", "1": "\u3000"}, "of 1 is empty"),
        ({"0": "a", "1": "b\x00"}, "of 1 holds a control character"),
        ({"0": "a", "1": "b\u2028c"}, "of 1 holds a control character"),
        ({"0": "a", "3": "b"}, "has the ids 0, 3, expected 0, 1, ... without gaps"),
        ({"0": "a", "00": "b"}, "has the ids 0, 0, expected"),
        ({"-1": "a", "0": "b"}, "has the ids -1, 0, expected"),
    ],
)
def test_names_that_do_not_tell_labels_apart_are_refused(names, says):
    with pytest.raises(Refused) as refused:
        named_labels(names)
    assert says in str(refused.value)


@pytest.mark.parametrize("key", ["num_labels", "num_hidden_layers", "n_layers"])
def test_a_number_that_no_machine_holds_is_refused_by_its_key(key):
    check_counts({key: 500}, Path("config.json"))
    with pytest.raises(Refused, match=rf"config\.json says 1,000,000,000 for {key}, expected"):
        check_counts({key: 10**9}, Path("config.json"))


def test_room_for_one_token_of_text_is_enough():
    tokenizer = tiny_tokenizer()._tokenizer
    for is_pair, n_special in ((False, 2), (True, 3)):
        check_room(n_special + 1, True, tokenizer, is_pair)
        with pytest.raises(Refused, match=rf"--max-length {n_special} leaves .* Use --max-length {n_special + 1}"):
            check_room(n_special, True, tokenizer, is_pair)
        with pytest.raises(Refused, match=rf"teacher: it takes {n_special} tokens \(max_position_embeddings"):
            check_room(n_special, False, tokenizer, is_pair)


@pytest.mark.parametrize("name", ["my-clasifier", "models/my-clasifier", "./my-clasifier"])
def test_a_misspelt_folder_that_looks_like_a_hub_id_is_asked_for(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).with_name("my-classifier").mkdir(parents=True)
    meant = str(Path(name).with_name("my-classifier"))
    with pytest.raises(FileNotFoundError) as refused:
        find_folder(name, None, offline=True)
    assert f" Did you mean {meant!r}?" in str(refused.value)
    with pytest.raises(FileNotFoundError, match=r"is no folder here .*Check the name and the network"):
        find_folder("nobody/altogether-different", None, offline=True)


def test_states_that_float16_holds_are_kept_and_others_refused():
    kept = _halves(np.array([[65504.0, -65504.0, 1e-9]], dtype=np.float32))
    assert kept.tolist() == [[65504.0, -65504.0, 0.0]]
    with pytest.raises(Refused, match=r"its hidden states reach 7e\+04, expected 65,504 at most"):
        _halves(np.array([[1.0, -7e4]], dtype=np.float32))
    with pytest.raises(Refused, match="reach nan, expected"):
        _halves(np.array([[1.0, np.nan]], dtype=np.float32))


def test_outputs_that_are_not_finite_are_counted():
    check_outputs(np.ones((3, 2), dtype=np.float32))
    with pytest.raises(Refused, match=r"its outputs on 2 of 3 rows are not finite numbers"):
        check_outputs(np.array([[1, 2], [np.inf, 0], [0, np.nan]], dtype=np.float32))
