"""The prompt pass: prompts and image embeddings to low-res logits, for objects of several images at once.

The weights are those of transformers' `SamModel` (Kirillov et al. 2023, section 3 and appendix A), so everything that
it loads and saves stays valid; only the order of the arithmetic is ours. Objects lie flat in one batch, each with the
index of its image. What depends on the image alone (keys and values of the first layer) is computed once an image and
not once an object; image features that differ from object to object are never projected, for the projections are moved
to the few tokens (`_read`, `_written`). The upscaling runs channels-last as plain matrix products, so that the large
tensors are never transposed.

SAM 2 and SAM 3's tracker (transformers' `Sam2Model`, `Sam3TrackerModel`) are decoded by the same code: finer levels are
added while a cell is upscaled, one more token says whether the object is there at all, and where a single mask is
asked for, an unstable one gives way to the best of the three.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from specialsam.core.errors import DataError
from specialsam.models.levels import has_levels, parted


def positional_grid(sam: nn.Module, height: int, width: int) -> Tensor:
    """Positional encoding of an embedding grid, float (height * width, D), row by row."""
    encoding: Any = sam.shared_image_embedding
    weight = encoding.positional_embedding
    rows = (torch.arange(height, device=weight.device, dtype=weight.dtype) + 0.5) / height
    columns = (torch.arange(width, device=weight.device, dtype=weight.dtype) + 0.5) / width
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    out: Tensor = encoding(grid)
    return out.reshape(height * width, -1)


def embed_prompts(
    sam: nn.Module,
    points: Tensor | None,
    labels: Tensor | None,
    boxes: Tensor | None,
    masks: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Sparse (N, T, D) and dense (N, D, h, w) prompt embeddings; None for a kind that is absent.

    `points` (N, K, 2), `labels` (N, K) and `boxes` (N, 4) are in model pixels, `masks` (N, L, L) are low-res logits.
    SAM 2 and 3 end a box, too, with a padding token, and say with two of them that there is neither point nor box.
    """
    encoder: Any = sam.prompt_encoder
    if masks is not None and points is None and boxes is None and has_levels(sam):
        points = masks.new_zeros(len(masks), 1, 2)
        labels = -torch.ones(len(masks), 1, dtype=torch.int64, device=masks.device)
    sparse = None
    if points is not None or boxes is not None:
        sparse, _ = encoder(
            input_points=None if points is None else points[:, None],
            input_labels=None if labels is None else labels[:, None],
            input_boxes=None if boxes is None else boxes[:, None],
            input_masks=None,
        )
        sparse = sparse[:, 0]
    dense = None if masks is None else encoder.mask_embed(masks[:, None])
    return sparse, dense


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of projected (N, T, C) queries to projected (N, S, C) keys and values, then the output projection."""
    query, key, value = (_heads(attention, x) for x in (query, key, value))
    mixed = functional.scaled_dot_product_attention(query, key, value)
    out: Tensor = _last(attention)(mixed.transpose(1, 2).flatten(2))
    return out


def _heads(attention: Any, projected: Tensor) -> Tensor:
    """Projected (N, T, C) by heads: (N, heads, T, C / heads)."""
    return projected.reshape(*projected.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)


def _last(attention: Any) -> Any:
    """The output projection, which transformers calls by another name in SAM 2."""
    return attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj


def _per_object(x: Tensor, index: Tensor) -> Tensor:
    """Rows of a per-image tensor (B, ...) for every object; a view where there is one image."""
    return x.expand(index.shape[0], *x.shape[1:]) if x.shape[0] == 1 else x[index]


def _read(attention: Any, tokens: Tensor, positioned: Tensor, keys: Tensor) -> Tensor:
    """Attention of tokens (N, T, D) to image features (N, hw, D), `positioned` as keys and `keys` as values.

    The image is never projected: its projections are moved to the few tokens, as q (x W) = (q W') x and P (x W) =
    (P x) W. A constant that all keys of a query share (the keys' bias) is nothing to a softmax, and weights sum to one
    (the values' bias).
    """
    heads, (count, length, width) = attention.num_attention_heads, tokens.shape
    query = _heads(attention, attention.q_proj(tokens))
    of_keys, of_values = (linear.weight.reshape(heads, -1, width) for linear in (attention.k_proj, attention.v_proj))
    asked = (query @ of_keys * query.shape[-1] ** -0.5).flatten(1, 2)
    weights = torch.softmax(asked @ positioned.transpose(1, 2), -1)
    read = (weights @ keys).reshape(count, heads, length, width) @ of_values.transpose(1, 2)
    out: Tensor = _last(attention)(read.transpose(1, 2).flatten(2) + attention.v_proj.bias)
    return out


def _written(attention: Any, positioned: Tensor, keys: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """`keys` (N, hw, D) plus the attention of `positioned` (N or 1, hw, D) to tokens (N, T, D) with `values` (N, T, D).

    As in `_read` the image is not projected; both projections and their biases are the tokens'.
    """
    heads, (count, length, width) = attention.num_attention_heads, tokens.shape
    key, value = (_heads(attention, x) for x in (attention.k_proj(tokens), attention.v_proj(values)))
    key = key * key.shape[-1] ** -0.5
    asked = (key @ attention.q_proj.weight.reshape(heads, -1, width)).flatten(1, 2)
    constant = (key * attention.q_proj.bias.reshape(heads, 1, -1)).sum(-1)
    scores = (asked @ positioned.transpose(1, 2)).reshape(count, heads, length, -1) + constant[..., None]
    last = _last(attention)
    of_out = last.weight.reshape(width, heads, -1).permute(1, 2, 0)
    told = (value @ of_out + last.bias / heads).flatten(1, 2)
    return torch.baddbmm(keys, torch.softmax(scores, 2).flatten(1, 2).transpose(1, 2), told)


def two_way(transformer: Any, tokens: Tensor, image: Tensor, position: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """SAM's two-way transformer on tokens (N, T, D) and image features (B, hw, D) with positions (hw, D).

    Returns tokens (N, T, D) and image features (N, hw, D) of every object. The first layer's keys and values depend on
    the image alone and are projected once an image; from there on the image differs from object to object, and nothing
    of it is projected at all.
    """
    queries, keys = tokens, image
    for number, layer in enumerate(transformer.layers):
        attention = layer.self_attn
        with_position = queries if number == 0 else queries + tokens
        mixed = _attend(
            attention, attention.q_proj(with_position), attention.k_proj(with_position), attention.v_proj(queries)
        )
        queries = layer.layer_norm1(mixed if number == 0 else queries + mixed)

        positioned, attention = keys + position, layer.cross_attn_token_to_image
        if number == 0:
            key, value = (_per_object(x, index) for x in (attention.k_proj(positioned), attention.v_proj(keys)))
            mixed = _attend(attention, attention.q_proj(queries + tokens), key, value)
            positioned, keys = positioned if image.shape[0] == 1 else positioned[index], _per_object(keys, index)
        else:
            mixed = _read(attention, queries + tokens, positioned, keys)
        queries = layer.layer_norm2(queries + mixed)
        queries = layer.layer_norm3(queries + layer.mlp(queries))
        keys = layer.layer_norm4(_written(layer.cross_attn_image_to_token, positioned, keys, queries + tokens, queries))

    mixed = _read(transformer.final_attn_token_to_image, queries + tokens, keys + position, keys)
    return transformer.layer_norm_final_attn(queries + mixed), keys


def _upscale(decoder: Any, image: Tensor, finer: tuple[Tensor, Tensor] | None, index: Tensor) -> Tensor:
    """Image features (N, hw, D) to (N, hw * 16, D / 8): both 2x2 transposed convolutions as matrix products.

    The 16 sub-cells of a cell follow each other as (row, column) of the first and then of the second upscaling. `finer`
    levels (B, hw, 4, D / 4) and (B, hw, 4, 4, D / 8) of the images `index` (N,) are added to what each gives.
    """

    def weight(conv: Any) -> tuple[Tensor, Tensor]:
        return conv.weight.permute(2, 3, 1, 0).flatten(0, 2), conv.bias.repeat(4)

    norm = decoder.upscale_layer_norm
    first = functional.linear(image, *weight(decoder.upscale_conv1)).reshape(*image.shape[:2], 4, -1)
    if finer is not None:
        first = first + _per_object(finer[0], index)
    first = decoder.activation(functional.layer_norm(first, first.shape[-1:], norm.weight, norm.bias, norm.eps))
    second = functional.linear(first, *weight(decoder.upscale_conv2)).reshape(*first.shape[:3], 4, -1)
    if finer is not None:
        second = second + _per_object(finer[1], index)
    out: Tensor = decoder.activation(second).flatten(1, 3)
    return out


def _row_by_row(height: int, width: int, device: torch.device) -> Tensor:
    """Places (16 hw,) among `_upscale`'s sub-cells, in the order of the pixels of a (4h, 4w) mask."""
    places = torch.arange(16 * height * width, device=device).reshape(height, width, 2, 2, 2, 2)
    return places.permute(0, 2, 4, 1, 3, 5).reshape(-1)


def decode(
    sam: nn.Module,
    embeddings: Tensor,
    index: Tensor,
    sparse: Tensor | None,
    dense: Tensor | None,
    outputs: slice,
) -> tuple[Tensor, Tensor]:
    """Low-res logits (N, C, 4h, 4w) and predicted IoU (N, C) for N objects.

    `embeddings` (B, D, h, w), or (B, 4 D, h, w) with finer levels, `index` (N,) the image of each object, `sparse`
    (N, T, D) and `dense` (N, D, h, w) prompt embeddings, `outputs` which mask tokens: slice(0, 1) the single mask,
    slice(1, 4) the three, slice(0, 4) all.
    """
    return decode_with_presence(sam, embeddings, index, sparse, dense, outputs)[:2]


def decode_with_presence(
    sam: nn.Module,
    embeddings: Tensor,
    index: Tensor,
    sparse: Tensor | None,
    dense: Tensor | None,
    outputs: slice,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `decode`, and logits (N,) that each object is there at all, None for a SAM that does not say.

    `embeddings` (B, D, h, w) or (B, 4 D, h, w), `index` (N,), `sparse` (N, T, D), `dense` (N, D, h, w).
    """
    if embeddings.ndim != 4:
        raise DataError(f"expected (B, D, h, w) embeddings, got {tuple(embeddings.shape)}")
    decoder: Any = sam.mask_decoder
    prompt_encoder: Any = sam.prompt_encoder
    height, width = embeddings.shape[2:]
    embeddings, finer = parted(embeddings, decoder.hidden_size)
    images = index
    if dense is None:
        image = embeddings + prompt_encoder.no_mask_embed.weight[0][:, None, None]
    else:
        image, index = _per_object(embeddings, index) + dense, torch.arange(index.shape[0], device=index.device)
    image = image.flatten(2).transpose(1, 2).contiguous()

    says_present = hasattr(decoder, "obj_score_token")
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    if says_present:
        own = torch.cat([decoder.obj_score_token.weight, own])
    tokens = own.expand(index.shape[0], *own.shape)
    if sparse is not None:
        tokens = torch.cat([tokens, sparse], 1)
    queries, keys = two_way(decoder.transformer, tokens, image, positional_grid(sam, height, width), index)

    present = decoder.pred_obj_score_head(queries[:, 0])[:, 0] if says_present else None
    queries = queries[:, 1:] if says_present else queries
    scores = decoder.iou_prediction_head(queries[:, 0])[:, outputs]
    networks = list(decoder.output_hypernetworks_mlps)[outputs]
    chosen = queries[:, 1 : 1 + decoder.num_mask_tokens][:, outputs]
    hyper = torch.stack([network(chosen[:, i]) for i, network in enumerate(networks)], -1)
    logits = (_upscale(decoder, keys, finer, images) @ hyper).index_select(1, _row_by_row(height, width, index.device))
    return logits.transpose(1, 2).reshape(index.shape[0], -1, 4 * height, 4 * width), scores, present


def is_dynamic(sam: nn.Module) -> bool:
    """Whether a single mask that is unstable gives way to the best of the three, as SAM 2 and 3 have it."""
    return bool(getattr(sam.mask_decoder, "dynamic_multimask_via_stability", False))


def dynamic_single(sam: nn.Module, logits: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """All four masks (N, 4, L, L) and scores (N, 4), the single one replaced where it is unstable.

    It is where the IoU of its mask at a raised and a lowered threshold is too low; the best by its own score of the
    three takes its place, with that score.
    """
    decoder: Any = sam.mask_decoder
    delta = decoder.dynamic_multimask_stability_delta
    narrow, wide = ((logits[:, 0] > side * delta).sum((1, 2)).float() for side in (1, -1))
    stable = (wide == 0) | (narrow / wide.clamp(min=1) >= decoder.dynamic_multimask_stability_thresh)
    rows, best = torch.arange(len(logits), device=logits.device), 1 + scores[:, 1:].argmax(1)
    chosen = torch.where(stable, torch.zeros_like(best), best)
    return (
        torch.cat([logits[rows, chosen][:, None], logits[:, 1:]], 1),
        torch.cat([scores[rows, chosen][:, None], scores[:, 1:]], 1),
    )
