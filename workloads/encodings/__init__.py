"""How sparse and paired tensors lie in memory: frozen records that round-trip exactly.

Every record checks itself when built (so corrupt data cannot be read), tells its size as ``.bits``,
and has a way in (``from_dense`` or ``encode``) and back (``to_dense`` or ``decode``).
"""

from sparqsim.workloads.encodings.bitmap import Bitmap
from sparqsim.workloads.encodings.channel_bundles import ChannelBundles
from sparqsim.workloads.encodings.csc import CSC
from sparqsim.workloads.encodings.nm import NMSparse
from sparqsim.workloads.encodings.outlier_pairs import OutlierPairs
from sparqsim.workloads.encodings.relative_index import RelativeIndexCSC

__all__ = ["CSC", "Bitmap", "ChannelBundles", "NMSparse", "OutlierPairs", "RelativeIndexCSC"]
