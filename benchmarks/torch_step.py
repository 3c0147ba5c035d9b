"""`facedisent_jax.training.train_step` in PyTorch: the same terms of the loss (`objective`, `source_terms`), the same
optimiser and the same average of the weights. For the benchmarks alone."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import torch_reference as net
from torch import Tensor
from torch_reference import Codes, Source

from facedisent_jax.config import Config, OptimConfig
from facedisent_jax.data.triplets import Batch
from facedisent_jax.losses.functions import EPSILON, mouth_weights
from facedisent_jax.losses.objective import ANCHOR, ENDPOINT_TOLERANCE, SAME_EXPRESSION, SAME_SUBJECT, SWAPS, Swap


def mse(prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    squared = (prediction - target) ** 2
    return (squared if weight is None else squared * weight).mean((1, 2, 3))


def structural(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    difference, total = prediction - target, torch.zeros(len(target))
    for scale in range(4):
        if scale:
            difference, weight = F.avg_pool2d(difference, 2), F.avg_pool2d(weight, 2)
        rows, columns = difference[:, :, 1:] - difference[:, :, :-1], difference[..., 1:] - difference[..., :-1]
        for error, part in ((difference, weight), (rows, weight[:, :, 1:]), (columns, weight[..., 1:])):
            total = total + ((torch.sqrt(error**2 + 0.01**2) - 0.01) * part).mean((1, 2, 3))
    return total


def l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean(-1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt(((a - b) ** 2).sum(-1) + EPSILON**2) - EPSILON


def cosine_embedding(a: Tensor, b: Tensor, same: bool) -> Tensor:
    norm = torch.sqrt((a**2).sum(-1) + EPSILON) * torch.sqrt((b**2).sum(-1) + EPSILON)
    similarity = (a * b).sum(-1) / norm
    return 1 - similarity if same else F.relu(similarity)


def triplet_margin(anchor: Tensor, positive: Tensor, negative: Tensor, margin: Any) -> Tensor:
    return F.relu(distance(anchor, positive) - distance(anchor, negative) + margin)


def mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def terms(config: Config, channels_last: bool, params: Any, batch: Batch) -> dict[str, Tensor]:
    """`objective.terms` of a batch of tensors, without augmentation."""
    model, c, n = config.model, config.objective, batch.images.shape[1]

    def pictures(images: Tensor) -> Tensor:
        return net.placed(images.permute(0, 3, 1, 2).float() / 255, channels_last)

    picture = pictures(batch.images.reshape(3 * n, *batch.images.shape[2:]))
    encoded = net.encode_logits(model, params, picture, channels_last)
    identity = encoded.identity.reshape(3, n, -1)
    logits = encoded.expression.reshape(3, n, -1)
    expression = torch.sigmoid(logits)
    picture = picture.reshape(3, n, *picture.shape[1:])

    parts = [Swap(k, k, k) for k in (ANCHOR, SAME_SUBJECT, SAME_EXPRESSION)] + list(SWAPS)
    codes = Codes(
        torch.cat([identity[part.identity] for part in parts]),
        torch.cat([expression[part.expression] for part in parts]),
    )
    decoded = net.decode(model, params, codes, channels_last).reshape(len(parts), *picture.shape[1:])
    known = torch.stack([torch.ones_like(batch.has_pair), batch.has_pair, batch.has_peer])
    mouth = None if c.mouth_weight == 1 else torch.from_numpy(mouth_weights(c.mouth_weight))[None, None]
    error = torch.stack([mse(decoded[k], picture[part.target], mouth) for k, part in enumerate(parts)])
    weight = torch.stack([known[part.identity] * known[part.expression] * known[part.target] for part in parts])

    labelled = batch.is_labelled
    both = batch.has_pair * batch.has_peer * labelled[SAME_SUBJECT]
    gap = (batch.intensity[ANCHOR] - batch.intensity[SAME_SUBJECT]).abs() * labelled[ANCHOR] * labelled[SAME_SUBJECT]
    clear = ((batch.intensity - 0.5).abs() > 0.2).float() * labelled
    opposite = clear[ANCHOR] * clear[SAME_SUBJECT] * (gap > 0.5)
    degree = expression[..., : c.label_dims]
    face = 2 * degree - 1
    action = batch.action_label[:, : c.label_dims]
    extent = action.sum(-1).clamp(min=1.0)
    rise = batch.order * (((degree[SAME_SUBJECT] - degree[ANCHOR]) * action).sum(-1) / extent)
    end = (batch.intensity - batch.intensity.round()).abs() < ENDPOINT_TOLERANCE
    held = labelled if c.label_intermediate else labelled * end
    bce = F.binary_cross_entropy_with_logits(
        logits[..., : c.label_dims], batch.label[..., : c.label_dims], reduction="none"
    )
    values = {
        "reconstruction": mean(error[:3], weight[:3]),
        "swap": mean(error[3:], weight[3:]),
        "identity_cosine": mean(cosine_embedding(identity[ANCHOR], identity[SAME_SUBJECT], True), batch.has_pair)
        + mean(cosine_embedding(identity[ANCHOR], identity[SAME_EXPRESSION], False), batch.has_peer),
        "identity_triplet": mean(
            triplet_margin(identity[ANCHOR], identity[SAME_SUBJECT], identity[SAME_EXPRESSION], c.identity_margin), both
        ),
        "identity_l1": mean(l1(identity[ANCHOR], identity[SAME_SUBJECT]), batch.has_pair),
        "expression_cosine": mean(
            cosine_embedding(face[ANCHOR], face[SAME_EXPRESSION], True),
            batch.has_peer * clear[ANCHOR] * clear[SAME_EXPRESSION],
        )
        + mean(cosine_embedding(face[ANCHOR], face[SAME_SUBJECT], False), batch.has_pair * opposite),
        "expression_triplet": mean(
            triplet_margin(degree[ANCHOR], degree[SAME_EXPRESSION], degree[SAME_SUBJECT], c.expression_margin * gap),
            both,
        ),
        "expression_l1": mean(l1(degree[ANCHOR], degree[SAME_EXPRESSION]), batch.has_peer),
        "label": mean(bce.mean(-1), known * held),
        "ranking": mean(0.1 * F.softplus((c.ranking_margin * gap - rise) / 0.1), batch.order.abs() * batch.has_pair),
    }
    if model.kind == "warp":
        between = pictures(batch.middle[0])
        codes = Codes(identity, expression)
        values |= source_terms(config, channels_last, params, picture, between, batch, codes, decoded[:2])
    return values


def source_terms(
    config: Config,
    channels_last: bool,
    params: Any,
    picture: Tensor,
    between: Tensor,
    batch: Batch,
    codes: Codes,
    decoded: Tensor,
) -> dict[str, Tensor]:
    """`source_terms.terms`; picture [3, n, 3, 64, 64], between [n, 3, 64, 64], decoded [2, n, 3, 64, 64]."""
    model, numbers = config.model, config.objective.label_dims
    (a, b, _), (who_a, who_b, _), (of_a, of_b, of_c) = picture, *codes
    n = len(a)
    even = (torch.arange(n) % 2 == 0)[:, None]
    strength = torch.cat([of_c[:, :numbers], torch.where(even, of_b[:, numbers:], of_c[:, numbers:])], dim=1)
    share = batch.alpha[:, None]
    line = Codes((1 - share) * who_a + share * who_b, (1 - share) * of_a + share * of_b)
    gap = batch.has_middle * (batch.intensity[0] - batch.intensity[1]).abs()

    first, second = Source(a, who_a, of_a, decoded[0]), Source(b, who_b, of_b, decoded[1])
    one = Source._make(torch.cat(parts) for parts in zip(first, second, first, strict=True))
    who = torch.cat([who_b, who_a, torch.where(even, line.identity, who_a)])
    asked = Codes(who, torch.cat([of_b, strength, line.expression]))
    alone = net.show(model, params, asked, (one,), channels_last)
    pair = net.show(model, params, line, (first, second), channels_last, batch.alpha)

    mouth = torch.from_numpy(mouth_weights(config.objective.mouth_weight))[None, None]
    error = structural(alone.pictures, torch.cat([b, a, between]), mouth)
    known = torch.cat([batch.has_pair, batch.has_pair * batch.has_peer, gap])
    bend = torch.cat([alone.displacement[0], *pair.displacement])
    fixed = {"encoder": {name: detached(value) for name, value in params["encoder"].items()}}
    again = net.encode(model, fixed, alone.pictures[n : 2 * n], channels_last)
    cycle = l1(again.identity, who_a.detach()) + l1(again.expression, strength.detach())
    variation = [bend.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (1, 2)]
    return {
        "one_source": mean(error, known),
        "two_sources": mean(structural(pair.pictures, between, mouth), gap),
        "flow_tv": (variation[0] + variation[1]).mean(),
        "mask_area": (alone.mask.mean() + pair.mask.mean()) / 2,
        "cycle": mean(cycle, batch.has_pair * batch.has_peer),
    }


def detached(params: Any) -> Any:
    return {name: detached(value) for name, value in params.items()} if isinstance(params, dict) else params.detach()


def loss(config: Config, channels_last: bool, params: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """`objective.total` and the terms."""
    values = terms(config, channels_last, params, batch)
    return sum(getattr(config.loss, name) * value for name, value in values.items()), values  # type: ignore[return-value]


def learning_rate(config: OptimConfig, step: int) -> float:
    """`training.learning_rate`."""
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    done = min((step - config.warmup_steps) / (config.decay_steps - config.warmup_steps), 1.0)
    return config.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def leaves(params: Any, path: str = "") -> dict[str, Tensor]:
    """The weights by their paths."""
    if not isinstance(params, dict):
        return {path: params}
    return {k: v for name, value in params.items() for k, v in leaves(value, f"{path}/{name}").items()}


class Training:
    """The state before the first step, from our weights; `step(batch)` is one step."""

    def __init__(self, config: Config, params: Any, channels_last: bool, compiled: bool):
        self.config, self.count = config, 0
        self.params = net.tensors(params, channels_last)
        named = leaves(self.params)
        self.weights = list(named.values())
        for value in self.weights:
            value.requires_grad_()
        self.average = [value.detach().clone() for value in self.weights]
        decays = {path: value.ndim > 1 and "pixels" not in path for path, value in named.items()}
        groups = [
            {"params": [v for path, v in named.items() if decays[path]], "weight_decay": config.optim.weight_decay},
            {"params": [v for path, v in named.items() if not decays[path]], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, fused=True)
        function = partial(loss, config, channels_last)
        self.loss: Callable = torch.compile(function) if compiled else function

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a batch of numpy arrays: every term, the total as "loss", and the gradient's norm."""
        total, values = self.loss(self.params, Batch._make(torch.from_numpy(field) for field in batch))
        total.backward()
        norm = self.update()
        self.optimiser.zero_grad()
        return {name: value.detach() for name, value in values.items()} | {
            "loss": total.detach(),
            "gradient_norm": norm,
        }

    def update(self) -> Tensor:
        """`training.updated` with the gradient that the weights hold; its norm."""
        optim = self.config.optim
        norm = torch.nn.utils.clip_grad_norm_(self.weights, optim.grad_clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(optim, self.count)
        self.optimiser.step()
        decay = min(optim.ema_decay, self.count / (self.count + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [value.detach() for value in self.weights], 1 - decay)
        self.count += 1
        return norm
