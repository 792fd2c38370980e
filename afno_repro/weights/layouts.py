"""How published weights are spelled: tables of names, ours in the first column, a layout's in each other.

Each name stands for everything below it, ~ for the first row's, - for a row that a layout does not have. {s} is a stage
from zero, {S} from one, {b} a block, {j} its place behind the stage's patch embedding, {end} the place behind the last
block, {odd} the place of a Swin stage's blocks. Tensors that share a name of ours are joined in the table's order; what
a SegFormer names qkv is parted into queries, and keys with values.
"""

from collections.abc import Mapping

Layout = Mapping[str, str]  # theirs -> ours; UNUSED: what the network, as it is used, does not compute with
UNUSED = ""


def _layouts(table: str) -> list[dict[str, str]]:
    """The columns of a table behind the first, each as a layout."""
    block, *rows = (line.split() for line in table.strip().splitlines())
    return [
        {row[i].replace("~", block[i]): row[0].replace("~", block[0]) for row in rows if row[i] != "-"}
        for i in range(1, len(block))
    ]


AUTHORS, HF_FILES = _layouts("""
backbone.stages.{s}.{j}        block{S}.{b}                  encoder.block.{s}.{b}
~.norm1                        ~.norm1                       ~.layer_norm_1
~.mixer.q                      ~.attn.q                      ~.attention.self.query
~.mixer.kv                     ~.attn.kv                     ~.attention.self.key
~.mixer.kv                     -                             ~.attention.self.value
~.mixer.reduce                 ~.attn.sr                     ~.attention.self.sr
~.mixer.norm                   ~.attn.norm                   ~.attention.self.layer_norm
~.mixer.project                ~.attn.proj                   ~.attention.output.dense
~.norm2                        ~.norm2                       ~.layer_norm_2
~.mlp.expand                   ~.mlp.fc1                     ~.mlp.dense1
~.mlp.depthwise                ~.mlp.dwconv.dwconv           ~.mlp.dwconv.dwconv
~.mlp.contract                 ~.mlp.fc2                     ~.mlp.dense2
backbone.stages.{s}.0.project  patch_embed{S}.proj           encoder.patch_embeddings.{s}.proj
backbone.stages.{s}.0.norm     patch_embed{S}.norm           encoder.patch_embeddings.{s}.layer_norm
backbone.stages.{s}.{end}      norm{S}                       encoder.layer_norm.{s}
head.projections.{s}           decode_head.linear_c{S}.proj  decode_head.linear_c.{s}.proj
head.fuse.0                    decode_head.linear_fuse.conv  decode_head.linear_fuse
head.fuse.1                    decode_head.linear_fuse.bn    decode_head.batch_norm
head.classify                  decode_head.linear_pred       decode_head.classifier
head.project                   head                          classifier""")
# Hugging Face's in memory since version 5; mmsegmentation's, whose decoder norms every map and so is another one.
HF_MEMORY, MMSEGMENTATION = _layouts("""
backbone.stages.{s}.{j}        stages.{s}.blocks.{b}                              layers.{s}.1.{b}
~.norm1                        ~.layernorm_before                                 ~.norm1
~.mixer.q                      ~.attention.q_proj                                 -
~.mixer.kv                     ~.attention.k_proj                                 -
~.mixer.kv                     ~.attention.v_proj                                 -
~.mixer.qkv.weight             -                                                  ~.attn.attn.in_proj_weight
~.mixer.qkv.bias               -                                                  ~.attn.attn.in_proj_bias
~.mixer.reduce                 ~.attention.sequence_reduction.sequence_reduction  ~.attn.sr
~.mixer.norm                   ~.attention.sequence_reduction.layer_norm          ~.attn.norm
~.mixer.project                ~.attention.o_proj                                 ~.attn.attn.out_proj
~.norm2                        ~.layernorm_after                                  ~.norm2
~.mlp.expand                   ~.mlp.fc1                                          ~.ffn.layers.0
~.mlp.depthwise                ~.mlp.dwconv.dwconv                                ~.ffn.layers.1
~.mlp.contract                 ~.mlp.fc2                                          ~.ffn.layers.4
backbone.stages.{s}.0.project  stages.{s}.patch_embeddings.proj                   layers.{s}.0.projection
backbone.stages.{s}.0.norm     stages.{s}.patch_embeddings.layer_norm             layers.{s}.0.norm
backbone.stages.{s}.{end}      stages.{s}.layer_norm                              layers.{s}.2
head.projections.{s}           decode_head.linear_projections.{s}.proj            -
head.fuse.0                    decode_head.linear_fuse                            -
head.fuse.1                    decode_head.batch_norm                             -
head.classify                  decode_head.classifier                             -
head.project                   classifier                                         -""")
SEGFORMER: list[Layout] = [
    AUTHORS | {"decode_head.conv_seg": UNUSED},
    HF_FILES,
    HF_MEMORY,
    MMSEGMENTATION | {"decode_head": UNUSED, "auxiliary_head": UNUSED},
]

