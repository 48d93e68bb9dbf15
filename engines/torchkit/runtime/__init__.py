"""Device, precision, process group and FLOPS of the engine process; knows no model and no data."""
