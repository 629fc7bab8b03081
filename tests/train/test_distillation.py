"""Students and teachers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

import cmpk.torch
from cmpk import train
from cmpk.errors import PassError, SourceError


def mlp(*widths: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(widths):
        layers += [nn.Linear(width, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(16, 10, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_gradients_of_soft_targets_are_those_of_hinton(temperature: float) -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    train.soft_loss(student, teacher, temperature).backward()
    # Equation 2: (q - p) / T for the cross entropy; times T² here, mean over the batch.
    expected = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    torch.testing.assert_close(student.grad, temperature * expected.detach() / 16)


def test_at_high_temperatures_soft_targets_match_logits() -> None:
    losses = []
    for temperature in (1000.0, 0.0):
        student, teacher = logits(0).double().requires_grad_(), logits(1).double()
        if temperature:
            train.soft_loss(student, teacher, temperature).backward()
        else:
            train.logit_loss(student, teacher).backward()
        assert student.grad is not None
        losses.append(student.grad)
    # Section 2.1: (z - v) / N; the mean square of logits has twice that.
    torch.testing.assert_close(losses[0], losses[1] / 2, rtol=0.02, atol=1e-4)


def test_losses_are_zero_for_equals_and_send_no_gradient_to_the_teacher() -> None:
    hidden = torch.randn(4, 5, 8)
    for loss in (
        train.soft_loss(logits(0), logits(0)),
        train.logit_loss(logits(0), logits(0) + 7),
        train.hidden_loss(hidden, hidden),
        train.attention_loss((hidden, hidden), (hidden, hidden), (2, 2)),
    ):
        assert abs(float(loss)) < 1e-5
    teacher = logits(1).requires_grad_()
    student = logits(0).requires_grad_()
    (train.soft_loss(student, teacher) + train.logit_loss(student, teacher)).backward()
    assert teacher.grad is None


def test_what_is_masked_does_not_count() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    student = [torch.randn(2, 3, 8) for _ in range(2)]
    teacher = [torch.randn(2, 3, 8) for _ in range(2)]
    before = (
        train.hidden_loss(student[0], teacher[0], mask),
        train.attention_loss((student[0], student[1]), (teacher[0], teacher[1]), (2, 4), mask),
    )
    for each in (*student, *teacher):
        each[~mask] = 100.0
    after = (
        train.hidden_loss(student[0], teacher[0], mask),
        train.attention_loss((student[0], student[1]), (teacher[0], teacher[1]), (2, 4), mask),
    )
    torch.testing.assert_close(after, before)
    assert all(float(loss) > 0 for loss in before)


def test_attention_is_compared_as_distributions() -> None:
    torch.manual_seed(0)
    student, teacher = ((torch.randn(1, 4, 6), torch.randn(1, 4, 6)) for _ in range(2))
    found, wanted = (
        (query @ key.transpose(1, 2) / math.sqrt(6)).softmax(-1) for query, key in (student, teacher)
    )
    expected = (wanted * (wanted / found).log()).sum(-1).mean()
    torch.testing.assert_close(train.attention_loss(student, teacher, (1, 1)), expected)


def test_an_ensemble_has_the_mean_of_its_teachers_predictions() -> None:
    teachers = [mlp(6, 9, 4, seed=seed) for seed in range(3)]
    inputs = torch.randn(7, 6)
    predictions = torch.stack([teacher(inputs).softmax(-1) for teacher in teachers]).detach()
    arithmetic = train.Ensemble(teachers, "arithmetic")(inputs).softmax(-1)
    torch.testing.assert_close(arithmetic, predictions.mean(0))
    geometric = predictions.log().mean(0).softmax(-1)
    torch.testing.assert_close(train.Ensemble(teachers)(inputs).softmax(-1), geometric)
    with pytest.raises(PassError, match="has teachers"):
        train.Ensemble([])


def test_hints_project_what_is_narrower_and_train_the_projection() -> None:
    student, teacher = mlp(6, 5, 5, 4), mlp(6, 12, 12, 4, seed=1)
    inputs = torch.randn(64, 6)
    hints = train.Hints(student, teacher, [train.HiddenHint("2", "2"), train.HiddenHint("4", "4")], inputs)
    assert [tuple(each.shape) for each in hints.parameters()] == [(12, 5), (12,)]
    optimizer = torch.optim.Adam([*student.parameters(), *hints.parameters()], lr=0.02)
    losses = []
    with hints:
        for _ in range(60):
            student(inputs)
            teacher(inputs)
            loss = hints.loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    with pytest.raises(PassError, match="put out nothing"):
        hints.loss()


def test_hints_work_on_images_of_other_sizes() -> None:
    student, teacher = nn.Conv2d(1, 3, 5), nn.Sequential(nn.Conv2d(1, 8, 3))
    images = torch.randn(2, 1, 12, 12)
    hints = train.Hints(student, teacher, [train.HiddenHint("", "0", 2.0)], images)
    assert isinstance(hints.projections["0"], nn.Conv2d)
    with hints:
        student(images)
        teacher(images)
        hints.loss().backward()
    assert student.weight.grad is not None


def test_hints_say_what_does_not_fit() -> None:
    student, teacher = mlp(6, 5, 4), mlp(6, 5, 4)
    inputs = torch.randn(3, 6)
    with pytest.raises(SourceError, match="no module"):
        train.Hints(student, teacher, [train.HiddenHint("9", "0")], inputs)
    other = nn.Sequential(nn.Linear(6, 5), nn.Unflatten(1, (5, 1)))
    with pytest.raises(PassError, match="can differ in width"):
        train.Hints(student, other, [train.HiddenHint("0", "1")], inputs)


def test_a_student_starts_with_layers_of_its_teacher() -> None:
    assert train.spaced_layers(3, 6) == [1, 3, 5]
    assert train.spaced_layers(4, 4) == [0, 1, 2, 3]
    with pytest.raises(PassError):
        train.spaced_layers(5, 4)
    teacher, student = mlp(6, 8, 8, 8, 4), mlp(6, 8, 8, 4, seed=1)
    train.quantize(student, names=["2.weight"])
    done = train.copy_layers(student, teacher, {"0": "0", "2": "4", "4": "6"})
    assert sorted(done) == [f"{layer}.{name}" for layer in (0, 2, 4) for name in ("bias", "weight")]
    latent = student[2].parametrizations.weight.original
    assert torch.equal(latent, teacher[4].weight)
    assert torch.equal(student[4].bias, teacher[6].bias)
    with pytest.raises(PassError, match="can't start"):
        train.copy_layers(student, teacher, {"0": "2"})


def test_a_compressed_student_learns_from_its_teacher_and_loads_as_trained() -> None:
    teacher, student = mlp(12, 40, 6), mlp(12, 10, 6, seed=2)
    train.prune(student, ratio=0.5)
    train.quantize(student, bits=4)
    inputs = torch.randn(512, 12)
    with torch.no_grad():
        wanted = 4 * teacher(inputs)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    losses = []
    for _ in range(80):
        loss = train.soft_loss(student(inputs), wanted, 2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.4 * losses[0]
    loaded = mlp(12, 10, 6)
    loaded.load_state_dict(cmpk.torch.load(train.packed(student)[0]))
    assert torch.equal(loaded(inputs), student.eval()(inputs))
