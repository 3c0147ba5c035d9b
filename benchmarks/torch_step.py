"""The PyTorch twin of a training step: loss terms, optimizer and EMA of the weights. For the benchmarks alone."""

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
from facedisent_jax.losses.functions import EPSILON, pixel_weights
from facedisent_jax.losses.objective import (
    ENDPOINT_TOLERANCE,
    MIN_DIRECTION,
    OPPOSITE_GAP,
    RECONSTRUCTIONS,
    SWAPS,
    A,
    B,
    C,
)


def mse(prediction: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    squared = (prediction - target) ** 2
    return (squared if weight is None else squared * weight).mean((1, 2, 3))


def multiscale_charbonnier(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    difference, total = prediction - target, torch.zeros(len(target), device=target.device)
    for scale in range(4):
        if scale:
            difference, weight = F.avg_pool2d(difference, 2), F.avg_pool2d(weight, 2)
        rows, columns = difference[:, :, 1:] - difference[:, :, :-1], difference[..., 1:] - difference[..., :-1]
        for error, part in ((difference, weight), (rows, weight[:, :, 1:]), (columns, weight[..., 1:])):
            total = total + ((torch.sqrt(error**2 + 0.01**2) - 0.01) * part).mean((1, 2, 3)) / 2**scale
    return total


def texture_error(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    total = torch.zeros(len(target), device=target.device)
    for axis in (2, 3):
        energies = (F.avg_pool2d((x - x.roll(1, axis)).abs(), 4) for x in (prediction, target))
        difference = torch.sub(*energies)
        total = total + ((torch.sqrt(difference**2 + 0.01**2) - 0.01) * F.avg_pool2d(weight, 4)).mean((1, 2, 3))
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


def image_weights(mouth_weight: float, device: torch.device) -> Tensor:
    """`functions.pixel_weights`, [1, 1, 64, 64]."""
    return torch.from_numpy(pixel_weights(mouth_weight)).to(device)[None, None]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def loss_terms(config: Config, channels_last: bool, params: Any, batch: Batch) -> dict[str, Tensor]:
    """`objective.loss_terms` for a batch of tensors, without augmentation."""
    model, objective, n = config.model, config.objective, batch.images.shape[1]

    def to_float(images: Tensor) -> Tensor:
        return net.to_layout(images.permute(0, 3, 1, 2).float() / 255, channels_last)

    images = to_float(batch.images.reshape(3 * n, *batch.images.shape[2:]))
    encoded = net.encode_logits(model, params, images, channels_last)
    identity = encoded.identity.reshape(3, n, -1)
    logits = encoded.expression.reshape(3, n, -1)
    expression = torch.sigmoid(logits)
    images = images.reshape(3, n, *images.shape[1:])

    pairs = RECONSTRUCTIONS + SWAPS
    codes = Codes(
        torch.cat([identity[pair.identity] for pair in pairs]),
        torch.cat([expression[pair.expression] for pair in pairs]),
    )
    decoded = net.decode(model, params, codes, channels_last).reshape(len(pairs), *images.shape[1:])
    has_image = torch.stack([torch.ones_like(batch.has_b), batch.has_b, batch.has_c])
    mouth_weight = objective.mouth_weight
    weight = None if mouth_weight == 1 else image_weights(mouth_weight, images.device)
    error = torch.stack([mse(decoded[k], images[pair.target], weight) for k, pair in enumerate(pairs)])
    mask = torch.stack(
        [has_image[pair.identity] * has_image[pair.expression] * has_image[pair.target] for pair in pairs]
    )

    is_full_triplet = batch.has_b * batch.has_c * batch.is_labelled[B]
    gap = (batch.intensity[A] - batch.intensity[B]).abs() * batch.is_labelled[A] * batch.is_labelled[B]
    has_direction = ((batch.intensity - 0.5).abs() > MIN_DIRECTION).float() * batch.is_labelled
    are_opposite = has_direction[A] * has_direction[B] * (gap > OPPOSITE_GAP)
    labelled = expression[..., : objective.label_dims]
    signed = 2 * labelled - 1
    label = batch.action_label[:, : objective.label_dims]
    label_norm = label.sum(-1).clamp(min=1.0)
    ordered_rise = batch.order * (((labelled[B] - labelled[A]) * label).sum(-1) / label_norm)
    is_endpoint = (batch.intensity - batch.intensity.round()).abs() < ENDPOINT_TOLERANCE
    label_mask = batch.is_labelled if objective.label_intermediate else batch.is_labelled * is_endpoint
    bce = F.binary_cross_entropy_with_logits(
        logits[..., : objective.label_dims], batch.label[..., : objective.label_dims], reduction="none"
    )
    terms = {
        "reconstruction": masked_mean(error[:3], mask[:3]),
        "swap": masked_mean(error[3:], mask[3:]),
        "identity_cosine": masked_mean(cosine_embedding(identity[A], identity[B], True), batch.has_b)
        + masked_mean(cosine_embedding(identity[A], identity[C], False), batch.has_c),
        "identity_triplet": masked_mean(
            triplet_margin(identity[A], identity[B], identity[C], objective.identity_margin), is_full_triplet
        ),
        "identity_l1": masked_mean(l1(identity[A], identity[B]), batch.has_b),
        "expression_cosine": masked_mean(
            cosine_embedding(signed[A], signed[C], True),
            batch.has_c * has_direction[A] * has_direction[C],
        )
        + masked_mean(cosine_embedding(signed[A], signed[B], False), batch.has_b * are_opposite),
        "expression_triplet": masked_mean(
            triplet_margin(labelled[A], labelled[C], labelled[B], objective.expression_margin * gap),
            is_full_triplet,
        ),
        "expression_l1": masked_mean(l1(labelled[A], labelled[C]), batch.has_c),
        "label": masked_mean(bce.mean(-1), has_image * label_mask),
        "ranking": masked_mean(
            0.1 * F.softplus((objective.ranking_margin * gap - ordered_rise) / 0.1), batch.order.abs() * batch.has_b
        ),
    }
    if model.kind == "warp":
        middle = to_float(batch.middle[0])
        codes = Codes(identity, expression)
        terms |= warp_terms(config, channels_last, params, images, middle, batch, codes, decoded[:2])
    return terms


def warp_terms(
    config: Config,
    channels_last: bool,
    params: Any,
    images: Tensor,
    middle: Tensor,
    batch: Batch,
    codes: Codes,
    decoded: Tensor,
) -> dict[str, Tensor]:
    """`warp_terms.warp_terms`; images [3, n, 3, 64, 64], middle [n, 3, 64, 64], decoded [2, n, 3, 64, 64]."""
    model, label_dims = config.model, config.objective.label_dims
    (a, b, _), (identity_a, identity_b, _), (expression_a, expression_b, expression_c) = images, *codes
    n = len(a)
    details = label_dims + config.objective.style_dims
    retargeted = torch.cat(
        [expression_c[:, :label_dims], expression_a[:, label_dims:details], expression_b[:, details:]], dim=1
    )
    alpha = batch.alpha[:, None]
    interpolated = Codes(
        (1 - alpha) * identity_a + alpha * identity_b, (1 - alpha) * expression_a + alpha * expression_b
    )
    middle_weight = batch.has_middle * (batch.intensity[0] - batch.intensity[1]).abs()
    source_a, source_b = (
        Source(a, identity_a, expression_a, decoded[0]),
        Source(b, identity_b, expression_b, decoded[1]),
    )
    sources = Source._make(torch.cat(parts) for parts in zip(source_a, source_b, strict=True))
    has_middle = batch.has_middle[:, None] > 0
    from_a = Codes(
        torch.where(has_middle, interpolated.identity, identity_a),
        torch.where(has_middle, interpolated.expression, expression_b),
    )
    from_b = Codes(torch.where(has_middle, identity_a, identity_b), retargeted)
    target_codes = Codes._make(torch.cat(parts) for parts in zip(from_a, from_b, strict=True))
    one_target = torch.where(has_middle[..., None, None], middle, b)
    from_one = net.decode_from_sources(model, params, target_codes, (sources,), channels_last)
    half = torch.argsort(-batch.has_middle, stable=True)[: (n + 1) // 2]
    interpolated_half = Codes._make(code[half] for code in interpolated)
    sources_half = tuple(Source._make(part[half] for part in source) for source in (source_a, source_b))
    from_two = net.decode_from_sources(model, params, interpolated_half, sources_half, channels_last, batch.alpha[half])

    pixel_weight = image_weights(config.objective.mouth_weight, a.device)
    target = torch.cat([one_target, a])
    error = multiscale_charbonnier(from_one.images, target, pixel_weight)
    weight = torch.cat([batch.has_b, batch.has_b * batch.has_c])
    flow = torch.cat([from_one.flow[0], *from_two.flow])
    encoder = {"encoder": detach(params["encoder"])}
    re_encoded = net.encode(model, encoder, from_one.images[n:], channels_last)
    cycle = l1(re_encoded.identity, from_b.identity.detach())
    cycle = cycle + l1(re_encoded.expression[:, :details], retargeted[:, :details].detach())
    variation = [flow.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (1, 2)]
    return {
        "one_source": masked_mean(error, weight),
        "texture": masked_mean(texture_error(from_one.images, target, pixel_weight), weight),
        "two_sources": masked_mean(
            multiscale_charbonnier(from_two.images, middle[half], pixel_weight), middle_weight[half]
        ),
        "flow_tv": (variation[0] + variation[1]).mean(),
        "mask_area": (from_one.mask.mean() + from_two.mask.mean()) / 2,
        "cycle": masked_mean(cycle, batch.has_b * batch.has_c),
    }


def detach(params: Any) -> Any:
    return {name: detach(value) for name, value in params.items()} if isinstance(params, dict) else params.detach()


def loss(config: Config, channels_last: bool, params: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """`objective.weighted_sum` and the terms."""
    terms = loss_terms(config, channels_last, params, batch)
    return sum(getattr(config.loss, name) * value for name, value in terms.items()), terms  # type: ignore[return-value]


def learning_rate(config: OptimConfig, step: int) -> float:
    """`step.learning_rate`."""
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    progress = min((step - config.warmup_steps) / (config.decay_steps - config.warmup_steps), 1.0)
    return config.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def leaves(params: Any, path: str = "") -> dict[str, Tensor]:
    """The weights by their paths."""
    if not isinstance(params, dict):
        return {path: params}
    return {p: leaf for name, value in params.items() for p, leaf in leaves(value, f"{path}/{name}").items()}


def to_device(params: Any, device: str) -> Any:
    """The weights there, in the same memory layout."""
    if isinstance(params, dict):
        return {name: to_device(value, device) for name, value in params.items()}
    return params.to(device)


def on_device(batch: Batch, device: str) -> Batch:
    """The batch as tensors there."""
    return Batch._make(torch.as_tensor(field, device=device) for field in batch)


class Training:
    """The training state, starting from our weights. `step(batch)` makes one step.

    cuda_graphs: the compiled loss and its gradient are recorded once, and later started as a whole.
    """

    def __init__(
        self,
        config: Config,
        params: Any,
        channels_last: bool,
        compiled: bool,
        cuda_graphs: bool = False,
        device: str = "cpu",
    ):
        self.config, self.device, self.steps_done = config, device, 0
        self.params = to_device(net.tensors(params, channels_last), device)
        weight_by_path = leaves(self.params)
        self.weights = list(weight_by_path.values())
        for weight in self.weights:
            weight.requires_grad_()
        self.ema_params = [weight.detach().clone() for weight in self.weights]
        has_decay = {path: weight.ndim > 1 and "pixel_kernel" not in path for path, weight in weight_by_path.items()}
        groups = [
            {
                "params": [weight for path, weight in weight_by_path.items() if has_decay[path] == decay],
                "weight_decay": config.optim.weight_decay if decay else 0.0,
            }
            for decay in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
        loss_function = partial(loss, config, channels_last)
        mode = "reduce-overhead" if cuda_graphs else None
        self.loss: Callable = torch.compile(loss_function, mode=mode) if compiled else loss_function

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a batch of numpy arrays or tensors. Returns every term, the "loss" and the "gradient_norm"."""
        torch.compiler.cudagraph_mark_step_begin()
        total, terms = self.loss(self.params, on_device(batch, self.device))
        total.backward()
        gradient_norm = self.update()
        self.optimizer.zero_grad()
        metrics = terms | {"loss": total, "gradient_norm": gradient_norm}
        return {name: value.detach() for name, value in metrics.items()}

    def update(self) -> Tensor:
        """`step.apply_gradient` with the gradient stored in the weights. Returns its norm."""
        optim = self.config.optim
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.weights, optim.grad_clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(optim, self.steps_done)
        self.optimizer.step()
        decay = min(optim.ema_decay, self.steps_done / (self.steps_done + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.ema_params, [weight.detach() for weight in self.weights], 1 - decay)
        self.steps_done += 1
        return gradient_norm
