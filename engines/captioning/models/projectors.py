"""Projectors: from the features of a frozen vision encoder to tokens of a language model.

All take [B, F, N, D] (images or clips in a batch, frames, patches, encoder width) and return
[B, L, W] (L tokens at the language model's width W). `linear`, `mlp2x` and `c_abstractor` work
frame by frame and put the frames one after the other; the others attend to all frames at once.
"""

from __future__ import annotations

import math
from typing import Final, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

Kind = Literal["linear", "mlp2x", "c_abstractor", "perceiver", "cross_attention", "qformer"]


class ProjectorSizes(BaseModel):
    """Sizes of a projector; each kind uses those that its docstring names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    vision_width: int = Field(ge=1)
    patches: int = Field(ge=1, description="patch tokens of one frame")
    llm_width: int = Field(ge=1)
    hidden: int = Field(0, ge=0, description="inner width; 0: the kind's own")
    depth: int = Field(0, ge=0, description="blocks of a stage, or layers; 0: the kind's own")
    tokens: int = Field(
        0, ge=0, description="output tokens of a frame (c_abstractor), or of all frames"
    )
    heads: int = Field(8, ge=1)
    head_width: int = Field(64, ge=1)
    readout: int = Field(2, ge=1, description="linear layers after the c_abstractor's stages")
    frames: int = Field(1, ge=1, description="most frames of a clip")


class Projector(nn.Module):
    """Base class of projectors."""

    def project(self, features: Tensor) -> Tensor:
        """[M, N, D] -> [M, T, W], frame by frame."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """[B, F, N, D] -> [B, F * T, W]."""
        tokens = self.project(features.flatten(0, 1))
        return tokens.reshape(features.shape[0], -1, tokens.shape[-1])

    def length(self, frames: int) -> int:
        """Number of tokens for `frames` frames."""
        raise NotImplementedError


class LinearProjector(Projector):
    """One linear layer with bias; T = N. LLaVA's first projector (Liu et al. 2023, "Visual
    Instruction Tuning"): 4,198,400 parameters from 1024 to 4096."""

    def __init__(self, sizes: ProjectorSizes) -> None:
        super().__init__()
        self.patches = sizes.patches
        self.net = nn.Linear(sizes.vision_width, sizes.llm_width)

    def project(self, features: Tensor) -> Tensor:
        return cast("Tensor", self.net(features))

    def length(self, frames: int) -> int:
        return frames * self.patches


class MlpProjector(Projector):
    """Linear, GELU, linear; T = N. LLaVA-1.5's `mlp2x_gelu` (Liu et al. 2023, "Improved Baselines
    with Visual Instruction Tuning"): 20,979,712 parameters at 1024 -> 4096 -> 4096. `hidden`: the
    width between the two, by default the language model's."""

    def __init__(self, sizes: ProjectorSizes) -> None:
        super().__init__()
        self.patches = sizes.patches
        self.net = _mlp(sizes.vision_width, sizes.hidden or sizes.llm_width, sizes.llm_width, 2)

    def project(self, features: Tensor) -> Tensor:
        return cast("Tensor", self.net(features))

    def length(self, frames: int) -> int:
        return frames * self.patches


