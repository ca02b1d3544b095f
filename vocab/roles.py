"""What the special tokens of a tokenizer are for, and whether two tokenizers put them to the same use.

A student that reads another tokenizer's ids starts from the teacher's tables, so its special tokens must have the same
roles: the same ones around a text, in the same order, under names that ``vocab.mapping`` takes for the same.
"""

from tokenizers import Tokenizer

from vocab.mapping import SAME_ROLE
from vocab.surfaces import Spec, is_byte_token, scheme_of, spec_of, unknown_token, vocab_of

ROLES = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
    "bos_token": ("<s>",),
    "eos_token": ("</s>",),
}
NEEDED = ("pad_token", "cls_token", "sep_token")
TEXT = "text"

Roles = dict[str, str]  # role -> token


def roles_of(spec: Spec, config: dict[str, object]) -> Roles:
    """Return the token of every role that there is one for: the name in tokenizer_config.json, or a usual one.

    Args:
        spec: the tokenizer.json.
        config: the tokenizer_config.json; ``{}`` if there is none.
    """
    known = {token["content"] for token in spec["added_tokens"]} | {unknown_token(spec)}
    roles = {}
    for role, defaults in ROLES.items():
        named = config.get(role)
        name = named.get("content") if isinstance(named, dict) else named
        names = [name] if isinstance(name, str) else []
        names += [] if role in ("bos_token", "eos_token") and config else defaults
        found = next((name for name in names if name in known), None)
        if found is not None:
            roles[role] = found
    return roles


def role_problems(
    student: tuple[Tokenizer, Roles], teacher: tuple[Tokenizer, Roles], *, is_pair: bool, has_segments: bool
) -> list[str]:
    """Return what is wrong with the student's special tokens, a clause each; nothing when they do as the teacher's.

    Args:
        student: the tokenizer and its roles.
        teacher: likewise.
        is_pair: whether two texts are read together, too.
        has_segments: whether the model reads which text a token belongs to.
    """
    ours, our_roles = student
    their_roles = teacher[1]
    same = [{their_roles[role]} for role in NEEDED if role in their_roles] + [set(group) for group in SAME_ROLE]
    problems = [
        f"it has no {role.partition('_')[0]} token that goes with the teacher's {their_roles[role]}"
        for role in NEEDED
        if role in their_roles and not any({our_roles.get(role), their_roles[role]} <= group for group in same)
    ]
    spec = spec_of(ours)
    if not _reads_bytes(spec) and vocab_of(spec).get(unknown_token(spec) or "") is None:
        problems.append("it has no unknown token")
    if problems:
        return problems
    for pair in (False, True) if is_pair else (False,):
        layouts = [_layout(*each, pair, has_segments) for each in (student, teacher)]
        if layouts[0] != layouts[1]:
            what = "two texts" if pair else "a text"
            problems.append(f"it writes {what} as {_shown(layouts[0])}, the teacher's as {_shown(layouts[1])}")
            break
    return problems


def _reads_bytes(spec: Spec) -> bool:
    has_fallback = bool(spec["model"].get("byte_fallback")) and any(map(is_byte_token, vocab_of(spec)))
    return scheme_of(spec) == "bytelevel" or has_fallback


def _layout(tokenizer: Tokenizer, roles: Roles, is_pair: bool, has_segments: bool) -> list[tuple[str, int]]:
    """Return what stands around texts, in order: (role or "text", segment)."""
    names = {roles[role]: role for role in reversed([*NEEDED, "mask_token"]) if role in roles}
    bare = Tokenizer.from_str(tokenizer.to_str())
    bare.no_padding()  # some files pad every text to a fixed length
    encoding = bare.encode("a", "a" if is_pair else None)
    found: list[tuple[str, int]] = []
    for token, which, segment in zip(encoding.tokens, encoding.sequence_ids, encoding.type_ids, strict=True):
        slot = names.get(token, token) if which is None else f"{TEXT} {which + 1}"
        if not (slot.startswith(TEXT) and found and found[-1][0] == slot):
            found.append((slot, segment if has_segments else 0))
    return found


def _shown(layout: list[tuple[str, int]]) -> str:
    """Return ``cls text sep``, with the segment where it is not 0."""
    return " ".join(
        slot.removesuffix("_token") + (f" (segment {segment})" if segment else "") for slot, segment in layout
    )
