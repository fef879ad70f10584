"""Where a graph runs: sessions, devices, TensorRT."""
