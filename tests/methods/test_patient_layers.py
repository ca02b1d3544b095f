"""The options of patient distillation: which pass of the student is paired with which layer of the teacher."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.methods.patient import PUBLISHED, Options, pair_layers
from compressor.recipe.sections import StageSection
from compressor.run.planning.kept_states import depths_of
from compressor.training.contract import Depths
from compressor.training.registry import build_options, load_method, resolve
from exporters.repetition import pattern
from exporters.shape import Shape
from tests.support.repeated_models import repeated_context


def depths_strategy() -> Any:
    return st.tuples(st.integers(1, 24), st.integers(1, 12), st.integers(1, 2)).map(
        lambda drawn: Depths(drawn[0], drawn[1], drawn[1] * drawn[2])
    )


class TestPairs:
    @pytest.mark.parametrize("depths", PUBLISHED)
    def test_even_is_the_published_table_but_for_the_repeated_six(self, depths: tuple[int, int]) -> None:
        stored, passes = depths
        even, published = (pair_layers(name, Depths(12, stored, passes)) for name in ("even", "published"))
        assert published == tuple(PUBLISHED[depths].items())
        if depths == (6, 9):
            assert published == ((2, 3), (5, 7)) and set(published) < set(even) and len(even) == 8
        else:
            assert even == published and len(even) == passes - 1

    def test_the_published_layers_are_those_of_the_paper(self) -> None:
        found = {depths: [layer for _, layer in pair_layers("published", Depths(12, *depths))] for depths in PUBLISHED}
        assert found == {
            (1, 1): [], (2, 2): [5], (3, 3): [3, 7], (6, 6): [1, 3, 5, 7, 9],
            (1, 2): [5], (2, 4): [2, 5, 8], (3, 6): [1, 3, 5, 7, 9], (6, 9): [3, 7],
        }  # fmt: skip

    @given(depths_strategy())
    def test_even_pairs_every_pass_but_the_last_with_a_layer_of_the_same_depth(self, depths: Depths) -> None:
        pairs = pair_layers("even", depths)
        assert [run for run, _ in pairs] == list(range(depths.passes - 1))
        layers = [layer for _, layer in pairs]
        assert layers == sorted(layers) and all(0 <= layer < depths.teacher for layer in layers)
        for run, layer in pairs:
            nearest = abs((layer + 1) / depths.teacher - (run + 1) / depths.passes)
            assert nearest <= 0.5 / depths.teacher + 1e-9 or layer == 0

    @given(depths_strategy())
    def test_published_refuses_every_other_combination(self, depths: Depths) -> None:
        if depths.teacher == 12 and (depths.stored, depths.passes) in PUBLISHED:
            return
        with pytest.raises(ValueError, match=r"layers = 'published': a teacher of .* Use layers = 'even'"):
            pair_layers("published", depths)

    @pytest.mark.parametrize(
        ("repeat", "n_layers"), [("mirror", 3), ("immediate", 2), ("bottom_half", 6), ([2, 1, 0], 3), ([0, 1, 2], 6)]
    )
    def test_published_refuses_another_pattern_of_as_many_passes(self, repeat: Any, n_layers: int) -> None:
        passes = pattern(repeat, n_layers).passes
        with pytest.raises(ValueError, match=r"passes run the layers 0 .*, expected 0 1 .* Use layers = 'even'"):
            pair_layers("published", Depths(12, n_layers, len(passes), passes))

    @pytest.mark.parametrize(("repeat", "n_layers"), [("all", 1), ("all", 2), ("all", 3), ("top_half", 6), ("none", 6)])
    def test_published_takes_the_papers_patterns(self, repeat: str, n_layers: int) -> None:
        passes = pattern(repeat, n_layers).passes
        depths = Depths(12, n_layers, len(passes), passes)
        assert pair_layers("published", depths) == tuple(PUBLISHED[n_layers, len(passes)].items())

    def test_both_depths_and_students_say_how_layers_repeat(self) -> None:
        teacher = Shape(2000, 64, 12, 4, 128, 64)
        student = dataclasses.replace(teacher, layers=3, **pattern("mirror", 3)._asdict())
        assert depths_of(teacher, student) == Depths(12, 3, 6, (0, 1, 2, 2, 1, 0))
        assert depths_of(teacher, dataclasses.replace(teacher, layers=3)) == Depths(12, 3, 3, ())
        context = dataclasses.replace(repeated_context(repeat="mirror"), teacher_n_layers=12)
        with pytest.raises(ValueError, match=r"passes run the layers 0 1 1 0, expected 0 1 0 1 \(repeat = 'all'\)"):
            load_method("patient").objective_class(context, Options(layers="published"))

    def test_a_list_of_layers_and_one_of_pairs(self) -> None:
        depths = Depths(12, 6, 9)
        assert pair_layers([1, 2, 3, 4, 5, 6, 7, 8], depths) == tuple(zip(range(8), range(1, 9), strict=True))
        assert pair_layers([[2, 3], [5, 7]], depths) == pair_layers("published", depths)

    @pytest.mark.parametrize(
        ("layers", "depths", "sentence"),
        [
            ([3], Depths(12, 3, 3), r"1 teacher layers, expected 2, one for each of the student's 3 passes except"),
            ([3, 5, 7], Depths(12, 3, 3), r"3 teacher layers, expected 2"),
            ([3], Depths(12, 1, 1), r"1 teacher layers, expected 0"),
            ([3, 12], Depths(12, 3, 3), r"teacher layer 12, expected 0 to 11"),
            ([[2, 3]], Depths(12, 3, 3), r"pass 2, expected 0 to 1"),
            ([[0, 3]], Depths(12, 1, 1), r"pass 0, expected none, for the only pass is the last"),
        ],
    )
    def test_unequal_counts_and_layers_that_do_not_exist_are_refused(
        self, layers: Any, depths: Depths, sentence: str
    ) -> None:
        with pytest.raises(ValueError, match=rf"option layers = .*{sentence}"):
            pair_layers(layers, depths)


class TestOptions:
    @pytest.mark.parametrize("layers", [[], [1, [2, 3]], [[1, 2, 3]], [-1], [1.0], [True], [[0, 1], [0, 2]]])
    def test_a_list_of_something_else_is_refused(self, layers: Any) -> None:
        with pytest.raises(ValueError, match=r"option layers = .*expected a word .*The default is 'even'"):
            build_options("patient", {"layers": layers})

    @pytest.mark.parametrize(
        ("given_options", "sentence"),
        [
            ({"layers": "publishd"}, r"Did you mean 'published'"),
            ({"layers": 3}, r"option layers = 3, expected a str"),
            ({"alpha": 1.5}, r"option alpha = 1.5, expected between 0 and 1"),
            ({"beta": -1}, r"option beta = -1, expected 0 or more"),
            ({"temperature": 0}, r"option temperature = 0, expected more than 0"),
        ],
    )
    def test_numbers_out_of_range_are_refused(self, given_options: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            build_options("patient", given_options)

    def test_the_defaults_are_the_published_ones(self) -> None:
        options = Options()
        assert (options.alpha, options.temperature, options.beta) == (0.7, 10.0, 100.0)

    def test_a_loss_that_is_named_asks_for_what_it_reads(self) -> None:
        depths = Depths(12, 3, 6)
        named = {"loss": "patient", "loss_options": {"alpha": 1.0, "layers": "published"}}
        for method in ("weight_squeezing", "weight_distillation", "weight_inheritance"):
            stage = resolve(StageSection(method=method, options=named))
            assert stage.loss_options.first_layers(depths) == (2, 4, 6, 8, 10)
            assert stage.wants.word_layers == 0 and stage.wants.cache and not stage.wants.labels
            assert all(
                resolve(StageSection(method=method, options={"loss": loss})).wants.labels
                for loss in ("patient", "finetune")
            )
        assert build_options("distill", {}).first_layers(depths) == ()
        assert build_options("patient", {"beta": 0.0}).first_layers(depths) == ()
