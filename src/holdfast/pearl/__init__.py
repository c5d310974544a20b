"""The embedded engine: model code, batch loop, sampler, and the process that serves them."""
