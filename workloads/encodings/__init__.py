"""How sparse and paired tensors lie in memory: frozen records that round-trip exactly.

Every record checks itself when built (so corrupt data cannot be read), tells its size as ``.bits``,
and has a way in (``from_dense`` or ``encode``) and back (``to_dense`` or ``decode``).
"""

from workloads.encodings.bitmap import Bitmap
from workloads.encodings.channel_bundles import ChannelBundles
from workloads.encodings.csc import CSC
from workloads.encodings.nm import NMSparse
from workloads.encodings.outlier_pairs import OutlierPairs
from workloads.encodings.relative_index import RelativeIndexCSC

__all__ = ["CSC", "Bitmap", "ChannelBundles", "NMSparse", "OutlierPairs", "RelativeIndexCSC"]
