"""Operations on tensors, a folder each, with a plain reference beside every fast version."""

import os

# Products and sums are fused in Triton's kernels; what Triton does unasked is to change, and 3.9 warns of it.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