GFNET, AFNO = _layouts("""
backbone.blocks.{b}       blocks.{b}                blocks.{b}
~.norm1                   ~.norm1                   ~.norm1
~.mixer.filter            ~.filter.complex_weight   -
~.mixer.w1                -                         ~.filter.w1
~.mixer.b1                -                         ~.filter.b1
~.mixer.w2                -                         ~.filter.w2
~.mixer.b2                -                         ~.filter.b2
~.mixer.bias              -                         ~.filter.bias
~.norm2                   ~.norm2                   ~.norm2
~.mlp.0                   ~.mlp.fc1                 ~.mlp.fc1
~.mlp.2                   ~.mlp.fc2                 ~.mlp.fc2
backbone.embed.project    patch_embed.proj          patch_embed.proj
backbone.positions.table  pos_embed                 pos_embed
backbone.norm             norm                      norm
head.project              head                      head""")

# Microsoft's, Hugging Face's in files. A patch merging ends a stage there and begins the next one here.
MICROSOFT, HF_SWIN_FILES = _layouts("""
backbone.stages.{s}.{odd}.{b}       layers.{s}.blocks.{b}                encoder.layers.{s}.blocks.{b}
~.norm1                             ~.norm1                              ~.layernorm_before
~.attn.qkv                          ~.attn.qkv                           ~.attention.self.query
~.attn.qkv                          -                                    ~.attention.self.key
~.attn.qkv                          -                                    ~.attention.self.value
~.attn.proj                         ~.attn.proj                          ~.attention.output.dense
~.attn.relative_position_bias_table ~.attn.relative_position_bias_table  ~.attention.self.relative_position_bias_table
~.attn.relative_position_index      ~.attn.relative_position_index       ~.attention.self.relative_position_index
~.norm2                             ~.norm2                              ~.layernorm_after
~.mlp.0                             ~.mlp.fc1                            ~.intermediate.dense
~.mlp.3                             ~.mlp.fc2                            ~.output.dense
backbone.stages.0.0.0               patch_embed.proj                     embeddings.patch_embeddings.projection
backbone.stages.0.0.2               patch_embed.norm                     embeddings.norm
backbone.stages.1.2                 layers.0.downsample                  encoder.layers.0.downsample
backbone.stages.2.4                 layers.1.downsample                  encoder.layers.1.downsample
backbone.stages.3.6                 layers.2.downsample                  encoder.layers.2.downsample
backbone.norm                       norm                                 layernorm
head.project                        head                                 classifier""")
# In memory since version 5.
(HF_SWIN_MEMORY,) = _layouts("""
backbone.stages.{s}.{odd}.{b}         encoder.layers.{s}.blocks.{b}
~.norm1                               ~.layernorm_before
~.attn.qkv                            ~.attention.q_proj
~.attn.qkv                            ~.attention.k_proj
~.attn.qkv                            ~.attention.v_proj
~.attn.proj                           ~.attention.o_proj
~.attn.relative_position_bias_table   ~.attention.relative_position_bias.relative_position_bias_table
~.attn.relative_position_index        ~.attention.relative_position_bias.relative_position_index
~.norm2                               ~.layernorm_after
~.mlp.0                               ~.mlp.fc1
~.mlp.3                               ~.mlp.fc2
backbone.stages.0.0.0                 embeddings.patch_embeddings.projection
backbone.stages.0.0.2                 embeddings.norm
backbone.stages.1.2                   encoder.layers.0.downsample
backbone.stages.2.4                   encoder.layers.1.downsample
backbone.stages.3.6                   encoder.layers.2.downsample
backbone.norm                         layernorm
head.project                          classifier""")
MASKS = {"layers.{s}.blocks.{b}.attn_mask": UNUSED}  # follow from the grid
TIMM = {theirs: ours for theirs, ours in MICROSOFT.items() if theirs != "head"} | MASKS | {"head.fc": "head.project"}
MERGES_FIRST = {f"layers.{s}.downsample": f"backbone.stages.{s}.{2 * s}" for s in (1, 2, 3)}
SWIN: list[Layout] = [
    {theirs: ours for theirs, ours in TIMM.items() if "downsample" not in theirs} | MERGES_FIRST,  # since version 0.9
    TIMM,
    MICROSOFT | MASKS,
    HF_SWIN_FILES,
    HF_SWIN_MEMORY,
    {f"features.{layer}": f"backbone.stages.{layer // 2}.{layer}" for layer in range(8)}
    | {"norm": "backbone.norm", "head": "head.project"},  # torchvision's
]

STAGES = ("0.4", "1", "2", "3")  # ours, of four
RESNET: list[Layout] = [  # torchvision's and timm's, Hugging Face's
    {"conv1": "backbone.stages.0.0", "bn1": "backbone.stages.0.1", "fc": "head.project"}
    | {f"layer{s + 1}": f"backbone.stages.{ours}" for s, ours in enumerate(STAGES)},
    {"embedder.embedder.convolution": "backbone.stages.0.0", "embedder.embedder.normalization": "backbone.stages.0.1"}
    | {
        f"encoder.stages.{s}.layers.{{b}}.{theirs}": f"backbone.stages.{ours}.{{b}}.{here}"
        for s, ours in enumerate(STAGES)
        for part, convolution, norm in (
            ("layer.0", "conv1", "bn1"),
            ("layer.1", "conv2", "bn2"),
            ("layer.2", "conv3", "bn3"),
            ("shortcut", "downsample.0", "downsample.1"),
        )
        for theirs, here in ((f"{part}.convolution", convolution), (f"{part}.normalization", norm))
    }
    | {"classifier.1": "head.project"},
]
