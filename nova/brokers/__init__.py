"""The drivers: one package per broker, all behind the seam in `base`."""
