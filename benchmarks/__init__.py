"""Speed beside the peers; ``python -m benchmarks`` runs everything, ``python -m benchmarks.bench_rv`` one file of it.

Whatever is started so has one thread: the variables below must be set before numpy is imported.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
