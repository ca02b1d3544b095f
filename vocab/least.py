"""The smallest vocabulary that keeps everything readable that the teacher reads, for each kind of tokenizer."""

from tokenizers import Tokenizer

from vocab.alphabet import readable, student_normalizer
from vocab.surfaces import Kind, parts, scheme_of, spec_of, special_tokens

BYTES = 256
BERT_CUT = {"type": "BertPreTokenizer"}


def least_size(teacher: Tokenizer, kind: Kind) -> int:
    """Return the smallest size that ``vocab.train.train_vocabulary`` accepts, to within a few tokens.

    WordPiece needs a token for every character in each position; Unigram and BPE fall back to the 256 bytes.
    """
    spec = spec_of(teacher)
    n_specials = len(special_tokens(spec)) + 1
    if kind != "wordpiece":
        return n_specials + BYTES + 4
    is_same = scheme_of(spec) == "wordpiece"
    pre_tokenizer = spec["pre_tokenizer"] if is_same and parts(spec["pre_tokenizer"]) else BERT_CUT
    alphabet = readable(teacher, student_normalizer(spec, "wordpiece"), pre_tokenizer)
    if alphabet is None:
        return n_specials + BYTES
    return n_specials + len(alphabet.initial) + len(alphabet.continuing)
