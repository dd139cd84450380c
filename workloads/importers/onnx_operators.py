"""ONNX's operations by what they are to an accelerator: layers, other work, mere movement.

Operations that multiply and accumulate have a handler
(:data:`sparqsim.workloads.importers.onnx.HANDLERS`). The others are here: by the unit that would do
them, or as such that only move, compare, round or make data. An operation of neither table is
refused with what is known of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparqsim.workloads.layers import OtherKind

MICROSOFT = "com.microsoft"
QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
STANDARD = ("", "ai.onnx")

# Operations without multiply-accumulates on the array, by the unit that would do them ...
OTHER_NAMES: dict[OtherKind, str] = {
    "pooling": """
        AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool MaxRoiPool ReduceL1
        ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare RoiAlign
    """,
    "elementwise": """
        Abs Acos Acosh Add Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
        Ceil Celu Clip Cos Cosh CumSum Div Elu Erf Exp Floor Gelu GridSample HardSigmoid HardSwish
        LeakyRelu Log Max Mean Min Mish Mod Mul Neg PRelu Pow Reciprocal Relu RotaryEmbedding Round
        Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh
        ThresholdedRelu
    """,
    "softmax": "Hardmax LogSoftmax Softmax",
    "normalisation": """
        BatchNormalization GroupNormalization InstanceNormalization LRN LayerNormalization
        LpNormalization MeanVarianceNormalization RMSNormalization SimplifiedLayerNormalization
    """,
}
KIND: dict[str, OtherKind] = {op: kind for kind, ops in OTHER_NAMES.items() for op in ops.split()}
# ... and those that only move, compare, choose, round to codes or make data.
MOVING_NAMES = """
And ArgMax ArgMin Bernoulli BlackmanWindow Cast CastLike CenterCropPad Col2Im Compress Concat
ConcatFromSequence Constant ConstantOfShape DepthToSpace DequantizeLinear Dropout
DynamicQuantizeLinear Equal Expand EyeLike Flatten Gather GatherElements GatherND Greater
GreaterOrEqual HammingWindow HannWindow Identity IsInf IsNaN Less LessOrEqual MaxUnpool Multinomial
NonMaxSuppression NonZero Not OneHot Or Pad QuantizeLinear RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Range Reshape Resize ReverseSequence Scatter ScatterElements
ScatterND SequenceAt SequenceConstruct SequenceEmpty SequenceInsert SequenceLength Shape Size Slice
SpaceToDepth Split SplitToSequence Squeeze TensorScatter Tile TopK Transpose Trilu Unique Unsqueeze
Upsample Where Xor
"""
# onnxruntime's own
MICROSOFT_NAMES: dict[OtherKind | None, str] = {
    "pooling": "QLinearAveragePool QLinearGlobalAveragePool QLinearReduceMean",
    "elementwise": """
        BiasAdd BiasGelu BiasSplitGelu FastGelu Gelu QLinearAdd QLinearLeakyRelu QLinearMul
        QLinearSigmoid QuickGelu RotaryEmbedding
    """,
    "softmax": "BiasSoftmax QLinearSoftmax",
    "normalisation": """
        EmbedLayerNormalization GroupNorm QEmbedLayerNormalization SimplifiedLayerNormalization
        SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization
    """,
    None: """
        DequantizeLinear DynamicQuantizeLinear GatherBlockQuantized Pad QLinearConcat QLinearWhere
        QuantizeLinear Trilu Unique
    """,
}
MICROSOFT_KIND: dict[str, OtherKind | None] = {
    op: kind for kind, ops in MICROSOFT_NAMES.items() for op in ops.split()
}
PASSIVE = frozenset(KIND) | frozenset(MOVING_NAMES.split())
# Operations between codes and layers that leave every value what it is
KEEPING_NAMES = """
Expand Flatten Gather Identity MaxPool Reshape Slice Split Squeeze Transpose Unsqueeze
"""
KEEPING = frozenset(KEEPING_NAMES.split())
UNKNOWN: Mapping[str, str] = {  # what else is refused, and what it is
    "AffineGrid": "a product with a constant grid, whose shape depends on data",
    "DFT": "a Fourier transform: products with constants that no layer here has",
    "Det": "a determinant",
    "DeformConv": "a convolution whose taps lie where data says",
    "ImageDecoder": "a decoder of images",
    "LinearAttention": "attention whose state passes from token to token",
    "MelWeightMatrix": "a matrix made in the run",
    "MoE": "experts that data chooses: its products depend on the input",
    "QMoE": "experts that data chooses: its products depend on the input",
    "STFT": "a Fourier transform: products with constants that no layer here has",
    "SequenceMap": "a function over a sequence, whose length depends on data",
    "StringNormalizer": "work on text",
    "TfIdfVectorizer": "work on text",
}


def is_passive(domain: str, operation: str) -> bool:
    """Whether an operation multiplies and accumulates nothing."""
    if domain in QONNX:
        return operation in ("Quant", "BipolarQuant", "IntQuant")
    return operation in (MICROSOFT_KIND if domain == MICROSOFT else PASSIVE)


def kind_of(domain: str, operation: str) -> OtherKind | None:
    """The unit that would do an operation; None if it only moves or rounds."""
    return (MICROSOFT_KIND if domain == MICROSOFT else KIND).get(operation)
