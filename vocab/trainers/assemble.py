"""Put a tokenizer.json together: a new model between the teacher's special tokens, template and added tokens."""

import json

from tokenizers import Tokenizer

from vocab.refused import Refused
from vocab.surfaces import Spec, Surface, special_tokens, surfaces, vocab_of


def assemble(
    teacher: Spec, specials: list[str], model: Spec, normalizer: Spec | None, pre_tokenizer: Spec, decoder: Spec | None
) -> Tokenizer:
    """Join the parts; what the teacher has beside its model comes along under the new ids."""
    ids = {token: index for index, token in enumerate(specials)}
    added = [{**token, "id": ids[token["content"]]} for token in teacher["added_tokens"]]
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _renumbered(teacher["post_processor"], ids),
        "decoder": decoder,
        "model": model,
    }
    return Tokenizer.from_str(json.dumps(spec))


def by_id(spec: Spec) -> list[Surface]:
    """Return the surfaces of a tokenizer in the order of their ids, which is about that of their frequency."""
    found, ids = surfaces(spec), vocab_of(spec)
    return [found[token] for token in sorted(found, key=ids.__getitem__)]


def first_tokens(spec: Spec, *, is_pad_first: bool) -> list[str]:
    """Return the teacher's special tokens in its order, so that low ids such as RoBERTa's padding at 1 stay put."""
    names = special_tokens(spec)
    if is_pad_first and "[PAD]" in names:
        names = ["[PAD]", *(name for name in names if name != "[PAD]")]
    return names


def check_size(size: int, n_specials: int, n_letters: int) -> None:
    """Refuse a size that does not hold the tokens that every vocabulary of this teacher has."""
    least = n_specials + n_letters
    if size < least:
        raise Refused(
            f"vocabulary: {size} tokens do not hold {n_specials} special tokens and the {n_letters:,} characters that "
            f"must stay readable. Use --vocab-size {least} or more."
        )


def _renumbered(post_processor: Spec | None, ids: dict[str, int]) -> Spec | None:
    """Return the post-processor with the students' ids of its tokens."""
    if post_processor is None:
        return None
    new = dict(post_processor)
    if new["type"] == "Sequence":
        new["processors"] = [_renumbered(member, ids) for member in new["processors"]]
    if new["type"] == "TemplateProcessing":
        new["special_tokens"] = {
            name: {**token, "ids": [ids[part] for part in token["tokens"]]}
            for name, token in new["special_tokens"].items()
        }
    for role in ("cls", "sep"):
        if role in new:
            new[role] = [new[role][0], ids[new[role][0]]]
    return new
