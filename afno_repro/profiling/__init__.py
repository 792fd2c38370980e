"""What a model costs: operations counted on the meta device, latency measured on the machine at hand."""