class CAbstractor(Projector):
    """Convolutions before and after an adaptive pooling, then an MLP; T = `tokens`, a square.

    Honeybee's C-Abstractor (Cha et al. 2024, "Honeybee: Locality-enhanced Projector for Multimodal
    LLM", section 3.3): learned positions, RegNet stage of `depth` blocks, pooling to the square,
    another stage, `readout` linear layers with SiLU between. 37,398,016 parameters at 24 x 24
    patches of 1024, hidden 1024, depth 3, 144 tokens, 4096 out. Dropped from the original: end
    tokens (it uses none by default).
    """

    def __init__(self, sizes: ProjectorSizes) -> None:
        super().__init__()
        hidden, depth = sizes.hidden or 1024, sizes.depth or 3
        self.tokens = sizes.tokens or 144
        self.side, out = math.isqrt(sizes.patches), math.isqrt(self.tokens)
        if self.side**2 != sizes.patches or out**2 != self.tokens:
            raise ValueError(
                f"c_abstractor works on squares: {sizes.patches} patches and {self.tokens} tokens "
                "must both be square numbers; give other `tokens`, or leave the CLS token out"
            )
        self.positions = nn.Parameter(torch.zeros(1, sizes.patches, sizes.vision_width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.before = _stage(sizes.vision_width, hidden, depth)
        self.pool = nn.AdaptiveAvgPool2d(out)
        self.after = _stage(hidden, hidden, depth)
        self.readout = _mlp(hidden, sizes.llm_width, sizes.llm_width, sizes.readout, nn.SiLU)

    def project(self, features: Tensor) -> Tensor:
        grid = (features + self.positions).transpose(1, 2)
        grid = grid.reshape(*grid.shape[:2], self.side, self.side)
        pooled = self.after(self.pool(self.before(grid)))
        return cast("Tensor", self.readout(pooled.flatten(2).transpose(1, 2)))

    def length(self, frames: int) -> int:
        return frames * self.tokens


class QueryProjector(Projector):
    """Base class of projectors with `tokens` learned queries, which attend to a whole clip."""

    tokens: int

    def length(self, frames: int) -> int:  # noqa: ARG002 - the same for any clip
        return self.tokens


class Perceiver(QueryProjector):
    """`tokens` latents that attend to all patches of all frames; L = `tokens` for any clip.

    Flamingo's resampler (Alayrac et al. 2022, section 3.1 and appendix A.1.1): keys and values from
    the features together with the latents, residual attention and feed-forward, a learned
    embedding for each frame. 67,217,408 parameters with OpenFlamingo's sizes (width 1024, 64
    latents, 6 layers, 8 heads of 64, 4 x feed-forward) and a linear layer to 4096. Another `hidden`
    than the encoder's width puts a linear layer in front.
    """

    def __init__(self, sizes: ProjectorSizes) -> None:
        super().__init__()
        width = sizes.hidden or sizes.vision_width
        self.tokens = sizes.tokens or 64
        self.enter: nn.Module = nn.Identity()
        if width != sizes.vision_width:
            self.enter = nn.Linear(sizes.vision_width, width)
        self.latents = nn.Parameter(torch.randn(self.tokens, width) * 0.02)
        if sizes.frames > 1:
            self.frame_at = nn.Parameter(torch.randn(sizes.frames, width) * 0.02)
        self.layers = nn.ModuleList(
            _Resampling(width, sizes.heads, sizes.head_width) for _ in range(sizes.depth or 6)
        )
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, sizes.llm_width)

    def forward(self, features: Tensor) -> Tensor:
        media = self.enter(features)
        if media.shape[1] > 1:
            media = media + self.frame_at[: media.shape[1], None]
        media = media.flatten(1, 2)
        latents = self.latents.expand(len(media), -1, -1)
        for layer in self.layers:
            latents = layer(media, latents)
        return cast("Tensor", self.leave(self.norm(latents)))


class CrossAttention(QueryProjector):
    """`tokens` learned queries that attend once to all patches of all frames; L = `tokens`.

    Qwen-VL's adapter (Bai et al. 2023, section 2.1), followed by a feed-forward network: a linear
    layer to the language model's width, multi-head attention of `heads` heads and two linear
    layers with GELU, both residual and followed by a LayerNorm (Vaswani et al. 2017). `hidden`:
    width of the feed-forward network, by default 4 times the language model's. 205,840,384
    parameters with 64 queries and 8 heads at 1024 -> 4096. Without positions: the order of patches
    and frames has no effect.
    """

    def __init__(self, sizes: ProjectorSizes) -> None:
        super().__init__()
        width = _attention_width(sizes)
        self.tokens = sizes.tokens or 64
        self.queries = nn.Parameter(torch.randn(self.tokens, width) * 0.02)
        self.enter = nn.Linear(sizes.vision_width, width)
        self.attention = nn.MultiheadAttention(width, sizes.heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(width)
        self.feed = _mlp(width, sizes.hidden or 4 * width, width, 2)
        self.feed_norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        media = self.enter(features.flatten(1, 2))
        queries = self.queries.expand(len(media), -1, -1)
        attended, _ = self.attention(queries, media, media, need_weights=False)
        hidden = self.attention_norm(queries + attended)
        return cast("Tensor", self.feed_norm(hidden + self.feed(hidden)))


class QFormer(QueryProjector):
    """`tokens` learned queries through `depth` transformer layers; L = `tokens`.

    As in BLIP-2's Q-Former (Li et al. 2023, section 3.1) each layer has self-attention of the
    queries, cross-attention to all patches of all frames and a feed-forward network; here with a
    LayerNorm before each and one at the end (Xiong et al. 2020), at the language model's width.
    `hidden`: width of the feed-forward network, by default 4 times the language model's.
    541,495,296 parameters with 64 queries, 2 layers and 8 heads at 1024 -> 4096. Without positions.
    """

    def __init__(self, sizes: ProjectorSizes) -> None:
        super().__init__()
        width = _attention_width(sizes)
        self.tokens = sizes.tokens or 64
        self.queries = nn.Parameter(torch.randn(self.tokens, width) * 0.02)
        self.enter = nn.Linear(sizes.vision_width, width)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, sizes.heads, sizes.hidden or 4 * width, dropout=0.0, activation="gelu",
                batch_first=True, norm_first=True,
            )
            for _ in range(sizes.depth or 2)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        media = self.enter(features.flatten(1, 2))
        hidden = self.queries.expand(len(media), -1, -1)
        for layer in self.layers:
            hidden = layer(hidden, media)
        return cast("Tensor", self.norm(hidden))


PROJECTORS: Final[dict[Kind, type[Projector]]] = {
    "linear": LinearProjector, "mlp2x": MlpProjector, "c_abstractor": CAbstractor,
    "perceiver": Perceiver, "cross_attention": CrossAttention, "qformer": QFormer,
}  # fmt: skip


def build_projector(sizes: ProjectorSizes) -> Projector:
    """A projector with fresh weights.

    Raises:
        ValueError: the sizes do not fit the kind; one sentence with the remedy.
    """
    return PROJECTORS[sizes.kind](sizes)


def _attention_width(sizes: ProjectorSizes) -> int:
    """Width of the queries: the language model's.

    Raises:
        ValueError: the heads do not divide it.
    """
    if sizes.llm_width % sizes.heads:
        raise ValueError(
            f"{sizes.kind}: {sizes.heads} heads do not divide the language model's width of "
            f"{sizes.llm_width}; set projector_heads to a divisor"
        )
    return sizes.llm_width


def _mlp(
    width: int, hidden: int, out: int, depth: int, act: type[nn.Module] = nn.GELU
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(width, hidden if depth > 1 else out)]
    for number in range(2, depth + 1):
        layers += [act(), nn.Linear(hidden, out if number == depth else hidden)]
    return nn.Sequential(*layers)


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W]."""

    def forward(self, grid: Tensor) -> Tensor:
        return super().forward(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _RegBlock(nn.Module):
    """RegNet's bottleneck (Radosavovic et al. 2020) with squeeze-and-excitation, LayerNorm, SiLU.

    1x1, depthwise 3x3, excitation through a quarter of the input's channels, 1x1; a 1x1 on the
    residual path where the width changes.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(width, out, 1, bias=False)
        self.widen_norm = _ChannelNorm(out)
        self.mix = nn.Conv2d(out, out, 3, padding=1, groups=out, bias=False)
        self.mix_norm = _ChannelNorm(out)
        self.squeeze = nn.Conv2d(out, round(width / 4), 1)
        self.excite = nn.Conv2d(round(width / 4), out, 1)
        self.close = nn.Conv2d(out, out, 1, bias=False)
        self.close_norm = _ChannelNorm(out)
        self.around: nn.Module = nn.Identity()
        if width != out:
            conv = nn.Conv2d(width, out, 1, bias=False)
            self.around = nn.Sequential(conv, _ChannelNorm(out))

    def forward(self, grid: Tensor) -> Tensor:
        x = functional.silu(self.widen_norm(self.widen(grid)))
        x = functional.silu(self.mix_norm(self.mix(x)))
        gate = self.excite(functional.silu(self.squeeze(x.mean((2, 3), keepdim=True))))
        x = self.close_norm(self.close(x * gate.sigmoid()))
        return functional.silu(x + self.around(grid))


def _stage(width: int, out: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(_RegBlock(width if n == 0 else out, out) for n in range(depth)))


class _Resampling(nn.Module):
    """One layer of the resampler: latents attend to media and themselves, then feed forward."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.media_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(width)
        self.to_queries = nn.Linear(width, inner, bias=False)
        self.to_pairs = nn.Linear(width, 2 * inner, bias=False)
        self.leave = nn.Linear(inner, width, bias=False)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width, bias=False), nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )  # fmt: skip

    def forward(self, media: Tensor, latents: Tensor) -> Tensor:
        normed_latents = self.latent_norm(latents)
        context = torch.cat([self.media_norm(media), normed_latents], 1)
        keys, values = self.to_pairs(context).chunk(2, -1)
        queries, keys, values = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in (self.to_queries(normed_latents), keys, values)
        )
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        latents = latents + self.leave(attended.transpose(1, 2).flatten(2))
        return latents + cast("Tensor", self.feed(latents))
