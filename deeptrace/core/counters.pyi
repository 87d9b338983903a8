"""The counters of the compiled stages: one array indexed by the numbers of counters.def. Never resets."""

import numpy as np
import numpy.typing as npt

class Counters:
    @property
    def values(self) -> npt.NDArray[np.uint64]: ...
