"""Losses as pure functions of tensors: no state, no names of models, means over the batch."""

import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over rows (Hinton et al., 1503.02531).

    Args:
        student: logits (batch, classes).
        teacher: logits (batch, classes).
        temperature: T; the factor T^2 keeps the gradient's size independent of it.
    """
    target = F.log_softmax(teacher.float() / temperature, dim=-1)
    log_probabilities = F.log_softmax(student.float() / temperature, dim=-1)
    return F.kl_div(log_probabilities, target, reduction="batchmean", log_target=True) * temperature**2


def soft_binary_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(sigmoid(teacher / T) || sigmoid(student / T)), summed over labels, mean over rows.

    The pair of a label's probability and its complement is a softmax of two classes, so this is Hinton's loss for each
    label by itself.

    Args:
        student: logits (batch, labels).
        teacher: logits (batch, labels).
        temperature: T; the factor T^2 keeps the gradient's size independent of it.
    """
    ours, theirs = student.float() / temperature, teacher.float() / temperature
    target = theirs.sigmoid()
    terms = F.binary_cross_entropy_with_logits(ours, target, reduction="sum")
    least = F.binary_cross_entropy_with_logits(theirs, target, reduction="sum")  # its own entropy
    return (terms - least) / len(student) * temperature**2


def unit_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of unit vectors, mean over positions (Pea-KD, PKD): 2 - 2 cos.

    Args:
        student: states (positions, width).
        teacher: states (positions, width).
    """
    if not len(student):
        return student.sum()  # 0, and still a function of the states
    return 2 - 2 * F.cosine_similarity(student.float(), teacher.float(), dim=-1, eps=1e-12).mean()


def unit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared difference of unit vectors, mean over all their features (Pea-KD, PKD 1908.09355).

    It is at most 4 / width: a weight that suits it is of the order of the width.

    Args:
        student: states (..., width).
        teacher: states (..., width).
    """
    ours, theirs = (F.normalize(states, dim=-1) for states in (student, teacher))
    return (ours - theirs).square().mean()


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - cosine, mean over rows (batch, width)."""
    return (1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)).mean()


def similarity_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared difference of the two matrices of cosines within the batch: it needs no common width."""
    ours, theirs = (F.normalize(states.float(), dim=-1) for states in (student, teacher))
    return (ours @ ours.T - theirs @ theirs.T).square().mean()


def word_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || student) of word attention, mean over the words that both have.

    Args:
        student: (batch, words, words) as ``word_attention`` gives it.
        teacher: the same.
    """
    both = (student.sum(-1) > 0) & (teacher.sum(-1) > 0)  # (batch, words)
    # What goes to a word that only one of them has is no difference in attention: one cut is truncated earlier.
    kept = [part * both.unsqueeze(1) for part in (student, teacher)]
    ours, theirs = (part / part.sum(-1, keepdim=True).clamp(min=1e-9) for part in kept)
    terms = theirs * (theirs.clamp(min=1e-9).log() - ours.clamp(min=1e-9).log())
    weight = both.to(terms.dtype)
    return (terms.sum(-1) * weight).sum() / weight.sum().clamp(min=1)
